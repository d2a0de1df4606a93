"""The emotion model on a laptop: a small Qwen3 learns thousands of template sentences from scratch.

    python -m train.emotion_build templates --out SENTENCES.jsonl
    python -m train.emotion --config configs/emotion_tiny.py checkpoint=CKPT \
        data.paths=SENTENCES.jsonl out=RUN

Any CKPT does; its other networks stay as they are. Hardware: two CPU cores, a minute and a half.
Then 65 % of the sentences of `valid` are read rightly (chance: 14 %), whose words training had and
whose templates it had not; and 27 % of those of `test`, whose words are new as well: that takes a
pretrained model (configs/emotion_1gpu.py).
"""

from indextts2_jax.emotion.qwen3 import Qwen3Config
from train import emotion
from train.run import config
from train.run.config import Config


def get_config() -> Config:
    """The run."""
    run = emotion.default_config()
    run.model = config.preset(
        Qwen3Config(2, 128, 256, num_heads=4, num_kv_heads=2, head_dim=32, vocab_size=1024)
    )
    run.compute_dtype = "float32"  # bfloat16 is slow on a CPU
    run.data.rows = 64
    run.samples = 0
    run.optimizer.decay = 0.1
    run.validate_every = 100
    run.sample_every = 1000
    run.checkpoints.every = 200
    [stage] = run.stages
    stage.update(steps=300, rate=1e-3, warmup=50)
    return run
