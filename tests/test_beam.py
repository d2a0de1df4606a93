"""Beams: parity with transformers and with plain Python, and what must hold of any decoding."""

import dataclasses
import functools
import itertools
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from indextts2_jax import convert
from indextts2_jax.nn import pytree
from indextts2_jax.t2s import beam, gpt
from indextts2_jax.t2s import generate as gen
from tests.common import SHARED, load_golden, needs_shared, weights_of

CFG = gpt.T2SConfig.tiny()
STEPS = 24  # codes at most, the stop code counted
# (beams, repetition penalty, length penalty)
CASES = (
    (2, 1.0, 0.0),
    (2, 3.0, 0.0),
    (3, 1.0, 0.0),
    (3, 1.5, 0.0),
    (3, 10.0, 0.0),
    (3, 1.5, 1.0),
    (3, 1.5, 2.0),
    (3, 1.5, -1.0),
)
RULES = gen.DecodingRules(forbidden=(15, CFG.start_code))  # 15 would be frequent


@pytest.fixture(scope="module")
def golden():
    return load_golden("beam")


@pytest.fixture(scope="module")
def model(golden):
    """The golden's weights; what only a prefix needs is random."""

    def build(rngs):
        return gpt.T2S(CFG, rngs=rngs)

    empty = pytree.abstract(build)
    arrays = pytree.random_arrays(build, seed=0)
    decoding = ("blocks.", "norm_", "code_")
    expected = {k: s for k, s in pytree.shapes(empty).items() if k.startswith(decoding)}
    weights = {k: w.astype(np.float32) for k, w in weights_of(golden).items()}
    arrays |= convert.to_jax(weights, gpt.TORCH_RULES, expected)
    return pytree.fill(empty, {k: jnp.asarray(x) for k, x in arrays.items()})


def keys_of(items, seed=0):
    return jax.random.split(jax.random.key(seed), items)


def prompts_of(golden):
    """The golden's two prompts and a third one, as one batch."""
    x = np.random.default_rng(0).normal(size=(3, *golden["prompts"].shape[1:])).astype(np.float32)
    x[:2] = golden["prompts"]
    return gpt.Prefix(jnp.asarray(x), jnp.asarray(np.any(x, axis=2)))


def beams(model, prefix, *, num_beams=3, length_penalty=0.0, rules=RULES, most=STEPS, **settings):
    """Beam search with the same settings for every item."""
    n = len(prefix.mask)
    settings = {"greedy": True, "repetition_penalty": 1.0} | settings
    return beam.beam_generate(
        model,
        prefix,
        gen.Sampling.make(n, **settings),
        keys_of(n),
        gen.CodeLimits.make(n, most),
        rules=rules,
        num_beams=num_beams,
        length_penalty=length_penalty,
    )


@pytest.mark.parametrize("case", range(len(CASES)))
def test_beam_search_equals_transformers(golden, model, case):
    num_beams, penalty, length_penalty = CASES[case]
    out = beams(
        model,
        prompts_of(golden),
        num_beams=num_beams,
        length_penalty=length_penalty,
        repetition_penalty=penalty,
    )
    wanted = golden[f"codes_{case}"]
    np.testing.assert_array_equal(out.codes[:2, :STEPS], wanted)
    np.testing.assert_array_equal(out.codes[:2, STEPS:], CFG.stop_code)
    np.testing.assert_array_equal(out.lengths[:2], np.sum(wanted != CFG.stop_code, axis=1))
    np.testing.assert_array_equal(out.stopped[:2], wanted[:, -1] == CFG.stop_code)


# Against the development goldens, which come from the released rules.


@pytest.fixture(scope="module")
def released():
    from safetensors.numpy import load_file

    folder = SHARED / "golden" / "t2s"
    tensors = load_file(folder / "t2s_small.safetensors")
    block = json.loads((folder / "t2s_small.json").read_text())["config"]
    cfg = gpt.T2SConfig.from_release(block, {k: v.shape for k, v in tensors.items()})
    empty = pytree.abstract(lambda rngs: gpt.T2S(cfg, rngs=rngs))
    arrays = convert.to_jax(tensors, gpt.TORCH_RULES, pytree.shapes(empty), gpt.torch_unused(cfg))
    with np.load(folder / "t2s_small_io.npz") as io:
        return pytree.fill(empty, {k: jnp.asarray(x) for k, x in arrays.items()}), dict(io)


