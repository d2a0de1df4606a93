"""T2S: parity with PyTorch, and what must hold of any T2S."""

import functools
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from indextts2_jax import convert
from indextts2_jax.nn import pytree
from indextts2_jax.t2s import generate as gen
from indextts2_jax.t2s import gpt
from indextts2_jax.t2s.conditioner import Conditioner, ConditionerConfig
from tests.common import SHARED, manifest, needs_shared, relative_error
from train import t2s as training


@pytest.fixture(scope="module")
def golden():
    from safetensors.numpy import load_file

    folder = SHARED / "golden" / "t2s"
    tensors = load_file(folder / "t2s_small.safetensors")
    block = json.loads((folder / "t2s_small.json").read_text())["config"]
    shapes = {k: v.shape for k, v in tensors.items()}
    cfg = gpt.T2SConfig.from_release(block, shapes)
    empty = pytree.abstract(lambda rngs: gpt.T2S(cfg, rngs=rngs))
    arrays = convert.to_jax(tensors, gpt.TORCH_RULES, pytree.shapes(empty), gpt.torch_unused(cfg))
    with np.load(folder / "t2s_small_io.npz") as io:
        return pytree.fill(empty, arrays), dict(io)


@needs_shared
def test_released_shapes_match_the_manifest():
    cfg = gpt.T2SConfig.from_release(_released_block(), manifest("gpt"))
    assert cfg == gpt.T2SConfig.indextts2()
    empty = pytree.abstract(lambda rngs: gpt.T2S(cfg, rngs=rngs))
    tensors = {k: np.broadcast_to(np.float32(0), shape) for k, shape in manifest("gpt").items()}
    convert.to_jax(tensors, gpt.TORCH_RULES, pytree.shapes(empty), gpt.torch_unused(cfg))
    assert sum(np.prod(s) for s in pytree.shapes(empty).values()) == 865_980_639


def _released_block():
    return json.loads((SHARED / "golden/t2s_full/t2s_full.json").read_text())["config"]


@needs_shared
@pytest.mark.parametrize("part, module", [("spk", "speaker"), ("emo", "emotion")])
def test_conditioner_equals_torch(golden, part, module):
    model, io = golden
    conditioner = getattr(model, f"{module}_conditioner")
    features = io[f"in.{part}_feat"]
    mask = np.arange(features.shape[1]) < io[f"in.{part}_lens"][:, None]
    encoded, _ = jax.jit(lambda m, x, k: m.encode(x, k))(conditioner, features, mask)
    full = io[f"in.{part}_lens"] >= features.shape[1]
    assert full.any()
    assert relative_error(encoded[full], io[f"{part}.enc_out"][full]) < 1e-5
    latents = jax.jit(lambda m, x, k: m(x, k))(conditioner, features, mask)
    assert relative_error(latents[full], io[f"{part}.perceiver_out"][full]) < 1e-5


@needs_shared
def test_emotion_vector_equals_torch(golden):
    model, io = golden
    features = io["in.emo_feat"][:1]
    lengths = np.array([features.shape[1]])
    vector = jax.jit(gpt.T2S.emotion_vector)(model, features, lengths)
    assert relative_error(vector, io["cond.emovec"][:1]) < 1e-5


def _prefix(model, io, rows, text_width=None):
    """The golden's conditions and text; `rows` of the batch."""
    text = io["in.text"][rows]
    if text_width:
        text = np.pad(text, ((0, 0), (0, text_width - text.shape[1])))
    emotion = io["cond.emovec_merge_0.6"][rows]
    lengths = jnp.asarray(io["in.text_lens"][rows])
    return model.prefix(io["cond.spk_latents"][rows], emotion, text, lengths)


