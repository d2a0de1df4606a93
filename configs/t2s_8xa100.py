"""The paper's T2S on its hardware: two stages, 55,000 hours (sections 3.1 and 4.1).

    python -m train.t2s --config configs/t2s_8xa100.py checkpoint=CKPT \
        'data.paths=("EMOTIONAL", "ALL")' out=RUN

Hardware: 8 A100 of 80 GB. `train.plan` expects 16 GiB on each, 0.27 s for a step of 192 utterances
of 6 s, and 1.3 days for both stages; not measured yet.
"""

from train import t2s
from train.run.config import Config


def get_config() -> Config:
    """The run."""
    run = t2s.default_config()
    run.mesh.update(data=1, fsdp=8)
    run.remat = True
    run.data.update(paths=("", ""), budget=60_000, max_rows=512)
    run.workers = 8
    run.stages = t2s.paper_two_stage(emotional_steps=20_000, steps=400_000)
    return run
