"""Weights that a person types, prototypes, and their mix with a recording's emotion."""

import json

import jax
import numpy as np
import pytest

from indextts2_jax.emotion.mixing import (
    EmotionPrototypes,
    apply_alpha,
    merge,
    mix,
    normalize_weights,
    parse_weights,
)
from indextts2_jax.emotion.text_to_emotion import EmotionSet
from indextts2_jax.errors import InputError
from tests.common import SHARED, needs_shared, relative_error

EIGHT, SEVEN = EmotionSet.indextts2(), EmotionSet.paper()
PIPELINE = SHARED / "golden" / "pipeline"


@pytest.fixture
def prototypes():
    rng = np.random.default_rng(0)
    return EmotionPrototypes(rng.normal(size=(6, 5)), rng.normal(size=(6, 4)), (1, 3, 2))


@pytest.mark.parametrize(
    "spec",
    [
        "happy=.5,sad=.2",
        " Happy = .5 , SAD = .2 ",
        "高兴=.5，悲伤=.2",
        "sad=0.2 happy=0.5",
        ".5 0 .2 0 0 0 0 0",
        "0.5,0,0.2,0,0,0,0,0",
        ".5, 0, .2, 0, 0, 0, 0, 0,",
    ],
)
def test_weights_are_read_by_name_or_in_order(spec):
    np.testing.assert_array_equal(parse_weights(spec, EIGHT), [0.5, 0, 0.2, 0, 0, 0, 0, 0])


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("hapy=.5", "unknown emotion 'hapy'; did you mean 'happy'?"),
        ("happiness=.5", "did you mean 'happy'?"),
        ("qqq=.5", "unknown emotion 'qqq' (one of happy, angry"),
        ("happy=.5,.2", "unknown emotion '.2'"),
        ("=.5", "unknown emotion ''"),
        ("happy=.5,高兴=.2", "emotion 'happy' is given twice"),
        ("happy=nan", "weight of 'happy' is nan, want 0 to 1"),
        ("sad=-0.1", "weight of 'sad' is -0.1, want 0 to 1"),
        ("0 0 0 0 0 0 0 1.1", "weight of 'calm' is 1.1, want 0 to 1"),
        ("happy=much", "weight of 'happy' is 'much', want a number"),
        ("happy=", "weight of 'happy' is '', want a number"),
        ("0.1 0.2 0.3", "got 3 emotion weights, want name=weight or 8 numbers"),
        ("happy", "got 1 emotion weights"),
        ("", "got 0 emotion weights"),
    ],
)
def test_wrong_weights_are_named_in_one_line(spec, message):
    with pytest.raises(InputError) as error:
        parse_weights(spec, EIGHT)
    assert message in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("weights", "want"),
    [
        ([0, 0, 0.45], [0, 0, 0.45]),
        ([1, 0, 0], [0.8, 0, 0]),
        ([0.5, 0.5, 1], [0.2, 0.2, 0.4]),
        ([1.2, 0, -0.4], [0.8, 0, 0]),
        ([0, 0, 0], [0, 0, 0]),
    ],
)
def test_normalized_weights_leave_a_fifth_to_the_base(weights, want):
    np.testing.assert_allclose(normalize_weights(np.array(weights)), want, rtol=1e-12)
    np.testing.assert_array_equal(
        normalize_weights(np.array(weights)), normalize_weights(np.array(weights), EIGHT.max_sum)
    )


def test_a_distribution_of_the_papers_set_leaves_nothing_to_the_base():
    p = np.random.default_rng(0).dirichlet(np.ones(7))
    np.testing.assert_allclose(normalize_weights(p, SEVEN.max_sum), p, rtol=1e-12)
    np.testing.assert_allclose(normalize_weights(np.ones(7), SEVEN.max_sum).sum(), 1, rtol=1e-12)


@pytest.mark.parametrize(
    ("alpha", "want"), [(0.6, 0.27), (0.33333, 0.1499), (1.0, 0.456789), (1.5, 0.456789), (-1, 0)]
)
def test_alpha_is_clamped_and_cuts_after_four_decimals(alpha, want):
    weight = 0.456789 if alpha >= 1 else 0.45
    assert apply_alpha(np.array([weight]), alpha)[0] == want


def test_rows_are_nearest_by_angle_not_by_length(prototypes):
    rows = prototypes.rows(prototypes.styles[2] * 0.01)
    assert rows.shape == (3,)
    assert rows[0] == 0
    assert rows[1] == 1
    np.testing.assert_array_equal(prototypes.pick(rows)[1], prototypes.vectors[2])


def test_random_rows_reach_every_prototype_and_follow_the_key(prototypes):
    keys = jax.random.split(jax.random.key(0), 30)
    rows = np.stack([prototypes.random_rows(key) for key in keys])
    assert [set(column) for column in rows.T] == [{0}, {0, 1, 2}, {0, 1}]
    np.testing.assert_array_equal(prototypes.random_rows(keys[0]), rows[0])


def test_mix_of_weight_one_is_the_prototype_and_of_weight_zero_the_base(prototypes):
    base = np.full((2, 4), 3.0, np.float32)
    rows = np.array([0, 2, 1])
    got = mix(np.array([0, 1, 0]), prototypes, rows, base)
    assert got.dtype == np.float32
    np.testing.assert_allclose(got, np.tile(prototypes.vectors[3], (2, 1)), rtol=1e-6)
    np.testing.assert_array_equal(mix(np.zeros(3), prototypes, rows, base), base)


