"""Writes tests/golden/speaker.npz with speakerlab 0.0.6: `python -m tests.make_goldens.speaker`."""

import numpy as np
import torch
from speakerlab.loss.margin_loss import ArcMarginLoss

from tests.common import GOLDEN
from tests.make_goldens.campplus import FEAT_DIM, build

SCALE, MARGINS = 32.0, (0.0, 0.2, 0.5)


def margin_losses() -> dict[str, torch.Tensor]:
    """Losses of embeddings that lie in all directions, and their gradients."""
    embeddings, prototypes = torch.randn(6, 5).double(), torch.randn(4, 5).double()
    labels = torch.tensor([0, 1, 2, 3, 0, 1])
    embeddings[0] = 2 * prototypes[0] + 0.3 * embeddings[0]  # almost there
    embeddings[1] = -prototypes[1] + 0.1 * embeddings[1]  # beyond the margin
    arrays = {"embeddings": embeddings, "prototypes": prototypes, "labels": labels}
    for margin in MARGINS:
        inputs = [x.clone().requires_grad_() for x in (embeddings, prototypes)]
        cosines = torch.nn.functional.linear(*map(torch.nn.functional.normalize, inputs))
        loss = ArcMarginLoss(SCALE, margin)(cosines, labels)
        loss.backward()
        arrays[f"loss_{margin}"] = loss.detach()
        arrays[f"embeddings_{margin}"], arrays[f"prototypes_{margin}"] = [x.grad for x in inputs]
    return arrays


def batch_statistics() -> dict[str, torch.Tensor]:
    """A step of the small CAMPPlus in training mode: styles, gradients, moved statistics."""
    model = build().train()
    arrays = {f"w/{name}": w.clone() for name, w in model.state_dict().items()}
    fbank = 2 * torch.randn(4, 120, FEAT_DIM)
    styles = model(fbank.transpose(1, 2))
    towards = torch.randn(styles.shape)
    (styles * towards).sum().backward()
    arrays |= {"fbank": fbank, "styles": styles.detach(), "towards": towards}
    arrays |= {f"gradient/{name}": w.grad for name, w in model.named_parameters()}
    moved = {name: w for name, w in model.state_dict().items() if "running" in name}
    return arrays | {f"moved/{name}": w for name, w in moved.items()}


if __name__ == "__main__":
    torch.manual_seed(0)
    found = margin_losses() | batch_statistics()
    GOLDEN.mkdir(exist_ok=True)
    np.savez_compressed(GOLDEN / "speaker.npz", **{k: v.numpy() for k, v in found.items()})
