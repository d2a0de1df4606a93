"""WaveNet: the last, convolutional part of the velocity field.

Data flow:  x [B, T, D] -> 8 x (reflect, conv, + time, tanh * sigmoid, linear -> residual | skip)
            -> sum of the skips [B, T, D]

Dims: B batch, T mel frames, D width.

Source: the released IndexTTS2 `s2mel.pth`, `cfm/estimator.wavenet`.
"""

import dataclasses

import jax
import jax.numpy as jnp
from flax import nnx
from jax.sharding import PartitionSpec as P

from indextts2_jax.convert import CONV_1D, POINTWISE, weight_norm
from indextts2_jax.nn.conv import WeightNormConv, WeightNormLinear


@dataclasses.dataclass(frozen=True)
class WaveNetConfig:
    """Architecture of the WaveNet; layer l has dilation `dilation_rate ** l`."""

    width: int
    num_layers: int
    kernel_size: int
    dilation_rate: int
    dropout: float

    @classmethod
    def indextts2(cls) -> "WaveNetConfig":
        """Returns the released size."""
        return cls(width=512, num_layers=8, kernel_size=5, dilation_rate=1, dropout=0.2)

    @classmethod
    def tiny(cls) -> "WaveNetConfig":
        """Returns a size for tests."""
        return cls(width=16, num_layers=3, kernel_size=5, dilation_rate=1, dropout=0.2)


def reflect_ends(x: jax.Array, lengths: jax.Array, width: int) -> jax.Array:
    """Reflects each item at its first and at its own last frame.

    Args:
      x: [B, T, D].
      lengths: [B] int32 valid frames.
      width: frames to add on each side.

    Returns:
      [B, width + T + width, D] of which the first `width + lengths[b] + width` frames are valid.
    """
    lengths = lengths[:, None]
    # As torch's helper does, an item too short to reflect is first extended by zeros.
    last = jnp.maximum(lengths, width + 1) - 1
    index = jnp.abs(jnp.arange(-width, x.shape[1] + width))  # [width + T + width]
    index = jnp.where(index > last, 2 * last - index, index)  # [B, width + T + width]
    index = jnp.where((index >= 0) & (index < lengths), index, x.shape[1])
    return jax.vmap(lambda frames, i: frames.at[i].get(mode="fill", fill_value=0))(x, index)


class Layer(nnx.Module):
    """One gated convolution with its residual and skip outputs."""

    def __init__(self, cfg: WaveNetConfig, index: int, *, rngs: nnx.Rngs):
        D, dilation = cfg.width, cfg.dilation_rate**index
        self.reach = dilation * (cfg.kernel_size - 1) // 2
        self.is_last = index == cfg.num_layers - 1  # the last layer has no residual
        self.conv = WeightNormConv(D, 2 * D, cfg.kernel_size, dilation=dilation, rngs=rngs)
        self.residual_skip = WeightNormLinear(D, D if self.is_last else 2 * D, rngs=rngs)
        self.drop = nnx.Dropout(cfg.dropout)

    def __call__(
        self, x: jax.Array, time: jax.Array, lengths: jax.Array, *, key: jax.Array | None
    ) -> tuple[jax.Array, jax.Array]:
        """Maps x [B, T, D], under time [B, 1, 2 D], to the next x and a skip [B, T, D]."""
        y = self.conv(reflect_ends(x, lengths, self.reach)) + time
        content, gate = jnp.split(y, 2, axis=-1)
        y = jnp.tanh(content) * jax.nn.sigmoid(gate)
        y = self.residual_skip(self.drop(y, deterministic=key is None, rngs=key))
        if self.is_last:
            return x, y
        residual, skip = jnp.split(y, 2, axis=-1)
        return x + residual, skip


class WaveNet(nnx.Module):
    """Non-causal WaveNet conditioned on the flow time."""

    def __init__(self, cfg: WaveNetConfig, *, rngs: nnx.Rngs):
        self.time = WeightNormLinear(cfg.width, cfg.num_layers * 2 * cfg.width, rngs=rngs)
        self.layers = nnx.List([Layer(cfg, i, rngs=rngs) for i in range(cfg.num_layers)])

    def __call__(
        self,
        x: jax.Array,
        time: jax.Array,
        lengths: jax.Array,
        *,
        key: jax.Array | None = None,
        remat: bool = False,
    ) -> jax.Array:
        """Refines the frames of the transformer.

        Args:
          x: [B, T, D].
          time: [B, D] time embedding.
          lengths: [B] int32 valid frames.
          key: dropout key; None turns dropout off.
          remat: keep only the inputs of the layers, and compute the rest again for gradients.

        Returns:
          [B, T, D].
        """
        num_layers = len(self.layers)
        keys = [None] * num_layers if key is None else jax.random.split(key, num_layers)
        times = jnp.split(self.time(time)[:, None], num_layers, axis=-1)  # each [B, 1, 2 D]
        out = jnp.zeros_like(x)

        def run(
            layer: Layer, x: jax.Array, time: jax.Array, key: jax.Array | None
        ) -> tuple[jax.Array, jax.Array]:
            return layer(x, time, lengths, key=key)

        for layer, layer_time, layer_key in zip(self.layers, times, keys, strict=True):
            x, skip = (jax.checkpoint(run) if remat else run)(layer, x, layer_time, layer_key)
            out = out + skip
        return out


# Names below `net/cfm/estimator.wavenet.` of `s2mel.pth`.
TORCH_RULES = (
    *weight_norm("cond_layer.conv.conv", "time", POINTWISE),
    *weight_norm("in_layers.{i}.conv.conv", "layers.{i}.conv", CONV_1D),
    *weight_norm("res_skip_layers.{i}.conv.conv", "layers.{i}.residual_skip", POINTWISE),
)

SHARDING_RULES = (
    (r"layers\.\d+\.conv\.kernel", P(None, "fsdp", "tensor")),
    (r"layers\.\d+\.residual_skip\.kernel", P("tensor", "fsdp")),
    (r"time\.kernel", P("fsdp", "tensor")),
    (r".*", P()),
)
