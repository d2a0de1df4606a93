"""Plans: bytes, places and time of a run, without weights or data."""

import dataclasses
import json
import textwrap
from typing import Any

import jax
import jax.numpy as jnp
import pytest

from indextts2_jax import sharding
from indextts2_jax.audio.mel import MelConfig
from indextts2_jax.checkpoint.parts import Settings
from indextts2_jax.emotion.mixing import EmotionSet
from indextts2_jax.errors import InputError
from indextts2_jax.s2m.model import S2MConfig
from indextts2_jax.t2s.conditioner import ConditionerConfig
from indextts2_jax.t2s.generate import DecodingRules
from indextts2_jax.t2s.gpt import T2SConfig
from tests.common import ROOT
from tests.release_factory import small_configs
from train import plan, s2m, t2s
from train.estimate import inputs as plan_inputs
from train.estimate import memory as plan_memory
from train.run import config
from train.run.step import make_step

A100 = "NVIDIA A100-SXM4-80GB"
CONDITIONER = ConditionerConfig(24, 8, 12, 1, 1, 1, 32, perceiver_depth=1, conv_kernel=3)
SMALL = dataclasses.replace(
    small_configs()["t2s"], num_layers=1, speaker=CONDITIONER, emotion=CONDITIONER
)


def t2s_run():
    cfg = dataclasses.replace(SMALL, num_speed_embeddings=0, free_slots=("zero",))
    run = t2s.default_config()
    run.model = config.preset(cfg)
    run.data.update(budget=1000, prompt_codes=20)
    run.mesh.fsdp = 2
    return run


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    """A directory with the settings of a checkpoint, whose T2S has two duration slots."""
    path, emotions = tmp_path_factory.mktemp("checkpoint"), EmotionSet.indextts2()
    parts = small_configs()
    velocity = parts["s2m"].velocity
    velocity = dataclasses.replace(
        velocity, num_layers=3, wavenet=dataclasses.replace(velocity.wavenet, num_layers=1)
    )
    Settings(
        source="none",
        trained=False,
        configs=parts | {"t2s": SMALL, "s2m": dataclasses.replace(parts["s2m"], velocity=velocity)},
        mel=MelConfig(),
        feature_layer=2,
        frames_per_code=1.72,
        decoding=DecodingRules(),
        num_beams=1,
        duration_slots=SMALL.free_slots,
        emotions=emotions,
        emotion_groups=(1,) * len(emotions.names),
        fingerprints={},
    ).save(path)
    return path


def s2m_run(checkpoint):
    run = s2m.default_config()
    run.checkpoint, run.init = str(checkpoint), "checkpoint"
    run.word_width = 6
    run.data.update(budget=2000, prompt_codes=20)
    return run


@pytest.fixture(scope="module")
def decoder():
    """The plan of T2S, all of which learns."""
    return plan.make_plan(t2s_run(), 2)


@pytest.fixture(scope="module")
def matcher(checkpoint):
    """The plan of S2M, of a checkpoint."""
    return plan.make_plan(s2m_run(checkpoint), 2, A100, hours=100, efficiency=0.5)


