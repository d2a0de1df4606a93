r"""T2S of the default voice: 5.9 million parameters from nothing on two CPU cores.

    python -m train.prepare --src voices.jsonl --checkpoint CKPT --out VOICES
    python -m train.prepare --src bulk.jsonl --checkpoint CKPT --out BULK
    python -m train.t2s --config configs/t2s_small.py \
        checkpoint=CKPT 'data.paths=("VOICES", "BULK")' out=RUN

CKPT is the result of configs/encoder_tiny.py: codes of 25 Hz, and the recognizer that measures
`sample_cer`. VOICES are many speakers and styles, which teach timbre and emotion; BULK is one
voice, which teaches to read (`mix` says how much of each). The stages are the paper's (section
3.1): first the speaker is reversed out of the emotion vector, then the emotion branch is frozen.
Hardware: two CPU cores, 2 GB.
"""

from indextts2_jax.t2s.conditioner import ConditionerConfig
from indextts2_jax.t2s.gpt import T2SConfig
from train import t2s
from train.run import config
from train.run.config import Config


def get_config() -> Config:
    """The run."""
    run = t2s.default_config()
    run.model = config.preset(
        T2SConfig(
            width=256, num_layers=5, num_heads=4, num_text_tokens=256, num_codes=1026,
            start_code=1024, stop_code=1025, text_positions=402, code_positions=802,
            speaker=ConditionerConfig(
                192, 48, 192, 4, 2, 16, 256, perceiver_depth=1, perceiver_head_dim=32
            ),
            emotion=ConditionerConfig(
                192, 32, 128, 2, 1, 1, 64, perceiver_depth=1, perceiver_head_dim=32
            ),
            num_speed_embeddings=0, free_slots=("zero",), dropout=0.0,
        )
    )  # fmt: skip
    run.compute_dtype = "float32"  # bfloat16 is slow on a CPU
    run.data.update(
        paths=("", ""), budget=1200, max_rows=48, prompt_codes=75, ladder_ratio=1.5,
        speed_probability=0.0,
    )  # fmt: skip
    run.alarm_after = 4_000_000
    run.keep_best = "sample_cer"
    run.checkpoints.every = 500
    run.validate_every = 250
    run.sample_every = 500
    own = {"optimizer": "muon", "rate": 1e-3, "muon_factor": 2.0, "warmup": 100}
    run.stages = (
        t2s.stage(name="emotional", steps=3000, mix=(1.0, 1.0), speaker_loss=0.3, **own),
        t2s.stage(
            name="all", steps=6000, mix=(1.0, 2.0), freeze=(t2s.EMOTION_BRANCH,), **own
        ),
    )  # fmt: skip
    return run
