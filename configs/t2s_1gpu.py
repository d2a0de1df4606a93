"""LoRA of a converted release on one GPU: a voice, a style or a language, on a few hours of speech.

    python -m train.t2s --config configs/t2s_1gpu.py checkpoint=CKPT data.paths=DATA out=RUN

Hardware: one GPU of 24 GB or more. `train.plan` expects 8 GiB, and on an A100 0.2 s for a step of
18 utterances of 6 s; not measured yet.
"""

from indextts2_jax.t2s.gpt import T2SConfig
from train import t2s
from train.run import config
from train.run.config import Config


def get_config() -> Config:
    """The run."""
    run = t2s.default_config()
    run.init = "checkpoint"
    run.model = config.preset(T2SConfig.indextts2())  # for plans; training reads the checkpoint's
    run.duration_slots = ("pos(T)", "speed0")  # the released model has two
    run.lora.update(rank=32, alpha=64.0)
    run.remat = True
    run.accumulation = 2
    run.data.update(budget=6000, max_rows=32)
    run.workers = 4
    run.alarm_after = 1_000_000  # the release reads from the beginning
    run.stages = (t2s.stage(steps=10_000, rate=1e-4, warmup=200, schedule="constant"),)
    return run
