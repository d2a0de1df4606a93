r"""The speaker encoder on a laptop: a CAM++ of .37 million parameters tells a small corpus apart.

    python -m train.prepare --src recordings --checkpoint CKPT --out DATA --features fbank
    python -m train.speaker --config configs/speaker_tiny.py checkpoint=CKPT data.paths=DATA out=RUN

A tenth of the speakers, by their names, is for validation alone; `data.held_out` names others. On
6 h of synthetic speech with 64 voices for training, 22 CPU-minutes (1.3 s a step), the equal error
rate over all pairs of 300 recordings of 26 other voices, 19 of which are mixtures of two:

    step   100   200   300   400   500   600   700   800   900  1000
    EER   36.1  20.1  18.1   8.3   6.8   4.9   5.9   6.0   5.7   5.2 %

`RUN/checkpoint-best` is that of step 600. Hardware: two CPU cores, 2 GB.
"""

from indextts2_jax.prompt.campplus import CAMPPlusConfig
from train import speaker
from train.run import config
from train.run.config import Config


def get_config() -> Config:
    """The run."""
    run = speaker.default_config()
    run.model = config.preset(
        CAMPPlusConfig(
            feat_dim=80,
            embedding=192,
            head_channels=8,
            init_channels=64,
            growth=16,
            bn_size=4,
            block_layers=(4, 8, 6),
            block_dilations=(1, 2, 2),
        )
    )
    run.compute_dtype = "float32"
    run.speeds = (1.0, 0.9, 1.1)
    run.data.update(budget=32 * 152, max_rows=32, validation=300, held_out_share=0.1)
    run.checkpoints.every = 100
    run.sample_every = 100
    run.keep_best = "validation_eer"
    run.stages = (speaker.stage(steps=1000, rate=2e-3, warmup=100),)
    return run
