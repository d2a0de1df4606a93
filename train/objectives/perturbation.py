"""Other speakers, made of filterbanks: speech at another speed, pitch and formants moved with it.

What resampling the recording does, done on its log filterbank: frame t of speed s is frame s t, and
what was heard at f Hz is heard at s f. Kaldi's speed perturbation takes such copies as speakers of
their own.

Dims: B rows, F frames, M bands.
"""

import jax
import jax.numpy as jnp
import numpy as np

from indextts2_jax.audio.fbank import MIN_HZ, SAMPLE_RATE


def change_speed(
    bank: jax.Array, lengths: jax.Array, speeds: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """Makes speech faster and higher, or slower and lower.

    Args:
      bank: [B, F, M] log filterbank.
      lengths: [B] int32 frames.
      speeds: [B] float, 1.1 = a tenth faster.

    Returns:
      [B, F, M] and its lengths [B]; what slower speech has beyond F is cut off.
    """
    _, F, M = bank.shape
    frames = jnp.minimum(jnp.arange(F) * speeds[:, None], lengths[:, None] - 1)  # [B, F]
    bank = _between(bank, frames, axis=1)
    bank = _between(bank, jnp.clip(_bands(speeds, M), 0, M - 1), axis=2)
    return bank, jnp.clip((lengths / speeds).astype(jnp.int32), 1, F)


def _bands(speeds: jax.Array, M: int) -> jax.Array:
    """Finds where each band [B, M] of the result lies among those of the source."""
    low, high = (1127 * np.log(1 + hz / 700) for hz in (MIN_HZ, SAMPLE_RATE / 2))
    step = (high - low) / (M + 1)
    hertz = 700 * (np.exp((low + step * np.arange(1, M + 1)) / 1127) - 1)
    return (1127 * jnp.log1p(hertz / speeds[:, None] / 700) - low) / step - 1


def _between(x: jax.Array, places: jax.Array, axis: int) -> jax.Array:
    """Reads x at fractional places [B, N] of an axis, on lines between its neighbours."""
    shape = [len(x), 1, 1]
    shape[axis] = places.shape[1]
    places = places.reshape(shape)
    before = jnp.floor(places).astype(jnp.int32)
    after = jnp.minimum(before + 1, x.shape[axis] - 1)
    first, second = (jnp.take_along_axis(x, i, axis=axis) for i in (before, after))
    return first + (places - before) * (second - first)
