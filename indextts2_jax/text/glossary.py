"""Spoken forms for a user's own terms: `C++` is "C plus plus"."""

import re
from collections.abc import Mapping
from pathlib import Path

import yaml

from indextts2_jax.errors import InputError
from indextts2_jax.text.language import Language

Reading = str | Mapping[str, str]
Glossary = Mapping[str, Reading]


def load_glossary(path: str | Path) -> dict[str, Reading]:
    """Reads a glossary file.

    Args:
        path: a YAML file; each term has a spoken form, or one for each of zh and en:

            C++: {zh: C 加加, en: C plus plus}
            NVMe: N-V-M-E

    Returns:
        The terms with their readings.

    Raises:
        InputError: the file cannot be read, is no YAML, or holds anything else than such terms.
    """
    try:
        entries = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
    except (OSError, yaml.YAMLError, UnicodeDecodeError) as error:
        raise InputError(f"glossary {path}: {' '.join(str(error).split())}") from error
    if entries is None:
        return {}
    if not isinstance(entries, dict):
        raise InputError(f"glossary {path}: want terms with readings, got {type(entries).__name__}")
    for term, reading in entries.items():
        if not isinstance(term, str) or not term.strip():
            raise InputError(f"glossary {path}: want text as a term, got {term!r} (quote it)")
        if not _is_reading(reading):
            raise InputError(
                f"glossary {path}: {term!r} wants text or {{zh: text, en: text}}, got {reading!r}"
            )
    return entries


def _is_reading(reading: object) -> bool:
    if isinstance(reading, dict):
        texts = reading.values()
        return bool(reading) and set(reading) <= {"zh", "en"} and all(map(_is_text, texts))
    return _is_text(reading)


def _is_text(value: object) -> bool:
    return isinstance(value, str) and bool(value.strip())


def apply_glossary(text: str, glossary: Glossary, language: Language) -> str:
    """Puts the readings of `language` for whole terms, in any case, the longest term first."""
    readings = {term.lower(): _in(language, reading) for term, reading in glossary.items()}
    readings = {term: reading for term, reading in readings.items() if reading is not None}
    if not readings:
        return text
    terms = "|".join(_whole(term) for term in _longest_first(readings))
    return re.sub(terms, lambda match: readings[match[0].lower()], text, flags=re.IGNORECASE)


def apply_glossary_original(text: str, glossary: Glossary, language: Language) -> str:
    """Works as the original does: term after term, also inside of words and readings."""
    for term in _longest_first(glossary):
        if (reading := _in(language, glossary[term])) is not None:
            pattern = re.compile(re.escape(term), re.IGNORECASE)
            text = pattern.sub(lambda _, reading=reading: reading, text)
    return text


def _in(language: Language, reading: Reading) -> str | None:
    return reading if isinstance(reading, str) else reading.get(language)


def _longest_first(terms) -> list[str]:
    return sorted(terms, key=len, reverse=True)


def _whole(term: str) -> str:
    """Returns a pattern of the term that no letter or digit continues on either side."""
    before = r"(?<![A-Za-z0-9])" if re.match(r"[A-Za-z0-9]", term) else ""
    after = r"(?![A-Za-z0-9])" if re.search(r"[A-Za-z0-9]$", term) else ""
    return before + re.escape(term) + after
