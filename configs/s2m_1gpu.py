"""Fine-tuning of a converted release's S2M on one GPU: LoRA, on a few hours of speech.

    python -m train.s2m --config configs/s2m_1gpu.py checkpoint=CKPT data.paths=DATA out=RUN

`lora.rank=0` trains all of S2M instead. Hardware: one GPU of 24 GB or more. `train.plan` expects
12 GiB (16 GiB with `lora.rank=0`), and on an A100 0.13 s for a step of 15 utterances of 6 s; not
measured yet.
"""

from train import s2m
from train.run.config import Config


def get_config() -> Config:
    """The run."""
    run = s2m.default_config()
    run.init = "checkpoint"
    run.lora.update(rank=32, alpha=64.0)
    run.data.update(budget=16_384, max_rows=32)
    run.workers = 4
    run.stages = (s2m.stage(steps=10_000, rate=1e-4, warmup=200, schedule="constant"),)
    return run
