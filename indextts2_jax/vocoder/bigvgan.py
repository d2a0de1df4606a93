"""BigVGAN-v2 generator: log-mel spectrogram -> waveform.

Data flow:   mel [B, T, M] -> conv_in [B, T, C]
               -> per stage: upsample by its rate, halve C, mean of the anti-aliased residual blocks
               -> snake -> conv_out -> clip (or tanh) -> wav [B, T * hop_length]

Every activation works at twice its rate: FIR up, snake, FIR down. The FIRs replicate their input
at its ends and the convolutions see zeros there; with `lengths` both happen at the true end of each
item, in every stage, so that a padded mel gives the same samples as the bare one.

Dims: B batch, T frames of the stage at hand, M mel bins, C channels, K kernel, R upsampling rate.

Source: BigVGAN (arXiv:2206.04658) and NVIDIA's bigvgan_v2_22khz_80band_256x (MIT).
"""

import dataclasses
import functools
import math
import operator
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.sharding import PartitionSpec as P

from indextts2_jax.convert import CONV_1D, Layout, Rule, weight_norm
from indextts2_jax.nn.conv import WeightNormConv, normed
from indextts2_jax.nn.masking import length_mask, zero_padding


@dataclasses.dataclass(frozen=True)
class BigVGANConfig:
    """Architecture of the generator. The released model is `indextts2()`.

    Attributes:
      num_mels: mel bins of the input.
      width: channels after the first convolution; every stage halves them.
      upsample_rates: one stage per rate, even; the transposed kernels are twice as long.
      block_kernels: kernel size of each residual block of a stage.
      block_dilations: per residual block, the dilation of each of its units.
      final_tanh: bound the waveform with tanh instead of clipping it.
      final_bias: the last convolution has a bias.
    """

    num_mels: int
    width: int
    upsample_rates: tuple[int, ...]
    block_kernels: tuple[int, ...] = (3, 7, 11)
    block_dilations: tuple[tuple[int, ...], ...] = ((1, 3, 5),) * 3
    final_tanh: bool = False
    final_bias: bool = False

    @property
    def hop_length(self) -> int:
        """Waveform samples per mel frame."""
        return math.prod(self.upsample_rates)

    @classmethod
    def indextts2(cls) -> "BigVGANConfig":
        """Returns the settings of NVIDIA's bigvgan_v2_22khz_80band_256x, 112 231 249 parameters."""
        return cls(num_mels=80, width=1536, upsample_rates=(4, 4, 2, 2, 2, 2))

    @classmethod
    def tiny(cls) -> "BigVGANConfig":
        """Returns two stages, 8 samples per frame; for tests."""
        return cls(
            num_mels=8,
            width=16,
            upsample_rates=(4, 2),
            block_kernels=(3, 7),
            block_dilations=((1, 3), (5,)),
        )

    @classmethod
    def from_release(cls, config_json: Mapping[str, Any]) -> "BigVGANConfig":
        """Reads the `config.json` that lies next to a published generator.

        Args:
          config_json: the parsed file.

        Returns:
          The architecture it describes.

        Raises:
          ValueError: the file describes a variant that this module does not implement; the message
            lists every setting that differs.
        """
        rates = tuple(config_json["upsample_rates"])
        kernels = tuple(config_json["upsample_kernel_sizes"])
        wanted = {
            "resblock": "1",
            "activation": "snakebeta",
            "snake_logscale": True,
            "upsample_kernel_sizes": tuple(2 * rate for rate in rates),
            "hop_size": math.prod(rates),
        }
        given = {**config_json, "upsample_kernel_sizes": kernels}
        errors = [
            f"{key}: got {given.get(key)!r}, want {value!r}"
            for key, value in wanted.items()
            if given.get(key) != value
        ]
        if any(rate % 2 for rate in rates):
            errors.append(f"upsample_rates: got {rates}, want even numbers")
        if errors:
            raise ValueError("unsupported BigVGAN config:\n  " + "\n  ".join(errors))
        return cls(
            num_mels=config_json["num_mels"],
            width=config_json["upsample_initial_channel"],
            upsample_rates=rates,
            block_kernels=tuple(config_json["resblock_kernel_sizes"]),
            block_dilations=tuple(map(tuple, config_json["resblock_dilation_sizes"])),
            # Files from before these two settings existed mean True.
            final_tanh=config_json.get("use_tanh_at_final", True),
            final_bias=config_json.get("use_bias_at_final", True),
        )


