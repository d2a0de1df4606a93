"""S2M on a laptop: a small model learns a few dozen utterances, which shows that all runs.

    python -m train.prepare --src recordings --checkpoint CKPT --out DATA
    python -m train.s2m --config configs/s2m_tiny.py checkpoint=CKPT data.paths=DATA out=RUN

CKPT may be the result of `train.t2s`, whose latents are then used. Hardware: two CPU cores, 3 GB.
"""

from indextts2_jax.s2m.model import S2MConfig
from train import config, s2m
from train.config import Config


def get_config() -> Config:
    """The run."""
    run = s2m.default_config()
    run.model = config.preset(S2MConfig.small())
    run.compute_dtype = "float32"  # bfloat16 is slow on a CPU
    run.data.update(budget=1200, max_rows=2, prompt_codes=60, validation=4, ladder_ratio=2.0)
    run.checkpoints.every = 100
    run.validate_every = 100
    run.stages = (s2m.stage(steps=350, rate=1e-3, warmup=20, dropout=0.0),)
    return run
