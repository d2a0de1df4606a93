"""The semantic encoder on a laptop: it learns to read from nothing, in minutes.

    python -m train.prepare --src recordings --checkpoint CKPT --out DATA --features fbank
    python -m train.encoder --config configs/encoder_tiny.py checkpoint=CKPT data.paths=DATA out=RUN

Then a codec in the loop: codes of 25 Hz that carry words and pitch. For features alone, as the
paper has them, set `stages.1.quantize=False`. Hardware: two CPU cores, 3 GB.
"""

from indextts2_jax.prompt.semantic_codec import SemanticCodecConfig
from indextts2_jax.prompt.w2v_bert import W2VBertConfig
from train import encoder
from train.run import config
from train.run.config import Config


def get_config() -> Config:
    """The run."""
    run = encoder.default_config()
    run.model = config.preset(
        W2VBertConfig(
            num_layers=4, width=192, num_heads=4, ffn_width=512, feature_width=160,
            conv_kernel=15, max_left=32, max_right=8,
        )
    )  # fmt: skip
    run.codec = config.preset(
        SemanticCodecConfig(
            feature_width=192, codebook_size=1024, codebook_width=32, backbone_width=192,
            ffn_width=384, num_blocks=2, downsample_scale=2,
        )
    )  # fmt: skip
    run.layer = 3
    run.compute_dtype = "float32"  # bfloat16 is slow on a CPU
    run.data.update(budget=3000, max_rows=32, validation=64, ladder_ratio=1.5)
    run.optimizer.b2 = 0.98
    run.checkpoints.every = 200
    run.validate_every = 200
    run.sample_every = 400
    few = {"warmup": 50, "prosody": 0.2, "time_width": 15, "band_width": 10}
    run.stages = (
        encoder.stage(name="read", steps=1200, rate=2e-3, final_rate=0.5, **few),
        encoder.stage(name="codes", steps=2400, rate=1.5e-3, quantize=True, **few),
    )
    return run
