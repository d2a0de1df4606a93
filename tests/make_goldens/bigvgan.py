"""Writes tests/golden/bigvgan.npz with NVIDIA's bigvgan: `python -m tests.make_goldens.bigvgan`."""

import numpy as np
import torch
from bigvgan.bigvgan import BigVGAN
from bigvgan.env import AttrDict

from tests.common import GOLDEN

CONFIG = {
    "num_mels": 8,
    "upsample_initial_channel": 16,
    "upsample_rates": [4, 2],
    "upsample_kernel_sizes": [8, 4],
    "resblock": "1",
    "resblock_kernel_sizes": [3, 7],
    "resblock_dilation_sizes": [[1, 3], [5]],
    "activation": "snakebeta",
    "snake_logscale": True,
    "use_tanh_at_final": False,
    "use_bias_at_final": False,
}


@torch.no_grad()
def make_bigvgan() -> None:
    """One generator, clipped and without a final bias; its copy with tanh and a bias."""
    torch.manual_seed(0)
    clip = BigVGAN(AttrDict(CONFIG)).eval()
    for name, weight in clip.named_parameters():
        if name.endswith("weight_v"):
            weight.normal_()
        elif name.endswith("weight_g"):
            weight.uniform_(0.3, 0.6)
        else:
            weight.normal_(0.0, 0.2)
    tanh = BigVGAN(AttrDict(CONFIG, use_tanh_at_final=True, use_bias_at_final=True)).eval()
    weights = clip.state_dict()
    final_bias = torch.tensor([0.3])
    tanh.load_state_dict({**weights, "conv_post.bias": final_bias})

    mel = 4 * torch.randn(2, CONFIG["num_mels"], 19)
    arrays = {
        "mel": mel.transpose(1, 2),
        "wav_clip": clip(mel)[:, 0],
        "wav_tanh": tanh(mel)[:, 0],
        "final_bias": final_bias,
        **{f"w/{name}": w for name, w in weights.items()},
    }
    GOLDEN.mkdir(exist_ok=True)
    np.savez_compressed(GOLDEN / "bigvgan.npz", **{k: v.numpy() for k, v in arrays.items()})


if __name__ == "__main__":
    make_bigvgan()
