"""Raw text -> the text that the tokenizer takes: words instead of digits, a few plain marks.

Data flow, for each span of one language:
    text -> contractions, glossary -> hide what must stay -> engine -> put it back -> marks

`compat=True` reproduces the original front end with its defects, for parity tests.

Source: spec/frontend_emotion_pipeline.md, sections B.1 and B.4.
"""

import dataclasses
import functools
import re
import unicodedata
import warnings
from collections.abc import Callable, Iterator, Sequence
from typing import Protocol

from indextts2_jax.text import chinese, pinyin
from indextts2_jax.text.engine import default_engine, wetext_engine
from indextts2_jax.text.glossary import Glossary, apply_glossary, apply_glossary_original
from indextts2_jax.text.language import ANNOTATION, Language, language_spans, whole_language
from indextts2_jax.text.paragraphs import end_paragraphs


class Engine(Protocol):
    """What writes the numbers, dates and the like in a text as words."""

    def __call__(self, language: Language, text: str, /) -> str:
        """Returns `text` in words of `language`."""
        ...


_CONTRACTION = re.compile(
    r"(?<![A-Za-z])(what|where|who|which|how|there|here|it|she|he|that|this)'s(?![A-Za-z])",
    re.IGNORECASE,
)
# A participle behind 's makes it "has"; "it's done" and "it's made of wood" are left to "is".
_CONTRACTED_HAS = re.compile(
    r"(?<![A-Za-z])(what|where|who|which|how|there|here|it|she|he|that|this)'s"
    r"(\s+(?:(?:never|always|already|just|ever|not|only)\s+)*"
    r"(?:been|had|got|gotten|gone|become|begun|grown|happened|seen|heard|known|taken))"
    r"(?![A-Za-z])",
    re.IGNORECASE,
)
# Soft hyphens, joiners of no width and marks of direction.
_UNSEEN = re.compile("[\u00ad\u200b-\u200f\u202a-\u202e\u2060-\u2064\u2066-\u2069\ufeff]")
_FULL_WIDTH_NUMBER = re.compile(
    "[０-９]+|(?<=[0-9０-９])[．：／％－＋＝×～＊](?=[0-9０-９])|(?<=[0-9０-９])[％＋＝]"
    "|[－＋＝＄￡￥](?=[0-9０-９])"
)
_ROMAN_SIGN = re.compile("[\u2160-\u217f]")
_TECH_TERM = re.compile(r"(?<![A-Za-z0-9])[A-Za-z][A-Za-z0-9]*(?:-[A-Za-z0-9]+)+")
_NAME = re.compile(r"(?<![\u4e00-\u9fff])[\u4e00-\u9fff]++(?:[-·—][\u4e00-\u9fff]++){1,2}")

# What the engine sees of a hidden part. Letters and angle brackets: it leaves such words alone.
_ANNOTATION_FORM = "PRONPLACEHOLDER{}PRONPLACEHOLDER"
_PINYIN_FORM = "<pinyin_{}>"
_NAME_FORM = "<n_{}>"
_HYPHEN = "<H>"  # of a tech term: a bare one may be read as a minus
_PLACEHOLDER = re.compile("PRONPLACEHOLDER[a-z]+PRONPLACEHOLDER|<pinyin_[a-z]+>|<n_[a-z]+>|<H>")

_ORIGINAL_MARKS = {
    **dict.fromkeys("：；;，、:", ","),
    "。": ".",
    "！": "!",
    "？": "?",
    "\n": " ",
    **dict.fromkeys("·—～~", "-"),
    **dict.fromkeys("“”\"‘’'（）()《》【】[]「」", "'"),
}
_ORIGINAL_ELLIPSIS = re.compile(r"\.\.\.|,,,|……")
_MARKS = _ORIGINAL_MARKS | {
    **dict.fromkeys("–―", "-"),
    **dict.fromkeys("『』〈〉＂„«»‹›〔〕〖〗{}", "'"),
}
_ELLIPSIS = re.compile(r"[，,、]{3,}|[。.]{3,}|…+")

_PART_SIZE = 400  # characters that the engine sees at a time
_SENTENCE_END = re.compile(
    r"[。！？…!?]+[”’」』）》\"')]*\s*|\n\s*"
    # A stop behind a short word may belong to an abbreviation.
    r"|(?<=[A-Za-z0-9]{3})(?<![A-Z][a-z]{2})(?<![A-Z][a-z]{3})\.[”’\"')\]]*\s+"
    r"(?=[\"'“‘(]?[A-Z])"
)
_CLAUSE_END = re.compile(r"[，、；：]|[,;:](?=\s)\s*")
_BLANKS = re.compile(r"\s+")
_IDEOGRAPH = re.compile("[\u4e00-\u9fff](?=[\u4e00-\u9fff])")


