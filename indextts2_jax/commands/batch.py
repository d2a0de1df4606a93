"""Many texts from one JSONL file: `indextts2 batch --jsonl in.jsonl --out-dir D`.

    {"id": "a1", "text": "Hello.", "voice": "me.wav", "emotion_text": "glad", "seconds": 2}

Paths are relative to the file, outputs to D. D/report.jsonl gets a line for each finished one; a
run that is started again skips what is done, and one bad line does not stop the others. What is
done is what the newest entry of an output says: with the same line, settings, checkpoint, and
content of the recordings.
"""

import contextlib
import dataclasses
import functools
import hashlib
import io
import json
import logging
import os
import pathlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from indextts2_jax import outputs
from indextts2_jax.audio import wav
from indextts2_jax.emotion import mixing
from indextts2_jax.errors import InputError, os_error
from indextts2_jax.pipeline import IndexTTS2
from indextts2_jax.request import fields
from indextts2_jax.request.duration import Duration
from indextts2_jax.request.options import Emotion, Options, Request
from indextts2_jax.request.results import Speech
from indextts2_jax.request.speaker import Speaker

_log = logging.getLogger(__name__)

KEYS: Mapping[str, tuple[type, ...]] = {
    "id": (str,),
    "text": (str,),
    "voice": (str,),
    "emotion_voice": (str,),
    "emotion_weights": (str, list, dict),
    "emotion_text": (str,),
    "out": (str,),
}
RECORDINGS = ("voice", "emotion_voice")  # keys of what is read
SETTINGS = {x.name: x for cls in (Emotion, Duration, Options) for x in fields.settings(cls)}
REPORT = "report.jsonl"


@dataclasses.dataclass(frozen=True)
class Job:
    """One line of the file."""

    line: int
    values: Mapping[str, Any]
    out: pathlib.Path
    digest: str  # of all that decides on the output: what is done under another one is done again


@dataclasses.dataclass(frozen=True)
class Inputs:
    """What all lines share.

    Attributes:
      jsonl: the file; paths in it are relative to its folder.
      out_dir: directory of the outputs.
      checkpoint: directory of the checkpoint.
      glossary: file of it.
      settings: everything else that decides on the outputs, as JSON values.
    """

    jsonl: pathlib.Path
    out_dir: pathlib.Path
    checkpoint: pathlib.Path
    glossary: pathlib.Path | None
    settings: Any

    def path(self, name: str) -> pathlib.Path:
        """Returns a path of a line."""
        return self.jsonl.parent / name


def read_jobs(inputs: Inputs) -> tuple[list[Job], list[tuple[int, str]]]:
    r"""Reads a JSONL file, whose lines end at \n alone; blank ones are skipped.

    Args:
      inputs: the file, and what decides on the outputs beside it.

    Returns:
      The jobs, and (line number, what is wrong) of every line that is none.

    Raises:
      InputError: if the file cannot be read.
    """
    try:
        lines = inputs.jsonl.read_bytes().removeprefix(b"\xef\xbb\xbf").split(b"\n")
    except (OSError, ValueError) as error:  # ValueError: a NUL in the name
        raise InputError(f"cannot read {inputs.jsonl}: {os_error(error)}") from None
    parsed: list[tuple[int, dict[str, Any]]] = []
    bad: list[tuple[int, str]] = []
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            parsed.append((number, _parse(line)))
        except InputError as error:
            bad.append((number, str(error)))
    recordings = [v[key] for _, v in parsed for key in RECORDINGS if key in v]
    needed = [inputs.jsonl, inputs.checkpoint, inputs.out_dir / REPORT]
    needed += [inputs.glossary] if inputs.glossary else []
    taken = outputs.Outputs([*needed, *map(inputs.path, dict.fromkeys(recordings))])
    jobs = []
    content = functools.cache(_content)
    shared = [inputs.settings, *map(content, _files(inputs.checkpoint))]
    shared += [content(inputs.glossary)] if inputs.glossary else []
    for number, values in parsed:
        try:
            out = _output(values, number, inputs.out_dir)
            taken.add(out)
        except InputError as error:
            bad.append((number, str(error)))
            continue
        read = [content(inputs.path(values[key])) for key in RECORDINGS if key in values]
        jobs.append(Job(number, values, out, _digest([values, shared, read])))
    return jobs, sorted(bad)


