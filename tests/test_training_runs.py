"""Whole runs of the T2S trainer: stopped, resumed, killed, on two processes; with bad data."""

import csv
import dataclasses
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time

import numpy as np
import pytest
import soundfile

from indextts2_jax import sharding
from indextts2_jax.checkpoint.demo import random_checkpoint
from indextts2_jax.checkpoint.parts import Settings
from indextts2_jax.errors import InputError
from indextts2_jax.outputs import locked
from indextts2_jax.pipeline import IndexTTS2
from tests.common import ROOT
from tests.train_common import random_utterances, save
from train import s2m, t2s
from train.run import config, loop

pytestmark = pytest.mark.slow
TIMES = {"step_s", "tokens_per_s", "data_wait", "mfu"}


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    return random_checkpoint(tmp_path_factory.mktemp("base") / "checkpoint")


@pytest.fixture(scope="module")
def data(tmp_path_factory, checkpoint):
    return save(tmp_path_factory.mktemp("data") / "data", checkpoint, random_utterances(16))


def assignments(checkpoint, data, out, *changes):
    return [
        f"checkpoint={checkpoint}",
        f"data.paths={data}",
        f"out={out}",
        "model.num_layers=1",
        "model.dropout=0.1",
        "data.validation=2",
        "data.budget=64",
        "stages.0.steps=6",
        "checkpoints.every=2",
        "validate_every=3",
        "sample_every=0",
        "log_every=1",
        *changes,
    ]


def make_run(checkpoint, data, out, *changes):
    return config.load(
        ROOT / "configs" / "t2s_tiny.py", assignments(checkpoint, data, out, *changes)
    )


def rows(out):
    with open(out / "metrics.csv") as file:
        return [{n: x for n, x in r.items() if n not in TIMES} for r in csv.DictReader(file)]


def numbers(rows, name):
    """What stands in a column of the rows that have something there."""
    return [float(row[name]) for row in rows if row[name]]


def weights(out):
    """Fingerprint of the published T2S."""
    return json.loads((out / "checkpoint" / "checkpoint.json").read_text())["fingerprints"]["t2s"]


@pytest.fixture(scope="module")
def whole(tmp_path_factory, checkpoint, data):
    """An uninterrupted run."""
    out = tmp_path_factory.mktemp("whole") / "run"
    loop.run(t2s.setup(make_run(checkpoint, data, out)))
    return out


