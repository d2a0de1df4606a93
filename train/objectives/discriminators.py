"""What tells generated waves from recorded ones, for training a vocoder alone.

    wave [B, T] -> per period: every p-th sample side by side, convolutions over time
                -> per scale: constant-Q transform, one convolution per octave, then over all bins
                -> scores, and the feature maps on the way

Dims: B rows, T samples, p period, N frames, W frequency bins, C channels.

Source: HiFi-GAN (arXiv:2010.05646), MS-SB-CQT discriminator (arXiv:2311.14957), both as in
BigVGAN-v2 (MIT).
"""

import dataclasses
import itertools
from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx
from jax.sharding import PartitionSpec as P

from indextts2_jax.convert import CONV_2D, Layout, Rule, linear, weight_norm
from indextts2_jax.nn.conv import normed
from train.objectives.spectra import constant_q

_SLOPE = 0.1  # of the leaky ReLUs
_INIT = nnx.initializers.variance_scaling(1 / 3, "fan_in", "uniform")  # torch's


class Judgement(NamedTuple):
    """Of one discriminator."""

    score: jax.Array  # [B, ...]; 1 = recorded, 0 = generated
    features: list[jax.Array]  # [B, ...] each


@dataclasses.dataclass(frozen=True)
class DiscriminatorConfig:
    """Sizes of the discriminators. Those that train the published BigVGAN-v2 are `bigvgan()`.

    Attributes:
      sample_rate: Hz of the waves.
      periods: of the multi-period discriminator, samples; () = none.
      period_widths: channels of its convolutions.
      cqt_hops: one constant-Q discriminator per hop, in samples of the doubled rate; () = none.
      cqt_bins: bins of an octave of each.
      octaves: of all.
      cqt_width: channels.
    """

    sample_rate: int = 22050
    periods: tuple[int, ...] = (2, 3, 5, 7, 11)
    period_widths: tuple[int, ...] = (32, 128, 512, 1024, 1024)
    cqt_hops: tuple[int, ...] = (512, 256, 256)
    cqt_bins: tuple[int, ...] = (24, 36, 48)
    octaves: int = 9
    cqt_width: int = 32

    @classmethod
    def bigvgan(cls) -> "DiscriminatorConfig":
        """Returns those of BigVGAN-v2."""
        return cls()

    @classmethod
    def small(cls) -> "DiscriminatorConfig":
        """Returns one for CPUs."""
        return cls(
            periods=(2, 3, 5),
            period_widths=(8, 16, 32, 64, 64),
            cqt_hops=(512,),
            cqt_bins=(24,),
            cqt_width=8,
        )

    @classmethod
    def tiny(cls) -> "DiscriminatorConfig":
        """Returns one for tests."""
        return cls(
            periods=(2, 3),
            period_widths=(2, 3, 4),
            cqt_hops=(512,),
            cqt_bins=(12,),
            cqt_width=4,
        )


