"""The README's commands: their programs exist, and know every option that is written there."""

import os
import re
import shlex
import subprocess
import sys
import tomllib

import pytest

from tests.common import ROOT

PROGRAMS = {"indextts2": ["-m", "indextts2_jax.cli"]}
README = (ROOT / "README.md").read_text(encoding="utf-8")


def _lines():
    """Every line of the README's shell blocks; a line that is indented goes on with its program."""
    program = ""
    for block in re.findall(r"```bash\n(.*?)```", README, re.DOTALL):
        for line in block.splitlines():
            if line.startswith(" "):
                yield f"{program} {line.strip()}"
                continue
            yield line
            program = " ".join(line.split()[:2])


def _commands():
    """The commands of those lines, and of the text; comments and what they print are left out."""
    texts = [*_lines(), *re.findall(r"`((?:indextts2|python|pip) [^`]+)`", README)]
    for text in texts:
        words = shlex.split(text.replace("\n", " "), comments=True)
        while "&&" in words:
            yield words[: words.index("&&")]
            words = words[words.index("&&") + 1 :]
        if words:
            yield words


def _program(words):
    """The arguments of Python that run a command, or None for pip and pytest."""
    if words[0] == "indextts2":
        return (*PROGRAMS["indextts2"], *(words[1:2] if len(words) > 1 else ()))
    if words[:2] == ["python", "-m"]:
        return ("-m", words[2]) if not words[2].startswith("tests.") else None
    if words[0] == "python":
        return (words[1],)
    return None


def _options():
    """Program -> options that the README writes for it."""
    out = {}
    for words in _commands():
        if program := _program(words):
            options = {w.split("=")[0] for w in words if re.match(r"--?[a-z]", w)} - {"-m"}
            out.setdefault(program, set()).update(options)
    return out


@pytest.mark.parametrize("program", sorted(_options()), ids=lambda p: " ".join(p[1:] or p))
@pytest.mark.slow
def test_programs_know_the_options_that_are_written(program):
    command = [sys.executable, *program, "--help"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    known = set(re.findall(r"--?[a-z][\w-]*", done.stdout))
    assert _options()[program] <= known


def test_extras_that_are_written_exist():
    with open(ROOT / "pyproject.toml", "rb") as file:
        extras = tomllib.load(file)["project"]["optional-dependencies"]
    written = set(re.findall(r"\.\[(\w+)\]|indextts2-jax\[(\w+)\]", README))
    assert {a or b for a, b in written} <= set(extras)


def test_files_that_are_written_exist():
    named = {w for words in _commands() for w in words if re.match(r"(configs|tests|tools)/", w)}
    named |= set(re.findall(r"`((?:configs|tests|tools|indextts2_jax)/[\w/.]*)`", README))
    assert named
    assert [name for name in sorted(named) if not (ROOT / name).exists()] == []


@pytest.mark.slow
def test_what_needs_no_weights_runs_as_it_is_written(tmp_path):
    """The first command, and the random checkpoint to try training with."""
    speak = next(c for c in _commands() if c[:2] == ["indextts2", "synthesize"])
    demo = next(c for c in _commands() if c[:2] == ["indextts2", "demo"])
    for words in (speak, demo):
        command = [sys.executable, *PROGRAMS["indextts2"], *words[1:]]
        done = subprocess.run(
            command,
            cwd=tmp_path,
            env={**os.environ, "PYTHONPATH": str(ROOT), "XDG_CACHE_HOME": str(tmp_path / "cache")},
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
    assert {"hello.wav", "hello.png", "CKPT"} <= {path.name for path in tmp_path.iterdir()}


@pytest.mark.slow
@pytest.mark.parametrize("module", ["train.plan"])
def test_modules_that_need_no_data_run_as_they_are_written(module):
    words = next(c for c in _commands() if c[:3] == ["python", "-m", module])
    command = [sys.executable, *words[1:]]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout
