"""Which engine reads what: the language of a whole text, and the language spans of a mixed one."""

import re
from collections.abc import Iterator
from typing import Literal

from indextts2_jax.text import pinyin

Language = Literal["zh", "en"]

# Ideographs with their marks, kana, hangul and the full-width blocks.
CJK = (
    "\u1100-\u11ff\u2e80-\ua4cf\ua840-\ud7af\uf900-\ufaff\ufe30-\ufe4f\uff65-\uffdc"
    "\U00020000-\U0002ffff"
)

_CJK_MARKS = "\u3000-\u303f\uff01-\uff0f\uff1a-\uff20\uff3b-\uff40\uff5b-\uff65"
ANNOTATION = re.compile(r"<[^<>|]+\|[^<>|]+>")  # <word|its reading>
_TOKEN = re.compile(
    rf"(?P<annotation>{ANNOTATION.pattern})"
    rf"|(?P<zh>{pinyin.RUN.pattern}|(?![{_CJK_MARKS}])[{CJK}])"
    r"|(?P<en>https?://[!-~]*[A-Za-z0-9/]|[A-Za-z0-9][A-Za-z0-9_.+-]*@(?:[A-Za-z0-9-]+\.)+[A-Za-z]+"
    r"|[A-Za-z](?:[A-Za-z0-9]|['’\-](?=[A-Za-z0-9]))*)"
    # A number with its unit (10kg, 3rd) is no word: it follows its neighbours.
    r"|\d[\d.,:/]*[A-Za-z]*"
)
_MARK = re.compile(r"[，。！？；：、…\n]|[,.!?;:](?!\d)")
_MIN_WORDS = 2  # a single foreign word is read by the language around it


def whole_language(text: str) -> Language:
    """Returns the one language that the original front end reads all of `text` with.

    Chinese is a text with an ideograph, or without any ASCII letter, or that is nothing but a
    simple e-mail address, or that has a pinyin syllable with its tone.
    """
    if re.search(r"[\u4e00-\u9fff]", text) or not re.search(r"[A-Za-z]", text):
        return "zh"
    if re.fullmatch(r"[A-Za-z0-9]+@[A-Za-z0-9]+\.[A-Za-z]+", text):
        return "zh"
    return "zh" if pinyin.LOOSE_SYLLABLE.search(text) else "en"


def language_spans(text: str, default: Language = "en") -> list[tuple[Language, str]]:
    """Cuts a text where its language changes.

    Two or more English words in a row inside Chinese text are an English span; a single one stays
    Chinese. A number at the border belongs to the side that no mark parts it from, then to the one
    that no blank parts it from, then to the one that follows: what it counts. A text without
    anything Chinese is English if it has a letter, Chinese if it has a Chinese mark.

    Args:
        text: any.
        default: the language of a text of numbers alone.

    Returns:
        (language, part) pairs; the parts concatenate to `text`.
    """
    tokens = list(_TOKEN.finditer(text))
    if not any(_is_chinese(token) for token in tokens):
        if re.search("[A-Za-z]", text):
            return [("en", text)]
        return [("zh" if re.search(f"[{_CJK_MARKS}]", text) else default, text)]
    spans: list[tuple[Language, str]] = []
    done = 0
    for first, last, before, after in _english_runs(text, tokens):
        start = 0 if before is None else _border(text, before, first, chinese_all=first)
        end = len(text) if after is None else _border(text, last, after, chinese_all=last)
        spans.append(("zh", text[done:start]))
        spans.append(("en", text[start:end]))
        done = end
    spans.append(("zh", text[done:]))
    return [(language, part) for language, part in spans if part]


def _is_chinese(token: re.Match) -> bool:
    annotated = token["annotation"]
    return bool(token["zh"]) or bool(annotated and re.search(f"[{CJK}]", annotated))


def _words(written: str) -> int:
    """Counts how many foreign words a token is: a web or e-mail address is many, a letter none."""
    return _MIN_WORDS if re.search("[@/]", written) else len(written) > 1


def _english_runs(
    text: str, tokens: list[re.Match]
) -> Iterator[tuple[int, int, int | None, int | None]]:
    """Yields (start, end, end of what is Chinese before, start of what is after) of each run."""
    run: list[re.Match] = []
    before = None

    def found(after: int | None):
        if sum(_words(word[0]) for word in run) >= _MIN_WORDS:
            yield run[0].start(), run[-1].end(), before, after

    for token in tokens:
        if _is_chinese(token):
            yield from found(token.start())
            before, run = token.end(), []
        elif token["en"]:
            if run and re.search(f"[{_CJK_MARKS}]", text[run[-1].end() : token.start()]):
                yield from found(token.start())
                before, run = run[-1].end(), []
            run.append(token)
    yield from found(None)


def _border(text: str, start: int, end: int, *, chinese_all: int) -> int:
    """Returns where, in what lies between two languages, the part of the first one ends.

    Numbers decide: those before a mark, or else before the first blank, belong to the first
    language. Where there are none, all is Chinese: the border is `chinese_all`.
    """
    between = text[start:end]
    if not re.search(r"\d", between):
        return chinese_all
    if mark := _MARK.search(between):
        return start + mark.end()
    blank = re.search(r"\s", between)
    return start + blank.start() if blank else chinese_all
