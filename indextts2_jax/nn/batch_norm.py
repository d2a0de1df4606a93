"""Batch normalisation, frozen at inference; training takes the statistics of the batch.

`model.train()` of Flax changes the mode. A call then normalises by the batch, and moves the stored
statistics, which the trainer has to take out of the module (`train.run.task`). On a mesh the batch
is that of all devices.

Dims: B batch, C channels.
"""

import jax
import jax.numpy as jnp
from flax import nnx

EPSILON = 1e-5
MOMENTUM = 0.1  # share of the batch in the stored statistics, as torch's


class RunningStatistic(nnx.BatchStat):
    """What training measures; an optimizer leaves it alone."""


class BatchNorm(nnx.Module):
    """Torch's BatchNorm over the last axis, in evaluation mode until `train()` is called."""

    def __init__(self, features: int, *, affine: bool = True):
        self.scale = nnx.Param(jnp.ones(features)) if affine else None
        self.bias = nnx.Param(jnp.zeros(features)) if affine else None
        self.mean = RunningStatistic(jnp.zeros(features))
        self.var = RunningStatistic(jnp.ones(features))
        self.use_running_average = True

    def __call__(self, x: jax.Array, mask: jax.Array | None = None) -> jax.Array:
        """Normalizes [B, ..., C]; float32 inside.

        Args:
          x: [B, ..., C].
          mask: what counts in the statistics of a batch; bool that broadcasts to [B, ...], or None
            if all does. The stored statistics need none.
        """
        if self.use_running_average:
            mean, var = (s[...].astype(jnp.float32) for s in (self.mean, self.var))
        else:
            mean, var = self._measure(x, mask)
        # Not rsqrt, which XLA approximates on CPU: 50 layers of it cost a digit of the style.
        scale = 1 / jnp.sqrt(var + EPSILON)
        if self.scale is not None:
            scale = scale * self.scale[...]
        y = (x - mean) * scale
        return (y if self.bias is None else y + self.bias[...]).astype(x.dtype)

    def _measure(self, x: jax.Array, mask: jax.Array | None) -> tuple[jax.Array, jax.Array]:
        """Measures mean and biased variance [C] of the batch, and moves the stored ones there."""
        axes = tuple(range(x.ndim - 1))
        valid = jnp.ones((1,) * x.ndim, bool) if mask is None else mask[..., None]
        count = jnp.broadcast_to(valid[..., 0], x.shape[:-1]).sum()
        x = x.astype(jnp.float32)
        mean = jnp.mean(x, axes, where=valid)
        var = jnp.mean((x - mean) ** 2, axes, where=valid)
        unbiased = var * count / jnp.maximum(count - 1, 1)
        for stored, measured in ((self.mean, mean), (self.var, unbiased)):
            stored[...] = jax.lax.stop_gradient((1 - MOMENTUM) * stored[...] + MOMENTUM * measured)
        return mean, var
