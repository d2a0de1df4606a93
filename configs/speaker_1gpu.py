"""The speaker encoder of the release's size, from scratch on one GPU.

    python -m train.speaker --config configs/speaker_1gpu.py checkpoint=CKPT data.paths=DATA out=RUN

DATA should have thousands of speakers (VoxCeleb, Common Voice, Emilia). `init=checkpoint` goes on
from the encoder of a converted release instead; `stages.0.rate=1e-4` then, and
`stages.0.batch_statistics=False` where a batch has few speakers. Hardware: one GPU of 40 GB or
more; `train.plan` expects 29 GiB for 128 pieces a step; not measured yet.
"""

from train import speaker
from train.run.config import Config


def get_config() -> Config:
    """The run."""
    run = speaker.default_config()
    run.speeds = (1.0, 0.9, 1.1)
    run.data.update(budget=128 * 152, max_rows=128, validation=1000)
    run.sample_every = 2000
    run.keep_best = "validation_eer"
    run.workers = 8
    run.stages = (speaker.stage(steps=200_000, rate=1e-3, warmup=2000, final_rate=0.01),)
    return run
