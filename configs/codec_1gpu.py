r"""The released codec (8,192 codes of 50 Hz, 44 million parameters) from scratch on one GPU.

    python -m train.codec --config configs/codec_1gpu.py checkpoint=EAR/checkpoint \
        data.paths=DATA out=RUN

EAR is a run of `encoder_1gpu.py`. Codes of 25 Hz: `model.downsample_scale=2`. Hardware: one GPU of
24 GB. `train.plan` expects 11 GiB, and on an A100 0.36 s for a step of 39 utterances of 6 s, so 0.8
days in all; not measured yet.
"""

from train import codec
from train.run.config import Config


def get_config() -> Config:
    """The run."""
    run = codec.default_config()
    run.data.update(budget=12_000, max_rows=64)
    run.workers = 4
    run.stages = (codec.stage(steps=200_000, rate=1e-4, warmup=1000),)
    return run
