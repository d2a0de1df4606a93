r"""Trains every part from nothing, one after the other: recordings -> a checkpoint that speaks.

    python -m train.everything --config configs/everything_tiny.py src=RECORDINGS out=RUN

    RUN/tokenizer/   bpe.model, from the texts
    RUN/begin/       an empty checkpoint: tokenizer, settings of the sound
    RUN/audio/       audio and filterbanks
    RUN/encoder/     w2v-BERT with its codec; then speaker/ (CAMPPlus) and vocoder/ (BigVGANv2)
    RUN/data/        codes, features, mels
    RUN/t2s/         then s2m/
    RUN/checkpoint/  all parts together

Every step is the command that is printed, in a process of its own, and is passed over where its
result is there. The same command goes on where it stopped; recordings that came later are not
looked for. RECORDINGS is what `train.prepare --src` takes. See `train/README.md` for the order.
"""

import argparse
import dataclasses
import hashlib
import json
import pathlib
import shlex
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence

from ml_collections import ConfigDict

from indextts2_jax.errors import InputError, os_error
from indextts2_jax.outputs import locked, replacing
from train.run import config
from train.run.config import Config

AUDIO_PARTS, CODE_PARTS = ("encoder", "speaker", "vocoder"), ("t2s", "s2m")
RECORD = "steps.json"


def default_config() -> Config:
    """Returns the chain without its configurations."""
    part = {"config": "", "changes": ()}  # file in configs/, and key=value of it
    return ConfigDict(
        {
            "src": "",  # recordings and their texts
            "out": "",
            "tokenizer": {"size": 12000},  # pieces; fewer where the texts have not as many
            "prepare": ("--speeds", "0"),  # further arguments of `train.prepare`
            "parts": {name: dict(part) for name in (*AUDIO_PARTS, *CODE_PARTS)},
        }
    ).lock()


@dataclasses.dataclass(frozen=True)
class Step:
    """A command and what it makes.

    Attributes:
      name: of its directory.
      module: run as `python -m`.
      arguments: of the command.
      result: which is there when it has ended.
    """

    name: str
    module: str
    arguments: tuple[str, ...]
    result: pathlib.Path

    def digest(self, before: str) -> str:
        """Hashes what the step depends on: its command, its configuration, the steps before it."""
        files = (pathlib.Path(x) for x in self.arguments if x.endswith(".py"))
        parts = [before, self.module, *self.arguments, *(file.read_text() for file in files)]
        return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:16]


def steps_of(run: Config) -> Iterator[Step]:
    """Lists the steps of a chain in their order.

    Args:
      run: from a configuration file.
    """
    out = pathlib.Path(run.out)
    bpe, audio, data = out / "tokenizer" / "bpe.model", out / "audio", out / "data"
    checkpoint = out / "begin"
    texts = ("--src", run.src, "--out", str(bpe), "--size", str(run.tokenizer.size))
    yield Step("tokenizer", "train.tokenizer", texts, bpe)
    prepare = ("--src", run.src, *run.prepare, "--checkpoint")
    sounds = (*prepare, str(checkpoint), "--out", str(audio), "--features", "fbank")
    sounds += ("--bpe", str(bpe))
    yield Step("audio", "train.prepare", sounds, audio / "index.json")
    for name in AUDIO_PARTS:
        yield (step := _training(run, name, checkpoint, audio))
        checkpoint = step.result
    encoded = (*prepare, str(checkpoint), "--out", str(data))
    yield Step("data", "train.prepare", encoded, data / "index.json")
    for name in CODE_PARTS:
        yield (step := _training(run, name, checkpoint, data))
        checkpoint = step.result


def _training(run: Config, name: str, checkpoint: pathlib.Path, data: pathlib.Path) -> Step:
    part, out = run.parts[name], pathlib.Path(run.out) / name
    places = (f"checkpoint={checkpoint}", f"data.paths={data}", f"out={out}")
    arguments = ("--config", part.config, *places, *part.changes)
    return Step(name, f"train.{name}", arguments, out / "checkpoint")


def everything(run: Config) -> int:
    """Runs the steps whose results are missing.

    Args:
      run: from a configuration file, with `src` and `out`.

    Returns:
      0, or the exit code of the step that failed.

    Raises:
      InputError: if something is not given, or `out` holds a step of another configuration.
    """
    for key in ("src", "out"):
        if not run[key]:
            raise InputError(f"{key} is not given; add {key}=PATH")
    for name, part in run.parts.items():
        if not pathlib.Path(part.config).is_file():
            raise InputError(f"parts.{name}.config={part.config!r} is no file")
    out = pathlib.Path(run.out)
    out.mkdir(parents=True, exist_ok=True)
    record = out / RECORD
    steps = list(steps_of(run))
    with locked(out / ".lock"):
        done = json.loads(record.read_text()) if record.exists() else {}
        digest = ""
        for number, step in enumerate(steps, start=1):
            digest = step.digest(digest)
            head = f"[{number}/{len(steps)}] {step.name}"
            if done.get(step.name, digest) != digest:
                raise InputError(
                    f"{out / step.name} was made by another configuration; remove it and what "
                    f"comes after it from {out} and {record.name}, or take another out"
                )
            if step.name in done and step.result.exists():
                print(f"{head}: is there", file=sys.stderr)
                continue
            command = ["-m", step.module, *step.arguments]
            print(f"{head}: python {shlex.join(command)}", file=sys.stderr, flush=True)
            step.result.parent.mkdir(parents=True, exist_ok=True)
            if code := _run([sys.executable, *command]):
                return code
            done[step.name] = digest
            with replacing(record) as path:
                path.write_text(json.dumps(done, indent=1))
        _publish(steps[-1].result, out / "checkpoint")
    print(f"wrote {out / 'checkpoint'}", file=sys.stderr)
    return 0


def _run(command: Sequence[str]) -> int:
    """Runs a command, to which SIGTERM is passed on: trainers save before they end."""
    with subprocess.Popen(command) as process:
        before = signal.signal(signal.SIGTERM, lambda *_: process.terminate())
        try:
            return process.wait()
        finally:
            signal.signal(signal.SIGTERM, before)


def _publish(checkpoint: pathlib.Path, out: pathlib.Path) -> None:
    """Puts the last checkpoint where it is looked for."""
    new = out.with_name(f".{out.name}.new")
    shutil.rmtree(new, ignore_errors=True)
    shutil.copytree(checkpoint, new)
    shutil.rmtree(out, ignore_errors=True)
    new.rename(out)


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command line; returns the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m train.everything",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--config", type=pathlib.Path, required=True, help="file in configs/")
    parser.add_argument("assignments", nargs="*", metavar="key=value", help="changes of it")
    args = parser.parse_args(argv)
    try:
        return everything(config.load(args.config, args.assignments, key="parts"))
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except OSError as error:
        print(f"error: {os_error(error)}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130


if __name__ == "__main__":
    sys.exit(main())
