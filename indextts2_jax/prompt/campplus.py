"""CAM++ speaker encoder: filter bank of a prompt -> style vector.

Data flow:   fbank [B, F, M] -> Head, 2-D convolutions that divide the bins by 8 -> [B, F, 32 * M/8]
               -> tdnn, every second frame -> [B, T, W]
               -> 3 x (dense block: W grows layer by layer; transition: W halves)
               -> mean and deviation over time -> style [B, E]

Batch norms use their stored statistics, but for training. Everything is told the true lengths, so
that a padded prompt gives the same style as the bare one.

Dims: B batch, F filter-bank frames, T frames after the tdnn, M mel bins, C channels, S segments,
E style width.

Source: CAM++ (arXiv:2303.00332) and 3D-Speaker's CAMPPlus (Apache-2.0).
"""

import dataclasses
import re
from collections.abc import Mapping

import jax
import jax.numpy as jnp
from flax import nnx
from jax.sharding import PartitionSpec as P

from indextts2_jax.convert import CONV_1D, CONV_2D, POINTWISE, Rule, linear, norm, prefixed
from indextts2_jax.nn.batch_norm import BatchNorm
from indextts2_jax.nn.masking import length_mask, zero_padding

SEGMENT = 100  # frames of a local context window


@dataclasses.dataclass(frozen=True)
class CAMPPlusConfig:
    """Architecture of the encoder. The released model is `indextts2()`.

    Attributes:
      feat_dim: mel bins of the filter bank, a multiple of 8.
      embedding: width of the style vector.
      head_channels: channels of the 2-D convolutions.
      init_channels: channels after the tdnn.
      growth: channels that each dense layer adds.
      bn_size: bottleneck of a dense layer, in units of `growth`.
      block_layers: dense layers of each block.
      block_dilations: dilation of the convolutions of each block.
    """

    feat_dim: int
    embedding: int
    head_channels: int
    init_channels: int
    growth: int
    bn_size: int
    block_layers: tuple[int, ...]
    block_dilations: tuple[int, ...]

    @classmethod
    def indextts2(cls) -> "CAMPPlusConfig":
        """Returns the settings of 3D-Speaker's `campplus_cn_common`, 6 848 544 parameters."""
        return cls(
            feat_dim=80,
            embedding=192,
            head_channels=32,
            init_channels=128,
            growth=32,
            bn_size=4,
            block_layers=(12, 24, 16),
            block_dilations=(1, 2, 2),
        )

    @classmethod
    def tiny(cls) -> "CAMPPlusConfig":
        """Returns a size for tests."""
        return cls(
            feat_dim=16,
            embedding=6,
            head_channels=4,
            init_channels=8,
            growth=4,
            bn_size=2,
            block_layers=(2, 1, 1),
            block_dilations=(1, 2, 2),
        )

    @classmethod
    def from_shapes(cls, shapes: Mapping[str, tuple[int, ...]]) -> "CAMPPlusConfig":
        """Derives the architecture from a weight file; only the dilations are those of the release.

        Args:
          shapes: torch name -> shape.

        Returns:
          The architecture.

        Raises:
          KeyError: if a tensor that tells a width is missing.
        """
        layer = "xvector.block1.tdnnd1"
        head_channels = shapes["head.conv1.weight"][0]
        init_channels, head_outputs, _ = shapes["xvector.tdnn.linear.weight"]
        growth = shapes[f"{layer}.cam_layer.linear_local.weight"][0]
        names = [re.fullmatch(r"xvector\.block(\d+)\.tdnnd\d+\.linear1\.weight", n) for n in shapes]
        blocks = [int(m[1]) for m in names if m]
        dilations = cls.indextts2().block_dilations
        return cls(
            feat_dim=head_outputs // head_channels * 8,
            embedding=shapes["xvector.dense.linear.weight"][0],
            head_channels=head_channels,
            init_channels=init_channels,
            growth=growth,
            bn_size=shapes[f"{layer}.linear1.weight"][0] // growth,
            block_layers=tuple(blocks.count(i + 1) for i in range(len(dilations))),
            block_dilations=dilations,
        )


