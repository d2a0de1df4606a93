"""T2S against transformers and against formulas in PyTorch (`tests/make_goldens/t2s.py`)."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from indextts2_jax import convert
from indextts2_jax.nn import pytree
from indextts2_jax.t2s import generate as gen
from indextts2_jax.t2s import gpt
from tests.common import load_golden, relative_error, weights_of
from train import t2s as training

TINY = gpt.T2SConfig.tiny()
CFG = dataclasses.replace(
    TINY,
    speaker=dataclasses.replace(TINY.speaker, num_blocks=2, perceiver_head_dim=8),
    # Equal widths: no projection between conformer and perceiver.
    emotion=dataclasses.replace(TINY.emotion, width=12, latent_width=12, perceiver_head_dim=8),
)
STEPS, LOGITS = 24, 8  # of greedy decoding, at most; steps whose logits are compared
RULES = {
    "plain": gen.DecodingRules("plain", penalized=(1, CFG.start_code)),
    "released": gen.DecodingRules("released", penalized=(1, CFG.start_code)),
    "unpenalized": gen.DecodingRules("released"),
}
PENALTIES = (1.0, 1.2, 10.0)
MASSES = (0.2, 0.9, 1.0)
TOP_KS = (0, 1, 5, CFG.num_codes)
TOP_PS = (1e-4, 0.3, 0.8, 1.0)
# (penalty, typical mass, temperature, top-k, top-p)
CHAINS = ((10.0, 1.0, 0.8, 30, 0.8), (1.5, 0.9, 1.7, 0, 0.6), (3.0, 0.5, 0.3, 4, 0.95))
# Of training: rows whose duration is not told, slots of the others, weight of the text.
FREE = (False, True, False)
SLOTS = ("pos(T)", "pos(T//2)")
TEXT_WEIGHT = 0.5
GRADIENTS = (
    "mel_embedding.weight",
    "mel_pos_embedding.emb.weight",
    "text_embedding.weight",
    "speed_emb.weight",
    "gpt.h.0.attn.c_attn.weight",
    "gpt.h.1.mlp.c_fc.weight",
    "final_norm.weight",
    "text_head.bias",
    "mel_head.weight",
    # Behind the conditions:
    "conditioning_encoder.embed.out.0.weight",
    "emo_perceiver_encoder.latents",
    "emovec_layer.weight",
)


@functools.cache
def golden():
    return load_golden("t2s")


@functools.cache
def model():
    empty = pytree.abstract(lambda rngs: gpt.T2S(CFG, rngs=rngs))
    weights = {k: w.astype(np.float32) for k, w in weights_of(golden()).items()}
    return pytree.fill(empty, convert.to_jax(weights, gpt.TORCH_RULES, pytree.shapes(empty)))


def batch_of(name):
    """Items of the golden with something behind them, their lengths [B] and their mask [B, T]."""
    items, lengths = golden()[name].copy(), golden()[f"{name}_lengths"]
    mask = np.arange(items.shape[1]) < lengths[:, None]
    items[~mask] = 3
    return items, lengths, mask


def assert_close(got, want, valid=...):
    assert relative_error(np.asarray(got)[valid], want[valid]) < 1e-5


@pytest.mark.parametrize("part", ["speaker", "emotion"])
def test_conditioner_equals_the_formulas(part):
    features, _, mask = batch_of("features")
    conditioner = getattr(model(), f"{part}_conditioner")
    encoded, valid = jax.jit(lambda m, *x: m.encode(*x))(conditioner, features, mask)
    np.testing.assert_array_equal(valid.sum(1), [5, 3])  # (T - 1) // 2
    assert_close(encoded, golden()[f"{part}_encoded"], np.asarray(valid))
    latents = jax.jit(lambda m, *x: m(*x))(conditioner, features, mask)
    assert_close(latents, golden()[f"{part}_latents"])


def test_emotion_vector_equals_the_formulas():
    features, lengths, _ = batch_of("features")
    vectors = jax.jit(gpt.T2S.emotion_vector)(model(), features, lengths)
    assert_close(vectors, golden()["emotion_vectors"])


@functools.cache
def prefix():
    """The golden's conditions and text, embedded by the model."""
    text, lengths, _ = batch_of("text")
    conditions = golden()["speaker_latents"], golden()["emotion_vectors"]
    return model().prefix(*conditions, text, lengths)


def test_prefix_equals_the_formulas_and_is_padded_on_the_left():
    built, wanted = prefix(), golden()["prefixes"]
    for row, length in enumerate(golden()["text_lengths"]):
        n, P = CFG.num_conditions + length + 2, built.mask.shape[1]
        np.testing.assert_array_equal(built.mask[row], np.arange(P) >= P - n)
        assert_close(built.x[row, -n:], wanted[row, :n])


