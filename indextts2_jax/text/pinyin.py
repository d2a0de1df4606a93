"""Pinyin with tones inside a text (`XUAN4`, `lü3`): finding it, spelling it as the vocabulary."""

import re
from collections.abc import Iterable

_FINALS = {
    "": "a o e ai ei ao ou an en ang eng er ng",
    "b": "a o ai ei ao an en ang eng i ie iao ian in ing u",
    "p": "a o ai ei ao ou an en ang eng i ie iao ian in ing u",
    "m": "a o e ai ei ao ou an en ang eng i ie iao iu ian in ing u",
    "f": "a o ei ou an en ang eng u",
    "d": "a e ai ei ao ou an en ang eng ong i ia ie iao iu ian ing u uo ui uan un",
    "t": "a e ai ao ou an ang eng ong i ie iao ian ing u uo ui uan un",
    "n": "a e ai ei ao ou an en ang eng ong i ie iao iu ian in iang ing u uo uan ü v üe ve ue",
    "l": "a o e ai ei ao ou an ang eng ong i ia ie iao iu ian in iang ing u uo uan un ü v üe ve ue",
    "g": "a e ai ei ao ou an en ang eng ong u ua uo uai ui uan un uang",
    "k": "a e ai ei ao ou an en ang eng ong u ua uo uai ui uan un uang",
    "h": "a e ai ei ao ou an en ang eng ong u ua uo uai ui uan un uang",
    "j": "i ia ie iao iu ian in iang ing iong u ue uan un ü üe üan ün v ve van vn",
    "q": "i ia ie iao iu ian in iang ing iong u ue uan un ü üe üan ün v ve van vn",
    "x": "i ia ie iao iu ian in iang ing iong u ue uan un ü üe üan ün v ve van vn",
    "zh": "a e ai ei ao ou an en ang eng ong i u ua uo uai ui uan un uang",
    "ch": "a e ai ao ou an en ang eng ong i u ua uo uai ui uan un uang",
    "sh": "a e ai ei ao ou an en ang eng i u ua uo uai ui uan un uang",
    "r": "e ao ou an en ang eng ong i u ua uo ui uan un",
    "z": "a e ai ei ao ou an en ang eng ong i u uo ui uan un",
    "c": "a e ai ao ou an en ang eng ong i u uo ui uan un",
    "s": "a e ai ao ou an en ang eng ong i u uo ui uan un",
    "y": "a o e ao ou an ang ong i in ing u ue uan un ü üe üan ün v ve van vn",
    "w": "a o ai ei an en ang eng u",
}
SYLLABLES = frozenset(
    initial + final for initial, finals in _FINALS.items() for final in finals.split()
)


def _any_of(words: Iterable[str]) -> str:
    return "(?:" + "|".join(sorted(words, key=lambda word: (-len(word), word))) + ")"


_LONGER = {syllable for syllable in SYLLABLES if len(syllable) > 1}
# `a4` is pinyin and `A4` is a paper size: only lower case stands for the one-letter syllables.
_WRITTEN = SYLLABLES | {s.upper() for s in _LONGER} | {s.capitalize() for s in _LONGER}
_SYLLABLE = f"{_any_of(_WRITTEN)}[1-5]"

# Syllables written one after the other, not inside any longer word or number.
RUN = re.compile(rf"(?<![A-Za-z0-9])(?:{_SYLLABLE})+(?![A-Za-z0-9])")

# The original's looser idea: any initial with any final, wherever no letter stands before it.
LOOSE_SYLLABLE = re.compile(
    "(?<![A-Za-z])(?:[bpmfdtnlgkhjqxrzcsyw]|[zcs]h)?"
    + _any_of({final for finals in _FINALS.values() for final in finals.split()} - {"ng", "er"})
    + "[1-5]|(?<![A-Za-z])(?:ng|er)[1-5]",
    re.IGNORECASE,
)


def spell(syllable: str) -> str:
    """Returns the vocabulary's spelling of a syllable with its tone: `lü3` is LV3, `ju4` is JV4.

    The vocabulary is upper case and writes V for u-umlaut, except after Y.
    """
    spelled = syllable.upper().replace("Ü", "V")
    spelled = re.sub(r"^([JQX])U(?=[1-5EN]|AN)", r"\1V", spelled)
    spelled = re.sub(r"^([LN])UE", r"\1VE", spelled)
    return re.sub(r"^YV", "YU", spelled)


def spell_run(syllables: str) -> str:
    """Spells each of the syllables of a match of `RUN`."""
    return re.sub(r"\D+\d", lambda match: spell(match[0]), syllables)


def spell_like_original(syllable: str) -> str:
    """Returns what the original makes of a syllable: it touches only those that begin J, Q or X."""
    return spell(syllable) if syllable[0] in "jqxJQX" else syllable
