"""What a codebook learns: where gradients go, dead codes that revive, and how use is measured."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.common import GOLDEN
from train.objectives import quantization

RNG = np.random.default_rng(0)
Z = RNG.standard_normal((2, 5, 3)).astype(np.float32)
ROWS = RNG.standard_normal((2, 5, 3)).astype(np.float32)
MASK = np.arange(5) < np.array([5, 3])[:, None]


def test_commitment_moves_what_is_quantised_and_codebook_loss_the_rows():
    def loss(which, z, rows):
        return quantization.distances(z, rows, MASK)[which].sum()

    # d/dz of the mean square over 3 numbers of each of n frames
    frames = MASK.sum(axis=1)[:, None, None]
    want = np.where(MASK[..., None], 2 * (Z - ROWS) / (3 * frames), 0)
    for which, expected in ((0, (want, 0 * want)), (1, (0 * want, -want))):
        got = jax.grad(loss, (1, 2))(which, Z, ROWS)
        np.testing.assert_allclose(got, expected, rtol=1e-5, atol=1e-7)
    commitment, codebook = quantization.distances(jnp.asarray(Z), jnp.asarray(ROWS), MASK)
    np.testing.assert_allclose(commitment[1], np.mean((Z - ROWS)[1, :3] ** 2), rtol=1e-5)
    np.testing.assert_allclose(commitment, codebook)


def test_straight_through_passes_the_gradient_and_gives_the_rows():
    got, back = jax.vjp(lambda z: quantization.straight_through(z, ROWS), Z)
    np.testing.assert_allclose(got, ROWS, atol=1e-6)
    np.testing.assert_array_equal(back(ROWS)[0], ROWS)


def test_perplexity_is_the_number_of_codes_that_are_used_alike():
    codes = np.array([[0, 1, 2, 3, 3], [0, 1, 2, 9, 9]])
    counts = quantization.histogram(codes, MASK, 10)
    np.testing.assert_array_equal(counts, [2, 2, 2, 2, 0, 0, 0, 0, 0, 0])
    assert quantization.perplexity(counts) == pytest.approx(4)
    assert quantization.perplexity(jnp.zeros(10)) == pytest.approx(1)


def test_unused_codes_are_drawn_to_the_nearest_vector_and_used_ones_stay():
    codebook = np.stack([Z[0, 0], -Z[1, 0], 2 * Z[1, 0] + 0.01, Z[1, 4]])
    counts = np.array([3.0, 0, 0, 1])
    gradient = np.asarray(jax.grad(quantization.revival)(codebook, Z, MASK, counts))
    assert not np.any(gradient[[0, 3]])
    np.testing.assert_allclose(gradient[2], 2 * (codebook[2] - Z[1, 0]) / (4 * 3), rtol=1e-4)
    assert np.any(gradient[1])
    # Padding draws nothing: with all vectors but one masked, all go there.
    only = np.zeros_like(MASK)
    only[0, 2] = True
    gradient = jax.grad(quantization.revival)(codebook, Z, only, np.zeros(4))
    np.testing.assert_allclose(gradient, 2 * (codebook - Z[0, 2]) / (4 * 3), rtol=1e-4)


def test_revival_brings_a_dead_codebook_to_life():
    """Codes begin in all directions, vectors lie in one."""
    rng = np.random.default_rng(1)
    z = jnp.asarray(rng.standard_normal((4, 64, 8)) * 0.2 + 1, jnp.float32)
    mask = np.ones((4, 64), bool)

    def use(codebook):
        unit = codebook / jnp.linalg.norm(codebook, axis=1, keepdims=True)
        return quantization.histogram(jnp.argmax(z @ unit.T, axis=2), mask, 32)

    @jax.jit
    def step(codebook):
        gradient = jax.grad(quantization.revival)(codebook, z, mask, use(codebook))
        return codebook - 4 * gradient

    codebook = jnp.asarray(rng.standard_normal((32, 8)), jnp.float32)
    before = quantization.perplexity(use(codebook))
    for _ in range(200):
        codebook = step(codebook)
    after = quantization.perplexity(use(codebook))
    assert before < 3 and after > 2 * before, (before, after)


def test_correlation_is_pearsons():
    a, b = RNG.standard_normal((2, 50))
    assert quantization.correlation(a, b) == pytest.approx(np.corrcoef(a, b)[0, 1])
    assert quantization.correlation(a, np.ones(50)) == 0


def test_losses_and_gradients_are_those_of_pytorch():
    with np.load(GOLDEN / "quantization.npz") as file:
        want = dict(file)
    x, mask = want["x"], np.arange(7) < want["lengths"][:, None]

    def losses(z, codebook, out):
        unit = codebook / jnp.linalg.norm(codebook, axis=1, keepdims=True)
        rows = codebook[jnp.argmax(z @ unit.T, axis=2)]
        rebuilt = quantization.straight_through(z, rows) @ out
        commitment, of_rows = quantization.distances(z, rows, mask)
        return quantization.mean_square(rebuilt - x, mask) + 0.15 * commitment + of_rows

    leaves = want["z"], want["codebook"], want["out"]
    np.testing.assert_allclose(losses(*leaves), want["losses"], rtol=1e-5)
    gradients = jax.grad(lambda *x: losses(*x).sum(), (0, 1, 2))(*leaves)
    for name, gradient in zip(("z", "codebook", "out"), gradients, strict=True):
        np.testing.assert_allclose(gradient, want[f"{name}_gradient"], rtol=1e-4, atol=1e-6)
