"""Explicit text features: vectors of words, laid along the mel frames that speak them.

Data flow:  word vectors [B, W, E] -> linear -> each repeated for the frames of its word [B, T, D]

They are added to the conditions of the length regulator: Q_enh[f] = Q_sem[f] + W h_i(f), where word
i(f) covers frame f. An alternative to the GPT latents; the release has none.

Dims: B batch, W words, E width of their vectors, T mel frames, D condition width.

Source: paper appendix B.
"""

import jax
import jax.numpy as jnp
from flax import nnx

from indextts2_jax.nn.masking import zero_padding


def spread(words: jax.Array, word_frames: jax.Array, num_frames: int) -> jax.Array:
    """Repeats the vector of each word for as many frames as it covers.

    Args:
      words: [B, W, D].
      word_frames: [B, W] int32; padded words cover none.
      num_frames: T.

    Returns:
      [B, T, D]; zero in frames behind the last word.
    """
    ends = jnp.cumsum(word_frames, axis=1)  # [B, W]
    spoken = jnp.sum(jnp.arange(num_frames)[:, None] >= ends[:, None], axis=2)  # [B, T] words
    last = words.shape[1] - 1
    frames = jnp.take_along_axis(words, jnp.minimum(spoken, last)[..., None], axis=1)
    return zero_padding(frames, spoken <= last)


class TextFeatures(nnx.Module):
    """Word vectors -> what they add to the conditions; a new one adds nothing."""

    def __init__(self, in_width: int, width: int, *, rngs: nnx.Rngs):
        self.projection = nnx.Linear(
            in_width, width, use_bias=False, kernel_init=nnx.initializers.zeros, rngs=rngs
        )

    def __call__(
        self, word_vectors: jax.Array, word_frames: jax.Array, num_frames: int
    ) -> jax.Array:
        """Maps word vectors [B, W, E] to [B, T, D]; arguments as of `spread`."""
        words = self.projection(word_vectors.astype(self.projection.kernel.dtype))
        return spread(words, word_frames, num_frames)
