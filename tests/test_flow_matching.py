import dataclasses
import functools
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from indextts2_jax import convert
from indextts2_jax.nn import pytree
from indextts2_jax.nn.masking import length_mask, zero_padding
from indextts2_jax.s2m import dit, flow_matching, wavenet
from indextts2_jax.s2m.conditions import Conditions
from tests.common import load_golden, needs_shared, relative_error
from tests.s2m_common import (
    SHARED_S2M,
    conditions_of,
    golden_model,
    in_bfloat16,
    lengthened,
    load_shared,
    shared_model,
)


def golden_inputs():
    golden = load_golden("s2m")
    return golden, (conditions_of(golden), golden["noise"])


def test_guided_sample_and_its_trajectory_match_the_formulas():
    golden, inputs = golden_inputs()
    mel, path = flow_matching.sample(golden_model().velocity, *inputs, steps=4, record=True)
    want = golden["out_sample_guided"]
    assert relative_error(mel, want) < 1e-5
    assert not np.any(np.asarray(mel)[want == 0])  # prompt and padding
    assert path is not None and path.velocities.shape == (4, 2, *mel.shape)
    conditional, null = path.velocities[3]
    end = path.states[3] + (1.7 * conditional - 0.7 * null) / 4
    np.testing.assert_allclose(np.where(want == 0, 0, end), mel, atol=1e-5)


def test_unguided_sample_matches_the_formulas():
    golden, inputs = golden_inputs()
    got, path = flow_matching.sample(golden_model().velocity, *inputs, steps=4, guidance=0.0)
    assert path is None
    assert relative_error(got, golden["out_sample_unguided"]) < 1e-5


@pytest.mark.parametrize("prompt_frames", [8, 30])  # within and beyond the padded mel
def test_padding_of_mel_and_prompt_changes_nothing(prompt_frames):
    golden, (conditions, noise) = golden_inputs()
    mu, noise = lengthened(conditions.mu, 21), lengthened(noise, 21)
    prompt_mel = lengthened(conditions.prompt_mel, prompt_frames)
    conditions = dataclasses.replace(conditions, mu=mu, prompt_mel=prompt_mel)
    got, _ = flow_matching.sample(golden_model().velocity, conditions, noise, steps=4)
    assert relative_error(got[:, :14], golden["out_sample_guided"]) < 1e-5
    assert not np.any(got[:, 14:])


def test_state_stays_float32_under_bfloat16_weights():
    golden, inputs = golden_inputs()
    got, _ = flow_matching.sample(in_bfloat16(golden_model().velocity), *inputs, steps=4)
    assert got.dtype == jnp.float32
    assert relative_error(got, golden["out_sample_guided"]) < 0.1


def test_longer_noise_begins_with_shorter_noise():
    keys = jax.random.split(jax.random.key(7), 3)
    draw = jax.vmap(lambda key: flow_matching.draw_noise(key, 50, 80))
    long = draw(keys)
    for b in range(3):
        short = flow_matching.draw_noise(keys[b], 31, 80)
        np.testing.assert_allclose(short, long[b, :31], rtol=1e-6, atol=1e-6)
    assert abs(np.mean(long)) < 0.05 and abs(np.std(long) - 1) < 0.05
    assert np.abs(np.corrcoef(long.reshape(-1, 80)[:10]) - np.eye(10)).max() < 0.5


def test_time_steps_are_those_of_torch():
    torch = pytest.importorskip("torch")
    for steps in range(1, 200):
        want = torch.linspace(0, 1, steps + 1).numpy()
        np.testing.assert_array_equal(flow_matching.time_steps(steps), want)


@functools.partial(jax.jit, static_argnames=("objective", "remat"))
def loss_and_gradients(model, *args, objective="velocity", remat=False):
    """The losses, the estimated mel, and the gradients of the mean loss by the parameters."""
    graphdef, params, rest = nnx.split(model, nnx.Param, ...)

    def compute(params):
        model = nnx.merge(graphdef, params, rest)
        losses, estimate = flow_matching.loss(model, *args, objective=objective, remat=remat)
        return losses.mean(), (losses, estimate)

    gradients, (losses, estimate) = jax.grad(compute, has_aux=True)(params)
    return losses, estimate, gradients


