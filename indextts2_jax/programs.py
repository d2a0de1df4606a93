"""The compiled programs of the pipeline, and the bucketed sizes that they are compiled for.

Each takes its network as an argument, so that it compiles once per size, and the lengths of what is
padded. Arrays may be NumPy's; results are on the device.

Dims: B batch, T 50 Hz frames or codes, M mel frames, P prompt mel frames, F feature width, L text
tokens, D width, C semantic width.
"""

import functools
import os
import pathlib
from collections.abc import Sequence

import jax
import numpy as np

from indextts2_jax.nn.masking import length_mask
from indextts2_jax.prompt.campplus import CAMPPlus
from indextts2_jax.prompt.semantic_codec import SemanticCodec
from indextts2_jax.prompt.w2v_bert import W2VBert
from indextts2_jax.s2m import flow_matching
from indextts2_jax.s2m.conditions import Conditions
from indextts2_jax.s2m.model import S2M
from indextts2_jax.t2s import gpt
from indextts2_jax.vocoder.bigvgan import BigVGAN


def bucket(n: int, smallest: int = 128) -> int:
    """Returns the smallest of `smallest` * {1, 1.5, 2, 3, 4, 6, 8, ...} that is at least `n`."""
    size = smallest
    while size < n:
        if size * 3 // 2 >= n:
            return size * 3 // 2
        size *= 2
    return size


def pad(x: np.ndarray, length: int, axis: int = 0) -> np.ndarray:
    """Zeros behind `x`, up to `length` along `axis`."""
    width = [(0, 0)] * x.ndim
    width[axis] = (0, length - x.shape[axis])
    return np.pad(x, width)


def padded(x: np.ndarray, smallest: int = 128) -> tuple[np.ndarray, np.ndarray]:
    """Returns one item [T, ...] as a padded batch [1, bucket(T), ...] and its length [1] int32."""
    return pad(x, bucket(len(x), smallest))[None], np.array([len(x)], np.int32)


def stacked(items: Sequence[np.ndarray], rows: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Items [T_i, ...] as a padded batch [B, bucket(max T), ...] and their lengths [B] int32.

    With `rows` the first item is repeated until there are so many.
    """
    items = [*items, *[items[0]] * (rows - len(items))]
    lengths = np.array([len(x) for x in items], np.int32)
    size = bucket(int(lengths.max()))
    return np.stack([pad(x, size) for x in items]), lengths


def enable_compilation_cache() -> None:
    """Keeps compiled programs on disk, unless the process has chosen a place for them."""
    if jax.config.jax_compilation_cache_dir is None:  # pyright: ignore[reportAttributeAccessIssue]
        cache = pathlib.Path(os.environ.get("XDG_CACHE_HOME", "~/.cache")).expanduser()
        jax.config.update("jax_compilation_cache_dir", str(cache / "indextts2_jax" / "xla"))
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
        jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)


@functools.partial(jax.jit, static_argnames="layers")
def hidden_states(
    model: W2VBert, features: jax.Array, mask: jax.Array, *, layers: tuple[int, ...]
) -> tuple[jax.Array, ...]:
    """Returns hidden states [B, T, F] of w2v-BERT after the given layers; `mask` [B, T]."""
    return model.hidden_states(features, mask, layers)


@jax.jit
def quantize(
    codec: SemanticCodec, features: jax.Array, lengths: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """Returns codes [B, T] and their embeddings [B, T, C] of features [B, T, F]."""
    return codec.quantize(features, length_mask(lengths, features.shape[1]))


@jax.jit
def speaker_style(campplus: CAMPPlus, bank: jax.Array, lengths: jax.Array) -> jax.Array:
    """Computes CAMPPlus embeddings [B, 192] of mean-free filterbanks [B, F, 80]."""
    return campplus(bank, lengths)


speaker_latents = jax.jit(gpt.T2S.speaker_latents)
emotion_vector = jax.jit(gpt.T2S.emotion_vector)
embed_prefix = jax.jit(gpt.T2S.prefix, static_argnames=("slots", "row_offset"))
gpt_latents = jax.jit(gpt.gpt_latents)


@jax.jit
def semantic(
    codec: SemanticCodec, s2m: S2M, codes: jax.Array, latents: jax.Array | None = None
) -> jax.Array:
    """Returns what S2M reads: semantic frames [B, T, C].

    Args:
      codec: the semantic codec.
      s2m: the stage that reads.
      codes: [B, T] int32, padded.
      latents: [B, T, D] GPT latents of the codes; None = the codes alone.
    """
    return s2m.semantic(codec.embed(codes), latents)


# Not one program: it would compile for every pair of a prompt's and a target's size.
regulate = jax.jit(S2M.regulate, static_argnames="num_frames")
conditions = jax.jit(Conditions.behind_prompt, static_argnames="num_frames")


@functools.partial(jax.jit, static_argnames=("size", "num_mels"))
def draw_noise(keys: jax.Array, size: int, num_mels: int) -> jax.Array:
    """Draws flow-matching noise [B, size, num_mels]; a longer draw begins with the shorter one."""
    return jax.vmap(lambda key: flow_matching.draw_noise(key, size, num_mels))(keys)


@jax.jit
def vocode(vocoder: BigVGAN, log_mel: jax.Array, lengths: jax.Array) -> jax.Array:
    """Returns samples [B, M * hop] of log-mels [B, M, 80]."""
    return vocoder(log_mel, lengths)