def test_bytes_are_those_of_the_state(decoder):
    assert decoder.mesh == {"data": 1, "fsdp": 2, "tensor": 1}
    assert decoder.trained == decoder.total == sum(own for _, own in decoder.parameters.values())
    assert decoder.bytes["optimizer"] == 2 * decoder.bytes["parameters"] + 8  # and two counts
    assert 2 * decoder.total < decoder.bytes["parameters"] < 4 * decoder.total
    assert decoder.bytes["weights"] == 2 * decoder.total
    assert decoder.bytes["frozen"] == decoder.bytes["average"] == 0
    largest = decoder.placed[0]
    assert largest.bytes_per_device in (largest.bytes, largest.bytes // 2)
    assert decoder.typical.step_s is None and decoder.fits(remat=False) is None


def test_frozen_and_averaged_arrays_are_counted():
    run = t2s_run()
    run.ema, run.accumulation = 0.999, 2
    stage = t2s.stage(freeze=(t2s.EMOTION_BRANCH,))
    mesh = sharding.abstract_mesh(2, fsdp=2)
    inputs = plan_inputs.t2s_inputs(run, stage, 4)
    step = make_step(run, stage, mesh, inputs.task(run.remat))
    held = plan_memory.state_bytes(step)
    assert held["average"] == held["parameters"] > held["frozen"] > 0
    assert plan_memory.step_bytes(step, inputs.largest)["gradients"] == 2 * held["parameters"]
    assert plan._by_module(step)["t2s.emotion_conditioner"][1] == 0


def test_s2m_is_planned_on_the_networks_of_its_checkpoint(matcher):
    assert matcher.parameters["t2s.blocks"][0] > 0 == matcher.parameters["t2s.blocks"][1]
    assert matcher.parameters["s2m.text_features"] == (6 * 16, 6 * 16)
    assert matcher.trained < matcher.total / 2 and matcher.bytes["frozen"] > 0
    assert matcher.activations_remat < matcher.activations


def test_batches_of_s2m_are_those_of_the_data(checkpoint, matcher):
    """161 codes (with the stop code) are 277 frames; 20 of the prompt are 35; padded to eights."""
    run = s2m_run(checkpoint)
    inputs = plan_inputs.s2m_inputs(run, run.stages[0], 2)
    shapes = {name: x.shape[1:] for name, x in inputs.largest.items()}
    assert shapes["mel"] == (280, 80) and shapes["prompt_mel"] == (40, 80)
    assert shapes["codes"] == (168,) and shapes["features"] == (168, 24)
    assert shapes["prompt_codes"] == (20,) and shapes["prompt_features"] == (20, 24)
    assert shapes["word_vectors"] == (16, 6) and shapes["word_frames"] == (16,)
    assert matcher.largest.rows == 2000 // (280 + 40)
    assert matcher.largest.tokens == matcher.largest.rows * (280 + 40)
    run.stages = (s2m.stage(prompt="prefix", latent_probability=0.0),)
    alone = plan_inputs.s2m_inputs(run, run.stages[0], 2).largest
    assert not alone.keys() & {"text", "features", "prompt_mel", "prompt_codes", "prompt_features"}
    assert len(alone["mel"]) == 2 * (2000 // 280 // 2)


def test_time_follows_from_flops_and_peak(matcher):
    step_s = matcher.typical.flops / (0.5 * 312e12 * 2)
    assert matcher.typical.step_s == step_s
    assert matcher.steps_per_epoch == -(-100 * 600 // matcher.typical.rows)
    assert matcher.epoch_days == matcher.steps_per_epoch * step_s / 86400
    assert matcher.fits(remat=False)


def test_t2s_is_that_of_a_checkpoint_if_it_begins_with_it(checkpoint):
    run = t2s_run()
    run.checkpoint, run.init = str(checkpoint), "checkpoint"
    run.duration_slots = ("pos(T)", "zero")
    inputs = plan_inputs.t2s_inputs(run, run.stages[0], 1)
    assert "t2s.speed_embed.embedding" in inputs.task(False).shapes
    run.checkpoint = ""
    with pytest.raises(InputError, match="the model has 1"):
        plan_inputs.t2s_inputs(run, run.stages[0], 1).task(False)


def forward_flops(task, batch):
    """What XLA counts of the loss of a batch."""
    modules = {name: module.abstract for name, module in task.modules.items()}
    draws = jax.eval_shape(lambda: task.draw(jax.random.key(0), batch))

    def loss(modules, batch, draws):
        return task.loss(modules, batch, draws, None, jnp.float32(0))[0]

    counted: Any = jax.jit(loss).lower(modules, batch, draws).cost_analysis()
    return counted["flops"]


def test_flops_are_those_of_xla():
    """But for what is no matrix product, little where the networks are wide enough."""
    decoder = dataclasses.replace(
        T2SConfig.indextts2(),
        width=96,
        num_layers=2,
        num_heads=2,
        num_codes=400,
        num_text_tokens=50,
        speaker=ConditionerConfig(64, 96, 192, 2, 2, 8, 96),
        emotion=ConditionerConfig(64, 64, 96, 2, 1, 1, 96),
    )
    base = S2MConfig.indextts2()
    velocity = dataclasses.replace(
        base.velocity,
        width=64,
        condition_width=64,
        num_layers=3,
        num_heads=2,
        feed_forward_width=192,
        wavenet=dataclasses.replace(base.velocity.wavenet, width=64, num_layers=2),
    )
    regulator = dataclasses.replace(base.length_regulator, in_width=64, width=64)
    codec = dataclasses.replace(small_configs()["semantic_codec"], feature_width=64)
    flow = S2MConfig((96, 32, 64), regulator, velocity)
    run = s2m.default_config()
    run.data.update(budget=500, prompt_codes=40, max_codes=64)
    fields = s2m.Method().fields
    widths = {"features": 64, "prompt_features": 64, "mel": 80, "prompt_mel": 80}
    batch, _ = plan_inputs._batches(
        run.data,
        fields,
        {**widths, "prompt_style": 192},
        cfg=decoder,
        mel=MelConfig(),
        multiple=1,
    )

    task = t2s.make_task(decoder, decoder.free_slots, t2s.Losses(0.3, 0.0, 0.0, 1.0))
    assert task.flops(batch) / 3 == pytest.approx(forward_flops(task, batch), rel=0.05)
    task = s2m.make_task(flow, codec, s2m.Method(), t2s_cfg=decoder)
    learned = s2m.flops(flow, task.tokens(batch), s2m.Method().num_frames(batch))
    assert task.flops(batch) == learned + t2s.latent_flops(decoder, batch)
    forward = learned / 3 + t2s.latent_flops(decoder, batch)
    assert forward == pytest.approx(forward_flops(task, batch), rel=0.05)


def test_wrong_input_is_an_error():
    run = t2s_run()
    with pytest.raises(InputError, match="GTX"):
        plan.make_plan(run, 2, "NVIDIA GTX")
    with pytest.raises(InputError, match="no stage 'x'"):
        plan.make_plan(run, 2, stage="x")
    with pytest.raises(InputError, match="3 devices"):
        plan.make_plan(run, 3)
    run.trainer = "none"
    with pytest.raises(InputError, match="t2s"):
        plan.make_plan(run, 2)


@pytest.mark.slow
@pytest.mark.parametrize(("trainer", "remat"), [("t2s", False), ("s2m", True)])
def test_compiled_step_agrees(checkpoint, trainer, remat):
    run = t2s_run() if trainer == "t2s" else s2m_run(checkpoint)
    run.remat = remat
    checked = plan_memory.check(run, jax.devices()[:2])
    predicted, compiled = checked.arguments
    # XLA leaves out what a step does not use: here the heads of T2S, which S2M does without.
    assert compiled == pytest.approx(predicted, rel=0.01 if trainer == "t2s" else 0.05)
    predicted, compiled = checked.temporaries
    assert 0.5 * compiled < predicted < 3 * compiled


CONFIGS = sorted((ROOT / "configs").glob("[a-z]*.py"))
RUNS = [path for path in CONFIGS if path.stem != "everything_tiny"]  # which is a chain of others


@pytest.mark.slow
@pytest.mark.parametrize("path", RUNS, ids=lambda p: p.stem)
def test_every_configuration_can_be_planned(path):
    run = config.load(path)
    mesh = sharding.abstract_mesh(8, **run.mesh.to_dict())
    for stage in run.stages:
        inputs = plan_inputs.INPUTS[run.trainer](run, stage, 8)
        step = make_step(run, stage, mesh, inputs.task(run.remat))
        assert sum(plan_memory.state_bytes(step).values()) > 0
        assert step.task.flops(inputs.largest) > 0


@pytest.mark.slow
def test_released_size_from_the_command_line(tmp_path, capsys):
    path = tmp_path / "run.py"
    path.write_text(
        textwrap.dedent("""
            from train import t2s

            get_config = t2s.default_config
        """)
    )
    words = ["--config", str(path), "mesh.fsdp=8", "--devices", "8", "--device-kind", A100]
    assert plan.main([*words, "--json"]) == 0
    numbers = json.loads(capsys.readouterr().out)
    assert numbers["total"] == 865_978_079
    assert numbers["fits_remat"] is True
    assert plan.main(["--config", str(path), "--efficiency", "2"]) == 2
    assert "efficiency" in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.parametrize(
    "name, trained",
    [("encoder_tiny", {"w2v_bert", "recognizer"}), ("codec_tiny", {"semantic_codec"})],
)
def test_encoder_and_codec_are_planned_without_a_checkpoint(name, trained):
    made = plan.make_plan(config.load(ROOT / "configs" / f"{name}.py"), 1)
    counts = made.parameters.items()
    assert {module.partition(".")[0] for module, (_, own) in counts if own} == trained
    assert made.typical.codes >= 300 and made.typical.rows > 1
    assert made.largest.tokens == made.largest.rows * made.largest.codes
