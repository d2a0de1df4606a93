"""S2M on a TPU pod slice, one process per host.

    python -m train.s2m --config configs/s2m_tpu.py --distributed checkpoint=CKPT \
        data.paths=DATA out=RUN

CKPT is the result of `train.t2s`, whose latents are used. Hardware: v5p-32 or larger (16 chips and
more). There `train.plan` expects 22 GiB on each chip, 0.18 s for a step of 496 utterances of 6 s,
and 0.4 days for the stage (3 epochs); not measured yet.
"""

from train import s2m
from train.run.config import Config


def get_config() -> Config:
    """The run."""
    run = s2m.default_config()
    run.mesh.update(data=-1, fsdp=8, tensor=1)
    run.data.update(budget=524_288, max_rows=1024)
    run.workers = 8
    run.ema = 0.9999
    run.stages = (s2m.stage(steps=200_000),)
    return run
