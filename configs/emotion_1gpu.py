"""LoRA of Qwen3-0.6B on one GPU, with a teacher's distributions: the paper's form, a smaller model.

    python -m train.emotion --config configs/emotion_1gpu.py checkpoint=CKPT \
        init=Qwen3-0.6B data.paths=SENTENCES.jsonl out=RUN

`init` is a directory with config.json, model.safetensors and the tokenizer of Qwen3-0.6B (or
-1.7B, which the paper has), or "checkpoint" for the emotion model of a converted release, which
writes: `form=generative`. Hardware: one GPU; `train.plan` expects 4.2 GiB; not measured yet.
"""

from indextts2_jax.emotion.qwen3 import Qwen3Config
from train import emotion
from train.run import config
from train.run.config import Config


def get_config() -> Config:
    """The run."""
    run = emotion.default_config()
    run.init = "checkpoint"
    run.model = config.preset(Qwen3Config.qwen3_0_6b())  # for plans; training reads init's
    run.lora.update(rank=16, alpha=32.0)
    run.remat = True
    run.data.rows = 32
    run.validate_every = 200
    [stage] = run.stages
    stage.update(steps=2000, rate=2e-4, warmup=100)
    return run