def kaiser_sinc(num_taps: int = 12, half_width: float = 0.3) -> np.ndarray:
    """Designs a low-pass FIR at half the Nyquist rate, unit gain at 0 Hz: [num_taps] float32."""
    attenuation = 2.285 * (num_taps // 2 - 1) * math.pi * 4 * half_width + 7.95  # dB
    window = np.kaiser(num_taps, 0.1102 * (attenuation - 8.7))
    taps = window * np.sinc((np.arange(num_taps) - (num_taps - 1) / 2) / 2)
    return (taps / taps.sum()).astype(np.float32)


# sin^2(r) = r^2 - r^4 / 3 + 2 r^6 / 45 - ...; eight terms are exact to 7e-8 up to r = pi / 2.
_SIN_SQUARED_SERIES = [(-1) ** k * 2 ** (2 * k + 1) / math.factorial(2 * k + 2) for k in range(8)]
# pi in two parts; products of the first with integers up to 2^16 are exact in float32.
_PI_HIGH = 3.140625
_PI_LOW = math.pi - _PI_HIGH


def sin_squared(x: jax.Array) -> jax.Array:
    """Computes sin(x)^2 of a float32 array, to 3e-7 for |x| up to 1e4; in [0, 1] for any finite x.

    With XLA's sine the whole generator takes 1.3 times as long on a CPU.
    """
    turns = jnp.round(x * np.float32(1 / math.pi))
    reduced = x - turns * np.float32(_PI_HIGH) - turns * np.float32(_PI_LOW)  # [-pi/2, pi/2]
    reduced = jnp.clip(reduced, -math.pi / 2, math.pi / 2)
    square = reduced * reduced
    series = jnp.full_like(square, _SIN_SQUARED_SERIES[-1])
    for coefficient in _SIN_SQUARED_SERIES[-2::-1]:
        series = series * square + np.float32(coefficient)
    return series * square


@jax.custom_jvp
def _clip(x: jax.Array) -> jax.Array:
    """Limits samples to -1 .. 1; the gradient passes, so that what is too loud learns to be less.

    The gradient of a plain clip is zero there: a generator that has become too loud, as one that
    learns from nothing at a high rate may, would stay so for ever.
    """
    return jnp.clip(x, -1, 1)


_clip.defjvps(lambda tangent, _, x: tangent)


def _zero_after(x: jax.Array, lengths: jax.Array | None) -> jax.Array:
    return x if lengths is None else zero_padding(x, length_mask(lengths, x.shape[1]))


def _last_frame(x: jax.Array, lengths: jax.Array) -> jax.Array:
    """Returns the last valid frame of x [B, T, C]: [B, 1, C]."""
    return jnp.take_along_axis(x, jnp.maximum(lengths - 1, 0)[:, None, None], axis=1)


def _fill_after(x: jax.Array, lengths: jax.Array, value: jax.Array) -> jax.Array:
    """Sets the frames of x [B, T, C] that follow `lengths` to `value` [B, 1, C]."""
    return jnp.where(length_mask(lengths, x.shape[1])[..., None], x, value)


def _sum(terms: Iterable[jax.Array]) -> jax.Array:
    return functools.reduce(operator.add, terms)


def _fir(x: jax.Array, taps: Sequence[jax.Array], start: int, length: int) -> jax.Array:
    """Computes sum_k taps[k] * x[:, start + k + t] for t < length."""
    return _sum(x[:, start + k : start + k + length] * tap for k, tap in enumerate(taps))


class AntiAliasedSnake(nnx.Module):
    """SnakeBeta, u + sin^2(e^alpha u) / e^beta, at twice the rate of its input.

    The even and the odd samples of the doubled rate stay two arrays: each FIR is then six shifted
    multiply-adds per output, and nothing is interleaved or strided. The usual form, convolutions
    with one group per channel, is 70 times slower on a CPU.
    """

    def __init__(self, features: int):
        self.alpha = nnx.Param(jnp.zeros(features))
        self.beta = nnx.Param(jnp.zeros(features))

    def __call__(
        self, x: jax.Array, taps: Sequence[jax.Array], lengths: jax.Array | None
    ) -> jax.Array:
        """Maps [B, T, C] to [B, T, C], zero after `lengths`; float32 inside.

        Args:
          x: [B, T, C].
          taps: 12 float32 scalars, the FIR.
          lengths: [B] int32 valid frames; None if all are.

        Returns:
          [B, T, C] of the dtype of x.
        """
        dtype, T = x.dtype, x.shape[1]
        x = x.astype(jnp.float32)
        frequency = jnp.exp(self.alpha[...].astype(jnp.float32))
        amplitude = 1 / (jnp.exp(self.beta[...].astype(jnp.float32)) + 1e-9)

        def snake(u: jax.Array) -> jax.Array:
            return u + amplitude * sin_squared(frequency * u)

        if lengths is not None:
            x = _fill_after(x, lengths, _last_frame(x, lengths))
        x = 2 * jnp.pad(x, ((0, 0), (3, 3), (0, 0)), mode="edge")  # each phase has half the taps
        # Without the barriers XLA computes the padded arrays anew for each shift: 3 times slower.
        x = jax.lax.optimization_barrier(x)
        even = snake(_fir(x, taps[11::-2], 0, T))
        odd = snake(_fir(x, taps[10::-2], 1, T))

        # The doubled signal is even[0], odd[0], even[1], ...: it starts in `even`, ends in `odd`.
        first, last = even[:, :1], odd[:, -1:]
        if lengths is not None:
            last = _last_frame(odd, lengths)
            even, odd = _fill_after(even, lengths, last), _fill_after(odd, lengths, last)
        even = jnp.concatenate([first] * 2 + [even] + [last] * 3, axis=1)
        odd = jnp.concatenate([first] * 3 + [odd] + [last] * 2, axis=1)
        even, odd = jax.lax.optimization_barrier((even, odd))
        y = _fir(odd, taps[::2], 0, T) + _fir(even, taps[1::2], 0, T)
        return _zero_after(y, lengths).astype(dtype)


class Upsample(nnx.Module):
    """Weight-normed transposed convolution with kernel 2 R and stride R, as one matrix product.

    The kernel is [K, out, in]: torch's weight norm of a transposed convolution is per *input*
    channel, which is the last axis here, as in every other weight-normed layer.
    """

    def __init__(self, in_features: int, out_features: int, rate: int, *, rngs: nnx.Rngs):
        init = nnx.initializers.lecun_normal(in_axis=-1, out_axis=-2)
        kernel = init(rngs.params(), (2 * rate, out_features, in_features))
        self.kernel = nnx.Param(kernel)
        self.gain = nnx.Param(jnp.sqrt(jnp.sum(kernel**2, (0, 1))))  # [in]
        self.bias = nnx.Param(jnp.zeros(out_features))
        self.rate = rate

    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps [B, T, in] to [B, T * R, out]."""
        B, T, _ = x.shape
        R = self.rate
        gain = None if self.gain is None else self.gain[...]
        kernel = normed(self.kernel[...], gain)  # [2 R, out, in]
        y = jnp.einsum("bti,koi->btko", x, kernel)  # frame t covers the samples R t .. R t + 2 R
        y = y.reshape(B, T, 2, R, -1)
        y = jnp.pad(y[:, :, 0], ((0, 0), (0, 1), (0, 0), (0, 0))) + jnp.pad(
            y[:, :, 1], ((0, 0), (1, 0), (0, 0), (0, 0))
        )  # [B, T + 1, R, out], overlap-add
        y = y.reshape(B, (T + 1) * R, -1)[:, R // 2 : R // 2 + T * R]
        return y + self.bias[...]


class ResidualBlock(nnx.Module):
    """AMP block: per dilation, x += conv(snake(dilated_conv(snake(x))))."""

    def __init__(
        self, features: int, kernel_size: int, dilations: tuple[int, ...], *, rngs: nnx.Rngs
    ):
        def conv(dilation: int) -> WeightNormConv:
            padding = dilation * (kernel_size - 1) // 2
            return WeightNormConv(
                features, features, kernel_size, dilation=dilation, padding=padding, rngs=rngs
            )

        self.activations = nnx.List([AntiAliasedSnake(features) for _ in range(2 * len(dilations))])
        self.dilated_convs = nnx.List([conv(d) for d in dilations])
        self.convs = nnx.List([conv(1) for _ in dilations])

    def __call__(
        self, x: jax.Array, taps: Sequence[jax.Array], lengths: jax.Array | None
    ) -> jax.Array:
        """Maps [B, T, C] to [B, T, C]; what follows `lengths` is undefined."""
        for i, (dilated, plain) in enumerate(zip(self.dilated_convs, self.convs, strict=True)):
            y = dilated(self.activations[2 * i](x, taps, lengths))
            x = x + plain(self.activations[2 * i + 1](y, taps, lengths))
        return x


class BigVGAN(nnx.Module):
    """The generator."""

    def __init__(self, cfg: BigVGANConfig, *, rngs: nnx.Rngs):
        widths = [cfg.width // 2**i for i in range(len(cfg.upsample_rates) + 1)]
        self.conv_in = WeightNormConv(cfg.num_mels, cfg.width, 7, padding=3, rngs=rngs)
        self.upsamples = nnx.List(
            [
                Upsample(widths[i], widths[i + 1], rate, rngs=rngs)
                for i, rate in enumerate(cfg.upsample_rates)
            ]
        )
        self.blocks = nnx.List(
            [
                ResidualBlock(width, kernel_size, dilations, rngs=rngs)
                for width in widths[1:]
                for kernel_size, dilations in zip(
                    cfg.block_kernels, cfg.block_dilations, strict=True
                )
            ]
        )
        self.snake_out = AntiAliasedSnake(widths[-1])
        self.conv_out = WeightNormConv(
            widths[-1], 1, 7, padding=3, use_bias=cfg.final_bias, rngs=rngs
        )
        # A constant, but torch stores it with the weights, rounded where those are float16.
        self.fir = nnx.BatchStat(jnp.asarray(kaiser_sinc()))
        self.cfg = cfg

    def __call__(self, mel: jax.Array, lengths: jax.Array | None = None) -> jax.Array:
        """Synthesizes the waveform of a mel spectrogram.

        Args:
          mel: [B, T, M] natural-log mel spectrogram.
          lengths: [B] int32 valid frames; None if all are, which costs less.

        Returns:
          [B, T * hop_length] float32 in [-1, 1], zero after `lengths * hop_length`.
        """
        num_blocks = len(self.cfg.block_kernels)
        taps = list(self.fir[...].astype(jnp.float32))
        x = _zero_after(mel.astype(self.conv_in.kernel.dtype), lengths)
        x = self.conv_in(x)
        for i, upsample in enumerate(self.upsamples):
            x = upsample(_zero_after(x, lengths))
            lengths = None if lengths is None else lengths * upsample.rate
            blocks = self.blocks[i * num_blocks : (i + 1) * num_blocks]
            x = _sum([block(x, taps, lengths) for block in blocks]) / num_blocks
        x = self.conv_out(self.snake_out(x, taps, lengths)).astype(jnp.float32)
        x = jnp.tanh(x) if self.cfg.final_tanh else _clip(x)
        return _zero_after(x, lengths)[..., 0]


_FIR = Layout("fir", lambda w: w[0, 0], lambda w: w[None, None])  # [1, 1, K] <-> [K]

# Names as in NVIDIA's `bigvgan_generator.pt`, under its key `generator`.
TORCH_RULES = (
    *weight_norm("conv_pre", "conv_in", CONV_1D),
    *weight_norm("ups.{i}.0", "upsamples.{i}", CONV_1D),
    *weight_norm("resblocks.{i}.convs1.{j}", "blocks.{i}.dilated_convs.{j}", CONV_1D),
    *weight_norm("resblocks.{i}.convs2.{j}", "blocks.{i}.convs.{j}", CONV_1D),
    Rule("resblocks.{i}.activations.{j}.act.alpha", "blocks.{i}.activations.{j}.alpha"),
    Rule("resblocks.{i}.activations.{j}.act.beta", "blocks.{i}.activations.{j}.beta"),
    Rule("activation_post.act.alpha", "snake_out.alpha"),
    Rule("activation_post.act.beta", "snake_out.beta"),
    *weight_norm("conv_post", "conv_out", CONV_1D),
    Rule("activation_post.upsample.filter", "fir", _FIR),
)
TORCH_UNUSED = (r"(?!activation_post\.upsample\.).*\.filter",)  # 217 copies of `fir`

# The channels of the last stages are few, and divide only by 8.
SHARDING_RULES = (
    (r"(conv_in|blocks\..*)\.kernel", P(None, "fsdp", "tensor")),
    (r"upsamples\..*\.kernel", P(None, "tensor", "fsdp")),
    (r".*", P()),
)
