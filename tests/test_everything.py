"""The chain of all trainers: its steps, what is passed over, what is refused."""

import pathlib
import subprocess
import sys

import pytest

from indextts2_jax import IndexTTS2, Options
from tests.test_prepare import TEXT, vowel, write_corpus
from train import everything, plan
from train.run import config

VOICES = {"ann": 200, "bob": 110}  # Hz
ROOT = pathlib.Path(__file__).parents[1]


@pytest.fixture
def commands(monkeypatch):
    """Records commands in place of running them; each makes its result."""
    ran = []

    def run(command):
        module, arguments = command[2], command[3:]
        ran.append(module.removeprefix("train."))
        if module == fails[0]:
            return 143
        out = [x for x in arguments if x.startswith("out=")]
        if out:
            (pathlib.Path(out[0].removeprefix("out=")) / "checkpoint").mkdir(parents=True)
        else:
            path = pathlib.Path(arguments[arguments.index("--out") + 1])
            if module == "train.prepare":
                path.mkdir(exist_ok=True)
                path /= "index.json"
            path.write_text("")
        return 0

    fails = [""]
    monkeypatch.setattr(everything, "_run", run)
    monkeypatch.chdir(ROOT)
    return ran, fails


def chain(tmp_path, *changes):
    assignments = (f"src={tmp_path}", f"out={tmp_path / 'run'}", *changes)
    path = ROOT / "configs" / "everything_tiny.py"
    return config.load(path, assignments, key="parts")


ORDER = ["tokenizer", "prepare", "encoder", "speaker", "vocoder", "prepare", "t2s", "s2m"]


def test_steps_are_run_in_their_order_and_once(commands, tmp_path, capsys):
    ran, _ = commands
    assert everything.everything(chain(tmp_path)) == 0
    assert ran == ORDER
    assert (tmp_path / "run" / "checkpoint").is_dir()
    assert everything.everything(chain(tmp_path)) == 0
    assert ran == ORDER
    assert capsys.readouterr().err.count("is there") == 8


def test_each_part_gets_the_checkpoint_of_the_one_before(tmp_path):
    steps = {step.name: step for step in everything.steps_of(chain(tmp_path))}
    for name, before in (("speaker", "encoder"), ("vocoder", "speaker"), ("s2m", "t2s")):
        assert f"checkpoint={steps[before].result}" in steps[name].arguments
    assert str(steps["vocoder"].result) in steps["data"].arguments
    assert f"checkpoint={steps['vocoder'].result}" in steps["t2s"].arguments


def test_a_step_that_stops_ends_the_chain_which_goes_on_there(commands, tmp_path):
    ran, fails = commands
    fails[0] = "train.speaker"
    assert everything.everything(chain(tmp_path)) == 143
    assert ran == ORDER[:4] and not (tmp_path / "run" / "checkpoint").exists()
    fails[0] = ""
    assert everything.everything(chain(tmp_path)) == 0
    assert ran == ORDER[:4] + ORDER[3:]


@pytest.mark.parametrize(
    ("changes", "error"),
    [
        (("src=",), "src is not given"),
        (("parts.t2s.config=nowhere.py",), "parts.t2s.config='nowhere.py' is no file"),
        (("tokenizer.size=200",), "tokenizer was made by another configuration; remove it"),
    ],
)
def test_what_cannot_go_on_is_refused_before_any_step(commands, tmp_path, capsys, changes, error):
    ran, _ = commands
    everything.everything(chain(tmp_path))
    given = [f"src={tmp_path}", f"out={tmp_path / 'run'}", *changes]
    assert everything.main(["--config", "configs/everything_tiny.py", *given]) == 2
    assert error in capsys.readouterr().err and ran == ORDER


def test_a_configuration_of_another_command_is_refused(capsys):
    of_chain, of_run = (str(ROOT / "configs" / f"{x}_tiny.py") for x in ("everything", "t2s"))
    assert plan.main(["--config", of_chain]) == 2
    assert "is of another command: it has no stages" in capsys.readouterr().err
    assert everything.main(["--config", of_run]) == 2
    assert "is of another command: it has no parts" in capsys.readouterr().err


@pytest.mark.slow
def test_recordings_become_a_checkpoint_that_speaks(tmp_path, voice, monkeypatch):
    monkeypatch.chdir(ROOT)
    corpus = tmp_path / "corpus"
    sounds = {f"{n}/{i}": vowel(1.2 + i / 10, h) for i in range(3) for n, h in VOICES.items()}
    write_corpus(corpus, {name: (sound, TEXT) for name, sound in sounds.items()})
    run = chain(tmp_path, f"src={corpus}", "tokenizer.size=280")
    for part in run.parts.values():
        short = (x for x in part.changes if ".steps=" not in x)
        part.changes = (*short, "stages.0.steps=2")
    for name in ("encoder", "vocoder"):
        run.parts[name].changes += ("stages.1.steps=2",)
    assert everything.everything(run) == 0
    tts = IndexTTS2.load(tmp_path / "run" / "checkpoint")
    options = Options(max_codes=12, steps=2)
    speech = tts.synthesize("Hello.", tts.speaker(voice), options=options)
    assert speech.duration_s > 0


@pytest.mark.slow
def test_sigterm_is_passed_on_to_the_step():
    code = (
        "import sys; from train import everything; print(everything._run([sys.executable, '-c', "
        "'import signal, sys, time; signal.signal(signal.SIGTERM, lambda *_: sys.exit(143)); "
        "print(1, flush=True); time.sleep(60)']))"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code], cwd=ROOT, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None and process.stdout.readline() == "1\n"
    process.terminate()
    assert process.communicate(timeout=60)[0] == "143\n"
