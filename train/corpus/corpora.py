"""Speech corpora as they are published -> rows: a recording, its text, its speaker.

    manifest   a .jsonl, .csv or .tsv file, or a folder with manifest.jsonl (.csv, .tsv) in it;
               columns: audio, text, speaker [, id, language, emotion, words]
    ljspeech   metadata.csv (id|text|normalised text, or as its first line names them) and
               wavs/<id>.wav
    esd        <speaker>/<speaker>.txt (id, text, emotion), <speaker>/<emotion>/[<split>/]<id>.wav
    libritts   [<subset>/]<speaker>/<chapter>/<id>.wav with <id>.normalized.txt
    emilia     <id>.mp3 with <id>.json (the tars of the hub, unpacked), or <batch>.jsonl that names
               its files in `wav`
    folder     <speaker>/<id>.wav with <id>.txt, at any depth

A reader finds out what belongs together and opens no audio. What is of no use (an empty text, a
file that is not there) becomes a row all the same, so that it gets reported. Rows come one by one:
what is held of a corpus is a line of a list, or the names in a folder. Suffixes may be in capitals;
folders may be links.
"""

import argparse
import csv
import dataclasses
import itertools
import json
import os
import pathlib
import re
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

from indextts2_jax.errors import InputError
from indextts2_jax.text.language import CJK

# The last four cannot be read, and are here to be reported.
AUDIO_SUFFIXES = (
    ".wav", ".flac", ".mp3", ".ogg", ".opus", ".aif", ".aiff", ".m4a", ".aac", ".wma", ".webm",
)  # fmt: skip
MANIFEST_SUFFIXES = (".jsonl", ".csv", ".tsv")
REQUIRED = ("audio", "text", "speaker")
COLUMNS = (*REQUIRED, "id", "language", "emotion", "words")


@dataclasses.dataclass(frozen=True)
class Row:
    """One recording of a corpus.

    Attributes:
      audio: the file.
      text: as the corpus has it.
      speaker: name of the voice in its corpus.
      id: unique in its corpus.
      language: "en", "zh", ... or "".
      emotion: a label, or "".
      words: npz with `vectors` [W, E] and `frames` [W], a row per word (paper appendix B).
      problem: why the corpus does not say what is spoken, or "".
    """

    audio: pathlib.Path
    text: str
    speaker: str
    id: str
    language: str = ""
    emotion: str = ""
    words: pathlib.Path | None = None
    problem: str = ""


def read_corpus(
    source: pathlib.Path,
    layout: str = "auto",
    *,
    language: str = "",
    ignored: Iterable[str] = (),
) -> tuple[str, Iterator[Row]]:
    """Reads a corpus, as its rows are asked for.

    Args:
      source: a folder, or a manifest.
      layout: one of LAYOUTS, or "auto" to recognise it.
      language: of the rows of which the corpus tells none.
      ignored: columns of a manifest that are not read.

    Returns:
      The layout, and the rows in an order that depends on nothing but their names.

    Raises:
      InputError: there is no such corpus; while the rows are read: a line of its lists makes no
        sense, or there are no rows.
    """
    if not source.exists():
        raise InputError(f"{source}: no such file or folder")
    if layout == "auto":
        layout = recognise(source)
    elif not LAYOUTS[layout].fits(source):
        raise InputError(f"{source} has not the layout {layout}")
    return layout, _rows(source, layout, language, frozenset(ignored))


