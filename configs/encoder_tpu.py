"""w2v-BERT from nothing on a TPU pod slice, one process per host: words, pitch and loudness.

    python -m train.encoder --config configs/encoder_tpu.py --distributed checkpoint=CKPT \
        data.paths=DATA out=RUN

CKPT needs no more than a tokenizer (`train.prepare --bpe`). Hardware: v5p-32 or larger; see
`python -m train.plan --config configs/encoder_tpu.py --devices 16`. Not measured yet.
"""

from train import encoder
from train.run.config import Config


def get_config() -> Config:
    """The run."""
    run = encoder.default_config()
    run.mesh.update(data=-1, fsdp=8, tensor=1)
    run.remat = True
    run.units = "pieces"
    run.data.update(budget=240_000, max_rows=2048)
    run.workers = 8
    run.stages = (encoder.stage(steps=300_000, rate=2e-4, warmup=5000, prosody=0.2),)
    return run