def test_averaged_prototypes_mix_as_in_the_paper(prototypes):
    weights = np.array([0.2, 0.5, 0.3])
    mean = prototypes.averaged()
    got = mix(weights, mean, mean.rows(np.ones(5)), np.zeros(4, np.float32))
    groups = prototypes.vectors[:1], prototypes.vectors[1:4], prototypes.vectors[4:]
    want = sum(w * group.mean(0) for w, group in zip(weights, groups, strict=True))
    np.testing.assert_allclose(got, want, rtol=1e-5)


def recordings(labels, counts=(5,) * 7):
    """Per label some (style, vector) pairs."""
    rng = np.random.default_rng(0)
    return {
        label: [(rng.normal(size=5), rng.normal(size=4)) for _ in range(count)]
        for label, count in zip(labels, counts, strict=True)
    }


def test_the_papers_form_sums_mean_vectors_whatever_the_voice():
    made = recordings(SEVEN.keys)
    mean = EmotionPrototypes.build(made, SEVEN).averaged()
    p = np.random.default_rng(1).dirichlet(np.ones(7))
    want = sum(
        p_i * sum(v for _, v in made[key]) / 5 for p_i, key in zip(p, SEVEN.keys, strict=True)
    )
    base = np.full(4, 100.0, np.float32)
    nearest = [mean.rows(style) for group in made.values() for style, _ in group]
    drawn = [mean.random_rows(key) for key in jax.random.split(jax.random.key(0), 5)]
    for rows in (*nearest, *drawn):
        np.testing.assert_array_equal(rows, np.zeros(7))  # no choice is left
    np.testing.assert_allclose(mix(p, mean, nearest[0], base), want, atol=1e-4)


def test_prototypes_of_recordings_are_grouped_in_the_order_of_the_emotions():
    counts = (1, 5, 2, 3, 4, 1, 2)
    made = recordings(SEVEN.keys, counts)
    built = EmotionPrototypes.build(dict(reversed(made.items())), SEVEN)
    assert built.group_sizes == counts
    want = [pair for group in made.values() for pair in group]
    np.testing.assert_array_equal(built.styles, [style for style, _ in want])
    np.testing.assert_array_equal(built.vectors, [vector for _, vector in want])


@pytest.mark.parametrize(
    ("made", "message"),
    [
        (recordings(SEVEN.names[:5], (1,) * 5), "no recordings of surprised, calm"),
        (recordings(SEVEN.names, (1, 0, 1, 1, 1, 1, 1)), "no recordings of happy"),
        ({}, "no recordings of angry, "),
        (recordings(("Anger", "angry"), (1, 1)), "emotion 'angry' is given twice"),
        (recordings(("angr",), (1,)), "unknown emotion 'angr'; did you mean 'angry'?"),
    ],
    ids=["missing", "empty", "nothing", "twice", "unknown"],
)
def test_recordings_that_do_not_cover_the_emotions_are_refused(made, message):
    with pytest.raises(InputError) as error:
        EmotionPrototypes.build(made, SEVEN)
    assert message in str(error.value)


def test_merge_moves_from_one_vector_to_the_other():
    base, other = np.array([1.0, 2.0]), np.array([3.0, 0.0])
    np.testing.assert_array_equal(merge(base, other, 0.0), base)
    np.testing.assert_array_equal(merge(base, other, 1.0), other)
    np.testing.assert_array_equal(merge(base, other, 0.5), [2.0, 1.0])


def test_prototypes_that_do_not_fit_together_are_refused():
    with pytest.raises(InputError, match="6 styles, 5 vectors and groups of 6 in all"):
        EmotionPrototypes(np.zeros((6, 5)), np.zeros((5, 4)), (1, 3, 2))


@needs_shared
@pytest.mark.parametrize("case", ["c_emo_vector", "d_emo_text"])
def test_mix_of_the_recorded_runs(case):
    torch = pytest.importorskip("torch")
    styles, vectors = (torch.load(PIPELINE / "release" / f"feat{i}.pt").numpy() for i in (1, 2))
    prototypes = EmotionPrototypes(styles, vectors, (3, 17, 2, 8, 4, 5, 10, 24))
    run = json.loads((PIPELINE / "dumps" / f"{case}.json").read_text())
    arrays = np.load(PIPELINE / "dumps" / f"{case}.npz")
    rows = prototypes.rows(arrays["style"][0])
    assert rows.tolist() == run["emo_rows"]
    if "emo_vector" in run["case"]:
        weights = np.array(run["case"]["emo_vector"])
    else:
        weights = apply_alpha(np.array(list(run["emo_dict"].values())), run["case"]["emo_alpha"])
    got = mix(weights, prototypes, rows, arrays["seg0_emovec_merged"][0])
    assert relative_error(got, arrays["seg0_emovec_final"][0]) < 1e-5


@needs_shared
def test_merge_of_the_recorded_runs():
    for case in ("a_english", "b_emo_audio"):
        run = json.loads((PIPELINE / "dumps" / f"{case}.json").read_text())
        arrays = np.load(PIPELINE / "dumps" / f"{case}.npz")
        base, emo = arrays["seg0_emovec_base"], arrays["seg0_emovec_emo"]
        got = merge(base, emo, run["emo_alpha_used"])
        assert relative_error(got, arrays["seg0_emovec_merged"]) < 1e-5


@needs_shared
def test_recorded_limits_and_intensities():
    recorded = json.loads((PIPELINE / "emo_mapping.json").read_text())
    for case in recorded["normalize_emo_vec"]:
        got = normalize_weights(np.array(case["vec"]))
        np.testing.assert_allclose(got, case["nobias"], rtol=1e-12)
    for case in recorded["alpha_scaling"]:
        got = apply_alpha(np.array(case["vec"]), case["alpha"])
        np.testing.assert_array_equal(got, case["scaled"])
