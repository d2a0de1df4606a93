"""Many texts from one JSONL file: `indextts2 batch --jsonl in.jsonl --out-dir D`.

    {"id": "a1", "text": "Hello.", "voice": "me.wav", "emotion_text": "glad", "seconds": 2}

Paths are relative to the file, outputs to D. D/report.jsonl gets a line for each finished one; a
run that is started again skips what is done, and one bad line does not stop the others.
"""

import dataclasses
import functools
import hashlib
import json
import os
import pathlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from indextts2_jax.emotion import mixing
from indextts2_jax.errors import InputError
from indextts2_jax.pipeline import IndexTTS2
from indextts2_jax.request.duration import Duration
from indextts2_jax.request.options import Emotion, Options, Request
from indextts2_jax.request.speaker import Speaker

KEYS: Mapping[str, tuple[type, ...]] = {
    "id": (str,),
    "text": (str,),
    "voice": (str,),
    "emotion_voice": (str,),
    "emotion_weights": (str, list, dict),
    "emotion_text": (str,),
    "emotion_alpha": (int, float),
    "tokens": (int,),
    "seconds": (int, float),
    "speed": (int, float),
    "seed": (int,),
    "out": (str,),
}
REPORT = "report.jsonl"


@dataclasses.dataclass(frozen=True)
class Job:
    """One line of the file."""

    line: int
    values: Mapping[str, Any]
    out: pathlib.Path
    digest: str  # of the line and of all settings: what is done under another one is done again


def read_jobs(
    path: pathlib.Path, out_dir: pathlib.Path, settings: str
) -> tuple[list[Job], list[tuple[int, str]]]:
    """Reads a JSONL file.

    Args:
      path: the file; blank lines are skipped.
      out_dir: where outputs go.
      settings: everything else that decides on the outputs, as text.

    Returns:
      The jobs, and (line number, what is wrong) of every line that is none.

    Raises:
      InputError: if the file cannot be read.
    """
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"cannot read {path}: {error}") from None
    jobs: list[Job] = []
    bad: list[tuple[int, str]] = []
    taken: set[pathlib.Path] = set()
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            values = _parse(line)
            out = _output(values, number, out_dir)
            if out in taken:
                raise InputError(f"{out.name} is the output of an earlier line")
        except InputError as error:
            bad.append((number, str(error)))
            continue
        taken.add(out)
        digest = hashlib.sha256(f"{json.dumps(values, sort_keys=True)}{settings}".encode())
        jobs.append(Job(number, values, out, digest.hexdigest()[:16]))
    return jobs, bad


def _parse(line: str) -> dict[str, Any]:
    try:
        values = json.loads(line)
    except ValueError as error:
        raise InputError(f"no JSON: {error}") from None
    if not isinstance(values, dict):
        raise InputError("want a JSON object")
    if unknown := sorted(values.keys() - KEYS.keys()):
        raise InputError(f"unknown keys {', '.join(unknown)} (known: {', '.join(KEYS)})")
    for key, value in values.items():
        if not isinstance(value, KEYS[key]) or isinstance(value, bool):
            raise InputError(f"{key} is {value!r}")
    if missing := [key for key in ("text", "voice") if key not in values]:
        raise InputError(f"{' and '.join(missing)} missing")
    return values


def _output(values: Mapping[str, Any], line: int, out_dir: pathlib.Path) -> pathlib.Path:
    name = values.get("out") or f"{values.get('id', f'{line:05d}')}.wav"
    out = pathlib.PurePosixPath(name)
    if out.is_absolute() or ".." in out.parts:
        raise InputError(f"the output {name} is not inside the output directory")
    return out_dir / out