class ResidualBlock(nnx.Module):
    """Two 3 x 3 convolutions; `stride` divides the mel bins, never the frames."""

    def __init__(self, features: int, stride: int, *, rngs: nnx.Rngs):
        def conv(size: int, stride: int) -> nnx.Conv:
            return nnx.Conv(
                features,
                features,
                (size, size),
                strides=(stride, 1),
                padding=size // 2,
                use_bias=False,
                rngs=rngs,
            )

        self.conv_1, self.norm_1 = conv(3, stride), BatchNorm(features)
        self.conv_2, self.norm_2 = conv(3, 1), BatchNorm(features)
        self.shortcut_conv = conv(1, stride) if stride > 1 else None
        self.shortcut_norm = BatchNorm(features) if stride > 1 else None

    def __call__(self, x: jax.Array, mask: jax.Array | None) -> jax.Array:
        """Maps x [B, M, F, C], mask [B, 1, F] to [B, M / stride, F, C], zero in the padding."""
        y = zero_padding(jax.nn.relu(self.norm_1(self.conv_1(x), mask)), mask)
        y = self.norm_2(self.conv_2(y), mask)
        if self.shortcut_conv is not None and self.shortcut_norm is not None:
            x = self.shortcut_norm(self.shortcut_conv(x), mask)
        return zero_padding(jax.nn.relu(y + x), mask)


class Head(nnx.Module):
    """2-D convolutions over the filter bank as an image of one channel."""

    def __init__(self, cfg: CAMPPlusConfig, *, rngs: nnx.Rngs):
        C = cfg.head_channels
        self.conv_1 = nnx.Conv(1, C, (3, 3), padding=1, use_bias=False, rngs=rngs)
        self.norm_1 = BatchNorm(C)
        self.layers = nnx.List(
            [nnx.List([ResidualBlock(C, stride, rngs=rngs) for stride in (2, 1)]) for _ in range(2)]
        )
        self.conv_2 = nnx.Conv(C, C, (3, 3), strides=(2, 1), padding=1, use_bias=False, rngs=rngs)
        self.norm_2 = BatchNorm(C)

    def __call__(self, fbank: jax.Array, mask: jax.Array | None) -> jax.Array:
        """Maps fbank [B, F, M], mask [B, F] to [B, F, C * M / 8], zero in the padding."""
        B, F, _ = fbank.shape
        mask = None if mask is None else mask[:, None]  # [B, 1, F], of an image
        x = zero_padding(fbank.transpose(0, 2, 1)[..., None], mask)  # [B, M, F, 1]
        x = zero_padding(jax.nn.relu(self.norm_1(self.conv_1(x), mask)), mask)
        for layer in self.layers:
            for block in layer:
                x = block(x, mask)  # [B, M / 2, F, C], [B, M / 4, F, C]
        x = zero_padding(jax.nn.relu(self.norm_2(self.conv_2(x), mask)), mask)
        return x.transpose(0, 2, 3, 1).reshape(B, F, -1)