def _parse(line: bytes) -> dict[str, Any]:
    try:
        values = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise InputError(f"no JSON: {error}") from None
    if not isinstance(values, dict):
        raise InputError("want a JSON object")
    if not fields.is_unicode(json.dumps(values, ensure_ascii=False)):
        raise InputError("it holds half of a surrogate pair, which is no character")
    if unknown := sorted(values.keys() - KEYS.keys() - SETTINGS.keys()):
        raise InputError(
            f"unknown keys {', '.join(unknown)} (known: {', '.join([*KEYS, *SETTINGS])})"
        )
    for key, value in values.items():
        if key in SETTINGS:
            SETTINGS[key].check_kind(value)
        elif not isinstance(value, KEYS[key]):
            raise InputError(f"{key} is {value!r}")
    if missing := [key for key in ("text", "voice") if key not in values]:
        raise InputError(f"{' and '.join(missing)} missing")
    return values


def _output(values: Mapping[str, Any], line: int, out_dir: pathlib.Path) -> pathlib.Path:
    name = values.get("out") or f"{values.get('id', f'{line:05d}')}.wav"
    out = pathlib.PurePosixPath(name)
    if out.is_absolute() or ".." in out.parts:
        raise InputError(f"the output {name} is not inside the output directory")
    wav.check_suffix(out)
    return out_dir / out


def _files(checkpoint: pathlib.Path) -> list[pathlib.Path]:
    """Returns the files that tell checkpoints apart: settings with fingerprints, tokenizers."""
    return [checkpoint / "checkpoint.json", *sorted(checkpoint.glob("tokenizer/*"))]