def golden_loss_inputs(golden):
    draws = flow_matching.Draws(golden["t"], golden["noise"], golden["drop_condition"])
    conditions = dataclasses.replace(conditions_of(golden), prompt_mel=golden["mel"])
    return golden["mel"], conditions, draws


def test_loss_and_its_slope_match_the_formulas():
    golden, model = load_golden("s2m"), golden_model().velocity
    losses, _, gradients = loss_and_gradients(model, *golden_loss_inputs(golden))
    assert relative_error(losses.mean(), golden["out_loss"]) < 1e-5
    weights, gradients = pytree.params(model), pytree.params(gradients)
    slope = sum(np.sum(weights[name] * gradient) for name, gradient in gradients.items())
    assert relative_error(slope, golden["out_loss_slope"]) < 1e-4


def test_loss_is_the_distance_of_each_item_in_its_scored_frames():
    golden = load_golden("s2m")
    args = golden_loss_inputs(golden)
    losses, estimate, _ = loss_and_gradients(golden_model().velocity, *args)
    want = [
        np.abs(np.asarray(estimate[b]) - golden["mel"][b])[p:n].mean()
        for b, (p, n) in enumerate(zip(golden["prompt_lengths"], golden["lengths"], strict=True))
    ]
    np.testing.assert_allclose(losses, want, rtol=1e-5)


@pytest.mark.slow
def test_both_objectives_are_equal_in_value_and_gradient():
    args = golden_model().velocity, *golden_loss_inputs(load_golden("s2m"))
    losses, estimate, gradients = loss_and_gradients(*args)
    mel_losses, mel_estimate, mel_gradients = loss_and_gradients(*args, objective="mel")
    np.testing.assert_allclose(mel_losses, losses, rtol=1e-6)
    np.testing.assert_allclose(mel_estimate, estimate, atol=1e-6)
    mel_gradients = pytree.params(mel_gradients)
    for name, gradient in pytree.params(gradients).items():
        np.testing.assert_allclose(mel_gradients[name], gradient, atol=1e-6, err_msg=name)
    with pytest.raises(ValueError, match="objective is 'mal'; want one of velocity, mel"):
        flow_matching.loss(*args, objective="mal")


@pytest.mark.slow
def test_remat_changes_neither_loss_nor_gradients():
    args = golden_model().velocity, *golden_loss_inputs(load_golden("s2m"))
    want_loss, _, want = loss_and_gradients(*args)
    got_loss, _, got = loss_and_gradients(*args, remat=True)
    np.testing.assert_allclose(got_loss, want_loss, rtol=1e-6)
    want = pytree.params(want)
    for name, gradient in pytree.params(got).items():
        np.testing.assert_allclose(gradient, want[name], atol=1e-6, err_msg=name)


def test_item_without_scored_frames_costs_nothing():
    golden = load_golden("s2m")
    golden["prompt_lengths"] = np.array([golden["lengths"][0], *golden["prompt_lengths"][1:]])
    losses, _, gradients = loss_and_gradients(golden_model().velocity, *golden_loss_inputs(golden))
    assert losses[0] == 0 and np.all(losses[1:] > 0)
    assert all(np.all(np.isfinite(x)) for x in pytree.params(gradients).values())


@pytest.mark.slow
def test_padding_changes_neither_loss_nor_gradients():
    golden, model = load_golden("s2m"), golden_model().velocity
    padded = dict(golden, **{k: lengthened(golden[k], 22) for k in ("mel", "mu", "noise")})
    want_loss, _, want = loss_and_gradients(model, *golden_loss_inputs(golden))
    got_loss, _, got = loss_and_gradients(model, *golden_loss_inputs(padded))
    np.testing.assert_allclose(got_loss, want_loss, rtol=1e-6)
    want = pytree.params(want)
    for name, gradient in pytree.params(got).items():
        np.testing.assert_allclose(gradient, want[name], atol=1e-5, err_msg=name)


