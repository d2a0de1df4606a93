r"""A vocoder of 1.9 million parameters from nothing on two CPU cores, for a day.

    python -m train.prepare --src list.jsonl --checkpoint CKPT --out DATA --features fbank
    python -m train.vocoder --config configs/vocoder_small.py \
        checkpoint=CKPT data.paths=DATA out=RUN

First the mel loss alone (0.95 s a step on two shared cores, so two hours), then small
discriminators (1.9 s, ten hours). The rates are NVIDIA's: at 1e-3 every sample was clipped after
650 steps, at 5e-4 the loss swung between 70 and 120 (norms of the gradient 1e4 to 1e5). At these it
has not been trained to the end yet. Hardware: two CPU cores, 3 GB.
"""

from indextts2_jax.vocoder.bigvgan import BigVGANConfig
from train import vocoder
from train.objectives.discriminators import DiscriminatorConfig
from train.run import config
from train.run.config import Config


def get_config() -> Config:
    """The run."""
    run = vocoder.default_config()
    run.model = config.preset(
        BigVGANConfig(num_mels=80, width=192, upsample_rates=(4, 4, 2, 2, 2, 2))
    )
    run.discriminators = config.preset(DiscriminatorConfig.small())
    run.data.update(budget=256, max_rows=8, crop=32, validation=32)
    run.checkpoints.every = 250
    run.validate_every = 500
    run.sample_every = 500
    run.stages = (
        vocoder.stage(
            name="mel", adversarial=False, steps=8_000, rate=1e-4, warmup=500, final_rate=0.5
        ),
        vocoder.stage(name="adversarial", steps=20_000, rate=1e-4, warmup=200),
    )
    return run
