"""What stands around a match, and what it decides: the end of a sentence, a noun behind."""

import re

from indextts2_jax.text import english_terms as terms

_CONTEXT = 80  # characters around a match that may decide how it is read
_CLOSING = r"[\"'”’)\]]*"
_STARTER = re.compile(rf"{_CLOSING}(?:\s*$|\s+[\"'“‘(]?(?:{terms.STARTERS})(?!\w|\.\w|-))")
_CAPITAL = re.compile(rf"{_CLOSING}(?:\s*$|\s+[\"'“‘(]?[A-Z])")
_DATES = [*terms.MONTHS, *terms.DAYS]
_MONTH_OR_DAY = "|".join(_DATES + [name[:3] for name in _DATES]).replace("May", r"May(?=\s\d)")
_ZONE_OR_DATE = re.compile(rf"\s+(?:[A-Z]{{1,3}}T|UTC|GMT|{_MONTH_OR_DAY})\b")
_DETERMINER = re.compile(r"\b(?:an?|another|each|every)\s$", re.I)
_POINTER = re.compile(r"(?:\b(?:the|this|that|his|her|its|my|our|their|your)|\w's)\s$", re.I)
# What follows an amount and is no noun that it stands before: "a $5 bill", "a $5 or ...".
_NO_NOUN = (
    "a|above|after|ago|an|and|apart|are|as|at|away|be|because|before|below|but|by|can|deep|did|do|"
    "each|every|for|from|had|has|have|he|high|if|in|into|is|it|less|long|more|of|off|on|or|out|over"
    "|per|she|since|so|tall|than|that|the|then|they|thick|to|until|was|we|were|when|where|which|"
    "while|who|wide|will|with|you"
)
_NOUN = re.compile(rf"[\s-](?!(?:{_NO_NOUN})\b)[a-z]{{2}}")
_NAMED_NOUN = re.compile(rf"[\s-](?!(?i:{_NO_NOUN})\b)[A-Za-z]{{2}}")


def text_before(match: re.Match) -> str:
    """Returns the last characters before a match."""
    return match.string[max(0, match.start() - _CONTEXT) : match.start()]


def text_after(match: re.Match) -> str:
    """Returns the first characters behind a match."""
    return match.string[match.end() : match.end() + _CONTEXT]


def begins_sentence(text: str) -> bool:
    """Says whether a text begins with a word that begins sentences, or is at its end."""
    return bool(_STARTER.match(text))


def is_before_noun(match: re.Match) -> bool:
    """Says whether a noun follows that a match may be the adjective of."""
    return bool(_NOUN.match(text_after(match)))


def stop_before_starter(match: re.Match) -> str:
    """Returns the stop of the sentence that a match ends, "" inside of a sentence.

    A capital alone does not end one: a name may follow.
    """
    return "." if match[0].endswith(".") and begins_sentence(text_after(match)) else ""


def stop_before_capital(match: re.Match) -> str:
    """Returns the stop of the sentence that a match ends which stands before no name."""
    after = text_after(match)
    if not match[0].endswith(".") or _ZONE_OR_DATE.match(after):
        return ""
    return "." if _CAPITAL.match(after) else ""


def stands_before_noun(match: re.Match) -> bool:
    """Says whether an amount is a noun's adjective, as in "a 100m race": its unit is singular."""
    before, after = text_before(match), text_after(match)
    if _DETERMINER.search(before):
        return bool(_NAMED_NOUN.match(after))
    return bool(_POINTER.search(before) and _NOUN.match(after))
