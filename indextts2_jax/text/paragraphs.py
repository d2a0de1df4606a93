"""Where lines end sentences: blank lines, headings."""

import re

_MARKDOWN_HEADING = re.compile(r"^[ \t]*#{1,6}[ \t]+(\S.*?)[ \t#]*$\n?", re.MULTILINE)
_HEADING = re.compile(  # a line of its own, without a mark at its end
    r"^[ \t]*((?:(?:chapter|part|book|volume|section|act|scene|episode|lesson|appendix)"
    r"[ \t]+(?:[0-9]{1,4}|[ivxlc]+|[a-z]{3,9}(?:[- ][a-z]{3,9})?)\b(?:[ \t]*[:.\-–—][^\n]{0,60})?"
    r"|(?:prologue|epilogue|preface|foreword|introduction|contents|afterword)"
    r"|第[ \t]*[0-9零〇一二两三四五六七八九十百千]{1,6}[ \t]*[章节回卷部篇集幕课]"
    r"(?:[^\n。！？，；]{0,30}[^\s。！？，；])?"
    r"|序[章言幕]?|前言|楔子|引子|尾声|后记|目录))[ \t]*\n(?=[ \t]*\S)",
    re.IGNORECASE | re.MULTILINE,
)
_PARAGRAPH_END = re.compile(
    r"([^\s.!?…。！？])(?<![.!?…。！？][”’」』）》\"')])[ \t]*\n[ \t]*\n\s*(?=\S)"
)


def end_paragraphs(text: str) -> str:
    """Ends a sentence where a blank line or a heading does, as a full stop would."""
    text = re.sub(r"\r\n?|\u2028|\x0b", "\n", text)
    text = re.sub(r"\f|\u2029|(?:\\n){2,}", "\n\n", text)  # "\n\n" as a shell's quotes leave it
    text = _MARKDOWN_HEADING.sub(r"\1\n\n", text)
    text = _HEADING.sub(r"\1\n\n", text)
    return re.sub(r"\n\s*\n", "\n", _PARAGRAPH_END.sub(_full_stop, text))


def _full_stop(blank_line: re.Match) -> str:
    last = blank_line[1]
    if last in ",;:-—–，、；：":
        return ". " if last.isascii() else "。"
    return f"{last}. " if last.isascii() or last in "’”" else f"{last}。"
