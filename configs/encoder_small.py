r"""An encoder of 4.1 million parameters and its codec from nothing, on one CPU core.

    python -m train.prepare --src many.jsonl --checkpoint CKPT --out MANY --features fbank
    python -m train.prepare --src bulk.jsonl --checkpoint CKPT --out BULK --features fbank
    python -m train.encoder --config configs/encoder_small.py checkpoint=CKPT \
        'data.paths=("MANY", "BULK")' out=RUN

MANY are hours of many voices, BULK are hours of one, whose even speech is the quickest to read: of
the batches it has half at first, and a third when the codec has come (1,024 codes of 25 Hz, through
which the heads hear). With MANY alone add `stages.0.mix=1.0 stages.1.mix=1.0`.

Hardware: one CPU core, 3 GB, about a CPU-second a step: two hours in all. Not trained to the end
yet; on 6 h of 90 voices and 10 h of one, the held-out character error rate was .38 (.32 of the bulk
voice) after 500 steps, before there is a codec.
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
    run.data.update(paths=("", ""), budget=3000, max_rows=32, validation=200, ladder_ratio=1.5)
    run.optimizer.b2 = 0.98
    run.checkpoints.every = 150
    run.validate_every = 500
    run.sample_every = 500
    shared = {
        "optimizer": "muon", "warmup": 50, "prosody": 0.2, "time_width": 12, "band_width": 10,
    }  # fmt: skip
    run.stages = (
        encoder.stage(
            name="read", steps=1000, rate=2e-3, final_rate=0.7, mix=(0.5, 0.5), **shared
        ),
        encoder.stage(
            name="codes", steps=6000, rate=2e-3, final_rate=0.05, quantize=True, mix=(0.67, 0.33),
            **shared,
        ),
    )  # fmt: skip
    return run