def test_training_draws_follow_their_distributions():
    draws = flow_matching.draw_training(jax.random.key(0), (4000, 2, 3), condition_dropout=0.25)
    assert abs(np.mean(draws.t) - 0.5) < 0.02 and np.min(draws.t) >= 0 and np.max(draws.t) <= 1
    assert abs(np.std(draws.noise) - 1) < 0.02 and draws.noise.shape == (4000, 2, 3)
    assert abs(np.mean(draws.drop_condition) - 0.25) < 0.03


@needs_shared
@pytest.mark.parametrize(
    ("name", "steps", "guidance"),
    [
        ("out_cfg07", 6, 0.7),
        pytest.param("out_cfg0", 6, 0.0, marks=pytest.mark.slow),
        pytest.param("out_cfg07_25", 25, 0.7, marks=pytest.mark.slow),
    ],
)
def test_sample_matches_the_original(name, steps, guidance):
    golden = load_shared("cfm_sample")
    mu, prompt, style, noise = (golden[f"in_{k}"] for k in ("mu", "prompt", "style", "noise"))
    mel, path = flow_matching.sample(
        shared_model().velocity,
        Conditions(mu, prompt, np.array([11]), style, golden["in_x_lens"]),
        noise,
        steps=steps,
        guidance=guidance,
        record=True,
    )
    assert path is not None
    assert relative_error(mel, golden[name]) < 1e-5
    if name == "out_cfg07":
        assert relative_error(path.states[:, 0], golden["mid_x_steps"][:, 0]) < 1e-5
        assert relative_error(path.velocities[:, :, 0], golden["mid_v_steps"]) < 1e-5


@needs_shared
def test_loss_and_gradients_match_the_original(monkeypatch):
    """The original reflects a batch at its padded end; here, and here alone, so do we."""
    golden, calls = load_shared("cfm_loss"), []

    def reflect_padded_end(x, lengths, width):
        if len(calls) % 3:  # all layers of the WaveNet but its first get masked input
            x = zero_padding(x, length_mask(lengths, x.shape[1]))
        calls.append(width)
        return jnp.pad(x, ((0, 0), (width, width), (0, 0)), mode="reflect")

    monkeypatch.setattr(wavenet, "reflect_ends", reflect_padded_end)
    names = ("x1", "x_lens", "prompt_lens", "style", "mu")
    mel, lengths, prompt_lengths, style, mu = (golden[f"in_{name}"] for name in names)
    inputs = mel, Conditions(mu, mel, prompt_lengths, style, lengths)
    t, noise = golden["in_t"][:, 0, 0], golden["in_z"]

    kept = flow_matching.Draws(t, noise, np.array([False, False]))
    losses, estimate, gradients = loss_and_gradients(shared_model().velocity, *inputs, kept)
    assert relative_error(losses.mean(), golden["out_loss_l1"]) < 1e-5
    assert relative_error(estimate[0], golden["out_y_l1"][0]) < 1e-5
    dropped = flow_matching.Draws(t, noise, np.array([True, True]))
    losses, *_ = loss_and_gradients(shared_model().velocity, *inputs, dropped)
    assert relative_error(losses.mean(), golden["out_loss_l1_dropped"]) < 1e-5

    arrays = {name: np.asarray(g) for name, g in pytree.params(gradients).items()}
    torch_gradients = convert.to_torch(arrays, dit.TORCH_RULES)
    norms = json.loads((SHARED_S2M / "cfm_loss.json").read_text())["config"]["grad_norms_l1"]
    assert set(norms) == {f"estimator.{name}" for name in torch_gradients}
    for name, gradient in torch_gradients.items():
        np.testing.assert_allclose(np.linalg.norm(gradient), norms[f"estimator.{name}"], rtol=1e-4)
    for ours, theirs in (
        ("cond_projection.weight", "out_grad_cond_projection_weight"),
        ("conv2.weight", "out_grad_conv2_weight"),
        ("cond_x_merge_linear.weight", "out_grad_x_merge"),
    ):
        assert relative_error(torch_gradients[ours], golden[theirs]) < 1e-4