@needs_shared
def test_teacher_forced_pass_equals_torch(golden):
    model, io = golden
    prefix = _prefix(model, io, [0, 1])
    assert relative_error(prefix.x[:1, :8], io["cond.full"][:1]) < 1e-6
    P = prefix.x.shape[1]
    hidden = jax.jit(lambda m, p, c: m.teacher_forced(p, c))(model, prefix, io["in.codes"])
    assert relative_error(hidden[:1, P : P + 15], io["fwd.latent"][:1]) < 1e-5
    # Item 1 is padded on both sides; here that changes nothing, upstream only "alone" is clean.
    alone = io["fwd.latent_item1_unpadded"]
    assert relative_error(hidden[1:, P : P + alone.shape[1]], alone) < 1e-5
    logits = model.code_logits(hidden[0, P : P + 16])
    assert relative_error(logits.T, io["fwd.mel_logits"][0, :, :16]) < 1e-5
    logits = model.text_logits(hidden[0, 8:P])
    assert relative_error(logits.T, io["fwd.text_logits"][0]) < 1e-5


def _cross_entropy(logits, targets):
    """Mean over positions, of torch's logits [V, T]."""
    logits = logits.astype(np.float64) - logits.max(axis=0)
    right = logits[targets, np.arange(len(targets))]
    return np.mean(np.log(np.exp(logits).sum(axis=0)) - right)


@needs_shared
def test_training_losses_equal_those_of_torch_logits(golden):
    model, io = golden
    prefix = _prefix(model, io, [0, 1])
    text, codes = io["in.text"], io["in.codes"]
    P = prefix.x.shape[1]
    hidden = jax.jit(lambda m, p, c: m.teacher_forced(p, c))(model, prefix, codes)
    spoken, _ = training.code_loss(model, hidden[:, P:], codes, io["in.codes_lens"])
    written, _ = training.text_loss(model, hidden[:, :P], text, io["in.text_lens"])
    # Item 0 is the longest; what torch says of item 1 saw its padding.
    T, L = codes.shape[1], text.shape[1]
    want = _cross_entropy(io["fwd.mel_logits"][0, :, : T + 1], [*codes[0], model.cfg.stop_code])
    assert relative_error(spoken[0], want) < 1e-5
    want = _cross_entropy(io["fwd.text_logits"][0, :, : L + 1], [*text[0], model.cfg.stop_text])
    assert relative_error(written[0], want) < 1e-5


def _greedy(model, prefix, steps, positions="released", penalty=1.0):
    batch = prefix.mask.shape[0]
    return gen.generate(
        model,
        prefix,
        gen.Sampling.make(batch, greedy=True, repetition_penalty=penalty),
        jax.random.split(jax.random.key(0), batch),
        gen.CodeLimits.make(batch, steps),
        rules=gen.DecodingRules(positions, penalized=(1, model.cfg.start_code)),
        trace=True,
    )


@needs_shared
@pytest.mark.parametrize(
    "name, positions, penalty",
    [("greedy", "released", 1.0), ("plain", "plain", 1.0), ("greedy_rp10", "released", 10.0)],
)
@pytest.mark.parametrize("text_width", [None, 16])
def test_greedy_codes_equal_torch(golden, name, positions, penalty, text_width):
    model, io = golden
    prefix = _prefix(model, io, [0], text_width)
    np.testing.assert_allclose(prefix.x[:, -19:], io["dec.prefix"], atol=1e-6)
    out = _greedy(model, prefix, 48, positions, penalty)
    np.testing.assert_array_equal(out.codes[:, :48], io[f"dec.{name}_tokens"])
    assert relative_error(out.trace.logits[:, :16], io[f"dec.{name}_logits"][:, :16]) < 1e-5


