"""What a run writes: tables that survive a resume, pictures, sounds, progress, throughput."""

import io
import sys
import types

import numpy as np
import pytest
import soundfile
from matplotlib.figure import Figure

from indextts2_jax.errors import InputError
from train import metrics
from train.run import devices
from train.run.writer import MetricsWriter, Throughput, mel_figure


class Events:
    """Stands for `tensorboardX.SummaryWriter`."""

    def __init__(self, logdir, purge_step):
        self.calls = [("open", logdir, purge_step)]

    def __getattr__(self, name):
        return lambda *args, **kwargs: self.calls.append((name, *args, kwargs))


@pytest.fixture(autouse=True)
def _no_tensorboard(monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorboardX", None)  # importing it fails


def write(directory, steps, done=0):
    """A run of which validation comes every second step."""
    writer = MetricsWriter(directory, 6, done)
    for step in steps:
        writer.scalars(step, {"loss": np.float32(1 / step), "rate": 2e-4})
        if step % 2 == 0:
            writer.scalars(step, {"validation_loss": 2.5, "tokens": 12_345_678_901})
    writer.close()
    return (directory / "metrics.csv").read_text()


def test_a_new_name_adds_a_column(tmp_path):
    assert write(tmp_path, range(1, 4)).splitlines() == [
        "step,loss,rate,validation_loss,tokens",
        "1,1,0.0002,,",
        "2,0.5,0.0002,,",
        "2,,,2.5,12345678901",
        "3,0.333333343,0.0002,,",
    ]
    assert np.float32("0.333333343") == np.float32(1 / 3)
    assert [p.name for p in tmp_path.iterdir()] == ["metrics.csv"]


@pytest.mark.parametrize("restored", [0, 1, 2, 4])
def test_a_resumed_table_equals_that_of_an_uninterrupted_run(tmp_path, restored):
    want = write(tmp_path / "whole", range(1, 7))
    write(tmp_path / "resumed", range(1, 5))
    with open(tmp_path / "resumed" / "metrics.csv", "a") as file:
        file.write("5,0.2")  # killed while it wrote a row
    assert write(tmp_path / "resumed", range(restored + 1, 7), restored) == want


def test_columns_of_dropped_rows_go_with_them(tmp_path):
    write(tmp_path, range(1, 5))
    assert write(tmp_path, (), done=1) == "step,loss,rate\n1,1,0.0002\n"


def test_another_table_is_refused(tmp_path):
    (tmp_path / "metrics.csv").write_text("a,b\n1,2\n")
    with pytest.raises(InputError, match=r"metrics\.csv is no table of metrics"):
        MetricsWriter(tmp_path, 1)


def test_other_processes_write_nothing(tmp_path, capsys):
    writer = MetricsWriter(tmp_path / "run", 6, process=1)
    writer.scalars(0, {"loss": 1.0})
    writer.figure(0, "mel", Figure())
    writer.audio(0, "speech", np.zeros(9), 22050)
    writer.note("a word")
    writer.close()
    assert not list(tmp_path.iterdir()) and capsys.readouterr() == ("", "")


def test_pictures_and_sounds_are_files(tmp_path):
    writer = MetricsWriter(tmp_path, 6)
    mel = np.random.default_rng(0).standard_normal((7, 80))
    writer.figure(3, "validation/mel", mel_figure(mel, mel[:5]))
    writer.audio(3, "validation/speech", np.linspace(-2, 2, 100), 22050)
    writer.close()
    folder = tmp_path / "samples" / "00000003" / "validation"
    assert (folder / "mel.png").read_bytes().startswith(b"\x89PNG")
    samples, rate = soundfile.read(folder / "speech.wav")
    assert rate == 22050 and samples.min() == -1 and samples.max() > 0.999


def test_tensorboard_gets_all_and_forgets_what_comes_again(tmp_path, monkeypatch, capsys):
    made = []
    stub = types.SimpleNamespace(
        SummaryWriter=lambda *a, **k: made.append(Events(*a, **k)) or made[0]
    )
    monkeypatch.setitem(sys.modules, "tensorboardX", stub)
    writer = MetricsWriter(tmp_path, 6, 1)
    writer.scalars(2, {"loss": 1.0})
    figure = Figure()
    writer.figure(2, "mel", figure)
    writer.audio(2, "speech", np.array([0.5, 3.0]), 16000)
    writer.close()
    opened, scalar, picture, sound, closed = made[0].calls
    assert opened == ("open", str(tmp_path), 2) and closed == ("close", {})
    assert scalar == ("add_scalar", "loss", 1.0, 2, {})
    assert picture == ("add_figure", "mel", figure, 2, {"close": False})
    assert sound[:2] == ("add_audio", "speech") and sound[2].tolist() == [0.5, 1.0]
    assert sound[3:] == (2, {"sample_rate": 16000})
    assert "tensorboardX" not in capsys.readouterr().err


def test_without_tensorboard_one_line_says_so(tmp_path, capsys):
    MetricsWriter(tmp_path, 6).close()
    note = capsys.readouterr().err
    assert note.count("\n") == 1 and "tensorboardX (extra `train`) is missing" in note


def test_progress_is_one_line_per_call(tmp_path, capsys):
    writer = MetricsWriter(tmp_path, 1000)
    speed = {"step_s": 2.0, "tokens_per_s": 12345.6, "data_wait": 0.012, "mfu": 0.4567}
    writer.scalars(100, {"loss": 3.21, "rate": 2e-4, "gradient_norm": 1.0, **speed})
    writer.scalars(100, {"validation_loss": 3.5})
    writer.scalars(100, {"unseen": 1.0})
    writer.note("a word")
    writer.close()
    assert capsys.readouterr().err.splitlines()[1:] == [
        "step 100/1000  loss 3.2100  lr 2.00e-04  12,346 tokens/s  MFU 45.7%  data wait 1.2%"
        "  ETA 0:30:00",
        "step 100/1000  validation loss 3.5000",
        "a word",
    ]


def test_progress_is_a_bar_on_a_terminal(tmp_path, monkeypatch):
    terminal = io.StringIO()
    terminal.isatty = lambda: True
    monkeypatch.setattr(sys, "stderr", terminal)
    writer = MetricsWriter(tmp_path, 1000, 10)
    writer.scalars(50, {"loss": 3.21})
    writer.scalars(50, {"validation_loss": 3.5})
    writer.close()
    assert "50/1000" in terminal.getvalue()
    assert "loss 3.2100  validation loss 3.5000" in terminal.getvalue()


class Clock:
    """Seconds that pass by assignment."""

    now = 0.0

    def __call__(self):
        return self.now


def run_steps(throughput, clock, count, seconds=1.0):
    for _ in range(count):
        clock.now += seconds
        throughput.step(0.25 * seconds, tokens=100, flops=500e12)


def test_throughput_counts_neither_compiling_nor_pauses():
    clock = Clock()
    throughput = Throughput("NVIDIA H200", 4, clock=clock)
    clock.now += 7
    run_steps(throughput, clock, 2, seconds=60)
    assert throughput.metrics() == {}
    run_steps(throughput, clock, 4)
    clock.now += 1000
    throughput.pause()
    run_steps(throughput, clock, 4)
    want = {"step_s": 1.0, "tokens_per_s": 100.0, "data_wait": 0.25, "mfu": 500 / (4 * 989)}
    assert throughput.metrics() == pytest.approx(want)
    clock.now += 1000
    throughput.pause()
    run_steps(throughput, clock, 4)
    assert throughput.metrics() == pytest.approx(want)


def test_throughput_is_the_mean_of_a_window():
    clock = Clock()
    throughput = Throughput("cpu", 1, skip_steps=0, window=2, clock=clock)
    got = []
    for seconds in (8.0, 1.0, 3.0):
        run_steps(throughput, clock, 5, seconds)
        got.append(throughput.metrics())
    assert [x["step_s"] for x in got] == pytest.approx([8.0, 4.5, 2.0])
    assert all(x.keys() == {"step_s", "tokens_per_s", "data_wait"} for x in got)
    assert throughput.metrics() == got[-1]  # no step since


@pytest.mark.parametrize(
    "kind, want",
    [
        ("NVIDIA H200", 989e12),
        ("NVIDIA H100 80GB HBM3", 989e12),
        ("NVIDIA H100 PCIe", None),
        ("NVIDIA H200 NVL", None),
        ("NVIDIA A100-SXM4-80GB", 312e12),
        ("TPU v4", 275e12),
        ("TPU v4 lite", None),
        ("TPU v5 lite", 197e12),
        ("TPU v5e", 197e12),
        ("TPU v5", 459e12),
        ("TPU v5p", 459e12),
        ("TPU v6 lite", 918e12),
        ("cpu", None),
    ],
)
def test_peak_of_a_device(kind, want):
    assert devices.peak_flops(kind) == want


def test_command_draws_the_losses(tmp_path, capsys):
    write(tmp_path, range(1, 7))
    assert metrics.main([str(tmp_path)]) == 0
    assert capsys.readouterr().out == f"{tmp_path / 'loss.png'}\n"
    assert (tmp_path / "loss.png").read_bytes().startswith(b"\x89PNG")


def test_command_says_what_is_missing(tmp_path, capsys):
    assert metrics.main([str(tmp_path)]) == 2
    assert "is no table of metrics" in capsys.readouterr().err
    MetricsWriter(tmp_path, 1).close()
    assert metrics.main([str(tmp_path)]) == 2
    assert "has no losses yet" in capsys.readouterr().err
