"""S2M on a laptop: a small model learns a few utterances by heart, which shows that all works.

    python -m train.prepare --src recordings --checkpoint CKPT --out DATA
    python -m train.s2m --config configs/s2m_tiny.py checkpoint=CKPT data.paths=DATA out=RUN

So nothing is held out, and `RUN/samples` speaks what was learnt. For GPT latents set
`stages.0.latent_probability=0.5`, with the result of `train.t2s` as CKPT; for guidance
`stages.0.condition_dropout=0.1`; both take more steps.

Hardware: two CPU cores, 3 GB. Expected, of 3 utterances of one voice with the encoders of
`indextts2 demo`: 67 s of steps, and `sample_correlation` 0.96 in `metrics.csv`.
"""

from indextts2_jax.s2m.model import S2MConfig
from train import s2m
from train.run import config
from train.run.config import Config


def get_config() -> Config:
    """The run."""
    run = s2m.default_config()
    run.model = config.preset(S2MConfig.small())
    run.compute_dtype = "float32"  # bfloat16 is slow on a CPU
    run.data.update(budget=800, max_rows=3, prompt_codes=60, validation=0, ladder_ratio=2.0)
    run.optimizer.b2 = 0.99
    run.checkpoints.every = 100
    run.stages = (
        s2m.stage(
            steps=700, rate=5e-4, warmup=50, dropout=0.0, latent_probability=0.0,
            condition_dropout=0.0,
        ),
    )  # fmt: skip
    return run
