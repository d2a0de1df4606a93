"""The vocoder on a laptop: a small one learns a few recordings by heart.

    python -m train.prepare --src recordings --checkpoint CKPT --out DATA --features fbank
    python -m train.vocoder --config configs/vocoder_tiny.py checkpoint=CKPT data.paths=DATA out=RUN

Nothing is held out, and `RUN/samples` lets the recordings be heard. Hardware: two CPU cores, 2 GB.
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
        BigVGANConfig(
            num_mels=80,
            width=64,
            upsample_rates=(8, 8, 4),
            block_kernels=(3, 7),
            block_dilations=((1, 3), (1, 3)),
        )
    )
    run.discriminators = config.preset(DiscriminatorConfig.small())
    run.data.update(budget=64, max_rows=2, crop=32, validation=0)
    run.checkpoints.every = 100
    run.stages = (
        vocoder.stage(name="mel", adversarial=False, steps=300, rate=1e-3, warmup=20),
        vocoder.stage(name="adversarial", steps=100, rate=5e-4, warmup=20),
    )
    return run