@dataclasses.dataclass(frozen=True)
class Normalizer:
    """Turns a text into the one that is tokenized.

    Attributes:
        engine: writes numbers and the like as words; None is `default_engine`, and wetext alone
            with `compat`.
        glossary: term -> spoken form, or {"zh": form, "en": form}.
        compat: reproduce the original, which reads the whole text in one language and has the
            defects that the specification lists. Otherwise each span is read in its own language.
        language: of a text that does not tell its own: of numbers alone. The original reads it in
            Chinese.
    """

    engine: Engine | None = None
    glossary: Glossary | None = None
    compat: bool = False
    language: Language = "en"

    def __call__(self, text: str) -> str:
        """Returns the normalized text; "" for a blank one."""
        if not text.strip():
            return ""
        if self.compat:
            return self._original(text)
        spans = language_spans(_tidy(end_paragraphs(text)), self.language)
        return "".join(self._span(language, part) for language, part in spans).strip()

    def _span(self, language: Language, text: str) -> str:
        annotations, hidden = _Hidden(), _Hidden()
        text = annotations.hide(ANNOTATION, text, _ANNOTATION_FORM)
        text = _CONTRACTED_HAS.sub(r"\1 has\2", text)
        text = _CONTRACTION.sub(r"\1 is", text)
        text = apply_glossary(text, self.glossary or {}, language)
        if language == "zh":
            text = chinese.join_ranges(_hide_hyphens(text))
        text = hidden.hide(pinyin.RUN, text, _PINYIN_FORM, pinyin.spell_run)
        text = hidden.hide(_NAME, text, _NAME_FORM)
        words = text.strip()
        text = text.replace(words, self._read(language, words)) if words else text
        if language == "zh":
            text = re.sub(r"\$+", "美元", text)  # the engine has read the amounts
        text = hidden.restore(text).replace(_HYPHEN, "-")
        text = _ELLIPSIS.sub("…", text).translate(str.maketrans(_MARKS))
        return annotations.restore(text)

    def _original(self, text: str) -> str:
        annotations, hidden = _Hidden(), _Hidden()
        text = annotations.hide(ANNOTATION, text, _ANNOTATION_FORM)
        language = whole_language(text)
        text = _CONTRACTION.sub(r"\1 is", text)
        text = apply_glossary_original(text, self.glossary or {}, language)
        text = _hide_hyphens(text)
        marks = _ORIGINAL_MARKS
        if language == "zh":
            # By value, not by place: a syllable is hidden inside of longer words as well.
            for syllable in sorted({m[0] for m in pinyin.LOOSE_SYLLABLE.finditer(text)}):
                text = hidden.hide(
                    re.compile(syllable), text, _PINYIN_FORM, pinyin.spell_like_original
                )
            text = hidden.hide(_NAME, text.rstrip(), _NAME_FORM)
            marks = marks | {"$": "."}
        text = self._read_whole(language, text)
        text = hidden.restore(text).replace(_HYPHEN, "-")
        # One pass: the marks of "，，，" are mapped one by one, before they could be an ellipsis.
        pattern = f"{'|'.join(map(re.escape, marks))}|{_ORIGINAL_ELLIPSIS.pattern}"
        text = re.sub(pattern, lambda match: marks.get(match[0], "…"), text)
        return annotations.restore(text)

    def _read(self, language: Language, text: str) -> str:
        """Returns the engine's words for a whole text, which it sees a few sentences at a time.

        The memory that the engine takes grows with what it sees: 28 KB a character in wetext.
        """
        return "".join(
            self._read_part(language, part, _SMALLER_PARTS) for part in _engine_parts(text)
        )

    def _read_part(
        self, language: Language, text: str, smaller: Sequence[Callable[[str], list[str]]]
    ) -> str:
        """Returns the engine's words; where it fails, those for smaller and smaller parts."""
        words = text.strip()
        if not words:
            return text
        read, failure = self._try(language, words)
        if not failure:
            start = text.index(words)
            return text[:start] + read + text[start + len(words) :]
        for level, cut in enumerate(smaller, 1):
            parts = cut(text)
            if len(parts) > 1:
                return "".join(self._read_part(language, part, smaller[level:]) for part in parts)
        _warn_unread(language, failure, text)
        return text

    def _read_whole(self, language: Language, text: str) -> str:
        read, failure = self._try(language, text)
        if not failure:
            return read
        _warn_unread(language, failure, text)
        return text

    def _try(self, language: Language, text: str) -> tuple[str, str]:
        """Returns the engine's words and "", or what is wrong with them: no text may get lost."""
        engine = self.engine or (wetext_engine if self.compat else default_engine)
        try:
            read = engine(language, text)
        except Exception as error:  # any engine, any error
            return "", f"failed with {type(error).__name__}: {error}"
        hidden = _PLACEHOLDER.findall(text)
        if read.strip() and sorted(_PLACEHOLDER.findall(read)) == sorted(hidden):
            return read, ""
        return "", f"gave {read!r}"


