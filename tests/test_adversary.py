"""Gradient reversal: exact, and adversarial in effect."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from indextts2_jax.nn import pytree
from train.objectives.adversary import (
    SpeakerClassifier,
    SpeakerClassifierConfig,
    reversal_schedule,
    reverse_gradient,
    speaker_loss,
)

CFG = SpeakerClassifierConfig.tiny()


def build(rngs):
    return SpeakerClassifier(CFG, rngs=rngs)


@pytest.mark.parametrize("scale", [0.0, 0.5, 2.0])
def test_reversal_flips_and_scales_the_gradient_exactly(scale):
    x = jnp.asarray(np.random.default_rng(0).standard_normal((3, 4)), jnp.float32)

    def loss(x):
        return jnp.sum(jnp.sin(x) ** 3)

    def reversed_loss(x, scale):
        return loss(reverse_gradient(x, scale))

    value, gradient = jax.jit(jax.value_and_grad(reversed_loss))(x, scale)  # a traced scale
    np.testing.assert_allclose(value, jax.jit(loss)(x), rtol=1e-6)
    wanted = -scale * jax.jit(jax.grad(loss))(x)
    np.testing.assert_allclose(gradient, wanted, rtol=1e-6, atol=1e-7)
    again = jax.grad(reversed_loss)(x, scale)  # a Python float
    np.testing.assert_allclose(again, gradient, rtol=1e-6, atol=1e-7)


def test_reversal_keeps_the_dtype():
    x = jnp.ones(3, jnp.bfloat16)
    gradient = jax.grad(lambda x: reverse_gradient(x, jnp.float32(0.3)).sum())(x)
    assert reverse_gradient(x, 1.0).dtype == gradient.dtype == jnp.bfloat16


def test_schedule_grows_from_nothing_to_its_peak():
    got = reversal_schedule(jnp.linspace(0, 1, 11), 3.0)
    assert got[0] == 0 and abs(got[-1] - 3.0) < 3e-4 and np.all(np.diff(got) > 0)
    np.testing.assert_allclose(got, 3 * np.tanh(5 * np.linspace(0, 1, 11)), rtol=1e-5, atol=1e-6)


def test_loss_and_accuracy_per_row():
    logits = np.array([[0.0, 0, 0], [2, 1, 0], [2, 1, 0]], np.float32)
    loss, right = speaker_loss(jnp.asarray(logits), jnp.array([1, 0, 2]))
    log_total = np.log(np.exp([2.0, 1, 0]).sum())
    np.testing.assert_allclose(loss, [np.log(3), log_total - 2, log_total], rtol=1e-6)
    assert right.tolist() == [False, True, False]


def test_classifier_computes_in_the_dtype_of_its_weights():
    arrays = pytree.random_arrays(build, seed=0)
    module = pytree.fill(
        pytree.abstract(build), {k: jnp.asarray(v, jnp.bfloat16) for k, v in arrays.items()}
    )
    jaxpr = jax.make_jaxpr(module)(jnp.ones((2, CFG.width)))
    products = [e for e in jaxpr.eqns if e.primitive.name == "dot_general"]
    assert len(products) == 2
    assert all(v.aval.dtype == jnp.bfloat16 for e in products for v in e.invars)
    (logits,) = jaxpr.out_avals
    assert logits.dtype == jnp.float32 and logits.shape == (2, CFG.num_speakers)


def test_classifier_and_reversed_encoder_pull_in_opposite_directions():
    """Eq. 4: a step of the classifier lowers its loss, a step of the encoder raises it."""
    rng = np.random.default_rng(1)
    speaker = jnp.asarray(np.arange(24) % CFG.num_speakers)
    x = rng.standard_normal((24, 5)) + 2 * np.eye(CFG.num_speakers, 5)[speaker]
    x = jnp.asarray(x, jnp.float32)
    params = pytree.random_arrays(build, seed=2)
    encoder = jnp.asarray(rng.standard_normal((5, CFG.width)) / 5**0.5, jnp.float32)
    abstract = pytree.abstract(build)

    @jax.jit
    def gradients(params, encoder):
        def loss(params, encoder):
            vectors = reverse_gradient(x @ encoder, 1.0)
            return speaker_loss(pytree.fill(abstract, params)(vectors), speaker)[0].mean()

        return jax.value_and_grad(loss, argnums=(0, 1))(params, encoder)

    def step(tree, gradient):
        return jax.tree.map(lambda p, g: p - 0.3 * g, tree, gradient)

    first, _ = gradients(params, encoder)
    for _ in range(30):
        _, (gradient, _) = gradients(params, encoder)
        params = step(params, gradient)
    learnt, (_, gradient) = gradients(params, encoder)
    assert learnt < 0.5 * first
    for _ in range(30):
        _, (_, gradient) = gradients(params, encoder)
        encoder = step(encoder, gradient)
    confused, _ = gradients(params, encoder)
    assert confused > 2 * learnt
