"""Writes tests/golden/ctc.npz: `python -m tests.make_goldens.ctc`. With PyTorch 2.13."""

import numpy as np
import torch

from tests.common import GOLDEN

B, T, K, L = 5, 12, 6, 5


def make() -> None:
    """Losses of random logits, and their gradients; the last row cannot hold its labels."""
    rng = np.random.default_rng(0)
    logits = torch.tensor(2 * rng.standard_normal((B, T, K)), dtype=torch.float32)
    logits.requires_grad_()
    labels = torch.tensor(rng.integers(1, K, (B, L)))
    labels[0] = torch.tensor([1, 1, 2, 2, 2])
    labels[4] = 3
    frame_lengths = torch.tensor([T, 9, T, 5, 8])
    label_lengths = torch.tensor([L, 3, 0, 4, L])
    losses = torch.nn.functional.ctc_loss(
        logits.log_softmax(2).transpose(0, 1), labels, frame_lengths, label_lengths,
        reduction="none", zero_infinity=True,
    )  # fmt: skip
    (gradient,) = torch.autograd.grad(losses.sum(), logits)
    arrays = {
        "logits": logits,
        "labels": labels.int(),
        "frame_lengths": frame_lengths.int(),
        "label_lengths": label_lengths.int(),
        "losses": losses,
        "gradient": gradient,
    }
    values: dict = {name: x.detach().numpy() for name, x in arrays.items()}
    np.savez(GOLDEN / "ctc.npz", **values)


if __name__ == "__main__":
    make()
