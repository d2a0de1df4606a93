"""Convolutions over time, channels last, that treat right padding as if it were not there.

Dims: B batch, T time, C channels, K kernel.
"""

from typing import Any, TypeVar

import jax
import jax.numpy as jnp
from flax import nnx

M = TypeVar("M", bound=nnx.Module)
LECUN = nnx.initializers.lecun_normal()


class WeightNormLinear(nnx.Module):
    """Linear with torch's weight norm: W = gain * V / ||V||, one norm per output channel."""

    def __init__(
        self,
        in_features: int,
        out_features: int,
        *,
        kernel_init: nnx.Initializer = LECUN,
        rngs: nnx.Rngs,
    ):
        kernel = kernel_init(rngs.params(), (in_features, out_features))
        self.kernel = nnx.Param(kernel)  # V [in, out]
        self.gain = nnx.Param(jnp.linalg.norm(kernel, axis=0))  # [out]
        self.bias = nnx.Param(jnp.zeros(out_features))

    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps [..., in] to [..., out]."""
        gain = None if self.gain is None else self.gain[...]
        return x @ normed(self.kernel[...], gain) + self.bias[...]


class WeightNormConv(nnx.Module):
    """Conv1d with torch's weight norm. Without `padding` only whole windows count (VALID)."""

    def __init__(
        self,
        in_features: int,
        out_features: int,
        kernel_size: int,
        *,
        dilation: int = 1,
        padding: int = 0,
        use_bias: bool = True,
        rngs: nnx.Rngs,
    ):
        shape = (kernel_size, in_features, out_features)
        kernel = LECUN(rngs.params(), shape)
        self.kernel = nnx.Param(kernel)  # V [K, in, out]
        self.gain = nnx.Param(jnp.sqrt(jnp.sum(kernel**2, (0, 1))))  # [out]
        self.bias = nnx.Param(jnp.zeros(out_features)) if use_bias else None
        self.dilation, self.padding = dilation, padding

    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps [B, T, in] to [B, T', out]."""
        gain = None if self.gain is None else self.gain[...]
        y = conv(x, normed(self.kernel[...], gain), self.padding, self.dilation)
        return y if self.bias is None else y + self.bias[...]


class DepthwiseConv(nnx.Module):
    """One FIR filter per channel, as K shifted multiply-adds (grouped convolutions are slow)."""

    def __init__(
        self,
        features: int,
        kernel_size: int,
        *,
        padding: tuple[int, int],
        use_bias: bool = True,
        rngs: nnx.Rngs,
    ):
        bound = kernel_size**-0.5
        self.kernel = nnx.Param(
            jax.random.uniform(rngs.params(), (kernel_size, features), minval=-bound, maxval=bound)
        )  # [K, C]
        self.bias = nnx.Param(jnp.zeros(features)) if use_bias else None
        self.padding = padding

    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps [B, T, C] to [B, T + sum(padding) - K + 1, C]."""
        kernel = self.kernel[...].astype(x.dtype)
        x = jnp.pad(x, ((0, 0), self.padding, (0, 0)))
        length = x.shape[1] - kernel.shape[0] + 1
        y = x[:, :length] * kernel[0]
        for k in range(1, kernel.shape[0]):
            y = y + x[:, k : k + length] * kernel[k]
        return y if self.bias is None else y + self.bias[...].astype(x.dtype)


def normed(kernel: jax.Array, gain: jax.Array | None) -> jax.Array:
    """Applies weight norm over all axes but the last (output channels), if there is a gain."""
    if gain is None:
        return kernel
    norm = jnp.sqrt(jnp.sum(kernel.astype(jnp.float32) ** 2, tuple(range(kernel.ndim - 1))))
    return (kernel * (gain / norm)).astype(kernel.dtype)


def fold_weight_norm(model: M) -> M:
    """Replaces every weight-normed kernel by what it stands for, for inference; returns `model`.

    A module takes part by having `kernel` and `gain`; its gain becomes None.
    """
    layers: list[Any] = [
        module for _, module in nnx.iter_modules(model) if getattr(module, "gain", None) is not None
    ]
    pairs = [(layer.kernel[...], layer.gain[...]) for layer in layers]
    for layer, kernel in zip(layers, _fold(pairs), strict=True):
        layer.kernel = nnx.Param(kernel)
        layer.gain = None
    return model


@jax.jit
def _fold(pairs: list[tuple[jax.Array, jax.Array]]) -> list[jax.Array]:
    return [normed(kernel, gain) for kernel, gain in pairs]


def conv(x: jax.Array, kernel: jax.Array, padding: int = 0, dilation: int = 1) -> jax.Array:
    """Applies a dense Conv1d of stride 1: x [B, T, in], kernel [K, in, out] -> [B, T', out]."""
    return jax.lax.conv_general_dilated(
        x,
        kernel.astype(x.dtype),
        (1,),
        [(padding, padding)],
        rhs_dilation=(dilation,),
        dimension_numbers=("NWC", "WIO", "NWC"),
    )