@needs_shared
def test_batches_stop_row_by_row_as_torch_does(golden):
    model, io = golden
    prefix = gpt.Prefix(jnp.asarray(io["dec.b2_prefix"]), io["dec.b2_mask"][:, :19] > 0)
    out = _greedy(model, prefix, 20)
    np.testing.assert_array_equal(out.codes[:, :20], io["dec.b2_tokens"])
    graphdef, state = nnx.split(model)
    bumped = nnx.merge(graphdef, jax.tree.map(jnp.copy, state))
    bias = bumped.code_head.bias
    bias[...] = bias[...].at[model.cfg.stop_code].add(float(io["dec.stop_bump"][0]))
    out = _greedy(bumped, prefix, 48)
    np.testing.assert_array_equal(out.codes[:, :48], io["dec.stop_b2_tokens"])
    single = _greedy(bumped, gpt.Prefix(prefix.x[:1], prefix.mask[:1]), 48)
    length = int(single.lengths[0])
    np.testing.assert_array_equal(single.codes[:, : length + 1], io["dec.stop_tokens"])
    assert bool(single.stopped[0]) and length + 1 == io["dec.stop_tokens"].shape[1]


@needs_shared
def test_processors_equal_torch(golden):
    _, io = golden
    logits = jnp.asarray(io["proc.logits"])
    seen = jnp.zeros(logits.shape, bool).at[0, io["proc.input_ids"][0]].set(True)
    scores = gen.penalize(logits, seen, jnp.full(1, 10.0))
    final = gen.keep_top(scores / 0.8, jnp.full(1, 30), jnp.full(1, 0.8))
    np.testing.assert_allclose(final, io["proc.sample_scores"], rtol=1e-5)


# From here on: no reference, only what must hold.


@pytest.fixture(scope="module")
def tiny():
    def build(rngs):
        return gpt.T2S(gpt.T2SConfig.tiny(), rngs=rngs)

    arrays = pytree.random_arrays(build, seed=0)
    rng = np.random.default_rng(1)
    for name in ("text_embed", "code_embed", "code_position", "speed_embed"):
        shape = arrays[f"{name}.embedding"].shape
        arrays[f"{name}.embedding"] = 0.5 * rng.standard_normal(shape, np.float32)
    arrays["code_head.kernel"] *= 5
    model = pytree.abstract(build)
    return pytree.fill(model, {name: jnp.asarray(x) for name, x in arrays.items()})


def _tiny_prefix(model, text_lengths, width):
    rng = np.random.default_rng(0)
    n, cfg = len(text_lengths), model.cfg
    text = np.zeros((n, width), np.int32)
    for row, length in enumerate(text_lengths):
        text[row, :length] = np.random.default_rng(row).integers(2, cfg.num_text_tokens, length)
    latents = rng.normal(size=(n, cfg.speaker.num_latents, cfg.width)).astype(np.float32)
    emotion = rng.normal(size=(n, cfg.width)).astype(np.float32)
    return model.prefix(latents, emotion, text, jnp.asarray(text_lengths))


@pytest.mark.parametrize("part", ["speaker_conditioner", "emotion_conditioner"])
@pytest.mark.parametrize("length", [9, 10])
def test_conditioner_ignores_padding(tiny, part, length):
    features = jax.random.normal(jax.random.key(0), (1, length, tiny.cfg.speaker.feature_dim))
    padded = jnp.pad(features, ((0, 0), (0, 7), (0, 0)), constant_values=3.0)
    mask = jnp.arange(length + 7)[None] < length
    run = jax.jit(lambda m, x, mask: m(x, mask))
    conditioner = getattr(tiny, part)
    alone = run(conditioner, features, None)
    np.testing.assert_allclose(run(conditioner, padded, mask), alone, atol=2e-5)


@pytest.mark.slow
def test_remat_changes_no_gradient_of_a_conditioner():
    cfg = ConditionerConfig(6, 4, 4, 1, 1, 1, 4, perceiver_depth=1, conv_kernel=3)
    model = Conditioner(cfg, rngs=pytree.Keys(jax.random.key(0)))
    features = jax.random.normal(jax.random.key(0), (2, 10, 6))
    mask = jnp.arange(10) < jnp.asarray([[10], [7]])

    @functools.partial(jax.jit, static_argnames="remat")
    def gradients(model, remat):
        return jax.grad(lambda m: jnp.sum(jnp.sin(m(features, mask, remat=remat))))(model)

    want, got = (pytree.params(gradients(model, remat)) for remat in (False, True))
    for name, gradient in want.items():
        np.testing.assert_allclose(got[name], gradient, atol=1e-5, err_msg=name)