def _content(path: pathlib.Path) -> str | None:
    """Returns a hash of what a file holds; None where it cannot be read, which is said later."""
    try:
        if not path.is_file():
            return None
        with open(path, "rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except (OSError, ValueError):
        return None


def _digest(values: Any) -> str:
    text = json.dumps(values, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def run_jobs(
    tts: IndexTTS2,
    jobs: Sequence[Job],
    reader: "Reader",
    report: Callable[[Job, dict[str, Any]], None],
    *,
    batch_size: int = 4,
) -> None:
    """Speaks jobs in batches and writes their outputs; nothing of one job stops the others.

    Args:
      tts: the checkpoint.
      jobs: what to speak.
      reader: that makes requests of them.
      report: called with every job and what came of it ("error" in it if nothing did).
      batch_size: how many go through the networks together.
    """
    for start in range(0, len(jobs), batch_size):
        ready: list[tuple[Job, Request]] = []
        for job in jobs[start : start + batch_size]:
            try:
                ready.append((job, reader.request(job)))
            except Exception as error:
                report(job, {"error": _reason(error)})
        spoken = _speak(tts, [request for _, request in ready], batch_size)
        for (job, _), speech in zip(ready, spoken, strict=True):
            report(job, _save(speech, job.out))


def _speak(
    tts: IndexTTS2, requests: Sequence[Request], batch_size: int
) -> list[Speech | Exception]:
    """Returns a speech for each request, or why there is none."""
    if not requests:
        return []
    try:
        return list(tts.synthesize_batch(requests, batch_size=batch_size))
    except Exception as error:
        if len(requests) == 1:
            return [error]
    return [x for request in requests for x in _speak(tts, [request], batch_size)]  # which one?


def _save(speech: Speech | Exception, out: pathlib.Path) -> dict[str, Any]:
    if isinstance(speech, Exception):
        return {"error": _reason(speech)}
    try:
        speech.save(out)
    except (InputError, OSError) as error:
        return {"error": _reason(error)}
    return speech.report()


def _reason(error: Exception) -> str:
    if isinstance(error, InputError):
        return str(error)
    if isinstance(error, OSError):
        return os_error(error)
    _log.error("internal error", exc_info=error)
    return f"internal error ({type(error).__name__}: {os_error(error)})"


class Reader:
    """Turns jobs into requests; reads each recording once."""

    def __init__(
        self,
        tts: IndexTTS2,
        inputs: Inputs,
        options: Options,
        glossary: Mapping[str, Any] | None,
    ):
        self._tts, self._inputs, self._options = tts, inputs, options
        self._glossary = glossary
        self._speaker = functools.lru_cache(maxsize=64)(self._read_speaker)
        self._features = functools.lru_cache(maxsize=64)(tts.emotion_features)

    def _read_speaker(self, path: pathlib.Path) -> Speaker:
        is_file = path.suffix.lower() == ".npz"
        return self._tts.load_speaker(path) if is_file else self._tts.speaker(path)

    def request(self, job: Job) -> Request:
        """Returns the request of a job.

        Raises:
          InputError: if something of it cannot be used.
        """
        values = job.values
        emotion = Emotion(**_given(Emotion, values))
        options = dataclasses.replace(self._options, **_given(Options, values))
        duration = Duration(**_given(Duration, values))
        speaker = self._speaker(self._inputs.path(values["voice"]))
        if "emotion_voice" in values:
            features = self._features(self._inputs.path(values["emotion_voice"]))
            emotion = dataclasses.replace(emotion, features=features)
        emotion = dataclasses.replace(emotion, weights=self._weights(job))
        return Request(values["text"], speaker, emotion, options, duration, self._glossary)

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


def _given(cls: type, values: Mapping[str, Any]) -> dict[str, Any]:
    """Returns what a line says of the fields of a dataclass."""
    return {x.field: values[x.name] for x in fields.settings(cls) if x.name in values}


class Report:
    """The file that says what came of every job."""

    def __init__(self, out_dir: pathlib.Path, file: io.RawIOBase):
        self._out_dir, self._file = out_dir, file
        self._newest = {entry["out"]: entry for entry in _entries(out_dir / REPORT)}

    def done(self, job: Job) -> bool:
        """Tells whether an earlier run finished a job whose output is still what it wrote."""
        entry = self._newest.get(str(job.out.relative_to(self._out_dir)), {})
        return "error" not in entry and entry.get("digest") == job.digest and job.out.is_file()

    def add(self, job: Job, result: Mapping[str, Any]) -> None:
        """Adds what came of a job.

        Raises:
          InputError: if the system cannot write it.
        """
        entry = {
            "line": job.line,
            "id": job.values.get("id"),
            "out": str(job.out.relative_to(self._out_dir)),
            "digest": job.digest,
            **result,
        }
        text = json.dumps(entry, ensure_ascii=False) + "\n"
        try:
            self._file.write(text.encode(errors="backslashreplace"))  # as JSON escapes
            os.fsync(self._file.fileno())
        except OSError as error:
            raise InputError(f"cannot write {self._out_dir / REPORT}: {error.strerror}") from None


@contextlib.contextmanager
def reporting(out_dir: pathlib.Path) -> Iterator[Report]:
    """Opens the report of an output directory, which no other process can do meanwhile.

    Raises:
      InputError: if another process writes there, or nobody can.
    """
    path = out_dir / REPORT
    with outputs.locked(path) as file:
        if file.tell() and not path.read_bytes().endswith(b"\n"):
            file.write(b"\n")  # behind the half line of a run that was killed
        yield Report(out_dir, file)


def _entries(path: pathlib.Path) -> Iterator[dict[str, Any]]:
    for line in path.read_bytes().split(b"\n"):
        try:
            entry = json.loads(line)
        except (ValueError, RecursionError):  # the last line of a run that was killed
            continue
        if isinstance(entry, dict) and isinstance(entry.get("out"), str):
            yield entry
