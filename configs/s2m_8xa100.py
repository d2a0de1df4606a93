"""The paper's S2M on its hardware: 55,000 hours in one stage (sections 3.2 and 4.1).

    python -m train.s2m --config configs/s2m_8xa100.py checkpoint=CKPT data.paths=DATA out=RUN

CKPT is the result of `train.t2s`, whose latents are used. Hardware: 8 A100 of 80 GB. `train.plan`
expects 22 GiB on each, 0.26 s for a step of 248 utterances of 6 s, and 0.9 days for the stage (2.3
epochs); not measured yet.
"""

from train import s2m
from train.run.config import Config


def get_config() -> Config:
    """The run."""
    run = s2m.default_config()
    run.mesh.update(data=1, fsdp=8)
    run.data.update(budget=262_144, max_rows=512)
    run.workers = 8
    run.stages = (s2m.stage(steps=300_000),)
    return run