@pytest.mark.parametrize("positions", ["plain", "released"])
def test_cached_decoding_equals_one_pass_over_its_own_codes(tiny, positions):
    prefix = _tiny_prefix(tiny, [7], 7)
    out = _greedy(tiny, prefix, 12, positions)
    codes, P = out.codes[:, :12], prefix.mask.shape[1]
    assert (out.latents is None) == (positions == "released")
    if positions == "plain":
        hidden = jax.jit(lambda m, p, c: m.teacher_forced(p, c))(tiny, prefix, codes)
        hidden = hidden[:, P : P + 12]
    else:
        inputs = jnp.concatenate([jnp.full((1, 1), tiny.cfg.start_code), codes], axis=1)
        rows = jnp.concatenate([jnp.zeros(1, jnp.int32), jnp.arange(2, 14)])
        x = jnp.concatenate([prefix.x, tiny.embed_codes(inputs, rows)], axis=1)
        causal = jnp.tril(jnp.ones((x.shape[1],) * 2, bool))
        hidden = jax.jit(lambda m, x, k: m.trunk(x, k)[0])(tiny, x, causal[None])[:, P : P + 12]
    np.testing.assert_allclose(out.trace.logits[:, :12], tiny.code_logits(hidden), atol=2e-5)


@pytest.mark.parametrize("trace", [False, True])
def test_decoding_computes_logits_and_margins_to_keep_only_for_a_trace(tiny, trace):
    prefix, rules = _tiny_prefix(tiny, [7], 7), gen.DecodingRules()
    sampling, keys = gen.Sampling.make(1), jax.random.key(0)[None]
    sizes = {"cache_size": 64, "capacity": tiny.cfg.max_codes}
    prefill = functools.partial(gen.prefill, rules=rules, trace=trace, **sizes)
    state = jax.eval_shape(prefill, tiny, prefix)
    decode = functools.partial(gen.decode, limits=gen.CodeLimits.make(1, 20), rules=rules)
    jaxpr = jax.make_jaxpr(decode)(tiny, state, prefix.mask, sampling, keys)
    assert (state.trace is not None) == trace
    logits, margins = (1, gen.TRACED_STEPS, tiny.cfg.num_codes), (1, tiny.cfg.max_codes)
    for shape in (logits, margins):
        assert (f"f32[{','.join(map(str, shape))}]" in str(jaxpr)) == trace


def _small_caches(monkeypatch, *rooms):
    monkeypatch.setattr(gen, "CODE_ROOMS", rooms)
    monkeypatch.setattr(gen, "SIZE_MULTIPLE", 8)


@pytest.mark.slow
def test_decoding_gives_the_latents_of_a_second_pass_where_positions_agree(tiny, monkeypatch):
    prefix, keys = _tiny_prefix(tiny, [5, 9, 3], 9), jax.random.split(jax.random.key(0), 3)
    limits = gen.CodeLimits(jnp.asarray([8, 30, 50]), jnp.asarray([7, 0, 49]))
    _small_caches(monkeypatch, 14)
    sampling, rules = gen.Sampling.make(3), gen.DecodingRules()
    out = gen.generate(tiny, prefix, sampling, keys, limits, rules=rules)
    want = jax.jit(gpt.gpt_latents)(tiny, prefix, out.codes)
    for row, length in enumerate(out.lengths):
        assert relative_error(out.latents[row, :length], want[row, :length]) < 1e-5


def _sample(model, prefix, seed, rows=None, **settings):
    keys = jax.random.split(jax.random.key(seed), 3)
    n = prefix.mask.shape[0]
    return gen.generate(
        model,
        prefix,
        gen.Sampling.make(n, repetition_penalty=1.2, **settings),
        keys[:n] if rows is None else keys[rows],
        gen.CodeLimits.make(n, 20),
        rules=gen.DecodingRules(),
    )


