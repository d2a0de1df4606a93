"""Writes tests/golden/w2v_bert.npz with transformers: `python -m tests.make_goldens.w2v_bert`."""

import numpy as np
import torch
from transformers import Wav2Vec2BertConfig, Wav2Vec2BertModel

from tests.common import GOLDEN

# W2VBertConfig.tiny()
CONFIG = {
    "num_hidden_layers": 2,
    "hidden_size": 24,
    "num_attention_heads": 3,
    "intermediate_size": 40,
    "conv_depthwise_kernel_size": 7,
    "left_max_position_embeddings": 6,
    "right_max_position_embeddings": 3,
}


@torch.no_grad()
def make_w2v_bert() -> None:
    """A padded batch of two; the sequences are longer than the relative positions reach."""
    torch.manual_seed(0)
    model = Wav2Vec2BertModel(Wav2Vec2BertConfig(**CONFIG)).eval()
    for name, weight in model.named_parameters():
        if "norm" in name and name.endswith("weight"):
            weight.normal_(1.0, 0.2)
        else:
            weight.normal_(0.0, weight[0].numel() ** -0.5 if weight.ndim > 1 else 0.2)
    features = torch.randn(2, 15, 160)
    mask = torch.arange(15) < torch.tensor([[15], [11]])
    out = model(features, attention_mask=mask.long(), output_hidden_states=True)
    arrays = {"features": features, "mask": mask}
    arrays |= {f"hidden_{i}": h for i, h in enumerate(out.hidden_states)}
    weights = {f"w/{name}": w for name, w in model.state_dict().items()}
    np.savez_compressed(
        GOLDEN / "w2v_bert.npz", **{k: v.numpy() for k, v in {**arrays, **weights}.items()}
    )


if __name__ == "__main__":
    make_w2v_bert()
