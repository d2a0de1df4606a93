"""Right padding.

A network that is given `mask` or `lengths` returns, in the valid frames, what it would return for
the unpadded item: buckets and batches change nothing.

Dims: B batch, T time, D width.
"""

import jax
import jax.numpy as jnp


def length_mask(lengths: jax.Array, max_length: int) -> jax.Array:
    """Returns [B, T] bool, True where `t < lengths[b]`."""
    return jnp.arange(max_length) < lengths[:, None]


def zero_padding(x: jax.Array, mask: jax.Array | None) -> jax.Array:
    """Sets the padded frames of x [B, T, D] to zero; `mask` [B, T] or None (all valid)."""
    return x if mask is None else jnp.where(mask[..., None], x, 0)
