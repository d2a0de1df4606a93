r"""A recognizer on a converted w2v-BERT 2.0 on one GPU: the heads alone, then all of it.

    python -m train.encoder --config configs/encoder_1gpu.py checkpoint=CKPT data.paths=DATA out=RUN

CKPT is a converted release. To judge and train codecs of its features, which must not change, leave
out the second stage: `stages.1.steps=1 stages.1.rate=0.0`. Hardware: one GPU of 24 GB; see `python
-m train.plan --config configs/encoder_1gpu.py --stage all`. Not measured yet.
"""

from train import encoder
from train.run.config import Config


def get_config() -> Config:
    """The run."""
    run = encoder.default_config()
    run.init = "checkpoint"
    run.units = "pieces"
    run.remat = True
    run.data.update(budget=8_000, max_rows=64)
    run.workers = 4
    run.stages = (
        encoder.stage(name="heads", steps=5_000, rate=1e-3, warmup=200, freeze=(r"w2v_bert\..*",)),
        encoder.stage(name="all", steps=50_000, rate=3e-5, warmup=1000),
    )
    return run