@needs_shared
@pytest.mark.parametrize(
    "name, length_penalty", [("beam3_rp10_lp0", 0.0), ("beam3_rp10_lp1", 1.0), ("stop_beam3", 0.0)]
)
def test_beam_search_equals_the_released_pipeline(released, name, length_penalty):
    model, io = released
    stop = model.cfg.stop_code
    if name.startswith("stop"):
        model = with_stop_bias(model, float(io["dec.stop_bump"][0]))
    x = jnp.asarray(io["dec.prefix"])
    out = beams(
        model,
        gpt.Prefix(x, jnp.ones(x.shape[:2], bool)),
        length_penalty=length_penalty,
        repetition_penalty=10.0,
        rules=gen.DecodingRules("released", penalized=(1, model.cfg.start_code)),
        most=30,
    )
    wanted = np.full(30, stop)
    tokens = io[f"dec.{name}_tokens"][0]
    wanted[: len(tokens)] = tokens
    np.testing.assert_array_equal(out.codes[0, :30], wanted)


def with_stop_bias(model, bias):
    graphdef, state = nnx.split(model)
    model = nnx.merge(graphdef, jax.tree.map(jnp.copy, state))
    head = model.code_head.bias
    head[...] = head[...].at[model.cfg.stop_code].add(bias)
    return model


@needs_shared
def test_processors_equal_the_released_pipeline(released):
    _, io = released
    seen = np.zeros(io["proc.logits"].shape, bool)
    seen[0, io["proc.input_ids"][0]] = True

    @jax.jit
    def process(logits):
        sampling = gen.Sampling.make(1)
        log_p = jax.nn.log_softmax(logits)
        scores = gen.penalize(log_p, seen, sampling.repetition_penalty)
        return gen.warp(scores, sampling, beam.FEWEST_KEPT)

    np.testing.assert_allclose(process(io["proc.logits"]), io["proc.beam_scores"], rtol=1e-5)


# The same rules in plain Python.


def plain_beam_search(next_logits, num_beams, penalty, length_penalty, most, stop):
    """Beam search with lists; `next_logits` maps a list of code lists to logits [beams, V]."""
    running = [(0.0 if k == 0 else -1e9, []) for k in range(num_beams)]
    ended = []
    for step in range(most):
        candidates = []
        logits = next_logits([codes for _, codes in running]).astype(np.float64)
        log_p = logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))
        log_p[:, RULES.forbidden] = -np.inf
        for (total, codes), scores in zip(running, log_p, strict=True):
            for code, score in enumerate(scores):
                score = score * penalty if code in codes else score
                candidates.append((total + score, codes, code))
        candidates.sort(key=lambda c: -c[0])
        divisor, running = (step + 1) ** length_penalty, []
        for rank, (score, codes, code) in enumerate(candidates[: 2 * num_beams]):
            if code != stop and len(running) < num_beams:
                running.append((score, [*codes, code]))
            elif code == stop and rank < num_beams:
                ended.append((score / divisor, codes))
        ended = sorted(ended, key=lambda e: -e[0])[:num_beams]
        if len(ended) == num_beams and ended[-1][0] >= candidates[0][0] / divisor:
            return ended[0][1]
    ended += [(score / divisor, codes) for score, codes in running]
    return max(ended, key=lambda e: e[0])[1]


@pytest.mark.parametrize(
    "penalty, length_penalty", [(1.0, 0.0), (1.5, 0.6), (1.0, 1.0), (1.0, 2.0), (1.5, -2.0)]
)
def test_beam_search_equals_plain_python(model, penalty, length_penalty):
    model = with_stop_bias(model, 3.0)  # many hypotheses, early and late
    forward = jax.jit(lambda m, p, c: m.code_logits(m.teacher_forced(p, c)))
    most, lengths = 16, set()
    for seed in range(4):
        x = jax.random.normal(jax.random.key(seed), (3, 9, CFG.width))
        prefix = gpt.Prefix(x, jnp.ones(x.shape[:2], bool))
        settings = {"length_penalty": length_penalty, "repetition_penalty": penalty}
        out = beams(model, prefix, most=most, **settings)
        for item in range(3):
            same = jax.tree.map(lambda x, item=item: jnp.repeat(x[item][None], 3, axis=0), prefix)

            def next_logits(beams, same=same):
                codes = np.zeros((3, most), np.int32)
                for row, beam_codes in zip(codes, beams, strict=True):
                    row[: len(beam_codes)] = beam_codes
                return np.asarray(forward(model, same, codes))[:, 9 + len(beams[0])]

            wanted = plain_beam_search(next_logits, 3, penalty, length_penalty, most, CFG.stop_code)
            np.testing.assert_array_equal(out.codes[item, : out.lengths[item]], wanted)
            lengths.add(len(wanted))
    assert len(lengths) >= 3