def _rows(
    source: pathlib.Path, layout: str, language: str, ignored: frozenset[str]
) -> Iterator[Row]:
    options = {"ignored": ignored} if layout == "manifest" else {}
    row = None
    for row in LAYOUTS[layout].rows(source, **options):
        yield row if row.language else dataclasses.replace(row, language=language)
    if row is None:
        raise InputError(f"{source}: no recordings (layout {layout})")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the flags that name a corpus."""
    group = parser.add_argument_group("the corpus")
    group.add_argument("--src", type=pathlib.Path, required=True, help="a folder, or a manifest")
    group.add_argument(
        "--layout",
        choices=("auto", *LAYOUTS),
        default="auto",
        help="how it lies on disk (default: recognised)",
    )
    group.add_argument("--language", default="", help="of recordings of which it tells none")
    group.add_argument(
        "--ignore", default="", metavar="COLUMN,...", help="columns of a manifest to leave out"
    )
    group.add_argument("--limit", type=int, help="take only so many recordings, the first ones")


def read_arguments(args: argparse.Namespace) -> Iterator[Row]:
    """Reads the corpus that `add_arguments`' flags name; says on stderr what is found.

    Raises:
      InputError: see `read_corpus`.
    """
    if args.limit is not None and args.limit < 1:
        raise InputError(f"the limit is {args.limit}; it must be at least 1")
    ignored = args.ignore.split(",")
    layout, rows = read_corpus(args.src, args.layout, language=args.language, ignored=ignored)
    return _counted(itertools.islice(rows, args.limit), args.src, layout)


def _counted(rows: Iterator[Row], source: pathlib.Path, layout: str) -> Iterator[Row]:
    from tqdm import tqdm

    number = 0
    with tqdm(rows, str(source), unit="recording", leave=False, disable=None) as bar:
        for row in bar:
            number += 1
            yield row
    print(f"{source}: {number} recordings, layout {layout}", file=sys.stderr)


def recognise(source: pathlib.Path) -> str:
    """Returns the layout of a corpus: the first of LAYOUTS that fits.

    Raises:
      InputError: if none does.
    """
    for name, layout in LAYOUTS.items():
        if layout.fits(source):
            return name
    raise InputError(
        f"{source} has none of the layouts {', '.join(LAYOUTS)}; a manifest can describe it"
    )


def _manifest_file(source: pathlib.Path) -> pathlib.Path | None:
    if source.is_file():
        return source
    files = (source / f"manifest{suffix}" for suffix in MANIFEST_SUFFIXES)
    return next((file for file in files if file.is_file()), None)


def _manifest(source: pathlib.Path, ignored: frozenset[str] = frozenset()) -> Iterator[Row]:
    path = _manifest_file(source)
    assert path is not None
    suffix = path.suffix.lower()
    if suffix not in MANIFEST_SUFFIXES:
        raise InputError(f"{path}: a manifest is one of {', '.join(MANIFEST_SUFFIXES)}")
    records = _json_lines(path) if suffix == ".jsonl" else _table(path)
    for number, record in records:
        try:
            yield _row({k: v for k, v in record.items() if k not in ignored}, path.parent)
        except InputError as error:
            raise InputError(f"{path}, line {number}: {error}") from None


def _row(values: Mapping[str, Any], folder: pathlib.Path) -> Row:
    if unknown := sorted(values.keys() - set(COLUMNS)):
        raise InputError(
            f"unknown columns {','.join(unknown)} (known: {', '.join(COLUMNS)}; "
            f"--ignore {','.join(unknown)} leaves them out)"
        )
    given = {k: v for k, v in values.items() if v or k in REQUIRED}
    if missing := [key for key in REQUIRED if given.get(key) is None]:
        raise InputError(f"{' and '.join(missing)} missing")
    for key, value in given.items():
        if not isinstance(value, str):
            raise InputError(f"{key} is {value!r}, want a string")
    words = given.pop("words", "")
    audio = given["audio"]
    return Row(
        **{"id": os.path.splitext(audio)[0], **given, "audio": folder / audio},
        words=folder / words if words else None,
    )


def _json_lines(path: pathlib.Path) -> Iterator[tuple[int, dict[str, Any]]]:
    for number, line in _lines(path):
        try:
            record = json.loads(line)
        except ValueError as error:
            raise InputError(f"{path}, line {number}: no JSON: {error}") from None
        if not isinstance(record, dict):
            raise InputError(f"{path}, line {number}: want a JSON object")
        yield number, record


def _table(path: pathlib.Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """Yields lines of a .csv (quotes as usual) or .tsv (quotes are text) by names of the first."""
    dialect: dict[str, Any] = {}
    if path.suffix.lower() == ".tsv":
        dialect = {"delimiter": "\t", "quoting": csv.QUOTE_NONE}
    reader = csv.reader(_text_lines(path), strict=True, **dialect)
    try:
        header = next(reader, [])
        for fields in filter(None, reader):
            if len(fields) != len(header):
                raise InputError(
                    f"{path}, line {reader.line_num}: {len(fields)} fields, want {len(header)}"
                )
            yield reader.line_num, dict(zip(header, fields, strict=True))
    except csv.Error as error:
        raise InputError(f"{path}, line {reader.line_num}: {error}") from None


def _lines(path: pathlib.Path) -> Iterator[tuple[int, str]]:
    """Yields numbers and texts of the lines that are not blank."""
    for number, line in enumerate(_text_lines(path), start=1):
        if line.strip():
            yield number, line.removesuffix("\n")


def _text_lines(path: pathlib.Path) -> Iterator[str]:
    number = 0
    try:
        with open(path, encoding="utf-8-sig") as file:
            for line in file:
                number += 1
                yield line
    except OSError as error:
        raise InputError(f"cannot read {path}: {error}") from None
    except UnicodeDecodeError as error:  # its position is that in a buffer
        raise InputError(
            f"cannot read {path}: no UTF-8 after line {number}: {error.reason}"
        ) from None


def _beside(path: pathlib.Path, *suffixes: str) -> pathlib.Path | None:
    """Finds the file that differs from `path` in its suffix only, which may be in capitals."""
    spelled = (x for suffix in suffixes for x in (suffix, suffix.upper(), suffix.title()))
    return next((file for x in spelled if (file := path.with_suffix(x)).is_file()), None)


def _text_beside(audio: pathlib.Path, suffix: str) -> str:
    """Reads the text of one recording; "" if there is none, U+FFFD for what is no UTF-8 in it."""
    path = _beside(audio, suffix)
    return "" if path is None else path.read_text(encoding="utf-8-sig", errors="replace").strip()


def _walk(
    folder: pathlib.Path, *endings: str, above: frozenset[tuple[int, int]] = frozenset()
) -> Iterator[pathlib.Path]:
    """Yields what has one of the endings, sorted by path, listing one folder at a time.

    Args:
      folder: where to begin; links to folders are followed.
      *endings: in small letters; names may have capitals.
      above: device and inode of the folders that hold this one: no link leads back to them.
    """
    try:
        status = folder.stat()
        with os.scandir(folder) as entries:
            names = sorted((entry.name, entry.is_dir()) for entry in entries)
    except NotADirectoryError:
        return
    except OSError as error:
        print(f"note: {folder} is left out: {error.strerror}", file=sys.stderr)
        return
    if (here := (status.st_dev, status.st_ino)) in above:
        return
    for name, is_folder in names:
        if name.lower().endswith(endings):
            yield folder / name
        if is_folder:
            yield from _walk(folder / name, *endings, above=above | {here})


# Names that the first line of metadata.csv may give its columns.
_NORMALISED_COLUMN = re.compile(
    r"normali[sz]ed([ _-](text|transcript(ion)?))?|text[ _-]normali[sz]ed"
)
_TEXT_COLUMN = re.compile(r"(raw[ _-])?(text|transcript(ion)?|sentence)")
_SPEAKER_COLUMN = re.compile(r"(speaker|voice)([ _-](name|id))?")


def _ljspeech(source: pathlib.Path) -> Iterator[Row]:
    metadata, folder, name_of_all = source / "metadata.csv", source / "wavs", source.resolve().name
    header: list[str] = []
    listed = set()
    for number, line in _lines(metadata):
        name, *fields = (field.strip() for field in line.split("|"))
        if not fields:
            raise InputError(f"{metadata}, line {number}: want id|text or id|text|normalised text")
        audio = folder / (name if name.lower().endswith(AUDIO_SUFFIXES) else f"{name}.wav")
        audio = _beside(audio, *AUDIO_SUFFIXES) or audio
        if number == 1 and not audio.is_file() and _finds(_TEXT_COLUMN, fields) is not None:
            header = fields
            continue
        listed.add(audio.name)
        try:
            text, speaker = _columns(header, fields) if header else (_spoken(fields), "")
        except ValueError as error:
            problem = f"{metadata.name}, line {number}: {error}"
            yield Row(audio, "", name_of_all, name, language="en", problem=problem)
            continue
        yield Row(audio, text, speaker or name_of_all, name, language="en")
    for audio in _walk(folder, *AUDIO_SUFFIXES):
        if audio.name not in listed:
            problem = f"{metadata.name} has no line of it"
            yield Row(audio, "", name_of_all, audio.stem, language="en", problem=problem)


def _finds(column: re.Pattern[str], header: Sequence[str]) -> int | None:
    return next((i for i, name in enumerate(header) if column.fullmatch(name.lower())), None)


def _columns(header: Sequence[str], fields: Sequence[str]) -> tuple[str, str]:
    """Takes text and speaker of a line from the columns that the first line names.

    Raises:
      ValueError: if the line has not so many columns.
    """
    if len(fields) != len(header):
        raise ValueError(f"{len(fields) + 1} columns, want {len(header) + 1}")
    places = (_finds(x, header) for x in (_NORMALISED_COLUMN, _TEXT_COLUMN, _SPEAKER_COLUMN))
    normalised, text, speaker = ("" if i is None else fields[i] for i in places)
    return normalised or text, speaker


def _spoken(fields: Sequence[str]) -> str:
    """Returns the text of a line: the normalised one, or the only one.

    Raises:
      ValueError: if it is not plain which column has the text.
    """
    text, *others = fields
    if len(others) > 1:
        raise ValueError(f"{len(fields) + 1} columns, want id|text|normalised text")
    if not others or not others[0]:
        return text
    if not _reads(text, others[0]):
        raise ValueError("its third column is no reading of its second")
    return others[0]


# Not what is part of a number (1st) or abbreviated (Dr.).
_PLAIN_WORD = re.compile(rf"[{CJK}]|(?<![^\W_])(?:(?![{CJK}])[^\W\d_])+(?![^\W_]|\.\s+\S)")


def _reads(text: str, normalised: str) -> bool:
    """Tells whether one text may be the other with its numbers and abbreviations written out."""
    words, spoken = (_PLAIN_WORD.findall(x.casefold()) for x in (text, normalised))
    return 3 * sum(word in set(spoken) for word in words) >= len(words)


_ESD_LINE = re.compile(r"(\d{4}_\d{6})\s+(.*?)\s*(?:Angry|Happy|Neutral|Sad|Surprise)?")
_ESD_CHINESE = 10  # speakers, and as many English ones after them


def _esd_lists(source: pathlib.Path) -> list[pathlib.Path]:
    digits = "[0-9]" * 4
    return [
        path
        for path in sorted(source.glob(f"{digits}/{digits}.txt"))
        if path.stem == path.parent.name
    ]


def _esd(source: pathlib.Path) -> Iterator[Row]:
    for path in _esd_lists(source):
        folder, language = path.parent, "zh" if int(path.stem) <= _ESD_CHINESE else "en"
        texts = {}
        for line in _esd_text(path, language).splitlines():
            name, *fields = line.strip().split("\t")
            if len(fields) > 1:
                texts[name] = fields[0].strip()
            elif match := _ESD_LINE.fullmatch(line.strip()):  # some lines have lost their tabs
                texts[match[1]] = match[2]
        for wav in _walk(folder, *AUDIO_SUFFIXES):
            emotion = wav.relative_to(folder).parts[0].lower()
            text = texts.get(wav.stem, "")
            yield Row(
                audio=wav,
                text=text,
                speaker=folder.name,
                id=wav.stem,
                language=language,
                emotion=emotion,
            )


def _esd_text(path: pathlib.Path, language: str) -> str:
    """Decodes a speaker's list, each in its own encoding: UTF-16, UTF-8, GB 2312 or Latin-1."""
    data = path.read_bytes()
    if data.startswith((b"\xff\xfe", b"\xfe\xff")):
        return data.decode("utf-16")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError:
        return data.decode("gb18030" if language == "zh" else "cp1252", errors="replace")


