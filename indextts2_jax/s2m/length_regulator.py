"""Length regulator: stretches semantic frames to mel frames.

Data flow:  s [B, T_code, C] -> linear -> nearest frame [B, T_mel, D]
            -> 4 x (conv, group norm, mish) -> linear

The original stretches a whole batch to its longest item; here each item keeps its own length, so
that an item of a padded batch equals the item alone.

Dims: B batch, T_code semantic frames, T_mel mel frames, C semantic width, D width.

Source: the released IndexTTS2 `s2mel.pth`, net `length_regulator`.
"""

import dataclasses

import jax
import jax.numpy as jnp
from flax import nnx
from jax.sharding import PartitionSpec as P

from indextts2_jax.convert import CONV_1D, POINTWISE, Rule, linear, norm
from indextts2_jax.nn.masking import length_mask, zero_padding

NUM_BLOCKS = 4  # the released `sampling_ratios` [1, 1, 1, 1]: only their number means something


@dataclasses.dataclass(frozen=True)
class LengthRegulatorConfig:
    """Architecture of the length regulator. The released model is `indextts2()`."""

    in_width: int
    width: int

    @classmethod
    def indextts2(cls) -> "LengthRegulatorConfig":
        """Returns the released size."""
        return cls(in_width=1024, width=512)

    @classmethod
    def tiny(cls) -> "LengthRegulatorConfig":
        """Returns a size for tests."""
        return cls(in_width=16, width=12)


def nearest_index(code_lengths: jax.Array, frame_lengths: jax.Array, num_frames: int) -> jax.Array:
    """Finds the semantic frame under each mel frame, as torch's nearest interpolation does.

    Torch computes `floor(frame * (code_length / frame_length))` in float32, and its roundings
    decide ties, so the quotient must be *correctly rounded*. The division units of accelerators
    do not promise that; a long division in integers does, on every backend.

    Args:
      code_lengths: [B] int32, at least 1, below 2**15.
      frame_lengths: [B] int32, at least 1, below 2**15; between 1/128 and 128 of `code_lengths`.
      num_frames: T_mel, the padded number of mel frames.

    Returns:
      [B, T_mel] int32 indices below `code_lengths`, also in padded frames.
    """
    whole, rest = jnp.divmod(code_lengths, frame_lengths)
    high, rest = jnp.divmod(rest << 16, frame_lengths)
    low, rest = jnp.divmod(rest << 16, frame_lengths)
    low = 2 * low + (rest > 0)  # a last bit that stands for all further ones
    # Both terms are exact, so that their sum is rounded once.
    ratio = (whole + high * jnp.float32(2**-16)) + low * jnp.float32(2**-33)
    index = jnp.floor(jnp.arange(num_frames, dtype=jnp.float32) * ratio[:, None])
    return jnp.minimum(index.astype(jnp.int32), code_lengths[:, None] - 1)


class TimeGroupNorm(nnx.Module):
    """GroupNorm with one group, over the channels and the valid frames of an item."""

    def __init__(self, width: int, *, rngs: nnx.Rngs):
        del rngs
        self.scale = nnx.Param(jnp.ones(width))
        self.bias = nnx.Param(jnp.zeros(width))

    def __call__(self, x: jax.Array, mask: jax.Array) -> jax.Array:
        """Normalizes x [B, T_mel, D]; padded frames (mask [B, T_mel] False) have no part in it."""
        y, valid = x.astype(jnp.float32), mask[..., None]
        mean = jnp.mean(y, (1, 2), where=valid, keepdims=True)  # [B, 1, 1]
        var = jnp.mean((y - mean) ** 2, (1, 2), where=valid, keepdims=True)
        y = (y - mean) * jax.lax.rsqrt(var + 1e-5) * self.scale[...] + self.bias[...]
        return y.astype(x.dtype)


class ConvBlock(nnx.Module):
    """Convolution over three frames, group norm, mish."""

    def __init__(self, width: int, *, rngs: nnx.Rngs):
        self.conv = nnx.Conv(width, width, kernel_size=3, padding=1, rngs=rngs)
        self.norm = TimeGroupNorm(width, rngs=rngs)

    def __call__(self, x: jax.Array, mask: jax.Array) -> jax.Array:
        """Maps x [B, T_mel, D] to [B, T_mel, D]."""
        return jax.nn.mish(self.norm(self.conv(zero_padding(x, mask)), mask))


class LengthRegulator(nnx.Module):
    """Semantic frames at 50 Hz -> conditions of the velocity field at the mel rate."""

    def __init__(self, cfg: LengthRegulatorConfig, *, rngs: nnx.Rngs):
        self.input = nnx.Linear(cfg.in_width, cfg.width, rngs=rngs)
        self.blocks = nnx.List([ConvBlock(cfg.width, rngs=rngs) for _ in range(NUM_BLOCKS)])
        self.output = nnx.Linear(cfg.width, cfg.width, rngs=rngs)

    def __call__(
        self, s: jax.Array, code_lengths: jax.Array, frame_lengths: jax.Array, num_frames: int
    ) -> jax.Array:
        """Stretches each item from its number of semantic frames to its number of mel frames.

        Args:
          s: [B, T_code, C] semantic embeddings.
          code_lengths: [B] int32, valid frames of `s`, at least 1.
          frame_lengths: [B] int32, wanted mel frames, at least 1.
          num_frames: T_mel, the padded number of mel frames.

        Returns:
          [B, T_mel, D]; zero in padded frames.
        """
        x = self.input(s.astype(self.input.kernel.dtype))  # [B, T_code, D]
        index = nearest_index(code_lengths, frame_lengths, num_frames)
        x = jax.vmap(lambda frames, i: frames[i])(x, index)  # [B, T_mel, D]
        mask = length_mask(frame_lengths, num_frames)
        for block in self.blocks:
            x = block(x, mask)
        return zero_padding(self.output(x), mask)


# Names below `net/length_regulator/` of `s2mel.pth`; one Sequential of conv, norm, mish, conv, ...
TORCH_RULES: tuple[Rule, ...] = (
    *linear("content_in_proj", "input"),
    *(
        rule
        for i in range(NUM_BLOCKS)
        for rule in (
            *linear(f"model.{3 * i}", f"blocks.{i}.conv", CONV_1D),
            *norm(f"model.{3 * i + 1}", f"blocks.{i}.norm"),
        )
    ),
    *linear(f"model.{3 * NUM_BLOCKS}", "output", POINTWISE),
)
TORCH_UNUSED = (r"embedding\.weight", "mask_token")

SHARDING_RULES = (
    (r"(input|output)\.kernel", P("fsdp", "tensor")),
    (r"blocks\.\d+\.conv\.kernel", P(None, "fsdp", "tensor")),
    (r".*", P()),
)
