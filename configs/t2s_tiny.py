"""T2S on a laptop: a small model learns a few dozen utterances by heart, which shows that all runs.

    python -m train.prepare --src recordings --checkpoint CKPT --out DATA
    python -m train.t2s --config configs/t2s_tiny.py checkpoint=CKPT data.paths=DATA out=RUN

Hardware: two CPU cores, 2 GB. Expected, of 48 utterances of 6 voices with the encoders of
`indextts2 demo`: the loss falls from 5.5 to 0.04 in 200 steps, which take 66 s.
"""

from indextts2_jax.t2s.gpt import T2SConfig
from train import t2s
from train.run import config
from train.run.config import Config


def get_config() -> Config:
    """The run."""
    run = t2s.default_config()
    run.model = config.preset(T2SConfig.small())
    run.model.dropout = 0.0
    run.compute_dtype = "float32"  # bfloat16 is slow on a CPU
    run.data.update(
        budget=1600, max_rows=8, prompt_codes=100, validation=4, ladder_ratio=2.0,
        speed_probability=0.0,
    )  # fmt: skip
    run.checkpoints.every = 100
    run.validate_every = 100
    run.alarm_after = 0  # learnt by heart, which takes no reading
    run.stages = (t2s.stage(steps=200, rate=2e-3, warmup=20),)
    return run
