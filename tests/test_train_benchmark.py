"""The benchmark of training: real steps on random batches of planned shapes."""

import json

import numpy as np
import pytest

from indextts2_jax.errors import InputError
from tests.common import ROOT
from tests.test_plan import t2s_run
from train import benchmark, s2m
from train.estimate import inputs as plan_inputs


@pytest.mark.slow
def test_steps_are_timed_and_counted(tmp_path, capsys):
    path = tmp_path / "run.py"
    path.write_text("from tests.test_plan import t2s_run as get_config\n")
    words = ["--config", str(path), "compute_dtype=float32", "accumulation=2", "--steps", "2"]
    assert benchmark.main([*words, "--json"]) == 0
    report = benchmark.Report(**json.loads(capsys.readouterr().out))
    assert report.mesh == {"data": 4, "fsdp": 2, "tensor": 1}
    assert (report.trainer, report.rows % 16, report.codes) == ("t2s", 0, 168)  # 6 s do not fit
    assert 0 < report.step_s < report.compile_s
    tokens = report.tokens_per_s * report.step_s / report.rows  # of a row: conditions, text, codes
    assert 160 < tokens < 260
    assert report.mfu is None  # of a CPU
    assert report.planned_bytes > 0
    lines = benchmark.describe(report).splitlines()
    assert lines[1].endswith(f"{report.rows} rows of 168 codes")


@pytest.mark.slow
def test_a_loss_that_is_not_finite_gives_no_figures():
    run = t2s_run()
    run.compute_dtype = "float32"
    run.stages[0].update(rate=1e30, warmup=0)
    with pytest.raises(InputError, match="the loss is nan"):
        benchmark.benchmark(run, steps=2)


def test_nothing_of_a_random_batch_is_padding():
    run = s2m.default_config()
    run.word_width = 6
    run.data.update(budget=2000, prompt_codes=20)
    shapes = plan_inputs.s2m_inputs(run, run.stages[0], 1).typical
    batch = benchmark.random_batch(shapes)
    assert {n: (x.shape, x.dtype) for n, x in batch.items()} == {
        n: (x.shape, x.dtype) for n, x in shapes.items()
    }
    assert np.all(batch["code_lengths"] == batch["codes"].shape[1])
    frames, words = batch["mel"].shape[1], batch["word_frames"].shape[1]
    assert np.all(frames - words < batch["word_frames"].sum(axis=1))
    assert np.all(batch["word_frames"].sum(axis=1) <= frames)
    assert batch["codes"].min() >= 0 and np.isfinite(batch["features"]).all()


@pytest.mark.parametrize(
    "words, message",
    [
        (["--steps", "0"], "steps is 0"),
        (["data.budgte=1"], "did you mean data.budget?"),
        (["mesh.fsdp=3"], "3"),
        (["--stage", "x"], "no stage 'x'"),
    ],
)
def test_what_cannot_be_used_is_one_line_and_exit_code_2(capsys, words, message):
    assert benchmark.main(["--config", str(ROOT / "configs" / "t2s_tiny.py"), *words]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: ") and message in line
