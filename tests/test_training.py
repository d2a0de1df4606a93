"""The trainer: one step on any mesh, stages, resuming, what a run leaves behind."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from indextts2_jax import sharding
from indextts2_jax.t2s.gpt import T2SConfig
from tests import train_common
from tests.common import ROOT
from tests.train_common import begin, run
from train import t2s
from train.objectives.adversary import SpeakerClassifierConfig
from train.run import config, loop, lora
from train.run.step import to_devices

TINY = T2SConfig.tiny()
CFG = dataclasses.replace(
    TINY,
    dropout=0.0,
    num_layers=1,
    speaker=dataclasses.replace(TINY.speaker, perceiver_depth=1),
    emotion=dataclasses.replace(TINY.emotion, perceiver_depth=1),
)
SLOTS = ("pos(T)", "speed0")


def make_batch(rows=8, text=10, codes=12, seed=0):
    rng = np.random.default_rng(seed)
    size = lambda low, high: rng.integers(low, high + 1, rows).astype(np.int32)  # noqa: E731
    features = CFG.speaker.feature_dim
    return {
        "text": rng.integers(2, 40, (rows, text)).astype(np.int32),
        "text_lengths": size(3, text),
        "codes": rng.integers(0, 32, (rows, codes)).astype(np.int32),
        "code_lengths": size(4, codes),
        "features": rng.normal(size=(rows, 20, features)).astype(np.float16),
        "feature_lengths": size(10, 20),
        "prompt_features": rng.normal(size=(rows, 16, features)).astype(np.float16),
        "prompt_feature_lengths": size(8, 16),
        "speaker": size(0, 2),
        "weight": np.ones(rows, np.float32),
    }


def make_step(mesh, *, accumulation=1, adapters=None, **stage):
    stage = t2s.stage(steps=10, warmup=0, **{"rate": 1e-2, **stage})
    losses = t2s.Losses(stage.zero_duration, stage.text_loss, stage.speaker_loss, stage.reversal)
    task = t2s.make_task(CFG, SLOTS, losses, classifier=SpeakerClassifierConfig(32, 8, 3))
    return train_common.make_step(task, stage, mesh, accumulation=accumulation, adapters=adapters)


@pytest.fixture(scope="module")
def single():
    step = make_step(sharding.make_mesh(devices=jax.devices()[:1]))
    return run(step, make_batch())


@pytest.mark.slow
@pytest.mark.parametrize("sizes", [(2, 2, 2), (8, 1, 1), (1, 8, 1), (1, 1, 8)])
def test_sharded_equals_single(single, sizes):
    step = make_step(sharding.make_mesh(*sizes))
    losses, _, _, state = run(step, make_batch())
    np.testing.assert_allclose(losses, single[0], rtol=2e-6)
    for name, x in single[3].params.items():
        got = state.params[name]
        assert got.sharding.is_equivalent_to(step.param_shardings[name], got.ndim), name
        # Adam divides by the size of a gradient: rounding of tiny ones is as large as the rate.
        np.testing.assert_allclose(got, x, atol=2e-4, err_msg=name)
    split = [n for n, s in step.param_shardings.items() if any(s.spec)]
    assert split or sizes == (8, 1, 1)
    moments = state.optimizer[1][0].mu
    for name in split:
        assert moments[name].sharding.spec == step.param_shardings[name].spec, name


@pytest.fixture(scope="module")
def muon():
    step = make_step(sharding.make_mesh(devices=jax.devices()[:1]), optimizer="muon")
    return step, *run(step, make_batch())


def momenta(state):
    """Momentum that Muon and AdamW hold, by name."""
    inner = state.optimizer[1].inner_states
    muon = inner["muon"].inner_state.inner_states["muon"].inner_state[0].mu
    return [
        {name: x for name, x in held.items() if not isinstance(x, optax.MaskedNode)}
        for held in (muon, inner["adamw"].inner_state[0].mu)
    ]


@pytest.mark.slow
def test_muon_takes_matrices_and_adamw_the_rest(muon):
    _, _, first, _, state = muon
    matrices, others = momenta(state)
    assert matrices.keys() | others.keys() == set(state.params)
    assert not matrices.keys() & others.keys()
    assert {"t2s.blocks.0.qkv.kernel", "t2s.emotion_in.kernel"} <= matrices.keys()
    for name in ("text_embed.embedding", "code_head.kernel", "text_position.embedding",
                 "speaker_conditioner.latents", "speaker_conditioner.blocks.0.position_bias",
                 "speaker_conditioner.blocks.0.depthwise.kernel"):  # fmt: skip
        assert f"t2s.{name}" in others
    assert all(state.params[name].ndim == 2 for name in matrices)
    for name in ("t2s.blocks.0.qkv.kernel", "t2s.code_head.kernel"):
        assert np.any(np.asarray(state.params[name]) != first[name])


@pytest.mark.slow
def test_muon_sharded_equals_single(muon):
    _, losses, _, _, state = muon
    step = make_step(sharding.make_mesh(2, 2, 2), optimizer="muon")
    got, _, _, other = run(step, make_batch())
    np.testing.assert_allclose(got, losses, rtol=1e-5)
    for name, x in state.params.items():
        np.testing.assert_allclose(other.params[name], x, atol=3e-4, err_msg=name)
    momentum, _ = momenta(other)
    split = [name for name in momentum if any(step.param_shardings[name].spec)]
    assert split
    for name in split:
        assert momentum[name].sharding.spec == step.param_shardings[name].spec, name


def test_an_unknown_optimizer_is_an_error():
    with pytest.raises(loop.InputError, match="optimizer is 'sgd'; want one of adamw, muon"):
        make_step(sharding.make_mesh(devices=jax.devices()[:1]), optimizer="sgd")


@pytest.mark.slow
def test_accumulation_equals_a_large_batch(single):
    step = make_step(sharding.make_mesh(devices=jax.devices()[:1]), accumulation=4)
    losses, _, _, state = run(step, make_batch())
    np.testing.assert_allclose(losses, single[0], rtol=2e-6)
    for name, x in single[3].params.items():
        np.testing.assert_allclose(state.params[name], x, atol=2e-4, err_msg=name)


@pytest.mark.slow
def test_rows_of_weight_0_count_for_nothing(single):
    step = make_step(sharding.make_mesh(devices=jax.devices()[:1]))
    batch = make_batch()
    batch["weight"][6:] = 0
    other = {n: x.copy() for n, x in batch.items()}
    other["codes"][6:] = 1
    frozen, state = begin(step)
    key = jax.random.key(5)
    got = [step.validate(state.params, frozen, to_devices(b, step.mesh), key) for b in
           (batch, other)]  # fmt: skip
    assert float(got[0]["loss"]) == float(got[1]["loss"])


@pytest.fixture(scope="module")
def step():
    """One that trains T2S without its conditioners."""
    one = sharding.make_mesh(devices=jax.devices()[:1])
    return make_step(one, freeze=(t2s.EMOTION_BRANCH, t2s.SPEAKER_BRANCH))


def test_frozen_parts_do_not_move_by_one_bit(step):
    _, first, frozen, state = run(step, make_batch())
    assert any(n.startswith("t2s.emotion_conditioner.") for n in frozen)
    assert not any("conditioner" in n for n in state.params)
    for name, x in frozen.items():
        np.testing.assert_array_equal(x, first[name], err_msg=name)
    moved = [n for n, x in state.params.items() if (np.asarray(x) != first[n]).any()]
    assert len(moved) > 0.9 * len(state.params)


@pytest.mark.slow
def test_lora_trains_adapters_alone_and_merges():
    adapters = lora.LoraConfig(4, 8.0, lora.T2S_TARGETS)
    step = make_step(sharding.make_mesh(devices=jax.devices()[:1]), adapters=adapters)
    losses, first, frozen, state = run(step, make_batch(), steps=3)
    assert all(n.endswith((lora.A, lora.B)) for n in state.params)
    assert losses[-1] < losses[0]
    learned = step.learned(state.params, frozen)
    name = "t2s.blocks.0.qkv.kernel"
    a, b = (np.asarray(state.params[name + end]) for end in (lora.A, lora.B))
    np.testing.assert_allclose(learned[name], first[name] + 2.0 * a @ b, atol=1e-6)
    assert learned.keys() == {n.removesuffix(lora.A).removesuffix(lora.B) for n in state.params}


@pytest.mark.slow
def test_speaker_reversal_reaches_the_emotion_branch():
    """Equation 4: the classifier descends, the emotion branch ascends on the same loss."""
    mesh = sharding.make_mesh(devices=jax.devices()[:1])
    batch = make_batch()

    def gradients(reversal):
        step = make_step(mesh, speaker_loss=1.0, reversal=reversal)
        frozen, state = begin(step)
        compute = jax.jit(step.gradients)
        return compute(state.params, frozen, batch, jax.random.key(0), jnp.float32(1))[2]

    off, one, two = (gradients(x) for x in (0.0, 1.0, 2.0))
    name = "t2s.emotion_out.kernel"
    reversed_part = np.asarray(one[name]) - np.asarray(off[name])
    assert np.abs(reversed_part).max() > 0
    np.testing.assert_allclose(two[name] - off[name], 2 * reversed_part, rtol=1e-3, atol=1e-7)
    head = "speaker_classifier.out.kernel"
    np.testing.assert_allclose(one[head], off[head], rtol=1e-5)


@pytest.mark.slow
def test_loss_is_the_mean_over_codes_and_stop():
    """Against a sum written out in NumPy."""
    task = t2s.make_task(CFG, SLOTS, t2s.Losses(0.0, 0.5, 0.0, 1.0))
    arrays = jax.jit(lambda k: task.random(k, task.shapes))(jax.random.key(0))
    modules, batch = task.fill(arrays), make_batch(rows=2)
    told = jnp.zeros(2, bool)
    total, metrics = jax.jit(lambda m, b: task.loss(m, b, told, None, 0.0))(modules, batch)
    net = modules["t2s"]

    @jax.jit
    def forward(net, batch):
        prefix = t2s.prefix_of(net, batch, t2s.emotion_of(net, batch), SLOTS, told)
        return net.teacher_forced(prefix, batch["codes"])

    hidden = forward(net, batch)
    P = hidden.shape[1] - batch["codes"].shape[1] - 1
    codes = np.asarray(jax.nn.log_softmax(net.code_logits(hidden[:, P:])))
    text = np.asarray(jax.nn.log_softmax(net.text_logits(hidden[:, :P])))
    for row in range(2):
        T, L = batch["code_lengths"][row], batch["text_lengths"][row]
        want = [*batch["codes"][row, :T], CFG.stop_code]
        code_loss = -np.mean([codes[row, i, c] for i, c in enumerate(want)])
        want = [*batch["text"][row, :L], CFG.stop_text]
        text_loss = -np.mean([text[row, P - L - 2 + i, c] for i, c in enumerate(want)])
        np.testing.assert_allclose(metrics["code_loss"][row], code_loss, rtol=1e-5)
        np.testing.assert_allclose(total[row], code_loss + 0.5 * text_loss, rtol=1e-5)


def test_a_step_that_is_not_finite_changes_nothing(step):
    batch = make_batch()
    batch["features"][0, 0, 0] = np.nan
    frozen, state = begin(step)
    before = {n: np.asarray(x) for n, x in state.params.items()}
    state, metrics = step.train(state, frozen, to_devices(batch, step.mesh))
    assert not bool(metrics["finite"])
    assert int(state.step) == 0
    for name, x in before.items():
        np.testing.assert_array_equal(state.params[name], x, err_msg=name)


def test_unknown_keys_name_the_nearest():
    run_config = config.load(ROOT / "configs" / "t2s_tiny.py")
    with pytest.raises(loop.InputError, match=r"optimiser\.decay; did you mean optimizer\.decay"):
        config.assign(run_config, "optimiser.decay=1")
    with pytest.raises(loop.InputError, match="got str, want int"):
        config.assign(run_config, "seed=x")
    with pytest.raises(loop.InputError, match="no key=value"):
        config.assign(run_config, "seed")
    config.assign(run_config, "stages.0.steps=7")
    config.assign(run_config, "optimizer.decay=1")
    assert run_config.stages[0].steps == 7
    assert run_config.optimizer.decay == 1.0


def test_a_pattern_that_matches_nothing_is_an_error():
    with pytest.raises(loop.InputError, match=r"no parameter matches 't2s\.nothing'"):
        make_step(sharding.make_mesh(devices=jax.devices()[:1]), freeze=("t2s.nothing",))


def test_meshes_that_do_not_fit_are_errors():
    with pytest.raises(loop.InputError, match="does not make up 8 devices"):
        sharding.make_mesh(3, 1, 1)
    assert dict(sharding.make_mesh(-1, 2, 1).shape) == {"data": 4, "fsdp": 2, "tensor": 1}