class Conv(nnx.Module):
    """A convolution over one or two axes that keeps their lengths, but for its strides."""

    def __init__(
        self,
        features: tuple[int, int],
        kernel_size: tuple[int, ...],
        *,
        strides: tuple[int, ...] = (),
        dilation: int = 1,
        weight_normed: bool = True,
        rngs: nnx.Rngs,
    ):
        axes = tuple(range(len(kernel_size)))
        kernel = _INIT(rngs.params(), (*kernel_size, *features))
        self.kernel = nnx.Param(kernel)  # [K, (K,) in, out]
        self.bias = nnx.Param(jnp.zeros(features[1]))
        norm = jnp.sqrt(jnp.sum(kernel**2, (*axes, len(axes))))
        self.gain = nnx.Param(norm) if weight_normed else None
        self.strides = strides or (1,) * len(axes)
        self.dilation = (dilation, 1)[: len(axes)]  # of time alone

    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps [B, N, (W,) in] to [B, N', (W',) out]."""
        kernel = normed(self.kernel[...], None if self.gain is None else self.gain[...])
        spatial = "HW"[: kernel.ndim - 2]
        halves = [(k - 1) * d // 2 for k, d in zip(kernel.shape[:-2], self.dilation, strict=True)]
        y = jax.lax.conv_general_dilated(
            x.astype(kernel.dtype),
            kernel,
            self.strides,
            [(half, half) for half in halves],
            rhs_dilation=self.dilation,
            dimension_numbers=(f"N{spatial}C", f"{spatial}IO", f"N{spatial}C"),
        )
        return y + self.bias[...]


def _activate(x: jax.Array) -> jax.Array:
    return jax.nn.leaky_relu(x, _SLOPE)


class PeriodDiscriminator(nnx.Module):
    """Sees samples that are a period apart."""

    def __init__(self, cfg: DiscriminatorConfig, period: int, *, rngs: nnx.Rngs):
        widths = (1, *cfg.period_widths)
        last = len(cfg.period_widths) - 1
        self.convs = nnx.List(
            [
                Conv(pair, (5,), strides=(1 if i == last else 3,), rngs=rngs)
                for i, pair in enumerate(itertools.pairwise(widths))
            ]
        )
        self.conv_out = Conv((widths[-1], 1), (3,), rngs=rngs)
        self.period = period

    def __call__(self, samples: jax.Array) -> Judgement:
        """Scores samples [B, T]."""
        B, T = samples.shape
        x = jnp.pad(samples, ((0, 0), (0, -T % self.period)), mode="reflect")
        x = x.reshape(B, -1, self.period).swapaxes(1, 2).reshape(B * self.period, -1, 1)
        features = []
        for conv in self.convs:
            x = _activate(conv(x))
            features.append(x)
        features.append(self.conv_out(x))
        features = [f.reshape(B, self.period, *f.shape[1:]) for f in features]
        return Judgement(features[-1], features)


class ConstantQDiscriminator(nnx.Module):
    """Sees a constant-Q transform, every octave through a convolution of its own."""

    def __init__(self, cfg: DiscriminatorConfig, hop: int, bins: int, *, rngs: nnx.Rngs):
        C = cfg.cqt_width
        self.octave_convs = nnx.List(
            [Conv((2, 2), (3, 9), weight_normed=False, rngs=rngs) for _ in range(cfg.octaves)]
        )
        self.conv_in = Conv((2, C), (3, 9), weight_normed=False, rngs=rngs)
        self.convs = nnx.List(
            [
                *(Conv((C, C), (3, 9), strides=(1, 2), dilation=d, rngs=rngs) for d in (1, 2, 4)),
                Conv((C, C), (3, 3), rngs=rngs),
            ]
        )
        self.conv_out = Conv((C, 1), (3, 3), rngs=rngs)
        self.transform = (cfg.sample_rate, hop, cfg.octaves, bins)

    def __call__(self, samples: jax.Array) -> Judgement:
        """Scores samples [B, T]."""
        x = constant_q(samples.astype(jnp.float32), *self.transform)  # [B, N, W, 2]
        octaves = jnp.split(x, len(self.octave_convs), axis=2)
        parts = [conv(part) for conv, part in zip(self.octave_convs, octaves, strict=True)]
        x = jnp.concatenate(parts, axis=2)
        features = []
        for conv in (self.conv_in, *self.convs):
            x = _activate(conv(x))
            features.append(x)
        return Judgement(self.conv_out(x), features)


class Discriminators(nnx.Module):
    """All of them."""

    def __init__(self, cfg: DiscriminatorConfig, *, rngs: nnx.Rngs):
        self.periods = nnx.List([PeriodDiscriminator(cfg, p, rngs=rngs) for p in cfg.periods])
        self.scales = nnx.List(
            [
                ConstantQDiscriminator(cfg, hop, bins, rngs=rngs)
                for hop, bins in zip(cfg.cqt_hops, cfg.cqt_bins, strict=True)
            ]
        )

    def __call__(self, samples: jax.Array) -> list[Judgement]:
        """Scores samples [B, T]."""
        return [one(samples) for one in (*self.periods, *self.scales)]


def _row_mean(x: jax.Array) -> jax.Array:
    return jnp.mean(x.astype(jnp.float32), axis=tuple(range(1, x.ndim)))


def discriminator_loss(recorded: list[Judgement], generated: list[Judgement]) -> jax.Array:
    """Computes the least-squares loss [B] of the discriminators, summed over them."""
    return sum(
        (
            _row_mean((1 - r.score) ** 2) + _row_mean(g.score**2)
            for r, g in zip(recorded, generated, strict=True)
        ),
        start=jnp.zeros(()),
    )


def generator_loss(generated: list[Judgement]) -> jax.Array:
    """Computes the least-squares loss [B] of the generator, summed likewise."""
    return sum((_row_mean((1 - g.score) ** 2) for g in generated), start=jnp.zeros(()))


def feature_loss(recorded: list[Judgement], generated: list[Judgement]) -> jax.Array:
    """Computes the mean distance [B] of the feature maps, summed over all of them."""
    return sum(
        (
            _row_mean(jnp.abs(a - b))
            for r, g in zip(recorded, generated, strict=True)
            for a, b in zip(r.features, g.features, strict=True)
        ),
        start=jnp.zeros(()),
    )


_COLUMN = Layout(  # [out, in, K, 1] <-> [K, in, out]
    "column", lambda w: w[..., 0].transpose(2, 1, 0), lambda w: w.transpose(2, 1, 0)[..., None]
)
_GAIN = Layout("gain_2d", lambda w: w[:, 0, 0, 0], lambda w: w[:, None, None, None])


def _scale_rules(torch: str, jax: str) -> tuple[Rule, ...]:
    return (
        *linear(f"{torch}.conv_pres.{{j}}", f"{jax}.octave_convs.{{j}}", CONV_2D),
        *linear(f"{torch}.convs.0", f"{jax}.conv_in", CONV_2D),
        *(
            rule
            for j in range(4)
            for rule in weight_norm(f"{torch}.convs.{j + 1}", f"{jax}.convs.{j}", CONV_2D, _GAIN)
        ),
        *weight_norm(f"{torch}.conv_post", f"{jax}.conv_out", CONV_2D, _GAIN),
    )


# Names as in NVIDIA's package, `mpd.` and `cqtd.` in front of those of its two modules.
TORCH_RULES = (
    *weight_norm("mpd.discriminators.{i}.convs.{j}", "periods.{i}.convs.{j}", _COLUMN, _GAIN),
    *weight_norm("mpd.discriminators.{i}.conv_post", "periods.{i}.conv_out", _COLUMN, _GAIN),
    *_scale_rules("cqtd.discriminators.{i}", "scales.{i}"),
)
TORCH_UNUSED = (r".*\.(cqt_transform|resample)\..*",)

SHARDING_RULES = (
    (r"periods\..*\.kernel", P(None, "fsdp", "tensor")),
    (r".*", P()),
)
