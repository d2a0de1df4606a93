"""Spectra that a loss can be computed on: log-mels, and the constant-Q transform.

    wave [B, T] -> frames -> |FFT| -> mel -> log                     the spectrogram of S2M; a loss
                -> octave by octave: complex sinusoids, half the rate      what a discriminator sees

All framing is done with slices: gathering frames by index has a scatter for a gradient, which is
slow.

Dims: B rows, T samples, N frames, M mel bins, W bins of all octaves.

Source: BigVGAN-v2 (multi-scale mel loss), MS-SB-CQT discriminator (arXiv:2311.14957); the transform
is that of nnAudio's CQT2010v2 (MIT).
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import scipy.signal

from indextts2_jax.audio import wav
from indextts2_jax.audio.mel import MelConfig, mel_filters

WINDOWS = (32, 64, 128, 256, 512, 1024, 2048)  # samples, of the multi-scale loss
NUM_MELS = (5, 10, 20, 40, 80, 160, 320)
_FLOOR = 1e-5  # of a mel magnitude


def _frames(x: jax.Array, size: int, hop: int) -> jax.Array:
    """Cuts x [B, T] into overlapping frames [B, N, size]; `size` is a multiple of `hop`."""
    per_frame = size // hop
    N = (x.shape[1] - size) // hop + 1
    pieces = x[:, : (N + per_frame - 1) * hop].reshape(len(x), -1, hop)
    return jnp.concatenate([pieces[:, i : i + N] for i in range(per_frame)], axis=2)


def _mel(x: jax.Array, cfg: MelConfig, padding: int, epsilon: float) -> jax.Array:
    """Computes mel magnitudes [B, N, M] of x [B, T], reflected at both ends."""
    x = jnp.pad(x.astype(jnp.float32), ((0, 0), (padding, padding)), mode="reflect")
    window = np.asarray(scipy.signal.get_window("hann", cfg.n_fft), np.float32)
    spectrum = jnp.fft.rfft(_frames(x, cfg.n_fft, cfg.hop_length) * window)
    magnitude = jnp.sqrt(spectrum.real**2 + spectrum.imag**2 + epsilon)
    return magnitude @ mel_filters(cfg)


def log_mel(samples: jax.Array, cfg: MelConfig) -> jax.Array:
    """Computes the spectrogram of `indextts2_jax.audio.mel.log_mel`, for gradients.

    Args:
      samples: [B, T] in [-1, 1]; T is a multiple of the hop, which divides the FFT's size.
      cfg: of the spectrogram.

    Returns:
      [B, T / hop, M] natural log, float32.
    """
    mel = _mel(samples, cfg, (cfg.n_fft - cfg.hop_length) // 2, 1e-9)
    return jnp.log(jnp.maximum(mel, _FLOOR))


def multi_scale_mel_loss(a: jax.Array, b: jax.Array, sample_rate: int) -> jax.Array:
    """Sums distances of log10-mels with windows from 32 to 2048 samples.

    Args:
      a: [B, T] samples, T > 1024.
      b: likewise.
      sample_rate: Hz.

    Returns:
      [B] float32.
    """
    rows = len(a)
    total = jnp.zeros(rows)
    for size, num_mels in zip(WINDOWS, NUM_MELS, strict=True):
        cfg = MelConfig(sample_rate, size, size // 4, num_mels)
        mel = _mel(jnp.concatenate([a, b]), cfg, size // 2, 1e-12)
        log = jnp.log10(jnp.maximum(mel, _FLOOR))
        total += jnp.mean(jnp.abs(log[:rows] - log[rows:]), axis=(1, 2))
    return total


def _fir(x: jax.Array, taps: np.ndarray, padding: int, stride: int) -> jax.Array:
    """Correlates x [B, T] with taps [K, C]: [B, T', C]."""
    return jax.lax.conv_general_dilated(
        x[..., None],
        jnp.asarray(taps[:, None], x.dtype),
        (stride,),
        [(padding, padding)],
        dimension_numbers=("NWC", "WIO", "NWC"),
    )


@functools.cache
def _doubling_taps(sample_rate: int) -> np.ndarray:
    """Makes what turns one sample into both of the doubled rate: [17, 2], its impulse response."""
    impulse = np.zeros(33, np.float32)
    impulse[16] = 1
    response = wav.resample_sinc(impulse, sample_rate, 2 * sample_rate).reshape(-1, 2)
    return response[8:25][::-1]


@functools.cache
def _halving_taps() -> np.ndarray:
    """Makes a steep low-pass at half the Nyquist rate: [256, 1]."""
    width = 0.001  # of the transition
    edges = [0.0, 0.5 / (1 + width), 0.5 * (1 + width), 1.0]
    taps = scipy.signal.firwin2(256, edges, [1.0, 1.0, 0.0, 0.0])
    return np.asarray(taps, np.float32)[:, None]


@functools.cache
def _octave_taps(lowest: float, sample_rate: float, bins: int) -> np.ndarray:
    """Makes windowed sinusoids of an octave's bins, cosines before negative sines: [K, 2 bins]."""
    quality = 1 / (2 ** (1 / bins) - 1)
    lengths = np.ceil(quality * sample_rate / (lowest * 2 ** (np.arange(bins) / bins))).astype(int)
    size = 1 << int(np.ceil(np.log2(lengths.max())))
    taps = np.zeros((size, bins), np.complex64)
    for k, length in enumerate(lengths):
        start = int(np.ceil((size - length) / 2)) - length % 2
        time = np.arange(-length // 2, -length // 2 + length)
        hz = lowest * 2 ** (k / bins)
        wave = np.exp(2j * np.pi * time * hz / sample_rate)
        wave = wave * scipy.signal.get_window("hann", length)
        taps[start : start + length, k] = wave / np.abs(wave).sum()
    return np.concatenate([taps.real, -taps.imag], axis=1)


LOWEST_HZ = 32.70  # C1


def constant_q(
    samples: jax.Array, sample_rate: int, hop: int, octaves: int, bins: int
) -> jax.Array:
    """Computes the constant-Q transform of samples at twice their rate.

    Args:
      samples: [B, T]; 2 T is a multiple of `hop`.
      sample_rate: Hz of `samples`.
      hop: samples of the doubled rate between frames, a multiple of 2^(octaves - 1).
      octaves: from LOWEST_HZ on.
      bins: of an octave.

    Returns:
      [B, 2 T / hop + 1, W, 2], real and imaginary parts, W = octaves * bins from low to high.
    """
    B, T = samples.shape
    x = _fir(samples, _doubling_taps(sample_rate), 8, 1).reshape(B, 2 * T)
    rate = 2 * sample_rate
    taps = _octave_taps(LOWEST_HZ * 2 ** (octaves - 1), rate, bins)
    parts = []
    for octave in range(octaves):
        y = _fir(x, taps, len(taps) // 2, hop >> octave)  # [B, N, 2 bins]
        parts.insert(0, y.reshape(B, -1, 2, bins))
        if octave < octaves - 1:
            x = _fir(x, _halving_taps(), 127, 2)[..., 0]
    hz = LOWEST_HZ * 2 ** (np.arange(octaves * bins) / bins)
    lengths = np.ceil(rate / hz / (2 ** (1 / bins) - 1))
    loudness = jnp.asarray(np.sqrt(lengths), jnp.float32)[:, None]
    return jnp.concatenate(parts, axis=3).swapaxes(2, 3) * loudness
