"""The S2M trainer: what a row costs, what it may depend on, and what learns from it."""

import dataclasses
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from indextts2_jax import programs, sharding
from indextts2_jax.nn import pytree
from indextts2_jax.prompt.semantic_codec import SemanticCodecConfig
from indextts2_jax.s2m import flow_matching
from indextts2_jax.s2m.conditions import Conditions
from indextts2_jax.s2m.model import S2MConfig
from indextts2_jax.s2m.text_features import TextFeatures, spread
from indextts2_jax.t2s.gpt import T2SConfig
from tests.train_common import make_step, run
from train import s2m, t2s
from train.run import lora
from train.run.step import to_devices
from train.run.task import Task, TrainingError

pytestmark = pytest.mark.slow  # one program, which takes half a minute to compile

T2S = dataclasses.replace(T2SConfig.tiny(), num_layers=1)
CODEC = dataclasses.replace(SemanticCodecConfig.tiny(), feature_width=16, codebook_size=32)
CFG = dataclasses.replace(
    S2MConfig.tiny(),
    latent_widths=(T2S.width, 8, 16),
    velocity=dataclasses.replace(S2MConfig.tiny().velocity, num_layers=3),
)
WORD_WIDTH = 5
B, FRAMES, CODES = 3, 14, 8  # padded; prompts are as long as targets
PAPER = s2m.Method()
PREFIX = s2m.Method(latent_probability=0.0, prompt="prefix")


def make_batch() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    mel_lengths, prompt_lengths = np.array([14, 9, 12]), np.array([5, 14, 8])

    def lengthy(name, length, *shape, lengths):
        mask = np.arange(length) < lengths[:, None]
        x = rng.standard_normal((B, length, *shape)).astype(np.float32)
        return {name: x * mask[..., None]}

    def integers(name, high, length, lengths):
        x = rng.integers(2, high, (B, length)) * (np.arange(length) < lengths[:, None])
        return {name: x.astype(np.int32)}

    lengths = {
        "text_lengths": np.array([4, 6, 5]),
        "code_lengths": np.array([8, 5, 7]),
        "feature_lengths": np.array([16, 10, 14]),
        "prompt_feature_lengths": np.array([6, 16, 10]),
        "mel_lengths": mel_lengths,
        "prompt_mel_lengths": prompt_lengths,
        "prompt_code_lengths": np.array([3, 8, 5]),
        "word_frames": np.array([[3, 5, 6], [9, 0, 0], [4, 8, 0]]),
    }
    out: dict[str, np.ndarray] = {name: x.astype(np.int32) for name, x in lengths.items()}
    out |= integers("text", 40, 6, out["text_lengths"])
    out |= integers("codes", 32, CODES, out["code_lengths"])
    out |= integers("prompt_codes", 32, CODES, out["prompt_code_lengths"])
    out |= lengthy("features", 16, 12, lengths=out["feature_lengths"])
    out |= lengthy("prompt_features", 16, 12, lengths=out["prompt_feature_lengths"])
    out |= lengthy("mel", FRAMES, 8, lengths=mel_lengths)
    out |= lengthy("prompt_mel", FRAMES, 8, lengths=prompt_lengths)
    out["prompt_style"] = rng.standard_normal((B, 8)).astype(np.float32)
    out["word_vectors"] = rng.standard_normal((B, 3, WORD_WIDTH)).astype(np.float16)
    return out


def make_draws(use_latents=(True, False, True)) -> s2m.Draws:
    rng = np.random.default_rng(1)
    noise = rng.standard_normal((B, 2 * FRAMES, 8)).astype(np.float32)
    t = np.array([0.3, 0.8, 0.5], np.float32)
    flow = flow_matching.Draws(t, noise, np.array([False, False, True]))
    return s2m.Draws(flow, np.array(use_latents), np.array([0.25, 0.12, 0.29], np.float32))


def make_task(method=PAPER, words=WORD_WIDTH) -> Task:
    return s2m.make_task(dataclasses.replace(CFG, word_width=words), CODEC, method, t2s_cfg=T2S)


def random_arrays(task: Task) -> dict[str, np.ndarray]:
    """Every module's arrays, the same in every task."""
    return {
        f"{prefix}.{name}": x
        for prefix, module in task.modules.items()
        for name, x in pytree.random_arrays(module.build, seed=len(prefix)).items()
    }


