"""The engines that write numbers, dates, units and the like as words.

`default_engine` reads with our own tables, `english` and `chinese`; `wetext_engine` is the nearest
to what the original has, for `Normalizer(compat=True)`.

wetext carries its finite-state grammars in the package (nothing is downloaded). It is set up as
near to the original's WeTextProcessing as its options go: full-width to half-width, traditional
to simplified, interjections and erhua kept. What wetext 0.1.8 still reads wrongly is repaired
here, in two tables a language: rewrites of its input and of its output.
"""

import functools
import re
from collections.abc import Callable

from indextts2_jax.text import chinese, english
from indextts2_jax.text.language import Language

_Rewrites = tuple[tuple[re.Pattern, str | Callable[[re.Match], str]], ...]


def _table(*rewrites: tuple[str, str | Callable[[re.Match], str]]) -> _Rewrites:
    return tuple((re.compile(pattern), replacement) for pattern, replacement in rewrites)


_DIGITS = str.maketrans("0123456789", "零幺二三四五六七八九")  # as telephone numbers are read

_BEFORE: dict[Language, _Rewrites] = {
    "en": _table(
        (r"\s+", " "),  # two blanks in a row fail
        (r"[\[{]", "("),  # square brackets fail; all brackets become quotes later
        (r"[\]}]", ")"),
        (r"(\d[\d,.]*)\s?\$(?![\d$])", r"$\1"),  # 5$
        (r"\b(1[1-9]|20)([2-9]0)s\b", r"\1 '\2s"),  # 1990s is read as seconds
        (r"\b(1[1-9])00s\b", r"\1 hundreds"),
        (r"#(?=\d)", "number "),
        (r"(?i)\bno\.\s*(?=\d)", "number "),
        (r"(?i)\b(fig|vol|ch|sec|pp?)\.(?=\d)", r"\1. "),
        (r"\.{2,}(?=\d)", "... "),
        (r"(?<=\w)(?<!\d)\.(?=\d)", " point "),  # M.2 is read "M.two"
        (r"(?<![\d.])(\d+)\.(\d+)\.(\d{1,3})(?![\d.])", r"\1 point \2 point \3"),  # versions
        (r"(?<=[A-Za-z])(?=\d+\.\d)", " "),  # v2.0 is read "v two.zero"
        (r"~(?=\d)", "approximately "),
        (r"(?<![\d.,])\d{10,}(?![\d.,]*\d)", lambda match: " ".join(match[0])),  # telephone
    ),
    "zh": _table(
        (r"(?<![\d.])\d{13,}(?!\d)", lambda match: match[0].translate(_DIGITS)),  # an identity card
        (r"(?<![\d,])\d{1,3}(?:,\d{3})+(?![\d,])", lambda match: match[0].replace(",", "")),
        (r"(\d[\d.]*)\s?\$(?![\d$])", r"$\1"),  # 5$
        (r"(?<!\d)(1[3-9]\d)[ -](\d{4})[ -](\d{4})(?!\d)", r"\1\2\3"),  # mobile numbers
        (r"(?<=\d)\+(?!\s*\d)", "加"),
        (r"\s*=\s*(?=-?\d)|(?<=\d)\s*=\s*", "等于"),
        (r"(?<=\d)\s*\*\s*(?=\d)", "×"),
        (r"(?<=\d)-(?=\d+点)", "到"),
        (r"(?<=月)2(?=[日号])|(?<=第)2(?!\d)", "二"),  # 两日, 第两天
    ),
}

_ESCAPED = (r'\\([\\"])', r"\1")  # wetext's own syntax leaks into its result
_AFTER: dict[Language, _Rewrites] = {
    "en": _table(_ESCAPED, (r"\s+(?=[,.;:!?](?:\s|$))", ""), (r" {2,}", " ")),
    "zh": _table(_ESCAPED, (r"(?<=[零一二三四五六七八九十])\.(?=[零一二三四五六七八九十])", "点")),
}

# "1,234" is read "thousand two hundred ...": no number stands before the word.
_ONE_THOUSAND = re.compile(
    r"(?<!one )(?<!two )(?<!three )(?<!four )(?<!five )(?<!six )(?<!seven )(?<!eight )(?<!nine )"
    r"(?<!ten )(?<!eleven )(?<!twelve )(?<!teen )(?<!ty )(?<!hundred )\bthousand\b"
)


_IDEOGRAPHS = re.compile("[\u3400-\u9fff\uf900-\ufaff]+")


def default_engine(language: Language, text: str) -> str:
    """Writes the numbers, dates, units and symbols of `text` as words.

    Args:
        language: the language to read in.
        text: some sentences.

    Returns:
        The text in words, without blanks at its ends.
    """
    if language == "en":
        return english.spoken(text)
    return chinese.spoken(simplified(text)).strip()


def simplified(text: str) -> str:
    """Writes traditional characters as simplified ones."""
    ideographs = "".join(_IDEOGRAPHS.findall(text))
    try:
        # Simplified text is in this character set, and no traditional character but one is.
        ideographs.encode("gb2312")
        if "後" not in ideographs:
            return text  # wetext takes 0.25 s to load
    except UnicodeEncodeError:
        pass
    from wetext import preprocess

    return _IDEOGRAPHS.sub(lambda run: preprocess(run[0], traditional_to_simple=True), text)


def wetext_engine(language: Language, text: str) -> str:
    """Writes the numbers, dates, units and symbols of `text` as words.

    A text that the English grammar cannot take as a whole is given to it word by word, and a word
    that it cannot take keeps its signs and has its numbers read.

    Args:
        language: the language to read in.
        text: one text, in any mix of languages.

    Returns:
        The text in words, without blanks at its ends.

    Raises:
        Exception: whatever wetext raises on a single number.
    """
    written = text
    for pattern, replacement in _BEFORE[language]:
        text = pattern.sub(replacement, text)
    read = _grammar(language)
    try:
        text = read(text)
    except Exception:
        text = " ".join(_read_word(read, word) for word in text.split())
    if "thousand" not in written.lower():
        text = _ONE_THOUSAND.sub("one thousand", text)
    for pattern, replacement in _AFTER[language]:
        text = pattern.sub(replacement, text)
    return text


def _read_word(read: Callable[[str], str], word: str) -> str:
    try:
        return read(word)
    except Exception:
        return re.sub(r"\d+(?:\.\d+)?", lambda number: read(number[0]), word)


@functools.cache
def _grammar(language: Language) -> Callable[[str], str]:
    from wetext import Normalizer  # loads every grammar: 0.3 s

    normalizer = Normalizer(
        lang=language,
        operator="tn",
        full_to_half=language == "zh",
        traditional_to_simple=language == "zh",
        remove_interjections=False,
        remove_erhua=False,
    )
    return lambda text: str(normalizer.normalize(text))
