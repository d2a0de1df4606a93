"""The teacher's sentences and distributions, checked before a model is trained on them.

    python -m train.emotion_data FILE.jsonl       prints a report; exit code 2 if there are errors

One JSON object a line, with exactly these keys:

    id            unique
    type          "descriptive" (of a state) or "script" (what somebody says)
    lang          "en" or "zh"
    text          1 to 50 characters; case and spaces aside, only once in the file
    emotion       the one that the teacher was asked for
    distribution  emotion -> probability, for all emotions; the sum is 1 to 0.011
    teacher       the model that gave the distribution
    split         "train", "valid" or "test"

Emotions go by their keys: Anger, Happiness, Fear, Disgust, Sadness, Surprise, Neutral.

Source: paper, appendix A.
"""

import argparse
import collections
import dataclasses
import json
import pathlib
import sys
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np

from indextts2_jax.emotion.text_to_emotion import EmotionSet
from indextts2_jax.errors import InputError

CHOICES = {
    "type": ("descriptive", "script"),
    "lang": ("en", "zh"),
    "split": ("train", "valid", "test"),
}
MAX_CHARACTERS = 50
SUM_TOLERANCE = 0.011  # seven numbers of two decimals, as a teacher rounds them
SHOWN = 20


@dataclasses.dataclass(frozen=True)
class Sentence:
    """One line of the file.

    `distribution` is [E] float64 in the order of the emotion set, scaled so that its sum is 1.
    """

    id: str
    type: str
    lang: str
    text: str
    emotion: str
    distribution: np.ndarray
    teacher: str
    split: str


KEYS = tuple(field.name for field in dataclasses.fields(Sentence))


@dataclasses.dataclass(frozen=True)
class Checked:
    """What a file holds.

    Attributes:
      sentences: of the lines without errors.
      errors: why other lines cannot be used, with their numbers.
      notes: what is odd: the emotion that was asked for is not the likeliest.
    """

    sentences: tuple[Sentence, ...]
    errors: tuple[str, ...]
    notes: tuple[str, ...]


def check(lines: Iterable[str], emotions: EmotionSet) -> Checked:
    """Reads the lines of a file; empty ones do not count.

    Args:
      lines: of JSON.
      emotions: whose keys the file uses.
    """
    sentences: list[Sentence] = []
    errors: list[str] = []
    notes: list[str] = []
    ids: dict[str, int] = {}
    texts: dict[str, tuple[int, str]] = {}  # folded text -> line and split
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            sentence = _parse(line, emotions)
            first = ids.setdefault(sentence.id, number)
            if first != number:
                raise ValueError(f"the id {sentence.id!r} of line {first}")
            key = folded(sentence.text)
            first, split = texts.setdefault(key, (number, sentence.split))
            if split != sentence.split:
                raise ValueError(f"the text of line {first}, which is in another split, {split}")
            if first != number:
                raise ValueError(f"the text of line {first}")
        except (ValueError, RecursionError) as error:
            errors.append(f"line {number}: {error}")
            continue
        sentences.append(sentence)
        likeliest = sentence.distribution.max()
        if sentence.distribution[emotions.keys.index(sentence.emotion)] < likeliest:
            key = emotions.keys[sentence.distribution.argmax()]
            notes.append(f"line {number}: {key} is likelier than {sentence.emotion}")
    if not (sentences or errors):
        errors.append("there are no sentences")
    return Checked(tuple(sentences), tuple(errors), tuple(notes))


