"""The whole chain on a laptop: ten recordings, every part from nothing, in minutes.

    python -m train.everything --config configs/everything_tiny.py src=RECORDINGS out=RUN
    indextts2 synthesize --checkpoint RUN/checkpoint --voice me.wav --text "Hello." --out hello.wav

It shows that all runs and fits together; what comes out is noise in the shape of speech. Hardware:
two CPU cores, 4 GB; 12 recordings of two voices took 7 min 37 s beside other work.
"""

from train import everything
from train.run.config import Config


def get_config() -> Config:
    """The chain."""
    run = everything.default_config()
    run.tokenizer.size = 300
    none_held_out = "data.validation=0"
    changes = {
        "encoder": (
            none_held_out, "stages.0.steps=60", "stages.1.steps=60", "data.budget=1000",
            "sample_every=0", "validate_every=1000",
        ),
        "speaker": (
            none_held_out, "stages.0.steps=10", "data.held_out_share=0.0", "data.budget=1216",
            "keep_best=", "sample_every=0",
        ),
        "vocoder": ("stages.0.steps=60", "stages.1.steps=10", "sample_every=0"),
        "t2s": (none_held_out, "stages.0.steps=60", "sample_every=0"),
        "s2m": ("stages.0.steps=60", "sample_every=0"),
    }  # fmt: skip
    for name, part in run.parts.items():
        part.config = f"configs/{name}_tiny.py"
        part.changes = changes[name]
    return run
