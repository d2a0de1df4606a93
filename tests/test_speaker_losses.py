"""Margin loss and batch normalisation against speakerlab; error rates of scores made by hand."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from indextts2_jax.convert import to_jax
from indextts2_jax.nn.batch_norm import BatchNorm, RunningStatistic
from indextts2_jax.nn.pytree import abstract, fill, params, shapes
from indextts2_jax.prompt import campplus
from indextts2_jax.prompt.campplus import CAMPPlus, CAMPPlusConfig
from tests.common import load_golden, relative_error
from train.objectives.aam import Prototypes, margin_at, margin_losses
from train.objectives.verification import Errors, pair_scores, scores_figure


def golden_part(prefix):
    arrays = load_golden("speaker")
    return {n.removeprefix(prefix): x for n, x in arrays.items() if n.startswith(prefix)}


@pytest.mark.parametrize("margin", [0.0, 0.2, 0.5])
def test_margin_loss_and_its_gradients_equal_speakerlab(margin):
    golden = load_golden("speaker")
    model = abstract(lambda rngs: Prototypes(4, 5, rngs=rngs))

    def loss(embeddings, prototypes):
        cosines = fill(model, {"embedding": prototypes})(embeddings)
        return margin_losses(cosines, jnp.asarray(golden["labels"]), margin, 32.0).mean()

    inputs = [jnp.asarray(golden[n], jnp.float32) for n in ("embeddings", "prototypes")]
    got, gradients = jax.jit(jax.value_and_grad(loss, (0, 1)))(*inputs)
    np.testing.assert_allclose(got, golden[f"loss_{margin}"], rtol=1e-5)
    for name, gradient in zip(("embeddings", "prototypes"), gradients, strict=True):
        assert relative_error(gradient, golden[f"{name}_{margin}"]) < 1e-5, name


def test_the_loss_is_finite_where_the_embedding_is_its_prototype_or_nothing():
    model = fill(abstract(lambda rngs: Prototypes(2, 2, rngs=rngs)), {"embedding": jnp.eye(2)})

    def loss(x):
        return margin_losses(model(x), jnp.array([0, 0]), 0.2, 32.0).sum()

    assert np.isfinite(jax.grad(loss)(jnp.array([[3.0, 0.0], [0.0, 0.0]]))).all()


def test_the_margin_grows_between_two_shares_of_the_stage():
    got = [float(margin_at(jnp.float32(p), 0.4, 0.25, 0.75)) for p in (0, 0.25, 0.5, 0.75, 1)]
    np.testing.assert_allclose(got, [0, 0, 0.2, 0.4, 0.4], rtol=1e-6)
    assert float(margin_at(jnp.float32(0), 0.4, 0.0, 0.0)) == 0


@functools.cache
def trained():
    """Styles, gradients and moved statistics of the small CAMPPlus in training mode."""
    golden, weights = load_golden("speaker"), golden_part("w/")
    model = abstract(lambda rngs: CAMPPlus(CAMPPlusConfig.tiny(), rngs=rngs))
    arrays = to_jax(weights, campplus.TORCH_RULES, shapes(model), campplus.TORCH_UNUSED)

    @functools.partial(jax.jit, static_argnames="training")
    def run(arrays, fbank, *, training=True):
        def loss(arrays):
            filled = fill(model, arrays)
            if training:
                filled.train()
            styles = filled(fbank)
            statistics = params(filled, RunningStatistic)
            return jnp.sum(styles * golden["towards"]), (styles, statistics)

        return jax.grad(loss, has_aux=True)(arrays)

    return run, {n: jnp.asarray(x) for n, x in arrays.items()}, golden


def as_ours(tensors, of_all):
    """Arrays by our names of those of torch, which may lack some: zeros stand for them."""
    model = abstract(lambda rngs: CAMPPlus(CAMPPlusConfig.tiny(), rngs=rngs))
    filled = {n: tensors.get(n, np.zeros_like(w)) for n, w in of_all.items()}
    return to_jax(filled, campplus.TORCH_RULES, shapes(model), campplus.TORCH_UNUSED)


@pytest.mark.slow
def test_a_training_pass_equals_that_of_speakerlab():
    run, arrays, golden = trained()
    gradients, (styles, statistics) = run(arrays, golden["fbank"])
    assert relative_error(styles, golden["styles"]) < 1e-5
    weights = golden_part("w/")
    moved = as_ours(golden_part("moved/"), weights)
    for name, got in statistics.items():
        assert relative_error(got, moved[name]) < 1e-5, name
    wanted = as_ours(golden_part("gradient/"), weights)
    largest = max(np.abs(x).max() for x in wanted.values())
    for name, got in gradients.items():
        if name not in statistics:  # a bias before a norm has no gradient but rounding
            np.testing.assert_allclose(got, wanted[name], rtol=1e-3, atol=1e-5 * largest)


def test_padding_does_not_count_in_the_statistics_of_a_batch():
    norm = BatchNorm(3)
    norm.train()
    x = jnp.asarray(np.random.default_rng(0).normal(2, 3, (2, 5, 3)), jnp.float32)
    mask = jnp.arange(5) < jnp.array([5, 2])[:, None]
    got = norm(jnp.where(mask[..., None], x, 100.0), mask)[mask]
    valid = np.asarray(x[mask])  # [7, 3]
    want = (valid - valid.mean(0)) / np.sqrt(valid.var(0) + 1e-5)
    np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(norm.mean[...], 0.1 * valid.mean(0), rtol=1e-5)
    np.testing.assert_allclose(norm.var[...], 0.9 + 0.1 * valid.var(0, ddof=1), rtol=1e-5)
    image = jnp.stack([x, x], axis=1)  # [B, M, F, C]
    again = BatchNorm(3)
    again.train()
    np.testing.assert_allclose(again(image, mask[:, None])[:, 0][mask], want, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    "same, other, want",
    [
        ([0.9, 0.8], [0.1, 0.2], 0.0),
        ([0.1, 0.2], [0.9, 0.8], 1.0),
        ([0.9, 0.4], [0.5, 0.1], 0.5),
        ([0.9, 0.8, 0.7, 0.2], [0.3, 0.1, 0.0, -0.1], 0.25),
        ([0.5, 0.5], [0.5, 0.5], 0.5),  # nothing can be told
        ([0.9, 0.8, 0.4], [0.5, 0.1], 1 / 3),  # missed 1/3 from .8 to .4; accepted 0 to 1/2 on it
    ],
)
def test_equal_error_rates_of_scores_made_by_hand(same, other, want):
    scores = np.array([*same, *other])
    labels = np.arange(len(scores)) < len(same)
    np.testing.assert_allclose(Errors.of(scores, labels).equal_rate, want, atol=1e-12)


def test_detection_costs_of_scores_made_by_hand():
    errors = Errors.of(np.array([0.9, 0.4, 0.5, 0.1]), np.array([True, True, False, False]))
    assert errors.least_cost(0.5) == 0.5  # at .9: half of the pairs of one speaker are missed
    assert errors.least_cost(0.01) == 0.5
    worst = Errors.of(np.array([0.1, 0.9]), np.array([True, False]))
    assert worst.least_cost() == 1.0


def test_pairs_are_scored_by_cosine_and_drawn():
    embeddings = np.array([[2.0, 0.0], [1.0, 0.0], [0.0, 3.0]])
    scores, same = pair_scores(embeddings, np.array([7, 7, 8]))
    np.testing.assert_allclose(scores, [1, 0, 0])
    assert same.tolist() == [True, False, False]
    assert len(scores_figure(scores, same, "pairs").axes) == 2
    with pytest.raises(ValueError, match="want pairs of one speaker and of two"):
        Errors.of(scores[:1], same[:1])