def test_sampling_depends_on_the_key_alone(tiny):
    prefix = _tiny_prefix(tiny, [7], 7)
    first, again, other = (_sample(tiny, prefix, s, temperature=2.0) for s in (1, 1, 2))
    np.testing.assert_array_equal(first.codes, again.codes)
    assert not np.array_equal(first.codes, other.codes)


def test_an_item_samples_the_same_codes_alone_and_in_a_batch(tiny):
    batch = _sample(tiny, _tiny_prefix(tiny, [5, 9, 3], 9), 1)
    whole = _tiny_prefix(tiny, [5, 9, 3], 9)
    for row in range(3):
        alone = gpt.Prefix(whole.x[row : row + 1], whole.mask[row : row + 1])
        single = _sample(tiny, alone, 1, rows=np.array([row]))
        np.testing.assert_array_equal(single.codes[0], batch.codes[row])


@pytest.mark.slow
def test_a_larger_cache_continues_where_the_smaller_was_full(tiny, monkeypatch):
    prefix = _tiny_prefix(tiny, [7], 7)
    whole = _greedy(tiny, prefix, 40)
    _small_caches(monkeypatch, 6, 14)
    stepwise = _greedy(tiny, prefix, 40)
    np.testing.assert_array_equal(whole.codes, stepwise.codes)
    np.testing.assert_allclose(whole.trace.margins, stepwise.trace.margins, atol=1e-4)


def test_max_codes_counts_what_is_written(tiny):
    out = _greedy(tiny, _tiny_prefix(tiny, [7], 7), 5)
    assert int(out.lengths[0]) == 5 and not bool(out.stopped[0])
    with pytest.raises(ValueError, match=r"max_codes is 52; it must be in 1 \.\. 51"):
        _greedy(tiny, _tiny_prefix(tiny, [7], 7), 52)


def test_padding_beyond_the_position_tables_changes_nothing(tiny):
    cfg = tiny.cfg
    forward = jax.jit(gpt.gpt_latents)
    codes = np.arange(cfg.max_codes)[None] % 32
    prefix = _tiny_prefix(tiny, [cfg.max_text_tokens], cfg.max_text_tokens)
    want = forward(tiny, prefix, codes)
    assert np.isfinite(want).all()
    wider = _tiny_prefix(tiny, [cfg.max_text_tokens], cfg.max_text_tokens + 9)
    got = forward(tiny, wider, np.pad(codes, ((0, 0), (0, 13))))
    assert relative_error(got[:, : cfg.max_codes], want) < 1e-5


@pytest.mark.parametrize("positions", ["plain", "released"])
def test_a_limit_of_all_codes_stays_in_the_position_table(tiny, positions):
    most = tiny.cfg.max_codes
    prefix, rules = _tiny_prefix(tiny, [7], 7), gen.DecodingRules(positions=positions)
    assert most + rules.row_offset < tiny.cfg.code_positions
    limits = gen.CodeLimits(jnp.asarray([most]), jnp.asarray([most - 1]))
    keys = jax.random.split(jax.random.key(0), 1)
    out = gen.generate(tiny, prefix, gen.Sampling.make(1), keys, limits, rules=rules)
    assert int(out.lengths[0]) == most - 1 and bool(out.stopped[0])


def test_keep_top_keeps_the_smallest_set_that_holds_top_p():
    logits = jnp.log(jnp.asarray([[0.5, 0.2, 0.15, 0.1, 0.05]]))

    def kept(k, p):
        scores = gen.keep_top(logits, jnp.full(1, k), jnp.full(1, p))
        return int(jnp.isfinite(scores).sum())

    settings = [(0, 1.0), (3, 1.0), (0, 0.6), (0, 0.01), (2, 0.99)]
    assert [kept(k, p) for k, p in settings] == [5, 3, 2, 1, 2]


