"""Whether attention says that a T2S reads: monotone, random and stuck heads, and padding."""

import jax
import numpy as np
import pytest

from train.objectives import alignment

T, L = 120, 30


def of(maps, text=L, codes=T):
    """Monotonicity of one head on one row."""
    lengths = np.array([text]), np.array([codes])
    return float(alignment.monotonicity(np.asarray(maps)[None, None], *lengths)[0, 0])


def path(positions, width=1.0):
    """Attention [T, L] about a position of each code."""
    distance = np.arange(L) - np.asarray(positions)[:, None]
    weight = np.exp(-0.5 * (distance / width) ** 2)
    return weight / weight.sum(axis=1, keepdims=True)


STEADY = np.linspace(0, L - 1, T)
PAUSED = np.concatenate([np.linspace(0, 10, 60), np.full(30, 10), np.linspace(10, L - 1, 30)])


def test_a_head_that_goes_through_the_text_has_1():
    assert of(path(STEADY)) > 0.95
    assert of(path(STEADY[::-1])) < -0.95
    assert of(path(PAUSED)) > 0.8
    assert of(0.5 * path(STEADY) + 0.5 / L) > 0.85  # half of it is on all tokens
    assert of(0.01 * path(STEADY)) > 0.95  # the rest is on codes and conditions
    assert of(1e-25 * path(STEADY)) > 0.95


@pytest.mark.parametrize("seed", range(3))
def test_a_head_that_does_not_has_about_0(seed):
    rng = np.random.default_rng(seed)
    jumps = of(path(rng.uniform(0, L, T), width=0.5))
    noise = of(jax.nn.softmax(rng.standard_normal((T, L)), axis=-1))
    drift = 0.5 + 0.01 * np.outer(np.linspace(-1, 1, T), np.linspace(-1, 1, L))
    stuck = of(path(np.full(T, 12)))
    trembling = of(path(12 + rng.uniform(-1, 1, T)))
    values = jumps, noise, of(drift / drift.sum(axis=1, keepdims=True)), stuck, trembling
    assert np.abs(values).max() < 0.25
    assert of(np.full((T, L), 1 / L)) == pytest.approx(0, abs=1e-6)
    assert of(path(12 + np.linspace(-1, 1, T))) < 0.1  # passes by two tokens of thirty
    assert of(np.zeros((T, L))) == of(np.ones((T, L))[:, -1:], text=1) == 0


def test_padding_does_not_count():
    want = of(path(PAUSED))
    padded = np.full((T + 9, L + 7), 0.3)
    padded[:T, 7:] = path(PAUSED)
    assert of(padded, L, T) == pytest.approx(want, abs=1e-5)