def test_teacher_forced_pass_equals_transformers():
    codes, lengths, _ = batch_of("codes")
    P = prefix().mask.shape[1]
    hidden = jax.jit(gpt.T2S.teacher_forced)(model(), prefix(), codes)[:, P:]
    valid = np.arange(hidden.shape[1]) <= lengths[:, None]
    assert_close(hidden, golden()["code_states"], valid)
    assert_close(model().code_logits(hidden), golden()["code_logits"], valid)
    assert_close(model().text_logits(hidden), golden()["text_logits"], valid)
    latents = gpt.gpt_latents(model(), prefix(), codes)
    np.testing.assert_allclose(latents, hidden[:, :-1], atol=1e-5)


def test_trunk_equals_gpt2_with_padding_on_the_left():
    x, mask = golden()["trunk_x"], golden()["trunk_mask"]
    causal = np.tril(np.ones((x.shape[1],) * 2, bool))
    hidden, _ = jax.jit(gpt.T2S.trunk)(model(), x, causal & mask[:, None])
    assert_close(hidden, golden()["trunk_hidden"], mask)


def test_trunk_with_a_cache_equals_gpt2_step_by_step():
    x, mask = golden()["trunk_x"], golden()["trunk_mask"]
    B, T, _ = x.shape
    size = T + 2  # room that is never filled
    readable = np.tril(np.ones((T, size), bool)) & np.pad(mask, ((0, 0), (0, 2)))[:, None]
    trunk = jax.jit(gpt.T2S.trunk)
    cache, hidden = gpt.KVCache.empty(CFG, B, size, x.dtype), []
    for start, end in [(0, 5), *((t, t + 1) for t in range(5, T))]:
        h, cache = trunk(model(), x[:, start:end], readable[:, start:end], cache, start)
        hidden.append(h)
    assert_close(jnp.concatenate(hidden, axis=1), golden()["trunk_hidden"], mask)


@pytest.mark.parametrize("name", RULES)
def test_greedy_codes_equal_a_loop_over_gpt2(name):
    wanted, logits = golden()[f"greedy_{name}"], golden()[f"greedy_{name}_logits"]
    out = gen.generate(
        model(),
        prefix(),
        gen.Sampling.make(2, greedy=True, repetition_penalty=10.0),
        jax.random.split(jax.random.key(0), 2),
        gen.CodeLimits.make(2, STEPS),
        rules=RULES[name],
        trace=True,
    )
    np.testing.assert_array_equal(out.codes[:, : wanted.shape[1]], wanted)
    np.testing.assert_array_equal(out.codes[:, wanted.shape[1] :], CFG.stop_code)
    lengths = np.sum(wanted != CFG.stop_code, axis=1)
    np.testing.assert_array_equal(out.lengths, lengths)
    np.testing.assert_array_equal(out.stopped, lengths < STEPS)
    reached = np.arange(LOGITS) <= lengths[:, None]
    assert_close(out.trace.logits[:, :LOGITS], logits, reached)


def test_the_greedy_cases_tell_the_rules_apart():
    plain, released, unpenalized = (golden()[f"greedy_{name}"].tolist() for name in RULES)
    assert plain != released != unpenalized


def batch_to_train_on():
    batch = load_golden("t2s_loss")
    for name in ("text", "code", "feature", "prompt_feature"):
        items = batch[name if name == "text" else f"{name}s"]
        items[np.arange(items.shape[1]) >= batch[f"{name}_lengths"][:, None]] = 3
    return batch


def assert_losses_and_gradients_equal_torch(run, batch, compare):
    """Compares `run(T2S) -> (losses [B], {part: losses [B]})` with the golden.

    Args:
      run: to differentiate, as the mean over the rows.
      batch: the golden.
      compare: torch names of the weights whose gradients are compared.
    """

    def mean(arrays):
        losses, parts = run(pytree.fill(model(), arrays))
        return losses.mean(), (losses, parts)

    compute = jax.jit(jax.grad(mean, has_aux=True))
    gradients, (losses, parts) = compute(pytree.params(model()))
    for name in ("code_loss", "text_loss"):
        assert_close(parts[name], batch[name])
    assert_close(losses, batch["code_loss"] + TEXT_WEIGHT * batch["text_loss"])
    gradients = {name: np.asarray(x) for name, x in gradients.items()}
    by_torch_name = convert.to_torch(gradients, gpt.TORCH_RULES)
    errors = {name: relative_error(by_torch_name[name], batch[f"d/{name}"]) for name in compare}
    assert max(errors.values()) < 1e-4, errors


