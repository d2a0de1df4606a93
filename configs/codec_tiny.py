r"""The codec on a laptop: codes of 25 Hz for the encoder of `encoder_tiny.py`, in minutes.

    python -m train.encoder --config configs/encoder_tiny.py checkpoint=CKPT data.paths=DATA out=EAR
    python -m train.codec --config configs/codec_tiny.py checkpoint=EAR/checkpoint \
        data.paths=DATA out=RUN

With `stages.0.ctc=1` it learns from the recognizer as well, and words survive better. Hardware: two
CPU cores, 3 GB.
"""

from indextts2_jax.prompt.semantic_codec import SemanticCodecConfig
from train import codec
from train.run import config
from train.run.config import Config


def get_config() -> Config:
    """The run."""
    run = codec.default_config()
    run.model = config.preset(
        SemanticCodecConfig(
            feature_width=192, codebook_size=1024, codebook_width=32, backbone_width=192,
            ffn_width=384, num_blocks=2, downsample_scale=2,
        )
    )  # fmt: skip
    run.compute_dtype = "float32"  # bfloat16 is slow on a CPU
    run.data.update(budget=3000, max_rows=32, validation=64, ladder_ratio=1.5)
    run.checkpoints.every = 200
    run.validate_every = 200
    run.sample_every = 400
    run.stages = (codec.stage(steps=1200, rate=1e-3, warmup=50),)
    return run
