r"""The speaker encoder of the release's size on a small TPU slice, one process per host.

    python -m train.speaker --config configs/speaker_tpu.py --distributed checkpoint=CKPT \
        data.paths=DATA out=RUN

For corpora of ten thousands of speakers. Batch norms measure the batch of all chips. Hardware:
v5e-16 or larger; `train.plan` expects 7.4 GiB on each chip; not measured yet.
"""

from train import speaker
from train.run.config import Config


def get_config() -> Config:
    """The run."""
    run = speaker.default_config()
    run.mesh.update(data=-1, fsdp=1, tensor=1)
    run.speeds = (1.0, 0.9, 1.1)
    run.data.update(budget=512 * 152, max_rows=512, validation=2000, held_out_share=0.01)
    run.sample_every = 2000
    run.keep_best = "validation_eer"
    run.workers = 8
    run.stages = (speaker.stage(steps=100_000, rate=2e-3, warmup=2000, final_rate=0.01),)
    return run