def _warn_unread(language: Language, failure: str, text: str) -> None:
    warnings.warn(f"{language} engine {failure}; left as it is: {text!r}", stacklevel=2)


def _after(pattern: re.Pattern, text: str) -> list[str]:
    """Cuts a text behind each match; the parts concatenate to it."""
    ends = [match.end() for match in pattern.finditer(text)]
    starts = [0, *ends]
    return [text[a:b] for a, b in zip(starts, [*ends, len(text)], strict=True) if a < b]


_SMALLER_PARTS = tuple(
    functools.partial(_after, pattern) for pattern in (_SENTENCE_END, _CLAUSE_END, _BLANKS)
)


def _engine_parts(text: str) -> Iterator[str]:
    """Cuts a text into parts of some sentences, of about `_PART_SIZE` characters or less.

    A longer sentence is cut where it hurts least: at clauses, blanks, ideographs.
    """
    part = ""
    for sentence in _after(_SENTENCE_END, text):
        if part and len(part) + len(sentence) > _PART_SIZE:
            yield part
            part = ""
        part += sentence
        while len(part) > 2 * _PART_SIZE:
            cuts = (_last_end(pattern, part) for pattern in (_CLAUSE_END, _BLANKS, _IDEOGRAPH))
            cut = next((cut for cut in cuts if cut), None)
            if cut is None:
                break
            yield part[:cut]
            part = part[cut:]
    if part:
        yield part


def _last_end(pattern: re.Pattern, text: str) -> int:
    """Finds where the last match in the first `_PART_SIZE` characters ends; 0 without one."""
    ends = [match.end() for match in pattern.finditer(text, 0, _PART_SIZE)]
    return ends[-1] if ends else 0


class _Hidden:
    """Parts of a text that the engine must not see; equal parts share a placeholder."""

    def __init__(self):
        self._parts: dict[str, str] = {}

    def hide(
        self, pattern: re.Pattern, text: str, form: str, spell: Callable[[str], str] = str
    ) -> str:
        """Puts a placeholder for each match; `restore` will put `spell(match)`."""
        placeholders: dict[str, str] = {}

        def replace(match: re.Match) -> str:
            part = match[0]
            if part not in placeholders:
                placeholder = form.format(_letters(len(self._parts)))
                placeholders[part] = placeholder
                self._parts[placeholder] = spell(part)
            return placeholders[part]

        return pattern.sub(replace, text)

    def restore(self, text: str) -> str:
        return _PLACEHOLDER.sub(lambda match: self._parts.get(match[0], match[0]), text)


def _letters(number: int) -> str:
    """Writes 0, 1, ... as a, b, ..., z, ba, ...: digits would be read."""
    rest, last = divmod(number, 26)
    return (_letters(rest) if rest else "") + chr(ord("a") + last)


def _hide_hyphens(text: str) -> str:
    return _TECH_TERM.sub(lambda term: term[0].replace("-", _HYPHEN), text)


def _tidy(text: str) -> str:
    """Writes apostrophes one way, and blanks beside letters where full-width marks imply them.

    What is not seen vanishes: soft hyphens, marks of direction. Signs of numbers become plain.
    """
    text = _UNSEEN.sub("", text)
    text = _FULL_WIDTH_NUMBER.sub(lambda signs: unicodedata.normalize("NFKC", signs[0]), text)
    text = re.sub(r"\u2212\s?(?=[\d.$€£¥])", "-", text)
    text = _ROMAN_SIGN.sub(lambda sign: unicodedata.normalize("NFKC", sign[0]).upper(), text)
    text = re.sub(r"(?<=[A-Za-z])’(?=[A-Za-z])", "'", text)
    text = re.sub(r"(?<=[，。！？；：、…”」』》〉）】])(?=[A-Za-z])", " ", text)
    return re.sub(r"(?<=[A-Za-z,.!?])(?=[“「『《〈（【])", " ", text)
