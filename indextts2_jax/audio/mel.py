"""Log-mel spectrogram of S2M and the vocoder.

    [T] samples -> reflect padding, STFT magnitude [T_mel, n_fft / 2 + 1] -> mel -> log [T_mel, M]

Dims: T samples, T_mel frames (floor(T / hop)), M mel bins.
Source: spec section 4; the same numbers as BigVGAN's mel.
"""

import dataclasses
import functools
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view


@dataclasses.dataclass(frozen=True)
class MelConfig:
    """Parameters of the spectrogram; the defaults are the released ones."""

    sample_rate: int = 22050  # Hz
    n_fft: int = 1024  # samples, also the window's length
    hop_length: int = 256  # samples
    num_mels: int = 80
    fmin: float = 0.0  # Hz
    fmax: float | None = None  # Hz; None = half the sample rate

    @classmethod
    def from_release(cls, spect_params: Mapping[str, Any], sample_rate: int) -> "MelConfig":
        """Reads `s2mel.preprocess_params.spect_params` of a released config.yaml.

        Raises:
          ValueError: the window is shorter than the FFT.
        """
        if spect_params["win_length"] != spect_params["n_fft"]:
            raise ValueError(
                f"win_length {spect_params['win_length']}, want n_fft {spect_params['n_fft']}"
            )
        return cls(
            sample_rate=sample_rate,
            n_fft=spect_params["n_fft"],
            hop_length=spect_params["hop_length"],
            num_mels=spect_params["n_mels"],
            fmin=float(spect_params.get("fmin", 0)),
            # The original knows two cases: the word "None", and 8 kHz for anything else.
            fmax=None if spect_params.get("fmax", "None") == "None" else 8000.0,
        )

    @classmethod
    def from_vocoder(cls, config: Mapping[str, Any]) -> "MelConfig":
        """Reads the `config.json` of a BigVGAN.

        Raises:
          ValueError: the window is shorter than the FFT.
        """
        if config["win_size"] != config["n_fft"]:
            raise ValueError(f"win_size {config['win_size']}, want n_fft {config['n_fft']}")
        return cls(
            sample_rate=config["sampling_rate"],
            n_fft=config["n_fft"],
            hop_length=config["hop_size"],
            num_mels=config["num_mels"],
            fmin=float(config["fmin"]),
            fmax=None if config["fmax"] is None else float(config["fmax"]),
        )


def log_mel(samples: np.ndarray, cfg: MelConfig) -> np.ndarray:
    """Computes the natural log of the mel magnitudes, at least log(1e-5).

    Args:
      samples: [T] float in [-1, 1] at `cfg.sample_rate`, T > (n_fft - hop_length) / 2.
      cfg: the spectrogram's parameters.

    Returns:
      [floor(T / hop_length), M] float32.
    """
    padded = np.pad(samples.astype(np.float32), (cfg.n_fft - cfg.hop_length) // 2, mode="reflect")
    frames = sliding_window_view(padded, cfg.n_fft)[:: cfg.hop_length]  # [T_mel, n_fft]
    phase = np.arange(cfg.n_fft) / cfg.n_fft
    window = (0.5 - 0.5 * np.cos(2 * np.pi * phase)).astype(np.float32)  # periodic Hann
    spectrum = np.fft.rfft(frames * window)
    magnitude = np.sqrt(spectrum.real**2 + spectrum.imag**2 + 1e-9)
    mel = magnitude.astype(np.float32) @ mel_filters(cfg)
    return np.log(np.maximum(mel, 1e-5))


@functools.lru_cache(maxsize=8)
def mel_filters(cfg: MelConfig) -> np.ndarray:
    """Triangles on Slaney's mel scale with Slaney's area norm, [n_fft / 2 + 1, M] float32.

    The table of `librosa.filters.mel`, without the 0.7 s that importing it takes.
    """
    fmax = cfg.sample_rate / 2 if cfg.fmax is None else cfg.fmax
    mels = np.linspace(_hz_to_mel(cfg.fmin), _hz_to_mel(fmax), cfg.num_mels + 2)
    edges = _mel_to_hz(mels)
    low, centre, high = edges[:-2], edges[1:-1], edges[2:]
    hz = np.fft.rfftfreq(cfg.n_fft, 1 / cfg.sample_rate)[:, None]
    rising, falling = (hz - low) / (centre - low), (high - hz) / (high - centre)
    triangles = np.maximum(0, np.minimum(rising, falling))
    return (triangles * (2 / (high - low))).astype(np.float32)


# Slaney's scale: 3 mel per 200 Hz up to 1 kHz, then 27 mel per factor of 6.4.
_KNEE_HZ, _KNEE_MEL, _MEL_PER_LOG = 1000.0, 15.0, 27 / np.log(6.4)


def _hz_to_mel(hz: float) -> float:
    if hz < _KNEE_HZ:
        return hz * _KNEE_MEL / _KNEE_HZ
    return _KNEE_MEL + _MEL_PER_LOG * np.log(hz / _KNEE_HZ)


def _mel_to_hz(mel: np.ndarray) -> np.ndarray:
    above = _KNEE_HZ * np.exp((mel - _KNEE_MEL) / _MEL_PER_LOG)
    return np.where(mel < _KNEE_MEL, mel * _KNEE_HZ / _KNEE_MEL, above)