class DenseLayer(nnx.Module):
    """Bottleneck and dilated convolution, gated by the mean of the prompt and of each segment."""

    def __init__(self, cfg: CAMPPlusConfig, in_features: int, dilation: int, *, rngs: nnx.Rngs):
        inner = cfg.bn_size * cfg.growth
        self.norm_1 = BatchNorm(in_features)
        self.linear = nnx.Linear(in_features, inner, use_bias=False, rngs=rngs)
        self.norm_2 = BatchNorm(inner)
        self.local = nnx.Conv(
            inner,
            cfg.growth,
            (3,),
            kernel_dilation=dilation,
            padding=dilation,
            use_bias=False,
            rngs=rngs,
        )
        self.gate_1 = nnx.Linear(inner, inner // 2, rngs=rngs)
        self.gate_2 = nnx.Linear(inner // 2, cfg.growth, rngs=rngs)

    def __call__(self, x: jax.Array, lengths: jax.Array, mask: jax.Array | None) -> jax.Array:
        """Maps x [B, T, W] to the [B, T, growth] that is to be appended to it."""
        T = x.shape[1]
        x = self.linear(jax.nn.relu(self.norm_1(x, mask)))
        x = zero_padding(jax.nn.relu(self.norm_2(x, mask)), mask)
        # The gate is constant within a segment.
        gate = self.gate_2(jax.nn.relu(self.gate_1(_context(x, lengths))))
        return self.local(x) * jnp.repeat(jax.nn.sigmoid(gate), SEGMENT, axis=1)[:, :T]


def _context(x: jax.Array, lengths: jax.Array) -> jax.Array:
    """Adds the mean over all frames and the mean over each segment.

    Args:
      x: [B, T, C], zero after `lengths`.
      lengths: [B] int32.

    Returns:
      [B, S, C]; the last segment counts only the frames that it has.
    """
    B, T, C = x.shape
    S = -(-T // SEGMENT)
    sums = jnp.pad(x, ((0, 0), (0, S * SEGMENT - T), (0, 0))).reshape(B, S, SEGMENT, C)
    sums = jnp.sum(sums, axis=2, dtype=jnp.float32)  # [B, S, C]
    counts = jnp.clip(lengths[:, None] - SEGMENT * jnp.arange(S), 1, SEGMENT)  # [B, S]
    mean = jnp.sum(sums, axis=1, keepdims=True) / lengths[:, None, None]
    return (mean + sums / counts[..., None]).astype(x.dtype)


def mean_and_deviation(x: jax.Array, lengths: jax.Array, mask: jax.Array | None) -> jax.Array:
    """Computes unbiased statistics over the frames of x [B, T, C]: [B, 2 C] float32."""
    x, lengths = x.astype(jnp.float32), lengths[:, None]
    mean = jnp.sum(zero_padding(x, mask), axis=1) / lengths  # [B, C]
    square = zero_padding((x - mean[:, None]) ** 2, mask)
    variance = jnp.sum(square, axis=1) / (lengths - 1)
    # The bound gives a silent channel a gradient of zero instead of NaN.
    return jnp.concatenate([mean, jnp.sqrt(jnp.maximum(variance, 1e-20))], axis=-1)


class Transition(nnx.Module):
    """Halves the width between dense blocks."""

    def __init__(self, features: int, *, rngs: nnx.Rngs):
        self.norm = BatchNorm(features)
        self.linear = nnx.Linear(features, features // 2, use_bias=False, rngs=rngs)

    def __call__(self, x: jax.Array, mask: jax.Array | None) -> jax.Array:
        """Maps x [B, T, W] to [B, T, W / 2]."""
        return self.linear(jax.nn.relu(self.norm(x, mask)))


class CAMPPlus(nnx.Module):
    """The speaker encoder."""

    def __init__(self, cfg: CAMPPlusConfig, *, rngs: nnx.Rngs):
        width = cfg.init_channels
        self.head = Head(cfg, rngs=rngs)
        self.tdnn = nnx.Conv(
            cfg.head_channels * cfg.feat_dim // 8,
            width,
            (5,),
            strides=2,
            padding=2,
            use_bias=False,
            rngs=rngs,
        )
        self.tdnn_norm = BatchNorm(width)
        self.blocks, self.transitions = nnx.List([]), nnx.List([])
        for num_layers, dilation in zip(cfg.block_layers, cfg.block_dilations, strict=True):
            widths = range(width, width + num_layers * cfg.growth, cfg.growth)
            self.blocks.append(nnx.List([DenseLayer(cfg, w, dilation, rngs=rngs) for w in widths]))
            width += num_layers * cfg.growth
            self.transitions.append(Transition(width, rngs=rngs))
            width //= 2
        self.norm_out = BatchNorm(width)
        self.style = nnx.Linear(2 * width, cfg.embedding, use_bias=False, rngs=rngs)
        self.style_norm = BatchNorm(cfg.embedding, affine=False)

    def __call__(self, fbank: jax.Array, lengths: jax.Array | None = None) -> jax.Array:
        """Encodes who speaks.

        Args:
          fbank: [B, F, M] log filter bank minus its mean over the valid frames.
          lengths: [B] int32 valid frames, at least 3 each; None if all are.

        Returns:
          [B, E] float32, not normalized to unit length.
        """
        mask = None if lengths is None else length_mask(lengths, fbank.shape[1])
        x = self.head(fbank.astype(self.tdnn.kernel.dtype), mask)
        x = self.tdnn(x)  # [B, T, W]
        B, T, _ = x.shape
        if lengths is None:
            lengths, mask = jnp.full(B, T), None
        else:
            lengths = (lengths + 1) // 2
            mask = length_mask(lengths, T)
        x = jax.nn.relu(self.tdnn_norm(x, mask))
        for block, transition in zip(self.blocks, self.transitions, strict=True):
            for layer in block:
                x = jnp.concatenate([x, layer(x, lengths, mask)], axis=-1)
            x = transition(x, mask)
        x = jax.nn.relu(self.norm_out(x, mask))
        statistics = mean_and_deviation(x, lengths, mask)
        return self.style_norm(self.style(statistics).astype(jnp.float32))


def _batch_norm(torch: str, jax: str, *, affine: bool = True) -> tuple[Rule, ...]:
    statistics = (
        Rule(f"{torch}.running_mean", f"{jax}.mean"),
        Rule(f"{torch}.running_var", f"{jax}.var"),
    )
    return (*norm(torch, jax), *statistics) if affine else statistics


# Names as in 3D-Speaker's `campplus_cn_common.bin`.
_HEAD_BLOCK = (
    *linear("conv{n}", "conv_{n}", CONV_2D, bias=False),
    *_batch_norm("bn{n}", "norm_{n}"),
    *linear("shortcut.0", "shortcut_conv", CONV_2D, bias=False),
    *_batch_norm("shortcut.1", "shortcut_norm"),
)
_DENSE_LAYER = (
    *_batch_norm("nonlinear{n}.batchnorm", "norm_{n}"),
    *linear("linear1", "linear", POINTWISE, bias=False),
    *linear("cam_layer.linear_local", "local", CONV_1D, bias=False),
    *linear("cam_layer.linear{n}", "gate_{n}", POINTWISE),
)
TORCH_RULES = (
    *linear("head.conv{n}", "head.conv_{n}", CONV_2D, bias=False),
    *_batch_norm("head.bn{n}", "head.norm_{n}"),
    *prefixed(_HEAD_BLOCK, "head.layer{b+1}.{i}.", "head.layers.{b}.{i}."),
    *linear("xvector.tdnn.linear", "tdnn", CONV_1D, bias=False),
    *_batch_norm("xvector.tdnn.nonlinear.batchnorm", "tdnn_norm"),
    *prefixed(_DENSE_LAYER, "xvector.block{b+1}.tdnnd{i+1}.", "blocks.{b}.{i}."),
    *_batch_norm("xvector.transit{b+1}.nonlinear.batchnorm", "transitions.{b}.norm"),
    *linear("xvector.transit{b+1}.linear", "transitions.{b}.linear", POINTWISE, bias=False),
    *_batch_norm("xvector.out_nonlinear.batchnorm", "norm_out"),
    *linear("xvector.dense.linear", "style", POINTWISE, bias=False),
    *_batch_norm("xvector.dense.nonlinear.batchnorm", "style_norm", affine=False),
)
TORCH_UNUSED = (r".*\.num_batches_tracked",)

SHARDING_RULES = ((r".*", P()),)  # small