# From here on: no reference, only what must hold.


def test_one_beam_is_greedy_decoding(golden, model):
    prefix = prompts_of(golden)
    one = beams(model, prefix, num_beams=1)
    greedy = gen.generate(
        model,
        prefix,
        gen.Sampling.make(3, greedy=True, repetition_penalty=1.0),
        keys_of(3),
        gen.CodeLimits.make(3, STEPS),
        rules=RULES,
    )
    np.testing.assert_array_equal(one.codes, greedy.codes)
    np.testing.assert_array_equal(one.lengths, greedy.lengths)
    np.testing.assert_array_equal(one.stopped, greedy.stopped)


def draw(model, prefix, keys, limits, greedy=False):
    n = len(prefix.mask)
    sampling = gen.Sampling.make(n, repetition_penalty=1.2, temperature=1.5, top_k=8, top_p=0.95)
    sampling = dataclasses.replace(sampling, greedy=jnp.broadcast_to(jnp.asarray(greedy), n))
    return beam.beam_generate(model, prefix, sampling, keys, limits, rules=RULES, num_beams=3)


def test_beam_sampling_depends_on_the_key_alone(golden, model):
    prefix, limits = prompts_of(golden), gen.CodeLimits.make(3, STEPS)
    first, again, other = (draw(model, prefix, keys_of(3, seed), limits) for seed in (1, 1, 2))
    np.testing.assert_array_equal(first.codes, again.codes)
    for row in range(3):
        assert not np.array_equal(first.codes[row], other.codes[row])


def test_an_item_has_the_same_codes_alone_and_in_a_batch(golden, model):
    prefix, keys = prompts_of(golden), keys_of(3, seed=2)
    limits = gen.CodeLimits(jnp.asarray([STEPS, STEPS, 7]), jnp.zeros(3, jnp.int32))
    greedy = jnp.asarray([True, False, False])
    batch = draw(model, prefix, keys, limits, greedy)
    assert len(set(batch.lengths.tolist())) == 3 and batch.stopped.tolist() == [False, True, False]
    for row in range(3):
        item = slice(row, row + 1)
        pick = functools.partial(jax.tree.map, lambda x, item=item: x[item])
        single = draw(model, *map(pick, (prefix, keys, limits, greedy)))
        np.testing.assert_array_equal(single.codes[0], batch.codes[row])


def test_padding_of_the_prefix_changes_nothing(golden, model):
    prefix = prompts_of(golden)
    padded = gpt.Prefix(
        *(jnp.pad(x, ((0, 0), (5, 0)) + ((0, 0),) * (x.ndim - 2)) for x in (prefix.x, prefix.mask))
    )
    limits = gen.CodeLimits.make(3, STEPS)
    np.testing.assert_array_equal(
        draw(model, prefix, keys_of(3), limits).codes, draw(model, padded, keys_of(3), limits).codes
    )


def test_a_larger_cache_continues_where_the_smaller_was_full(golden, model, monkeypatch):
    limits = gen.CodeLimits(jnp.asarray([40] * 3), jnp.asarray([35] * 3))
    greedy = jnp.asarray([False, True, False])
    args = (model, prompts_of(golden), keys_of(3), limits, greedy)
    whole = draw(*args)
    np.testing.assert_array_equal(whole.lengths, 35)
    monkeypatch.setattr(gen, "CODE_ROOMS", (16,))
    monkeypatch.setattr(gen, "SIZE_MULTIPLE", 8)
    np.testing.assert_array_equal(draw(*args).codes, whole.codes)


