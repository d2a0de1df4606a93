"""Writes tests/golden/campplus.npz with speakerlab: `python -m tests.make_goldens.campplus`."""

from collections import OrderedDict

import numpy as np
import torch
from speakerlab.models.campplus.DTDNN import FCM
from speakerlab.models.campplus.layers import (
    CAMDenseTDNNBlock,
    DenseLayer,
    StatsPool,
    TDNNLayer,
    TransitLayer,
    get_nonlinear,
)
from torch import nn

from tests.common import GOLDEN

NORM = "batchnorm-relu"
FEAT_DIM, EMBEDDING, HEAD_CHANNELS, INIT_CHANNELS, GROWTH, BN_SIZE = 16, 6, 4, 8, 4, 2
BLOCKS = ((2, 1), (1, 2), (1, 2))  # layers, dilation


def build() -> nn.Module:
    """speakerlab's CAMPPlus in small: its class fixes the depth and the width of the head."""
    inner = BN_SIZE * GROWTH
    head = FCM(m_channels=HEAD_CHANNELS, feat_dim=FEAT_DIM)
    tdnn = TDNNLayer(head.out_channels, INIT_CHANNELS, 5, stride=2, padding=-1, config_str=NORM)
    xvector, width = OrderedDict(tdnn=tdnn), INIT_CHANNELS
    for i, (layers, dilation) in enumerate(BLOCKS, start=1):
        xvector[f"block{i}"] = CAMDenseTDNNBlock(layers, width, GROWTH, inner, 3, dilation=dilation)
        width += layers * GROWTH
        xvector[f"transit{i}"] = TransitLayer(width, width // 2, bias=False, config_str=NORM)
        width //= 2
    xvector["out_nonlinear"] = get_nonlinear(NORM, width)
    xvector["stats"] = StatsPool()
    xvector["dense"] = DenseLayer(2 * width, EMBEDDING, config_str="batchnorm_")
    return nn.Sequential(OrderedDict(head=head, xvector=nn.Sequential(xvector))).eval()


@torch.no_grad()
def make_campplus() -> None:
    """Prompts of 263 frames (one whole segment and a part) and of 3 (the fewest)."""
    torch.manual_seed(0)
    model = build()
    for name, tensor in model.state_dict().items():
        if name.endswith("running_var"):
            tensor.uniform_(0.5, 1.5)
        elif tensor.ndim == 1 and name.endswith("weight"):
            tensor.normal_(1.0, 0.2)
        elif tensor.ndim == 1:
            tensor.normal_(0.0, 0.3)
    arrays = {}
    for name, frames in {"long": 263, "short": 3}.items():
        fbank = 2 * torch.randn(2, frames, FEAT_DIM)
        arrays[f"fbank_{name}"] = fbank
        arrays[f"style_{name}"] = model(fbank.transpose(1, 2))
    weights = {f"w/{name}": w for name, w in model.state_dict().items()}
    GOLDEN.mkdir(exist_ok=True)
    np.savez_compressed(
        GOLDEN / "campplus.npz", **{k: v.numpy() for k, v in {**arrays, **weights}.items()}
    )


if __name__ == "__main__":
    make_campplus()