@pytest.fixture(scope="module")
def paper():
    """The task of the paper with word vectors, its arrays, and its losses and gradients."""
    task = make_task()

    def mean(arrays, batch, draws):
        losses, _ = task.loss(task.fill(arrays), batch, draws, None, jnp.float32(0))
        return losses.mean(), losses

    @jax.jit
    def compute(arrays, batch, draws):
        gradients, losses = jax.grad(mean, has_aux=True)(arrays, batch, draws)
        return losses, gradients

    return task, random_arrays(task), compute


@jax.jit
def flow_losses(velocity, *args):
    return flow_matching.loss(velocity, *args)[0]


def test_loss_is_that_of_the_conditions_of_inference(paper):
    task, arrays, compute = paper
    batch, draws = make_batch(), make_draws()
    got, _ = compute(arrays, batch, draws)

    nets = task.fill(arrays)
    model, decoder = nets["s2m"], nets["t2s"]
    conditions = (
        programs.speaker_latents(
            decoder, batch["prompt_features"], batch["prompt_feature_lengths"]
        ),
        programs.emotion_vector(decoder, batch["features"], batch["feature_lengths"]),
    )
    prefix = programs.embed_prefix(decoder, *conditions, batch["text"], batch["text_lengths"])
    codec = nets["semantic_codec"]
    latents = programs.gpt_latents(decoder, prefix, batch["codes"])
    semantic = programs.semantic(codec, model, batch["codes"], latents)
    drawn = draws.use_latents[:, None, None]
    semantic = np.where(drawn, semantic, codec.embed(batch["codes"]))
    regulate = jax.jit(model.length_regulator, static_argnums=3)  # words are added by hand below
    after = regulate(semantic, batch["code_lengths"], batch["mel_lengths"], FRAMES)
    before = regulate(
        codec.embed(batch["prompt_codes"]),
        batch["prompt_code_lengths"],
        batch["prompt_mel_lengths"],
        FRAMES,
    )
    kernel = arrays["s2m.text_features.projection.kernel"]
    mel, mu = np.zeros((B, 2 * FRAMES, 8), np.float32), np.zeros((B, 2 * FRAMES, 12), np.float32)
    for b in range(B):
        P, F = batch["prompt_mel_lengths"][b], batch["mel_lengths"][b]
        words = np.repeat(batch["word_vectors"][b], batch["word_frames"][b], axis=0)
        mel[b, : P + F] = np.concatenate([batch["prompt_mel"][b, :P], batch["mel"][b, :F]])
        mu[b, : P + F] = np.concatenate([before[b, :P], after[b, :F] + words @ kernel])
    lengths = batch["prompt_mel_lengths"] + batch["mel_lengths"]
    conditions = Conditions(mu, mel, batch["prompt_mel_lengths"], batch["prompt_style"], lengths)
    want = flow_losses(model.velocity, mel, conditions, draws.flow)
    np.testing.assert_allclose(got, want, rtol=1e-5)


def test_latents_count_where_they_are_drawn_and_teach_t2s_nothing(paper):
    _, arrays, compute = paper
    batch = make_batch()
    some, gradients = compute(arrays, batch, make_draws([True, False, True]))
    none, without = compute(arrays, batch, make_draws([False, False, False]))
    np.testing.assert_array_equal(some[1:], none[1:])  # not drawn; drawn, but without conditions
    assert abs(some[0] - none[0]) > 1e-4
    for name in gradients:
        if name.startswith("t2s."):
            assert not np.any(gradients[name]), name
        if name.startswith("s2m.latent_projection."):
            assert np.any(gradients[name]) and not np.any(without[name]), name
    kernels = [n for n in gradients if n.startswith("s2m.")]
    dead = [n for n in kernels if n.endswith("kernel") and not np.any(gradients[n])]
    assert kernels and not dead


def test_prompt_is_heard_but_not_scored(paper):
    """With a velocity of zero only the targets are left in the loss."""
    _, arrays, compute = paper
    batch, draws = make_batch(), make_draws()
    silent = dict(arrays)
    for name in ("kernel", "bias"):
        silent[f"s2m.velocity.output.{name}"] = np.zeros_like(arrays[f"s2m.velocity.output.{name}"])
    got, _ = compute(silent, batch, draws)
    for b in range(B):
        P, F = batch["prompt_mel_lengths"][b], batch["mel_lengths"][b]
        want = np.abs(batch["mel"][b, :F] - (1 - 1e-6) * draws.flow.noise[b, P : P + F]).mean()
        np.testing.assert_allclose(got[b], want, rtol=1e-5)
    other = {**batch, "prompt_mel": 2 * batch["prompt_mel"]}
    np.testing.assert_array_equal(compute(silent, other, draws)[0], got)
    before, after = (compute(arrays, x, draws)[0] for x in (batch, other))
    assert np.all(abs(before - after)[:2] > 1e-4)  # the third row has no conditions