@pytest.mark.parametrize("k", [0, 1, 30, 127, 128, 129, 900])
@pytest.mark.parametrize("p", [0.3, 0.95, 1.0])
def test_keep_top_does_not_depend_on_how_many_codes_it_looks_at(monkeypatch, k, p):
    rng = np.random.default_rng(0)
    logits = rng.standard_normal((5, 1000)).astype(np.float32)
    logits[1] = np.round(logits[1])  # ties over the end of what is looked at
    logits[2] = 1
    logits[3, 20:] = -np.inf
    few = gen.keep_top(logits, jnp.full(5, k), jnp.full(5, p))
    alone = [gen.keep_top(row[None], jnp.full(1, k), jnp.full(1, p))[0] for row in logits]
    monkeypatch.setattr(gen, "NUM_BEST", 1000)
    every = gen.keep_top(logits, jnp.full(5, k), jnp.full(5, p))
    np.testing.assert_array_equal(few, every)
    np.testing.assert_array_equal(alone, every)


def test_margin_is_between_the_best_two():
    scores = jnp.asarray([[1.0, 5.0, 3.5], [2.0, 2.0, -jnp.inf]])
    np.testing.assert_array_equal(gen.margin(scores), [1.5, 0])


@pytest.mark.skipif(jax.default_backend() != "cpu", reason="kernels lie as they are elsewhere")
def test_for_decoding_changes_how_kernels_lie_alone():
    cfg = gpt.T2SConfig.tiny()
    same = gpt.T2S(cfg, rngs=nnx.Rngs(0))
    model = gpt.for_decoding(gpt.T2S(cfg, rngs=nnx.Rngs(0)))
    kernels = [m.blocks[0].ffn_up.kernel[...] for m in (model, same)]
    np.testing.assert_array_equal(kernels[0], kernels[1].T)

    @jax.jit
    def logits(model, x):
        return model.code_logits(model.trunk(x, jnp.ones((1, x.shape[1], x.shape[1]), bool))[0])

    for rows in (3, 40):  # few and many
        x = jax.random.normal(jax.random.key(rows), (1, rows, cfg.width))
        assert relative_error(logits(model, x), logits(same, x)) < 1e-5
    prefix = _tiny_prefix(same, [5, 9, 3], 9)
    np.testing.assert_array_equal(_greedy(model, prefix, 30).codes, _greedy(same, prefix, 30).codes)


def test_duration_slots_are_data(tiny):
    table = tiny.code_position.embedding[...]
    vectors = tiny.duration_vectors(("pos(T)", "pos(T//2)", "zero", "speed1"), jnp.asarray([9]))
    want = [table[9], table[4], jnp.zeros(32), tiny.speed_embed.embedding[1]]
    np.testing.assert_array_equal(vectors[0], jnp.stack(want))
    with pytest.raises(ValueError, match="unknown duration slot 'pos'"):
        tiny.duration_vectors(("pos",), jnp.asarray([9]))


def test_an_exact_number_of_codes_is_met_whatever_the_model_wants(tiny):
    prefix = _tiny_prefix(tiny, [5, 9, 3], 9)
    exact = jnp.asarray([7, 0, 20])
    limits = gen.CodeLimits(jnp.asarray([8, 12, 21]), exact)
    eager = nnx.merge(*nnx.split(tiny))
    for bias in (-100.0, 100.0):  # never and always stops by itself
        bias_of_stop = tiny.code_head.bias[...].at[tiny.cfg.stop_code].set(bias)
        eager.code_head.bias = nnx.Param(bias_of_stop)
        sampling = gen.Sampling.make(3, repetition_penalty=1.0)
        out = gen.generate(
            eager,
            prefix,
            sampling,
            jax.random.split(jax.random.key(0), 3),
            limits,
            rules=gen.DecodingRules(),
        )
        assert list(out.lengths) == [7, 12 if bias < 0 else 0, 20]
        assert list(out.stopped) == [True, bias > 0, True]
