"""T2S in three stages on a TPU pod slice, one process per host.

    python -m train.t2s --config configs/t2s_tpu.py --distributed checkpoint=CKPT \
        'data.paths=("EMOTIONAL", "ALL")' out=RUN

Hardware: v5p-32 or larger (16 chips and more). There `train.plan` expects 29 GiB on each chip,
0.38 s for a step of 784 utterances of 6 s, and 1.3 days for the first stage; not measured yet.
"""

from train import t2s
from train.run.config import Config


def get_config() -> Config:
    """The run."""
    run = t2s.default_config()
    run.mesh.update(data=-1, fsdp=8, tensor=1)
    run.remat = True
    run.data.update(paths=("", ""), budget=240_000, max_rows=2048)
    run.workers = 8
    run.ema = 0.9999
    run.stages = t2s.three_stage(steps=300_000, emotional_steps=20_000, last_steps=100_000)
    return run
