"""Plans: bytes, places and time of a run, without weights or data."""

import dataclasses
import json
import textwrap

import jax
import pytest

from indextts2_jax.errors import InputError
from indextts2_jax.t2s.gpt import T2SConfig
from train import config, plan, t2s

A100 = "NVIDIA A100-SXM4-80GB"


@pytest.fixture
def tiny():
    cfg = dataclasses.replace(T2SConfig.tiny(), num_speed_embeddings=0, free_slots=("zero",))
    settings = t2s.default_config()
    settings.model = config.preset(cfg)
    settings.data.update(budget=400, prompt_codes=20)
    settings.mesh.fsdp = 2
    return settings


def test_bytes_are_those_of_the_state(tiny):
    made = plan.make_plan(tiny, 2)
    assert made.mesh == {"data": 1, "fsdp": 2, "tensor": 1}
    assert made.trained == made.total == sum(own for _, own in made.parameters.values())
    assert made.bytes["optimizer"] == 2 * made.bytes["parameters"] + 8  # and two counts
    assert 2 * made.total < made.bytes["parameters"] < 4 * made.total
    assert made.bytes["weights"] == 2 * made.total
    assert made.bytes["frozen"] == made.bytes["average"] == 0
    largest = made.placed[0]
    assert largest.bytes_per_device in (largest.bytes, largest.bytes // 2)


def test_frozen_and_averaged_arrays_are_counted(tiny):
    tiny.ema, tiny.stages = 0.999, (t2s.stage(freeze=(t2s.EMOTION_BRANCH,)),)
    made = plan.make_plan(tiny, 2)
    assert made.bytes["average"] == made.bytes["parameters"] == made.bytes["gradients"]
    assert made.bytes["frozen"] > 0
    assert made.trained < made.total
    assert made.parameters["t2s.emotion_conditioner"][1] == 0


def test_accumulation_divides_activations_and_remat_lowers_them(tiny):
    one = plan.make_plan(tiny, 2)
    tiny.accumulation = 2
    two = plan.make_plan(tiny, 2)
    assert one.largest.rows == two.largest.rows
    assert one.activations == 2 * two.activations
    assert one.activations_remat < one.activations
    assert two.bytes["gradients"] == 2 * one.bytes["gradients"]


def test_time_follows_from_flops_and_peak(tiny):
    made = plan.make_plan(tiny, 2, A100, hours=100, efficiency=0.5)
    step_s = made.typical.flops / (0.5 * 312e12 * 2)
    assert made.typical.step_s == step_s
    assert made.steps_per_epoch == -(-100 * 600 // made.typical.rows)
    assert made.epoch_days == made.steps_per_epoch * step_s / 86400
    assert made.fits(remat=False)
    unknown = plan.make_plan(tiny, 2)
    assert unknown.typical.step_s is None
    assert unknown.fits(remat=False) is None


def test_wrong_input_is_an_error(tiny):
    with pytest.raises(InputError, match="GTX"):
        plan.make_plan(tiny, 2, "NVIDIA GTX")
    with pytest.raises(InputError, match="no stage 'x'"):
        plan.make_plan(tiny, 2, stage="x")
    with pytest.raises(InputError, match="3 devices"):
        plan.make_plan(tiny, 3)
    tiny.trainer = "none"
    with pytest.raises(InputError, match="t2s"):
        plan.make_plan(tiny, 2)


@pytest.mark.slow
def test_compiled_step_agrees(tiny):
    checked = plan.check(tiny, jax.devices()[:2])
    predicted, compiled = checked.arguments
    assert predicted == pytest.approx(compiled, rel=0.01)
    predicted, compiled = checked.temporaries
    assert 0.5 * compiled < predicted < 3 * compiled


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
