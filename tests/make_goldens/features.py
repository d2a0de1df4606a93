"""Writes tests/golden/features.npz: `python -m tests.make_goldens.features`.

fbank by kaldi-native-fbank, M4T features by transformers, log-mel by bigvgan.
"""

import kaldi_native_fbank
import numpy as np
import torch
from bigvgan.meldataset import mel_spectrogram
from transformers import SeamlessM4TFeatureExtractor

from tests.common import GOLDEN


def voiced(length: int, rate: int) -> np.ndarray:
    """A gliding pulse train with noise, 16 bit: speech-like, and no band is empty."""
    time = np.arange(length) / rate
    pitch = 140 + 60 * np.sin(2 * np.pi * 3 * time)
    phase = 2 * np.pi * np.cumsum(pitch) / rate
    wave = sum(np.sin(k * phase) / k for k in range(1, 25)) * (0.6 + 0.4 * np.cos(9 * time))
    noise = np.random.default_rng(0).normal(size=length)
    return np.round(6000 * wave + 400 * noise).astype(np.int16)


def kaldi(samples: np.ndarray) -> np.ndarray:
    options = kaldi_native_fbank.FbankOptions()
    options.frame_opts.dither = 0.0
    options.mel_opts.num_bins = 80
    bank = kaldi_native_fbank.OnlineFbank(options)
    bank.accept_waveform(16000, samples.tolist())
    bank.input_finished()
    return np.stack([bank.get_frame(i) for i in range(bank.num_frames_ready)])


def make_features() -> None:
    """Even and odd numbers of fbank frames, and a mel whose last hop is not full."""
    pcm_16k, pcm_22k = voiced(6000, 16000), voiced(7000, 22050)
    extractor = SeamlessM4TFeatureExtractor(padding_value=1.0)
    arrays = {"pcm_16k": pcm_16k, "pcm_22k": pcm_22k}
    for name, length in {"even": 6000, "odd": 5900}.items():
        samples = (pcm_16k[:length] / 2**15).astype(np.float32)
        arrays[f"fbank_{name}"] = kaldi(samples)
        features = extractor(samples, sampling_rate=16000, return_tensors="np")
        arrays[f"m4t_{name}"] = features["input_features"][0]
        arrays[f"mask_{name}"] = features["attention_mask"][0] > 0
    mel = mel_spectrogram(
        torch.from_numpy(pcm_22k[None] / np.float32(2**15)), 1024, 80, 22050, 256, 1024, 0, None
    )
    arrays["log_mel"] = mel[0].T.numpy()
    np.savez_compressed(GOLDEN / "features.npz", **arrays)


if __name__ == "__main__":
    make_features()
