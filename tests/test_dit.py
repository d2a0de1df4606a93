import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from indextts2_jax.nn.conv import fold_weight_norm
from indextts2_jax.s2m.conditions import Conditions
from indextts2_jax.s2m.dit import LOG_MEL_MEAN, Velocity
from indextts2_jax.s2m.model import S2MConfig
from indextts2_jax.s2m.wavenet import reflect_ends
from tests.common import load_golden, needs_shared, relative_error
from tests.s2m_common import (
    conditions_of,
    golden_model,
    in_bfloat16,
    lengthened,
    load_shared,
    shared_model,
)

velocity = jax.jit(lambda model, *args, **options: model.velocity(*args, **options))


def golden_inputs():
    golden = load_golden("s2m")
    return golden, (golden["x"], golden["t"], conditions_of(golden))


def assert_valid_frames_match(got, want, lengths, tolerance=1e-5):
    for b, length in enumerate(lengths):
        assert relative_error(got[b, :length], want[b, :length]) < tolerance


def test_matches_the_formulas_with_and_without_condition():
    golden, inputs = golden_inputs()
    dropped = np.array([True, False])
    want = np.where(dropped[:, None, None], golden["out_velocity_dropped"], golden["out_velocity"])
    got = velocity(golden_model(), *inputs, drop_condition=dropped)
    assert_valid_frames_match(got, want, golden["lengths"])


def test_a_new_velocity_is_near_the_mean_mel_less_the_noise():
    @jax.jit
    def start(key, x, mu):
        model = Velocity(S2MConfig.small().velocity, rngs=nnx.Rngs(key))
        lengths = jnp.array([50])
        conditions = Conditions(mu, 0 * x, 0 * lengths, jnp.ones((1, 192)), lengths)
        return model(x, jnp.zeros(1), conditions)

    rng = np.random.default_rng(0)
    x, mu = (rng.normal(size=(1, 50, width)) for width in (80, 128))
    got = np.asarray(start(jax.random.key(0), x, mu))
    assert np.corrcoef(got.ravel(), -x.ravel())[0, 1] > 0.6
    assert abs(got.mean() - LOG_MEL_MEAN) < 0.5


def test_padding_changes_nothing():
    golden, (x, t, conditions) = golden_inputs()
    arrays = x, conditions.prompt_mel, conditions.mu
    x, prompt_mel, mu = (lengthened(a, 23, seed) for seed, a in enumerate(arrays))
    conditions = dataclasses.replace(conditions, prompt_mel=prompt_mel, mu=mu)
    got = velocity(golden_model(), x, t, conditions)
    assert_valid_frames_match(got, golden["out_velocity"], golden["lengths"])


def test_dropped_condition_is_not_the_null_condition_of_guidance():
    _, (*_, conditions) = golden_inputs()
    encode = golden_model().velocity.encode_condition
    null = encode(jax.tree.map(jnp.zeros_like, conditions))
    dropped = encode(conditions, drop_condition=jnp.array([True, True]))
    assert relative_error(dropped, null) > 0.1


def test_reflection_is_at_the_end_of_each_item():
    x = np.arange(12, dtype=np.float32).reshape(2, 6, 1) + 1
    got = reflect_ends(x, jnp.array([6, 4]), 2)
    for b, length in enumerate((6, 4)):
        want = np.pad(x[b, :length, 0], 2, mode="reflect")
        np.testing.assert_array_equal(got[b, : length + 4, 0], want)


@pytest.mark.parametrize("length", [1, 2])
def test_item_too_short_to_reflect_is_extended_by_zeros(length):
    x = np.arange(6, dtype=np.float32).reshape(1, 6, 1) + 1
    extended = np.pad(x[0, :length, 0], (0, 3 - length))
    want = np.pad(extended, 2, mode="reflect")[: length + 4]
    for frames in (length, 6):
        got = reflect_ends(x[:, :frames], jnp.array([length]), 2)
        np.testing.assert_array_equal(got[0, : length + 4, 0], want)


def test_dropout_needs_a_key():
    golden, inputs = golden_inputs()
    got = velocity(golden_model(), *inputs, key=jax.random.key(0))
    assert relative_error(got[0], golden["out_velocity"][0]) > 1e-2


def test_folded_weight_norm_changes_nothing():
    golden, inputs = golden_inputs()
    got = velocity(fold_weight_norm(nnx.clone(golden_model())), *inputs)
    assert_valid_frames_match(got, golden["out_velocity"], golden["lengths"])


def test_bfloat16_weights_compute_in_bfloat16():
    golden, inputs = golden_inputs()
    got = velocity(in_bfloat16(golden_model()), *inputs)
    assert got.dtype == jnp.bfloat16
    assert_valid_frames_match(got, golden["out_velocity"], golden["lengths"], tolerance=0.1)


@needs_shared
def test_matches_the_original():
    golden = load_shared("dit_estimator")
    x, prompt_mel, t, style, mu, lengths = (
        golden[f"in_{name}"] for name in ("x", "prompt_x", "t", "style", "mu", "x_lens")
    )
    conditions = Conditions(mu, prompt_mel, lengths, style, lengths)
    got = velocity(shared_model(), x, t, conditions, drop_condition=np.array([True, False]))
    assert relative_error(got[0], golden["out_mask_content"][0]) < 1e-5
    assert relative_error(got[1:, :25], golden["out_single1"]) < 1e-5
