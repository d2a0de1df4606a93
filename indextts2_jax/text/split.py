"""Cuts the pieces of a long text into segments, which are synthesised one after the other.

Where to cut is found by dynamic programming over the pieces (best[j]: the best way to cut the
first j of them), since no greedy rule keeps all the promises of `split_segments` at once.

Source of the original's way: spec/frontend_emotion_pipeline.md, sections B.3 and B.4.
"""

import enum
import re
from collections.abc import Sequence

WORD_START = "\u2581"  # SentencePiece's mark of a blank before a piece

_STOPS = ".!?…"
_CLAUSE_MARKS = ",;:-—"
_QUOTES = "'\""
_TINY = 8  # a segment under max_tokens / 8 is tiny: too short to be spoken well alone


class Cut(enum.IntEnum):
    """What a cut comes after, or that it comes inside of a word; better ones first."""

    SENTENCE = 0
    CLAUSE = 1
    WORD = 2
    INSIDE = 3


def split_segments(
    pieces: Sequence[str], max_tokens: int = 120, compat: bool = False
) -> list[list[str]]:
    """Cuts the pieces of a text into segments of at most `max_tokens` pieces.

    The segments concatenate to the pieces. Of all ways to cut, it takes the one with the fewest
    tiny parts of sentences; then cuts inside words; cuts after words; tiny segments of whole
    sentences; cuts inside sentences; segments; and then the most even lengths. A quote that
    closes a sentence or clause stays with it.

    Args:
        pieces: from `Tokenizer.encode`.
        max_tokens: the largest number of pieces in a segment, at least 1.
        compat: cut where the original does, which may double a quote after a sentence.

    Returns:
        The segments, none of them empty.

    Raises:
        ValueError: `max_tokens` is below 1.
    """
    if max_tokens < 1:
        raise ValueError(f"max_tokens must be at least 1, got {max_tokens}")
    if compat:
        return _split_like_original(list(pieces), max_tokens, _ORIGINAL_STOPS)
    cuts = find_cuts(pieces)
    total = len(pieces)
    # One integer orders the ways: a digit for each promise, in a base that no count reaches.
    base = total + 1
    segment = total * max_tokens + 1  # the evenness, sum of squared lengths, stays below
    clause = segment * base
    tiny_sentence = clause * base
    word = tiny_sentence * base
    inside = word * base
    tiny_part = inside * base
    price = {Cut.SENTENCE: 0, Cut.CLAUSE: clause, Cut.WORD: word, Cut.INSIDE: inside}

    best, previous = [0], [0]
    for end in range(1, total + 1):
        cheapest, start_of_cheapest = None, 0
        for start in range(max(0, end - max_tokens), end):
            length = end - start
            cost = best[start] + length * length
            if length * _TINY < max_tokens:
                whole = cuts[start] == cuts[end] == Cut.SENTENCE
                cost += tiny_sentence if whole else tiny_part
            if cheapest is None or cost < cheapest:
                cheapest, start_of_cheapest = cost, start
        assert cheapest is not None
        best.append(cheapest + segment + price[cuts[end]])
        previous.append(start_of_cheapest)

    segments, end = [], total
    while end > 0:
        segments.append(list(pieces[previous[end] : end]))
        end = previous[end]
    return segments[::-1]


def find_cuts(pieces: Sequence[str]) -> list[Cut]:
    """Returns what a cut before each piece would be; the two ends of the text are sentence ends."""
    text = "".join(pieces)
    opening, closing = _quotes(text)
    cuts = [Cut.SENTENCE]
    end = 0
    for piece in pieces[:-1]:
        end += len(piece)
        cuts.append(_cut(text, end, opening, closing))
    return [*cuts, Cut.SENTENCE]


def _cut(text: str, end: int, opening: set[int], closing: set[int]) -> Cut:
    """Returns what a cut before `text[end]` is."""
    following = end + (text[end] == WORD_START)
    if following < len(text) and (
        text[following] in _STOPS + _CLAUSE_MARKS or following in closing
    ):
        return Cut.INSIDE  # no segment begins with what ends a clause
    last = end - 1
    while last > 0 and last in closing:
        last -= 1
    new_word = text[end] == WORD_START
    if last in opening or text[last] == WORD_START or not (new_word or end in opening):
        return Cut.INSIDE
    if text[last] in _STOPS:
        return Cut.SENTENCE
    if text[last] in _CLAUSE_MARKS:
        return Cut.CLAUSE
    return Cut.WORD if new_word else Cut.INSIDE


def _quotes(text: str) -> tuple[set[int], set[int]]:
    """Finds where quotes open and close: the normalizer writes them and apostrophes alike."""
    opening: set[int] = set()
    closing: set[int] = set()
    is_open = False
    for match in re.finditer(f"[{_QUOTES}]", text):
        at = match.start()
        before, after = text[max(0, at - 1) : at], text[at + 1 : at + 3]
        latin_before = before.isascii() and before.isalnum()
        if latin_before and re.match("[A-Z0-9]", after):
            continue  # an apostrophe
        if re.match("[A-Z0-9]", after):
            is_open = True
        elif latin_before or re.match(f"$|{WORD_START}[A-Z0-9]", after):
            is_open = False
        else:  # beside a CJK character or another mark: quotes take turns
            is_open = not is_open
        (opening if is_open else closing).add(at)
    return opening, closing


_ORIGINAL_STOPS = frozenset({".", "!", "?", "▁.", "▁?", "▁..."})
_ORIGINAL_COMMAS = frozenset({",", "▁,"})
_ORIGINAL_HYPHENS = frozenset({"-"})


def _split_like_original(
    pieces: list[str], max_tokens: int, closers: frozenset[str]
) -> list[list[str]]:
    segments: list[list[str]] = []
    current: list[str] = []
    for i, piece in enumerate(pieces):
        current.append(piece)
        if piece in _ORIGINAL_COMMAS and not closers & _ORIGINAL_COMMAS:
            parts = _split_like_original(current, max_tokens, _ORIGINAL_COMMAS)
        elif piece in _ORIGINAL_HYPHENS and not closers & _ORIGINAL_HYPHENS:
            parts = _split_like_original(current, max_tokens, _ORIGINAL_HYPHENS)
        elif len(current) > max_tokens:
            parts = [current[:max_tokens], current[max_tokens:]]
        elif piece in closers and len(current) > 2:
            if pieces[i + 1 : i + 2] in (["'"], ["▁'"]):
                current.append(pieces[i + 1])  # the defect: the next segment gets it as well
            parts = [current]
        else:
            continue
        segments += parts
        current = []
    if current:
        segments.append(current)

    merged: list[list[str]] = []
    for segment in segments:
        if merged and len(merged[-1]) + len(segment) <= max_tokens:
            merged[-1] = merged[-1] + segment
        else:
            merged.append(segment)
    return merged
