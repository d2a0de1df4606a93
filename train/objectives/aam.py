"""Who speaks: softmax over speakers with an additive angular margin (ArcFace, arXiv 1801.07698).

    cos_k = <e, w_k> / (|e| |w_k|)        e the embedding, w_k the prototype of speaker k
    L     = -log softmax(s cos_1, ..., s cos(angle_y + m), ..., s cos_K)_y

The margin m asks for an embedding that is nearer to its own prototype than to others by so many
radians. Where the angle is beyond pi - m, the cosine goes on as a line.

Dims: B rows, E embedding width, K speakers.
"""

import math

import jax
import jax.numpy as jnp
from flax import nnx
from jax.sharding import PartitionSpec as P

SHARDING_RULES = ((r".*", P()),)
_LEAST = 1e-9  # of a squared sine or norm: the root has no gradient at zero


class Prototypes(nnx.Module):
    """A direction for every speaker of the training data."""

    def __init__(self, num_speakers: int, width: int, *, rngs: nnx.Rngs):
        draw = jax.random.normal(rngs.params(), (num_speakers, width))
        self.embedding = nnx.Param(draw / math.sqrt(width))

    def __call__(self, embeddings: jax.Array) -> jax.Array:
        """Returns cosines [B, K] float32 between embeddings [B, E] and all prototypes."""
        return unit(embeddings) @ unit(self.embedding[...]).T


def unit(x: jax.Array) -> jax.Array:
    """Scales vectors [..., E] to length 1, float32."""
    x = x.astype(jnp.float32)
    return x / jnp.sqrt(jnp.maximum(jnp.sum(x**2, axis=-1, keepdims=True), _LEAST))


def margin_losses(
    cosines: jax.Array, labels: jax.Array, margin: jax.Array | float, scale: float
) -> jax.Array:
    """Computes the cross-entropy where the own speaker has to be nearer by a margin.

    Args:
      cosines: [B, K].
      labels: [B] int32.
      margin: radians, 0 to pi / 2.
      scale: of the cosines, before the softmax.

    Returns:
      [B] losses.
    """
    own = jnp.take_along_axis(cosines, labels[:, None], axis=1)  # [B, 1]
    sine = jnp.sqrt(jnp.maximum(1 - own**2, _LEAST))
    beyond = own <= -jnp.cos(margin)
    own = jnp.where(
        beyond, own - 1 + jnp.cos(margin), own * jnp.cos(margin) - sine * jnp.sin(margin)
    )
    is_own = jnp.arange(cosines.shape[1]) == labels[:, None]
    logits = scale * jnp.where(is_own, own, cosines)
    return -jnp.take_along_axis(jax.nn.log_softmax(logits), labels[:, None], axis=1)[:, 0]


def margin_at(progress: jax.Array, margin: float, begin: float, end: float) -> jax.Array:
    """Returns the margin of a step: 0 until `begin`, rising to `margin` at `end` (both shares).

    With a margin from the first step on, networks from nothing may not begin to learn.
    """
    return margin * jnp.clip((progress - begin) / max(end - begin, 1e-9), 0, 1)