@pytest.mark.parametrize("greedy", [True, False])
def test_an_exact_number_of_codes(golden, model, greedy):
    limits = gen.CodeLimits(jnp.asarray([STEPS] * 3), jnp.asarray([5, 20, 0]))
    out = draw(model, prompts_of(golden), keys_of(3), limits, greedy)
    np.testing.assert_array_equal(out.lengths[:2], [5, 20])
    assert bool(jnp.all(out.stopped[:2]))


def test_a_limit_outside_the_position_table_is_refused(golden, model):
    with pytest.raises(ValueError, match=r"max_codes is 52; it must be in 1 \.\. 51"):
        beams(model, prompts_of(golden), most=52)


# The draw of candidates.


def draws(scores, n=20_000):
    """What `rank_candidates` draws from scores [K, V] with n keys: sorted places [n, 2K]."""
    num_codes = scores.shape[1]

    def one(key):
        ranked, parent, code = beam.rank_candidates(scores[None], jnp.zeros(1, bool), key[None])
        return ranked[0], parent[0] * num_codes + code[0]

    ranked, place = jax.jit(jax.vmap(one))(jax.random.split(jax.random.key(0), n))
    np.testing.assert_array_equal(ranked, scores.ravel()[place])
    assert bool(jnp.all(ranked[:, :-1] >= ranked[:, 1:]))
    return np.sort(place, axis=1)


@pytest.mark.parametrize("shape", [(1, 5), (2, 3)])
def test_candidates_are_drawn_without_replacement(shape):
    scores = jax.random.normal(jax.random.key(1), shape)
    p = np.asarray(jax.nn.softmax(scores.ravel()), np.float64)
    wanted = dict.fromkeys(itertools.combinations(range(p.size), 2 * shape[0]), 0.0)
    for order in itertools.permutations(range(p.size), 2 * shape[0]):
        left, chance = 1.0, 1.0
        for place in order:
            chance, left = chance * p[place] / left, left - p[place]
        wanted[tuple(sorted(order))] += chance
    places = draws(scores)
    chances = np.array(list(wanted.values()))
    counts = np.array([np.all(places == subset, axis=1).sum() for subset in wanted])
    assert counts.sum() == len(places)
    expected = len(places) * chances
    chi_squared = np.sum((counts - expected) ** 2 / expected)
    # Mean and variance of chi squared are its degrees of freedom and twice these.
    freedom = len(wanted) - 1
    assert abs(chi_squared - freedom) < 4 * np.sqrt(2 * freedom)


def test_before_the_first_code_all_candidates_come_from_the_first_beam():
    scores = jax.random.normal(jax.random.key(1), (3, 9)) + jnp.asarray([[0], [-1e9], [-1e9]])
    assert draws(scores, 100).max() < 9


def test_removed_codes_are_drawn_only_where_nothing_else_is_left():
    scores = jnp.asarray([[0.0, -jnp.inf, -jnp.inf, -5.0, -jnp.inf], [-1e9] * 5])
    places = draws(scores, 100)
    np.testing.assert_array_equal(places[:, :2], [[0, 3]] * 100)
    assert places[:, 2:].min() >= 5


def test_best_candidates_are_taken_when_greedy():
    scores = jax.random.normal(jax.random.key(1), (2, 3, 9))
    ranked, parent, code = jax.jit(beam.rank_candidates)(scores, jnp.ones(2, bool), keys_of(2))
    np.testing.assert_array_equal(ranked, np.sort(scores.reshape(2, 27))[:, :-7:-1])
    np.testing.assert_array_equal(ranked, scores[jnp.arange(2)[:, None], parent, code])


def test_hypotheses_keep_the_best_and_the_older_of_equals():
    codes = jnp.arange(5)[None, :, None]
    none = beam.Hypotheses(codes[:, :2], jnp.full((1, 2), -jnp.inf))
    one = none.add(codes[:, 2:3], jnp.asarray([[-4.0]]))
    np.testing.assert_array_equal(one.scores, [[-4.0, -jnp.inf]])
    full = one.add(codes[:, 3:], jnp.asarray([[-3.0, -4.0]]))
    np.testing.assert_array_equal(full.codes[..., 0], [[3, 2]])
