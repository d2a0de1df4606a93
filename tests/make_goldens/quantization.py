"""Writes tests/golden/quantization.npz: `python -m tests.make_goldens.quantization`. PyTorch 2.13.

The losses of RepCodec's quantizer from their formulas, and their gradients by autograd.
"""

import numpy as np
import torch
from torch.nn.functional import mse_loss, normalize

from tests.common import GOLDEN

B, T, D, Z, V = 3, 7, 6, 4, 10
COMMITMENT = 0.15


def make() -> None:
    """Rows of several lengths; the mean of a row is over its own frames."""
    rng = np.random.default_rng(0)

    def array(*shape: int) -> torch.Tensor:
        return torch.tensor(rng.standard_normal(shape), dtype=torch.float32)

    x, z, codebook, out = array(B, T, D), array(B, T, Z), array(V, Z), array(Z, D)
    lengths = torch.tensor([7, 4, 1])
    for leaf in (z, codebook, out):
        leaf.requires_grad_()
    losses = []
    for row, length in enumerate(lengths):
        vectors, target = z[row, :length], x[row, :length]
        codes = (normalize(vectors, dim=1) @ normalize(codebook, dim=1).T).argmax(dim=1)
        rows = codebook[codes]
        rebuilt = (vectors + (rows - vectors).detach()) @ out
        losses.append(
            mse_loss(rebuilt, target)
            + COMMITMENT * mse_loss(vectors, rows.detach())
            + mse_loss(rows, vectors.detach())
        )
    total = torch.stack(losses)
    gradients = torch.autograd.grad(total.sum(), (z, codebook, out))
    names = ("z_gradient", "codebook_gradient", "out_gradient")
    arrays = {"x": x, "z": z, "codebook": codebook, "out": out, "lengths": lengths.int()}
    arrays |= {"losses": total, **dict(zip(names, gradients, strict=True))}
    values: dict = {name: a.detach().numpy() for name, a in arrays.items()}
    np.savez(GOLDEN / "quantization.npz", **values)


if __name__ == "__main__":
    make()