def test_padding_of_every_field_changes_nothing(paper):
    task, arrays, compute = paper
    batch, draws = make_batch(), make_draws()
    longer = {
        name: x
        if x.ndim == 1 or name == "prompt_style"
        else np.pad(x, [(0, 0), (0, 3)] + [(0, 0)] * (x.ndim - 2))
        for name, x in batch.items()
    }
    noise = np.pad(draws.flow.noise, [(0, 0), (0, 6), (0, 0)], constant_values=9.0)
    padded = dataclasses.replace(draws, flow=dataclasses.replace(draws.flow, noise=noise))
    loss = jax.jit(lambda *args: task.loss(task.fill(args[0]), *args[1:], None, 0.0)[0])
    np.testing.assert_allclose(
        loss(arrays, longer, padded), compute(arrays, batch, draws)[0], rtol=1e-5
    )


def test_prefix_of_the_utterance_is_its_prompt_and_needs_no_t2s():
    task = make_task(PREFIX, words=0)
    assert task.modules.keys() == {"s2m", "semantic_codec"}
    assert PREFIX.fields == {"codes", "mel", "prompt_style"}
    arrays, draws = random_arrays(task), make_draws()
    whole = make_batch()
    names = ("codes", "code_lengths", "mel", "mel_lengths", "prompt_style")
    batch = {name: whole[name] for name in names}
    batch["mel"] = np.pad(batch["mel"], [(0, 0), (0, FRAMES), (0, 0)])
    loss = jax.jit(lambda *args: task.loss(task.fill(args[0]), *args[1:], None, 0.0)[0])
    got = loss(arrays, batch, draws)

    nets = task.fill(arrays)
    lengths = batch["code_lengths"], batch["mel_lengths"]
    regulate = jax.jit(nets["s2m"].length_regulator, static_argnums=3)
    mu = regulate(nets["semantic_codec"].embed(batch["codes"]), *lengths, 2 * FRAMES)
    prompts = np.array([3, 1, 3])  # of 14, 9 and 12 frames
    conditions = Conditions(mu, batch["mel"], prompts, batch["prompt_style"], batch["mel_lengths"])
    want = flow_losses(nets["s2m"].velocity, batch["mel"], conditions, draws.flow)
    np.testing.assert_allclose(got, want, rtol=1e-5)


def test_prefix_hears_neither_latents_nor_words(monkeypatch):
    method = dataclasses.replace(PAPER, prompt="prefix")
    task, batch = make_task(method), make_batch()
    nets, heard = task.fill(random_arrays(task)), []

    def regulate(semantic, code_lengths, frame_lengths, num_frames):
        heard.append(np.any(semantic != nets["semantic_codec"].embed(batch["codes"]), axis=2))
        return jnp.zeros((B, num_frames, 12))

    nets["s2m"].length_regulator = regulate
    monkeypatch.setattr(s2m, "latents_of", lambda *_: jnp.ones((B, CODES, T2S.width)))
    _, conditions = s2m.example_of(nets, batch, make_draws([True, True, False]), method)
    heard.append(np.any(conditions.mu, axis=2))
    codes, frames = (x.argmax(axis=1) for x in heard)  # 0.25, 0.12 and 0.29 of
    np.testing.assert_array_equal(codes, [2, 0, 0])  # ... 8, 5 and 7 (which has no latents)
    assert not heard[0][2].any()
    np.testing.assert_array_equal(frames, [3, 1, 3])  # ... 14, 9 and 12
    np.testing.assert_array_equal(conditions.prompt_lengths, frames)


def test_words_are_spread_over_their_frames():
    words = np.random.default_rng(0).standard_normal((2, 4, 3)).astype(np.float32)
    frames = np.array([[2, 0, 3, 1], [4, 1, 0, 0]])
    got = spread(jnp.asarray(words), jnp.asarray(frames), 7)
    for b in range(2):
        want = np.repeat(words[b], frames[b], axis=0)
        np.testing.assert_array_equal(got[b, : len(want)], want)
        assert not np.any(got[b, len(want) :])
    new = TextFeatures(3, 6, rngs=pytree.Keys(jax.random.key(0)))
    assert not np.any(new(words, frames, 7)) and new(words, frames, 7).shape == (2, 7, 6)