def command(*args, devices=8):
    env = {
        **os.environ,
        "PYTHONPATH": str(ROOT),
        "JAX_NUM_CPU_DEVICES": str(devices),
        "JAX_CPU_COLLECTIVES_IMPLEMENTATION": "gloo",
    }
    return subprocess.Popen(
        [sys.executable, "-m", "train.t2s", "--config", "configs/t2s_tiny.py", *args],
        cwd=ROOT, env=env, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip


def wait_for(path, process, seconds=240):
    end = time.time() + seconds
    while not path.exists():
        assert process.poll() is None, process.stderr.read()
        assert time.time() < end, f"no {path}"
        time.sleep(0.05)


def test_a_run_leaves_a_checkpoint_to_speak_with(whole, checkpoint):
    after = Settings.load(whole / "checkpoint")
    before = Settings.load(checkpoint)
    assert after.trained
    assert after.configs["t2s"].width == 192
    assert after.fingerprints["t2s"] != before.fingerprints["t2s"]
    assert after.fingerprints["vocoder"] == before.fingerprints["vocoder"]
    assert after.configs["s2m"].latent_widths == ()  # those of the base are of another T2S
    losses = [float(row["loss"]) for row in rows(whole) if row["loss"]]
    assert len(losses) == 6
    assert losses[-1] < losses[0]
    assert [row["step"] for row in rows(whole) if row["validation_loss"]] == ["3", "6"]


def test_samples_are_spoken_and_change_nothing(whole, tmp_path, checkpoint, data):
    out = tmp_path / "run"
    sampled = make_run(checkpoint, data, out, "sample_every=4", "samples=1")
    loop.run(t2s.setup(sampled))
    assert weights(out) == weights(whole)
    folder = out / "samples"
    assert {str(p.relative_to(folder)) for p in folder.rglob("*.*")} == {
        *(f"{step:08d}/0/{name}.png" for step in (4, 6) for name in ("mel", "attention")),
        *(f"{step:08d}/0/speech.wav" for step in (4, 6)),
        *(f"{step:08d}/attention.png" for step in (4, 6)),
        "00000004/0/target.wav",
    }
    info = soundfile.info(folder / "00000004" / "0" / "target.wav")
    assert info.samplerate == 22050 and info.frames in 256 * 2 * np.arange(10, 16)


def test_s2m_learns_latents_and_words_and_speaks_with_both(whole, tmp_path, checkpoint, data):
    changes = (
        "word_width=4", "stages.0.steps=2", "sample_every=2",
        "samples=1", "data.budget=200", "data.prompt_codes=20", "data.validation=2",
        "stages.0.latent_probability=0.5",
    )  # fmt: skip
    files = f"checkpoint={whole / 'checkpoint'}", f"data.paths={data}"
    path = ROOT / "configs" / "s2m_tiny.py"
    out = tmp_path / "run"
    loop.run(s2m.setup(config.load(path, [*files, f"out={out}", *changes])))
    assert (out / "samples" / "00000002" / "0" / "speech.wav").is_file()
    tts = IndexTTS2(out / "checkpoint")
    cfg = tts.settings.configs["s2m"]
    assert cfg.word_width == 4 and cfg.latent_widths[0] == 192
    assert np.any(tts.s2m.text_features.projection.kernel[...])

    wrong = config.load(path, [*files, f"out={tmp_path / 'wrong'}", *changes, "word_width=5"])
    with pytest.raises(InputError, match="word_width is 5, the word vectors of the data have 4"):
        loop.run(s2m.setup(wrong))


def test_s2m_without_latents_leaves_them_out(whole, tmp_path, data):
    out = tmp_path / "run"
    changes = (
        "stages.0.steps=1", "samples=1", "data.budget=200", "data.prompt_codes=20",
    )  # fmt: skip
    files = f"checkpoint={whole / 'checkpoint'}", f"data.paths={data}", f"out={out}"
    loop.run(s2m.setup(config.load(ROOT / "configs" / "s2m_tiny.py", [*files, *changes])))
    assert (out / "samples" / "00000001" / "0" / "speech.wav").is_file()
    assert Settings.load(out / "checkpoint").configs["s2m"].latent_widths == ()
    source = f"init={out / 'checkpoint'}"
    again = config.load(
        ROOT / "configs" / "s2m_tiny.py", [*files, source, "stages.0.latent_probability=0.5"]
    )
    with pytest.raises(InputError, match="init reads no latents"):
        s2m.setup(again)


class StopAt3(loop.Stop):
    def agreed(self, step):
        self.requested = step == 3
        return self.requested


def test_stopped_and_resumed_equals_uninterrupted(whole, tmp_path, checkpoint, data):
    out = tmp_path / "run"
    run = make_run(checkpoint, data, out)
    loop.run(t2s.setup(run), StopAt3())
    assert not (out / "checkpoint").exists()
    loop.run(t2s.setup(run))
    assert rows(out) == rows(whole)
    assert weights(out) == weights(whole)


def test_resumed_on_another_mesh_goes_on_within_rounding(whole, tmp_path, checkpoint, data):
    out = tmp_path / "run"
    loop.run(t2s.setup(make_run(checkpoint, data, out)), StopAt3())
    resumed = t2s.setup(make_run(checkpoint, data, out, "mesh.fsdp=4"))
    assert dict(resumed.mesh.shape) == {"data": 2, "fsdp": 4, "tensor": 1}
    loop.run(resumed)
    got, want = rows(out), rows(whole)
    assert [row["step"] for row in got] == [row["step"] for row in want]
    assert got[:3] == want[:3]
    np.testing.assert_allclose(numbers(got, "loss"), numbers(want, "loss"), rtol=1e-5)


def test_killed_and_resumed_equals_uninterrupted(whole, tmp_path, checkpoint, data):
    out = tmp_path / "run"
    args = assignments(checkpoint, data, out)
    process = command(*args)
    wait_for(out / "0-main" / "2", process)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    process = command(*args)
    _, errors = process.communicate(timeout=300)
    assert process.returncode == 0, errors
    assert rows(out) == rows(whole)
    assert weights(out) == weights(whole)


def test_sigterm_saves_and_says_so(tmp_path, checkpoint, data):
    out = tmp_path / "run"
    changes = "stages.0.steps=100000", "checkpoints.every=100000", "validate_every=100000"
    process = command(*assignments(checkpoint, data, out, *changes))
    wait_for(out / "metrics.csv", process)
    time.sleep(5)
    process.send_signal(signal.SIGTERM)
    _, errors = process.communicate(timeout=240)
    assert process.returncode == 143, errors
    assert "told to stop: saved at step" in errors
    assert any(path.name.isdigit() for path in (out / "0-main").iterdir())


def two_processes(*args):
    """The same run in two processes of two devices each."""
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    shared = *args, "--coordinator", f"localhost:{port}", "--processes", "2", "--process"
    return [command(*shared, str(i), devices=2) for i in range(2)]


def test_two_processes_equal_one(tmp_path, checkpoint, data):
    changes = "model.dropout=0.0", "stages.0.steps=3"
    alone = tmp_path / "alone"
    # 4 devices x 2 parts: batches have as many rows as on the 8 devices below.
    more = "mesh.fsdp=2", "accumulation=2"
    samples = "data.validation=2", "validate_every=9", "sample_every=9", "samples=1"
    args = assignments(checkpoint, data, tmp_path / "two", *changes, *more, *samples)
    for process in two_processes(*args):
        _, errors = process.communicate(timeout=500)
        assert process.returncode == 0, errors
    run = make_run(checkpoint, data, alone, *changes)
    setup = t2s.setup(run)
    assert sharding.batch_parts(setup.mesh) == 8
    loop.run(setup)
    two, one = numbers(rows(tmp_path / "two"), "loss"), numbers(rows(alone), "loss")
    assert len(one) == 3
    np.testing.assert_allclose(two, one, rtol=1e-4)
    assert (tmp_path / "two" / "checkpoint" / "checkpoint.json").is_file()
    assert (tmp_path / "two" / "samples" / "00000003" / "0" / "speech.wav").is_file()


def test_sigterm_to_one_process_saves_in_both(tmp_path, checkpoint, data):
    out = tmp_path / "run"
    changes = "stages.0.steps=100000", "checkpoints.every=100000", "validate_every=100000"
    both = two_processes(*assignments(checkpoint, data, out, *changes))
    wait_for(out / "metrics.csv", both[0])
    both[1].send_signal(signal.SIGTERM)
    errors = [process.communicate(timeout=240)[1] for process in both]
    assert [process.returncode for process in both] == [143, 143], errors
    (step,) = (int(path.name) for path in (out / "0-main").iterdir())
    assert f"told to stop: saved at step {step}" in errors[0]
    assert len(numbers(rows(out), "loss")) == step


def test_a_loss_that_is_not_finite_stops_with_its_step(tmp_path, checkpoint):
    bad = random_utterances(16)
    for utterance in bad[1::2]:
        utterance.takes[0].features[0, 0] = np.nan
    bad = save(tmp_path / "data", checkpoint, bad)
    out = tmp_path / "run"
    with pytest.raises(loop.InputError, match=r"loss nan .* at step 1; its batch is in"):
        loop.run(t2s.setup(make_run(checkpoint, bad, out, "data.validation=0")))
    with np.load(next(out.glob("not_finite-1-*.npz"))) as file:
        assert np.isnan(file["features"]).any() or np.isnan(file["prompt_features"]).any()


def test_data_of_other_encoders_is_refused(tmp_path, checkpoint, data):
    other = random_checkpoint(tmp_path / "other", seed=1)
    with pytest.raises(loop.InputError, match=r"were made with different .*semantic_codec"):
        t2s.setup(make_run(other, data, tmp_path / "run"))


def test_s2m_learns_utterances_by_heart_on_a_laptop(tmp_path, checkpoint):
    rng = np.random.default_rng(1)
    shape = rng.normal(size=(512, 3))  # the sound of a code: loudness, and a wave over the bins
    utterances = [
        dataclasses.replace(utterance, speaker="s", mel=np.repeat(sound, 2, 0).astype(np.float16))
        for utterance in random_utterances(3, codes=(40, 60))
        for loud, wave, phase in [shape[utterance.takes[0].codes].T[..., None]]
        for sound in [-6 + 2 * loud + 2 * np.sin(np.linspace(0, 6, 80) * wave + phase)]
    ]
    data = save(tmp_path / "data", checkpoint, utterances)
    out = tmp_path / "run"
    files = f"checkpoint={checkpoint}", f"data.paths={data}", f"out={out}"
    args = "train.s2m", "--config", "configs/s2m_tiny.py", *files, "stages.0.steps=400"
    env = {**os.environ, "JAX_NUM_CPU_DEVICES": "1"}
    subprocess.run([sys.executable, "-m", *args], cwd=ROOT, env=env, check=True)
    assert len(list((out / "samples").rglob("speech.wav"))) == 2
    assert float(rows(out)[-1]["sample_correlation"]) > 0.9
    assert Settings.load(out / "checkpoint").guidance == 0  # it always saw its conditions


def test_more_steps_publish_the_new_weights_and_say_so(whole, tmp_path, checkpoint, data, capsys):
    out = tmp_path / "run"
    shutil.copytree(whole, out)
    loop.run(t2s.setup(make_run(checkpoint, data, out)))  # nothing is left to do
    assert weights(out) == weights(whole)
    assert "replaced" not in capsys.readouterr().err
    (out / ".checkpoint.new").mkdir()  # of a process that was killed
    loop.run(t2s.setup(make_run(checkpoint, data, out, "stages.0.steps=8")))
    assert weights(out) != weights(whole)
    assert f"{out / 'checkpoint'}: replaced" in capsys.readouterr().err
    assert not list(out.glob(".checkpoint.*"))


def damage(directory):
    """Empties the largest file of a checkpoint."""
    files = [path for path in directory.rglob("*") if path.is_file()]
    max(files, key=lambda path: path.stat().st_size).write_bytes(b"")


def test_a_damaged_newest_checkpoint_is_said_and_the_one_before_it_goes_on(
    whole, tmp_path, checkpoint, data
):
    out = tmp_path / "run"
    shutil.copytree(whole, out)
    shutil.rmtree(out / "checkpoint")
    damage(out / "0-main" / "6")
    process = command(*assignments(checkpoint, data, out))
    _, errors = process.communicate(timeout=300)
    assert process.returncode == 0, errors
    assert "Traceback" not in errors
    (line,) = (line for line in errors.splitlines() if "is damaged" in line)
    assert f"{out / '0-main' / '6'} is damaged" in line and "going on from step 4" in line
    assert weights(out) == weights(whole)
    assert (out / "0-main" / "damaged-6").is_dir()

    for path in (out / "0-main").glob("[0-9]*"):
        damage(path)
    with pytest.raises(InputError, match=r"0-main/6 is damaged or does not fit"):
        loop.run(t2s.setup(make_run(checkpoint, data, out)))


def test_a_second_process_on_one_run_is_refused(whole, tmp_path, checkpoint, data):
    out = tmp_path / "run"
    run = t2s.setup(make_run(checkpoint, data, out))
    with locked(out / loop.LOCK), pytest.raises(InputError, match="another process writes to"):
        loop.run(run)
    assert not (out / "config.json").exists()


def test_the_best_weights_are_kept_beside_the_last(whole, tmp_path, checkpoint, data, capsys):
    out = tmp_path / "run"
    changes = "keep_best=validation_loss", "best_is=max", "validate_every=2"
    loop.run(t2s.setup(make_run(checkpoint, data, out, *changes)), StopAt3())
    best = json.loads((out / "checkpoint-best" / "checkpoint.json").read_text())
    loop.run(t2s.setup(make_run(checkpoint, data, out, *changes)))
    losses = {row["step"]: float(row["validation_loss"]) for row in rows(out)
              if row["validation_loss"]}  # fmt: skip
    assert list(losses) == ["2", "4", "6"] and max(losses, key=losses.__getitem__) == "2"
    after = json.loads((out / "checkpoint-best" / "checkpoint.json").read_text())
    assert after["fingerprints"] == best["fingerprints"]  # the run went on with the best of before
    assert after["fingerprints"]["t2s"] != weights(out) == weights(whole)
    with pytest.raises(InputError, match="best_is is 'least'; want min or max"):
        loop.run(t2s.setup(make_run(checkpoint, data, tmp_path / "x", "best_is=least")))


def test_muon_resumed_equals_uninterrupted(tmp_path, checkpoint, data):
    whole, out = tmp_path / "whole", tmp_path / "run"
    changes = "stages.0.optimizer=muon", "validate_every=9"
    loop.run(t2s.setup(make_run(checkpoint, data, whole, *changes)))
    loop.run(t2s.setup(make_run(checkpoint, data, out, *changes)), StopAt3())
    loop.run(t2s.setup(make_run(checkpoint, data, out, *changes)))
    assert rows(out) == rows(whole)
    assert weights(out) == weights(whole)
    losses = numbers(rows(out), "loss")
    assert losses[-1] < losses[0]