def run_jobs(
    tts: IndexTTS2,
    jobs: Sequence[Job],
    folder: pathlib.Path,
    options: Options,
    report: Callable[[Job, dict[str, Any]], None],
    *,
    batch_size: int = 4,
) -> None:
    """Speaks jobs in batches and writes their outputs.

    Args:
      tts: the checkpoint.
      jobs: what to speak.
      folder: that paths are relative to.
      options: of all jobs, but for the seed.
      report: called with every job and what came of it ("error" in it if nothing did).
      batch_size: how many go through the networks together.
    """
    reader = _Reader(tts, folder, options)
    for start in range(0, len(jobs), batch_size):
        ready: list[tuple[Job, Request]] = []
        for job in jobs[start : start + batch_size]:
            try:
                ready.append((job, reader.request(job)))
            except InputError as error:
                report(job, {"error": str(error)})
        try:
            _speak(tts, ready, report, batch_size)
        except InputError:  # of one of them: find out which
            for pair in ready:
                try:
                    _speak(tts, [pair], report, batch_size)
                except InputError as error:
                    report(pair[0], {"error": str(error)})


def _speak(
    tts: IndexTTS2,
    pairs: Sequence[tuple[Job, Request]],
    report: Callable[[Job, dict[str, Any]], None],
    batch_size: int,
) -> None:
    speeches = tts.synthesize_batch([request for _, request in pairs], batch_size=batch_size)
    for (job, _), speech in zip(pairs, speeches, strict=True):
        speech.save(job.out)
        report(job, speech.report())


class _Reader:
    """Turns jobs into requests; reads each recording once."""

    def __init__(self, tts: IndexTTS2, folder: pathlib.Path, options: Options):
        self._tts, self._folder, self._options = tts, folder, options
        self._speaker = functools.lru_cache(maxsize=64)(self._read_speaker)
        self._features = functools.lru_cache(maxsize=64)(tts.emotion_features)

    def _read_speaker(self, path: pathlib.Path) -> Speaker:
        return self._tts.load_speaker(path) if path.suffix == ".npz" else self._tts.speaker(path)

    def request(self, job: Job) -> Request:
        """The request of a job.

        Raises:
          InputError: if something of it cannot be used.
        """
        get = job.values.get
        features = None
        if "emotion_voice" in job.values:
            features = self._features(self._folder / job.values["emotion_voice"])
        return Request(
            job.values["text"],
            self._speaker(self._folder / job.values["voice"]),
            Emotion(features, get("emotion_alpha", 1.0), self._weights(job)),
            dataclasses.replace(self._options, seed=get("seed", self._options.seed)),
            Duration(get("tokens"), get("seconds"), get("speed")),
        )

    def _weights(self, job: Job) -> np.ndarray | None:
        weights = None
        if "emotion_weights" in job.values:
            spec = job.values["emotion_weights"]
            if isinstance(spec, dict):
                spec = ",".join(f"{name}={weight}" for name, weight in spec.items())
            elif isinstance(spec, list):
                spec = " ".join(map(str, spec))
            weights = mixing.parse_weights(spec, self._tts.settings.emotions)
        if "emotion_text" in job.values:
            sentence = job.values["emotion_text"].strip() or job.values["text"]
            read = self._tts.emotion_weights(sentence)
            weights = read if weights is None else weights + read
        return weights


def finished(out_dir: pathlib.Path) -> set[str]:
    """Digests of the jobs that an earlier run has finished."""
    path = out_dir / REPORT
    if not path.is_file():
        return set()
    done = set()
    for entry in _entries(path):
        if "error" not in entry and (out_dir / entry["out"]).is_file():
            done.add(entry["digest"])
    return done


def _entries(path: pathlib.Path) -> Iterator[dict[str, Any]]:
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            yield json.loads(line)
        except ValueError:  # the last line of a run that was killed
            continue


def append_report(out_dir: pathlib.Path, job: Job, result: Mapping[str, Any]) -> None:
    """Adds what came of a job to the report."""
    entry = {
        "line": job.line,
        "id": job.values.get("id"),
        "out": str(job.out.relative_to(out_dir)),
        "digest": job.digest,
        **result,
    }
    with open(out_dir / REPORT, "a", encoding="utf-8") as file:
        file.write(json.dumps(entry, ensure_ascii=False) + "\n")
        file.flush()
        os.fsync(file.fileno())
