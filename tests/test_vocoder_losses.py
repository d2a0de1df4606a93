"""Losses and discriminators of the vocoder against NVIDIA's bigvgan: values and gradients."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from indextts2_jax.audio import mel
from indextts2_jax.audio.mel import MelConfig
from indextts2_jax.convert import to_jax
from indextts2_jax.nn.pytree import abstract, fill, shapes
from tests.common import load_golden, relative_error, weights_of
from train.objectives import discriminators, spectra
from train.objectives.discriminators import DiscriminatorConfig, Discriminators

RATE = 22050
CFG = DiscriminatorConfig(
    periods=(2, 3), period_widths=(1, 4, 16, 32, 32), cqt_hops=(512,), cqt_bins=(12,), cqt_width=4
)


@functools.cache
def golden():
    return load_golden("vocoder_losses")


def arrays_of(weights):
    model = abstract(lambda rngs: Discriminators(CFG, rngs=rngs))
    rules, unused = discriminators.TORCH_RULES, discriminators.TORCH_UNUSED
    return to_jax(weights, rules, shapes(model), unused)


def judges(arrays):
    return fill(abstract(lambda rngs: Discriminators(CFG, rngs=rngs)), arrays)


def test_multi_scale_mel_loss_and_its_gradient_are_those_of_bigvgan():
    real, fake = golden()["real"], golden()["fake"]

    @jax.jit
    @jax.value_and_grad
    def loss(fake):
        return spectra.multi_scale_mel_loss(fake, real, RATE).mean()

    value, gradient = loss(fake)
    np.testing.assert_allclose(value, golden()["mel"], rtol=1e-5)
    assert relative_error(gradient, golden()["gradient_mel"]) < 1e-3


def test_constant_q_transform_is_that_of_nnaudio():
    got = jax.jit(lambda x: spectra.constant_q(x, RATE, 512, 9, 12))(golden()["real"])
    assert relative_error(got, golden()["cqt"].swapaxes(1, 2)) < 1e-5


def test_losses_and_gradients_are_those_of_bigvgan():
    real, fake = golden()["real"], golden()["fake"]
    arrays = {n: jnp.asarray(x) for n, x in arrays_of(weights_of(golden())).items()}

    @jax.jit
    def compute(arrays, fake):
        def of_judges(arrays):
            judge = judges(arrays)
            return discriminators.discriminator_loss(judge(real), judge(fake)).mean()

        def adversarial(fake):
            return discriminators.generator_loss(judges(arrays)(fake)).mean()

        def matching(fake):
            judge = judges(arrays)
            return discriminators.feature_loss(judge(real), judge(fake)).mean()

        return {
            "discriminator": jax.value_and_grad(of_judges)(arrays),
            "generator": jax.value_and_grad(adversarial)(fake),
            "matching": jax.value_and_grad(matching)(fake),
        }

    got = compute(arrays, fake)
    for name, (value, _) in got.items():
        want = golden()[name] / (2 if name == "matching" else 1)  # it counts twice there
        np.testing.assert_allclose(value, want, rtol=1e-5)
    assert relative_error(got["generator"][1], golden()["gradient_generator"]) < 1e-4
    assert relative_error(2 * got["matching"][1], golden()["gradient_matching"]) < 1e-4
    want = arrays_of({k[2:]: v for k, v in golden().items() if k.startswith("g/")})
    for name, gradient in got["discriminator"][1].items():
        assert np.abs(gradient - want[name]).max() <= 1e-4 * max(np.abs(want[name]).max(), 1e-3)


@pytest.mark.parametrize("hop_frames", [7, 32])
def test_log_mel_for_gradients_is_the_one_of_the_prompt(hop_frames):
    samples = np.random.default_rng(0).normal(0, 0.1, (2, 256 * hop_frames)).astype(np.float32)
    got = jax.jit(lambda x: spectra.log_mel(x, MelConfig()))(samples)
    for b in range(2):
        np.testing.assert_allclose(got[b], mel.log_mel(samples[b], MelConfig()), atol=1e-4)


def test_gradient_of_a_mel_of_silence_is_finite():
    gradient = jax.jit(jax.grad(lambda x: spectra.multi_scale_mel_loss(x, x + 0.1, RATE).sum()))
    assert np.isfinite(gradient(np.zeros((1, 2048), np.float32))).all()