def _libritts(source: pathlib.Path) -> Iterator[Row]:
    for wav in _walk(source, *AUDIO_SUFFIXES):
        text = _text_beside(wav, ".normalized.txt")
        yield Row(wav, text, wav.parent.parent.name, wav.stem, language="en")


def _emilia_files(source: pathlib.Path) -> Iterator[pathlib.Path]:
    """Yields the files that describe recordings: one each (.json), or a batch (.jsonl)."""
    for path in _walk(source, ".jsonl", ".json"):
        if _names_wavs(path) if path.suffix.lower() == ".jsonl" else _beside(path, *AUDIO_SUFFIXES):
            yield path


def _names_wavs(path: pathlib.Path) -> bool:
    return '"wav"' in next((line for _, line in _lines(path)), "")


def _emilia(source: pathlib.Path) -> Iterator[Row]:
    for path in _emilia_files(source):
        if path.suffix.lower() == ".jsonl":
            for _, values in _json_lines(path):
                yield _emilia_row(values, path.parent / str(values.get("wav", "")))
        elif audio := _beside(path, *AUDIO_SUFFIXES):
            try:
                values = json.loads(_text_beside(audio, ".json"))
            except ValueError:
                values = {}
            yield _emilia_row(values, audio)


def _emilia_row(values: Any, audio: pathlib.Path) -> Row:
    if not isinstance(values, dict):
        values = {}
    text, speaker, language = (
        str(values.get(key) or "").strip() for key in ("text", "speaker", "language")
    )
    return Row(audio, text, speaker, audio.stem, language)