def test_losses_and_gradients_of_padded_rows_equal_torch():
    batch = batch_to_train_on()

    def run(t2s):
        num_codes = jnp.where(np.array(FREE), 0, batch["code_lengths"])
        prefix = t2s.prefix(
            *(batch["speaker_latents"], batch["emotion_vectors"]),
            *(batch["text"], batch["text_lengths"]),
            num_codes=num_codes,
            slots=SLOTS,
        )
        hidden, P = t2s.teacher_forced(prefix, batch["codes"]), prefix.x.shape[1]
        codes, _ = training.code_loss(t2s, hidden[:, P:], batch["codes"], batch["code_lengths"])
        text, _ = training.text_loss(t2s, hidden[:, :P], batch["text"], batch["text_lengths"])
        return codes + TEXT_WEIGHT * text, {"code_loss": codes, "text_loss": text}

    assert_losses_and_gradients_equal_torch(run, batch, GRADIENTS[:9])


@pytest.mark.slow
def test_losses_and_gradients_of_a_training_step_equal_torch():
    batch = batch_to_train_on()
    losses = training.Losses(zero_duration=0.3, text=TEXT_WEIGHT, speaker=0.0, reversal=1.0)
    task = training.make_task(CFG, SLOTS, losses)

    def run(t2s):
        return task.loss({"t2s": t2s}, batch, np.array(FREE), None, 0.0)

    assert_losses_and_gradients_equal_torch(run, batch, GRADIENTS)


# Logits processors. Rows 3 to 5 of the golden logits are full of ties.


def per_row(value, dtype=jnp.float32):
    return jnp.full(len(golden()["logits"]), value, dtype)


def seen():
    past = golden()["past"]
    return (
        jnp.zeros(golden()["logits"].shape, bool).at[np.arange(len(past))[:, None], past].set(True)
    )


def with_whole_ties(kept, scores):
    """`kept` and the scores that equal one of them: torch's top-p keeps any part of a tie."""
    equal = np.isclose(scores[..., None], kept[:, None], rtol=1e-6, atol=0).any(axis=-1)
    return np.where(equal, scores, -np.inf)


@pytest.mark.parametrize("penalty", PENALTIES)
def test_penalty_equals_transformers(penalty):
    got = gen.penalize(golden()["logits"], seen(), per_row(penalty))
    np.testing.assert_allclose(got, golden()[f"penalty_{penalty}"], rtol=1e-6)


@pytest.mark.parametrize("mass", MASSES)
def test_typical_filter_equals_transformers(mass):
    got = gen.keep_typical(golden()["logits"], per_row(mass))
    np.testing.assert_array_equal(got, golden()[f"mass_{mass}"])


@pytest.mark.parametrize("k", TOP_KS)
def test_top_k_equals_transformers(k):
    got = gen.keep_top(golden()["logits"], per_row(k, jnp.int32), per_row(1.0))
    np.testing.assert_array_equal(got, golden()[f"top_k_{k}"])


@pytest.mark.parametrize("p", TOP_PS)
def test_top_p_equals_transformers_but_keeps_ties_whole(p):
    logits, wanted = golden()["logits"], golden()[f"top_p_{p}"]
    got = gen.keep_top(logits, per_row(0, jnp.int32), per_row(p))
    np.testing.assert_array_equal(got, with_whole_ties(wanted, logits))
    np.testing.assert_array_equal(got[:3], wanted[:3])


def test_top_p_1_keeps_every_code():
    logits = np.linspace(0, 40, CFG.num_codes, dtype=np.float32)[None]
    got = gen.keep_top(logits, jnp.zeros(1, jnp.int32), jnp.ones(1))
    np.testing.assert_array_equal(got, logits)


@pytest.mark.parametrize("chain", range(len(CHAINS)))
def test_pick_draws_from_what_transformers_leaves(chain):
    penalty, mass, temperature, k, p = CHAINS[chain]
    rows = golden()["logits"].shape[0]
    sampling = gen.Sampling.make(rows, temperature=temperature, top_k=k, top_p=p, typical_mass=mass)
    penalized = gen.penalize(golden()["logits"], seen(), per_row(penalty))
    left = with_whole_ties(golden()[f"chain_{chain}"], np.asarray(penalized) / temperature)

    def draw(seed):
        keys = jax.random.split(jax.random.key(seed), rows)
        same = jax.vmap(jax.random.categorical)(keys, left)
        return gen.pick(penalized, sampling, keys), same

    got, wanted = jax.jit(jax.vmap(draw))(jnp.arange(100))
    np.testing.assert_array_equal(got, wanted)