def _parse(line: str, emotions: EmotionSet) -> Sentence:
    """Reads one line by itself; ValueError says what is wrong with it."""
    values = json.loads(line, object_pairs_hook=_object)
    if not isinstance(values, dict):
        raise ValueError("no JSON object")
    _want_keys("keys", values, KEYS)
    probabilities = values.pop("distribution")
    for key, value in values.items():
        if not isinstance(value, str) or not value.strip():
            raise ValueError(f"{key} is {value!r}, want a text")
        choices = emotions.keys if key == "emotion" else CHOICES.get(key, (value,))
        if value not in choices:
            raise ValueError(f"{key} is {value!r}, want one of {', '.join(choices)}")
    if len(values["text"]) > MAX_CHARACTERS:
        raise ValueError(f"{len(values['text'])} characters, want {MAX_CHARACTERS} at most")
    if not isinstance(probabilities, dict):
        raise ValueError(f"distribution is {probabilities!r}, want an object")
    _want_keys("emotions of the distribution", probabilities, emotions.keys)
    for key, value in probabilities.items():
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= 1:
            raise ValueError(f"probability of {key} is {value!r}, want 0 to 1")
    distribution = np.array([probabilities[key] for key in emotions.keys], np.float64)
    total = distribution.sum()
    if abs(total - 1) > SUM_TOLERANCE:
        raise ValueError(f"the probabilities sum to {total:.4g}, want 1 to {SUM_TOLERANCE}")
    return Sentence(distribution=distribution / total, **values)


def folded(text: str) -> str:
    """Returns a text without case and spaces: what two sentences may not share."""
    return "".join(text.casefold().split())


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    counts = collections.Counter(key for key, _ in pairs)
    if twice := [key for key, count in counts.items() if count > 1]:
        raise ValueError(f"{', '.join(twice)} given twice")
    return dict(pairs)


def _want_keys(what: str, values: dict[str, Any], keys: Sequence[str]) -> None:
    missing = [key for key in keys if key not in values]
    odd = [key for key in values if key not in keys]
    if missing or odd:
        words = {"missing": missing, "unknown": odd}
        lists = (f"{word} {', '.join(names)}" for word, names in words.items() if names)
        raise ValueError(f"{what}: {'; '.join(lists)}")


def read_lines(path: pathlib.Path) -> list[str]:
    """Reads a text file.

    Raises:
      InputError: if it cannot be read.
    """
    try:
        return path.read_text(encoding="utf-8-sig").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"cannot read {path}: {error}") from None


def load(path: pathlib.Path, emotions: EmotionSet) -> tuple[Sentence, ...]:
    """Reads the sentences of a file without errors.

    Args:
      path: of the file.
      emotions: whose keys the file uses.

    Raises:
      InputError: if it has any.
    """
    checked = check(read_lines(path), emotions)
    if checked.errors:
        count = len(checked.errors)
        raise InputError(f"{path}: {checked.errors[0]} (errors in all: {count})")
    return checked.sentences


def report(checked: Checked, emotions: EmotionSet) -> Iterator[str]:
    """Tells what a file holds, in lines of text."""
    counts = collections.Counter((s.emotion, s.split) for s in checked.sentences)
    splits = CHOICES["split"]
    width = max(map(len, emotions.keys))
    yield " " * width + "".join(f"{split:>8}" for split in splits)
    for key in emotions.keys:
        yield f"{key:{width}}" + "".join(f"{counts[key, split]:8}" for split in splits)
    for name in ("type", "lang", "teacher"):
        found = collections.Counter(getattr(s, name) for s in checked.sentences)
        yield f"{name}: " + ", ".join(f"{value} {count}" for value, count in found.most_common())
    for what, messages in (("notes", checked.notes), ("errors", checked.errors)):
        yield f"{len(messages)} {what}"
        yield from (f"  {message}" for message in messages[:SHOWN])
        if len(messages) > SHOWN:
            yield f"  ... and {len(messages) - SHOWN} more"
    yield f"{len(checked.sentences)} sentences can be used"


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command line; returns the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m train.emotion_data",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("file", type=pathlib.Path, help="JSON lines")
    args = parser.parse_args(argv)
    emotions = EmotionSet.paper()
    try:
        checked = check(read_lines(args.file), emotions)
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print("\n".join(report(checked, emotions)))
    return 2 if checked.errors else 0


if __name__ == "__main__":
    sys.exit(main())