def _folder_audio(source: pathlib.Path) -> Iterator[pathlib.Path]:
    return (path for path in _walk(source, *AUDIO_SUFFIXES) if path.suffix)


def _folder(source: pathlib.Path) -> Iterator[Row]:
    source = source.resolve()
    for audio in _folder_audio(source):
        name = str(audio.relative_to(source).with_suffix(""))
        yield Row(audio, _text_beside(audio, ".txt"), audio.parent.name, name)


@dataclasses.dataclass(frozen=True)
class Layout:
    """How one kind of corpus lies on disk."""

    fits: Callable[[pathlib.Path], bool]
    rows: Callable[..., Iterator[Row]]


LAYOUTS: Mapping[str, Layout] = {
    "manifest": Layout(lambda source: _manifest_file(source) is not None, _manifest),
    "ljspeech": Layout(
        lambda source: (source / "metadata.csv").is_file() and (source / "wavs").is_dir(),
        _ljspeech,
    ),
    "esd": Layout(lambda source: bool(_esd_lists(source)), _esd),
    "libritts": Layout(lambda source: any(_walk(source, ".normalized.txt")), _libritts),
    "emilia": Layout(lambda source: any(_emilia_files(source)), _emilia),
    "folder": Layout(
        lambda source: any(_beside(p, ".txt") for p in _folder_audio(source)),
        _folder,
    ),
}
