"""Losses of a codebook that is searched by cosine, and how much of it is used.

    L = reconstruction |decode(q) - x|^2 + commitment |z - sg(q)|^2 + codebook |q - sg(z)|^2
        + revival: every code that a batch leaves unused is drawn to the vector nearest to it

The first three are RepCodec's. Codes that no vector is nearest to get no gradient of these and stay
dead; the fourth moves them to where vectors are. It needs no state, and moves a code that is in use
elsewhere hardly at all, since vectors are near it.

Dims: B rows, T codes, Z codebook width, V codes in the codebook, N = B T vectors.
"""

import jax
import jax.numpy as jnp
import numpy as np

_MASKED = -2.0  # below every cosine


def straight_through(z: jax.Array, rows: jax.Array) -> jax.Array:
    """Returns the rows, with the gradient of `z`."""
    return z + jax.lax.stop_gradient(rows - z)


def distances(z: jax.Array, rows: jax.Array, mask: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Computes commitment and codebook losses, each [B]: means over valid codes and the width.

    Args:
      z: [B, T, Z] float, what is quantised.
      rows: [B, T, Z] float, the rows of the codebook that stand for it.
      mask: [B, T] bool.
    """
    stop = jax.lax.stop_gradient
    return mean_square(z - stop(rows), mask), mean_square(rows - stop(z), mask)


def mean_square(x: jax.Array, mask: jax.Array) -> jax.Array:
    """Computes mean squares [B] of x [B, T, D] over frames in `mask` [B, T]."""
    squares = jnp.where(mask, jnp.mean(jnp.square(x.astype(jnp.float32)), axis=2), 0)
    return squares.sum(axis=1) / jnp.maximum(mask.sum(axis=1), 1)


def histogram(codes: jax.Array, mask: jax.Array, num_codes: int) -> jax.Array:
    """Counts how often [V] every code occurs among codes [B, T] in `mask` [B, T]."""
    return jnp.zeros(num_codes).at[codes].add(mask.astype(jnp.float32))


def perplexity(counts: jax.Array) -> jax.Array:
    """Computes how many codes, equally often used, would tell as much as those of `counts` [V]."""
    share = counts / jnp.maximum(counts.sum(), 1)
    return jnp.exp(-jnp.sum(jnp.where(share > 0, share * jnp.log(jnp.maximum(share, 1e-20)), 0)))


def revival(codebook: jax.Array, z: jax.Array, mask: jax.Array, counts: jax.Array) -> jax.Array:
    """Computes the mean squared distance of unused codes to the vectors nearest by cosine.

    Args:
      codebook: [V, Z] float.
      z: [B, T, Z] float, what is quantised.
      mask: [B, T] bool.
      counts: [V] float, see `histogram`.

    Returns:
      [] float32, the mean over all codes; used ones count 0. Its gradient is the codebook's alone.
    """
    codebook = codebook.astype(jnp.float32)
    vectors = jax.lax.stop_gradient(z.astype(jnp.float32)).reshape(-1, z.shape[-1])
    cosine = _unit(jax.lax.stop_gradient(codebook)) @ _unit(vectors).T  # [V, N]
    nearest = jnp.argmax(jnp.where(mask.reshape(-1), cosine, _MASKED), axis=1)
    distance = jnp.mean(jnp.square(codebook - vectors[nearest]), axis=1)
    return jnp.mean(jnp.where(counts == 0, distance, 0))


def _unit(x: jax.Array) -> jax.Array:
    return x / jnp.maximum(jnp.linalg.norm(x, axis=-1, keepdims=True), 1e-12)


def correlation(a: np.ndarray, b: np.ndarray) -> float:
    """Computes Pearson's correlation of two signals [N]; 0 if one is constant."""
    a, b = a - a.mean(), b - b.mean()
    norm = np.sqrt((a**2).sum() * (b**2).sum())
    return float((a * b).sum() / norm) if norm else 0.0