def test_draws_follow_the_method():
    rows = 2000
    batch = {
        "mel": np.zeros((rows, 2, 3)),
        "prompt_mel": np.zeros((rows, 4, 3)),
    }
    draws = make_task().draw(jax.random.key(0), batch)
    assert draws.flow.noise.shape == (rows, 6, 3) and draws.flow.noise.dtype == np.float32
    assert abs(np.mean(draws.use_latents) - 0.5) < 0.04
    assert abs(np.mean(draws.flow.drop_condition) - 0.1) < 0.03
    assert draws.prefix.min() >= 0 and 0.29 < draws.prefix.max() < 0.3


def test_tokens_and_operations_are_counted():
    task, batch = make_task(PREFIX), make_batch()
    assert task.tokens(batch) == B * FRAMES
    assert make_task().tokens(batch) == B * 2 * FRAMES
    assert task.flops(batch) == s2m.flops(CFG, B * FRAMES, FRAMES)
    forward = make_task().flops(batch) - s2m.flops(CFG, B * 2 * FRAMES, 2 * FRAMES)
    assert np.isclose(forward, t2s.latent_flops(T2S, batch))
    released = s2m.flops(S2MConfig.indextts2(), 1, 0) / 6
    assert 7.0e7 < released < 8.5e7  # of 98 million, without those of time embeddings


def test_lora_trains_adapters_and_new_modules_alone_and_merges():
    stage = s2m.stage(steps=10, rate=1e-2, warmup=0, prompt="prefix", latent_probability=0.0)
    task = make_task(PREFIX)
    mesh = sharding.make_mesh(devices=jax.devices()[:1])
    adapters = lora.LoraConfig(2, 4.0, task.lora_targets)
    step = make_step(task, stage, mesh, adapters=adapters)
    new = "s2m.text_features.projection.kernel"
    assert [n for n in step.partition.trained if not n.endswith((lora.A, lora.B))] == [new]
    arrays = random_arrays(task) | step.random(jax.random.key(0), step.partition.trained)
    frozen = {name: jnp.asarray(arrays[name]) for name in step.frozen_shardings}
    params = {name: arrays[name] for name in step.param_shardings}
    state = step.start(params, jax.random.key_data(jax.random.key(1)))
    batch = make_batch() | {"weight": np.ones(B, np.float32)}
    for _ in range(2):
        state, metrics = step.train(state, frozen, to_devices(batch, mesh))
    assert bool(metrics["finite"]) and np.any(state.params[new])
    name = "s2m.velocity.blocks.2.attention.qkv.kernel"
    learned = step.learned(state.params, frozen)
    a, b = (np.asarray(state.params[name + end]) for end in (lora.A, lora.B))
    np.testing.assert_allclose(learned[name], arrays[name] + 2.0 * a @ b, atol=1e-6)
    assert np.any(b) and learned.keys() == {new} | {
        n.removesuffix(lora.A) for n in state.params if n.endswith(lora.A)
    }


@pytest.fixture(scope="module")
def single():
    """Two steps of the paper's method on one device."""
    return run(method_step(jax.devices()[:1]), ROWS_8)


ROWS_8 = {  # devices, or parts of an accumulation
    name: np.resize(x, (8, *x.shape[1:]))
    for name, x in {**make_batch(), "weight": np.ones(B, np.float32)}.items()
}


def method_step(devices, *sizes, accumulation=1):
    stage = s2m.stage(steps=10, rate=1e-2, warmup=0, dropout=0.0)
    mesh = sharding.make_mesh(*sizes, devices=devices)
    task = make_task(s2m.Method.of(stage))
    return make_step(task, stage, mesh, accumulation=accumulation)


@pytest.mark.parametrize("sizes, accumulation", [((2, 2, 2), 1), ((1, 1, 1), 4)])
def test_sharded_and_accumulated_equal_single(single, sizes, accumulation):
    step = method_step(jax.devices()[: math.prod(sizes)], *sizes, accumulation=accumulation)
    losses, _, _, state = run(step, ROWS_8)
    np.testing.assert_allclose(losses, single[0], rtol=1e-5)
    for name, x in single[3].params.items():
        # Two steps move a weight by up to 2e-2, whatever the size of its gradient: where that is
        # small, its rounding counts.
        np.testing.assert_allclose(state.params[name], x, atol=1e-3, err_msg=name)
    assert any(any(s.spec) for s in step.param_shardings.values())


def test_unknown_method_is_refused():
    with pytest.raises(TrainingError, match="prompt is 'self'; want one of other, prefix"):
        s2m.Method(prompt="self")
    with pytest.raises(TrainingError, match="objective is 'L2'"):
        s2m.Method(objective="L2")
    with pytest.raises(TrainingError, match="longest_prefix is 1"):
        s2m.Method(longest_prefix=1.0)
    assert s2m.Method.of(s2m.stage(prompt="prefix")).prompt == "prefix"
