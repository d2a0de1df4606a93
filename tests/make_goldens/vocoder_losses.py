"""Writes tests/golden/vocoder_losses.npz: `python -m tests.make_goldens.vocoder_losses`.

With NVIDIA's bigvgan 2.4.1 and what it builds on, nnAudio 0.3.4 and torchaudio 2.11.0. torchaudio's
compiled library does not load with every torch, and nothing here needs it: an empty module stands
for it.
"""

import sys
import types

import numpy as np
import torch

sys.modules["torchaudio._extension"] = types.ModuleType("torchaudio._extension")
sys.modules["torchaudio._extension"].__dict__.update(
    _IS_ALIGN_AVAILABLE=False, _IS_TORCHAUDIO_EXT_AVAILABLE=False, _IS_RIR_AVAILABLE=False,
    lazy_import_sox_ext=None, fail_if_no_align=lambda f: f, fail_if_no_rir=lambda f: f,
)  # fmt: skip
from bigvgan import loss as losses  # noqa: E402
from bigvgan.discriminators import (  # noqa: E402
    MultiPeriodDiscriminator,
    MultiScaleSubbandCQTDiscriminator,
)
from bigvgan.env import AttrDict  # noqa: E402

from tests.common import GOLDEN  # noqa: E402

RATE = 22050
CONFIG = AttrDict(
    {
        "mpd_reshapes": [2, 3],
        "discriminator_channel_mult": 1 / 32,  # 1, 4, 16, 32 and 32 channels
        "use_spectral_norm": False,
        "sampling_rate": RATE,
        "cqtd_filters": 4,
        "cqtd_max_filters": 64,
        "cqtd_hop_lengths": [512],
        "cqtd_n_octaves": [9],
        "cqtd_bins_per_octaves": [12],
    }
)


def make() -> None:
    """Losses of two waves and their gradients, of one discriminator of each kind."""
    torch.manual_seed(0)
    mpd, cqtd = MultiPeriodDiscriminator(CONFIG), MultiScaleSubbandCQTDiscriminator(CONFIG)
    rng = np.random.default_rng(0)
    time = np.arange(4096) / RATE
    real = np.stack([0.4 * np.sin(2 * np.pi * f * time) for f in (220, 1500)])
    real = torch.tensor(real + 0.05 * rng.standard_normal(real.shape), dtype=torch.float32)
    fake = torch.tensor(0.2 * rng.standard_normal(real.shape), dtype=torch.float32)
    fake.requires_grad_()
    y, y_hat = real[:, None], fake[:, None]

    mel = losses.MultiScaleMelSpectrogramLoss(RATE)(y, y_hat)
    arrays = {"real": real, "fake": fake, "mel": mel}
    arrays["gradient_mel"] = torch.autograd.grad(mel, fake)[0]
    arrays["cqt"] = cqtd.discriminators[0].cqt_transform(cqtd.discriminators[0].resample(real))
    outputs = [discriminator(y, y_hat) for discriminator in (mpd, cqtd)]
    scores = [[x for o in outputs for x in o[i]] for i in (0, 1)]
    features = [[x for o in outputs for x in o[i]] for i in (2, 3)]
    discriminator, _, _ = losses.discriminator_loss(*scores)
    generator, _ = losses.generator_loss(scores[1])
    matching = losses.feature_loss(*features)
    for name, value in (("generator", generator), ("matching", matching)):
        arrays |= {name: value}
        arrays[f"gradient_{name}"] = torch.autograd.grad(value, fake, retain_graph=True)[0]
    discriminator.backward()
    arrays["discriminator"] = discriminator
    for prefix, module in (("mpd", mpd), ("cqtd", cqtd)):
        for name, parameter in module.named_parameters():
            arrays[f"w/{prefix}.{name}"] = parameter
            arrays[f"g/{prefix}.{name}"] = parameter.grad
    np.savez_compressed(
        GOLDEN / "vocoder_losses.npz", **{k: v.detach().numpy() for k, v in arrays.items()}
    )


if __name__ == "__main__":
    make()
