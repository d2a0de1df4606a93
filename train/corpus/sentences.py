"""Sentences for a teacher to read: files of sentences, and templates for what books lack.

Books have few numbers, dates, questions and cries, and no lines of one word: a T2S that never saw
these cannot say them. `templates` draws them; `read` takes sentences of files and leaves out what
no teacher reads well and what nobody wants to hear.
"""

import importlib
import pathlib
import random
import re
from collections.abc import Iterable, Iterator
from typing import Any

from indextts2_jax.errors import InputError

MAX_WORDS = 30
_SPEAKABLE = re.compile(r"[A-Za-z][A-Za-z0-9 ,.;:'?!$%&\-]*")
_NAMES = ("Anna", "Peter", "Maria", "James", "Lily", "Tom", "Grace", "Henry", "Sofia", "Daniel")
_PLACES = ("London", "Paris", "the market", "the station", "the garden", "New York", "the museum")
_DAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")
_MONTHS = ("January", "March", "April", "June", "August", "October", "December")
_ONES = [
    "one",
    "two",
    "three",
    "four",
    "five",
    "six",
    "seven",
    "eight",
    "nine",
    "ten",
    "eleven",
    "twelve",
    "thirteen",
    "fourteen",
    "fifteen",
    "sixteen",
    "seventeen",
    "eighteen",
    "nineteen",
]
_TENS = ["twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety"]
_ORDINALS = [
    "first",
    "second",
    "third",
    "fourth",
    "fifth",
    "ninth",
    "twelfth",
    "twentieth",
    "thirtieth",
]
_TEMPLATES = (
    "Yes.", "No.", "Yes!", "No!", "Why?", "Really?", "Thanks.", "Hello.", "Hello there.", "Stop!",
    "Of course.", "Not now.", "Good morning.", "Good night.", "I see.", "Come in.", "Well done!",
    "{name}!", "{name}?", "{number}.", "On {day}.", "In {month}.", "{number} {number2}.",
    "Hello {name}, how are you today?", "Please meet me at {place} on {day} at {hour} o'clock.",
    "What time does the train to {place} leave?", "I have {number} apples and {number2} oranges.",
    "The number is {number}, {number2}, {number3}.", "It costs {number} dollars {number2}.",
    "The meeting is on {month} the {ordinal}.", "In nineteen {tens} {number} we moved to {place}.",
    "Thank you very much, {name}!", "I can't believe that it is already {day}.",
    "Do you want tea or coffee, {name}?", "Turn left at {place}, then walk for {number} minutes.",
    "{name} said that {name2} would call on {day}.", "Could you open the window, please?",
    "That is the best news that I have heard all week!", "Oh no, I left my bag at {place}!",
    "Where on earth have you been, {name}?", "I am so happy to see you, {name}!",
    "Leave me alone, {name}!", "I really miss you, {name}.", "This is disgusting, take it away.",
    "Be careful, someone is coming.", "We will be back in {number} minutes.",
    "About {number} percent of the people in {place} agreed.", "Chapter {number}, page {number2}.",
)  # fmt: skip


def template(draw: random.Random) -> str:
    """Draws a sentence of our own: numbers, dates, questions, cries, lines of a word or two."""
    values = {
        "name": draw.choice(_NAMES),
        "name2": draw.choice(_NAMES),
        "place": draw.choice(_PLACES),
        "day": draw.choice(_DAYS),
        "month": draw.choice(_MONTHS),
        "hour": draw.choice(_ONES[:12]),
        "tens": draw.choice(_TENS),
        "ordinal": draw.choice(_ORDINALS),
        "number": _number(draw),
        "number2": _number(draw),
        "number3": _number(draw),
    }
    text = draw.choice(_TEMPLATES).format(**values)
    return text[0].upper() + text[1:]


def _number(draw: random.Random) -> str:
    ones, tens = draw.choice(_ONES[:9]), draw.choice(_TENS)
    return draw.choice((draw.choice(_ONES), tens, f"{tens}-{ones}", f"{ones} hundred and {tens}"))


def read(files: Iterable[pathlib.Path], held_out: Iterable[str] = ()) -> list[str]:
    """Reads files of one sentence a line.

    Args:
      files: UTF-8 texts.
      held_out: sentences that must not be spoken; case, spaces and marks do not count.

    Returns:
      The sentences that a teacher can read aloud, each once, in the order of the files.

    Raises:
      InputError: a file cannot be read, or nothing is left of them.
    """
    offensive = _offensive()
    seen = {_key(text) for text in held_out}
    out = []
    for text in _lines(files):
        key = _key(text)
        fits = len(key) <= MAX_WORDS and _SPEAKABLE.fullmatch(text) is not None
        if key and fits and key not in seen and not offensive.intersection(key):
            seen.add(key)
            out.append(text)
    if not out:
        raise InputError("no sentence of --texts can be used (one English sentence a line)")
    return out


def _lines(files: Iterable[pathlib.Path]) -> Iterator[str]:
    for file in files:
        try:
            with open(file, encoding="utf-8") as lines:
                for line in lines:
                    yield " ".join(line.split())
        except (OSError, UnicodeDecodeError) as error:
            raise InputError(f"{file} cannot be read: {error}") from None


def _key(text: str) -> tuple[str, ...]:
    return tuple(re.sub(r"[^a-z0-9' ]", " ", text.lower()).split())


def _offensive() -> frozenset[str]:
    """Finds the single words of the list of better_profanity."""
    try:
        package: Any = importlib.import_module("better_profanity")
    except ImportError:
        raise InputError(
            "offensive sentences are filtered by better-profanity: pip install '.[teach]'"
        ) from None
    words = pathlib.Path(package.__file__).with_name("profanity_wordlist.txt")
    return frozenset(words.read_text(encoding="utf-8").split())
