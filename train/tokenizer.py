"""Trains the text tokenizer (BPE) on corpora.

    corpora -> texts -> normalised as for speaking -> upper case, CJK characters apart -> bpe.model

    python -m train.tokenizer --src LJSpeech-1.1 list.jsonl more.txt --out bpe.model --size 12000

A .txt file has a text per line. The layout is the release's: ids 0 and 1 frame a text, 2 is the
unknown. If there is Chinese among the texts, all syllables of pinyin with their tones are pieces
of their own (XVAN4), so that a user can spell what a character leaves open. Corpora are streamed:
memory holds --sample texts, not all.

Exit codes: 0 done, 2 input that cannot be used (one line says why).
"""

import argparse
import collections
import concurrent.futures
import itertools
import json
import multiprocessing
import pathlib
import random
import re
import sys
from collections.abc import Iterable, Iterator, Sequence
from typing import IO, Any

from indextts2_jax.errors import InputError
from indextts2_jax.outputs import replacing
from indextts2_jax.text import pinyin
from indextts2_jax.text.language import CJK
from indextts2_jax.text.normalize import Normalizer
from indextts2_jax.text.tokenize import Tokenizer
from train.corpus import corpora, spool

# JAX is imported where it is used: the workers import this file, and need none.

_CHINESE = re.compile("[\u4e00-\u9fff]")
_BYTE = re.compile("<0x[0-9A-F]{2}>")
_MISSING_SHOWN = 20
_AT_ONCE = 65536  # texts that wait for a worker


def train(texts: Iterable[str], size: int, **options: Any) -> bytes:
    """Trains a tokenizer.

    Args:
      texts: normalised; are read twice.
      size: number of pieces.
      **options: of SentencePiece's trainer.

    Returns:
      The model file.

    Raises:
      InputError: if the texts do not make so many pieces, or need more.
    """
    from indextts2_jax.checkpoint.demo import train_tokenizer

    if any(_CHINESE.search(text) for text in texts):
        options["user_defined_symbols"] = syllables()
    try:
        return train_tokenizer(map(spell, texts), size, **options)
    except RuntimeError as error:
        reason = str(error).split("] ")[-1].strip()
        raise InputError(f"{size} pieces: {reason}") from None


def spell(text: str) -> str:
    """Spells a normalised text as `Tokenizer` gives it to the model."""
    return " ".join(re.sub(f"([{CJK}])", r" \1 ", text).split()).upper()


def syllables() -> list[str]:
    """Spells every syllable of pinyin with every tone, as the vocabulary does."""
    return sorted({pinyin.spell(s + tone) for s in pinyin.SYLLABLES for tone in "12345"})


def coverage(tokenizer: Tokenizer, texts: Iterable[str]) -> dict[str, Any]:
    """Counts how a tokenizer cuts texts.

    Args:
      tokenizer: that is measured.
      texts: normalised.

    Returns:
      Numbers of texts, letters and pieces; shares of pieces that are unknown or single bytes;
      the most frequent characters without a piece.
    """
    pieces: collections.Counter[str] = collections.Counter()
    characters: collections.Counter[str] = collections.Counter()
    longest = number = 0
    for text in texts:
        cut = tokenizer.encode(text)
        pieces.update(cut)
        characters.update(spell(text).replace(" ", ""))
        longest, number = max(longest, len(cut)), number + 1
    total = max(1, pieces.total())
    unknown = sum(pieces[piece] for piece in tokenizer.unknown(list(pieces)))
    missing = [
        character
        for character, _ in characters.most_common()
        if tokenizer.unknown(cut := tokenizer.encode(character)) or any(map(_BYTE.match, cut))
    ]
    return {
        "texts": number,
        "pieces": tokenizer.vocab_size,
        "pieces_used": len(pieces),
        "characters_per_piece": round(characters.total() / total, 3),
        "longest_text": longest,
        "share_unknown": round(unknown / total, 6),
        "share_bytes": round(sum(n for p, n in pieces.items() if _BYTE.match(p)) / total, 6),
        "characters_without_piece": len(missing),
        "most_frequent_of_these": "".join(missing[:_MISSING_SHOWN]),
    }


def read_texts(source: pathlib.Path, ignored: Iterable[str] = ()) -> Iterator[str]:
    """Reads the texts of a corpus, or the lines of a .txt file, as they are asked for.

    Raises:
      InputError: if it cannot be read.
    """
    if source.suffix != ".txt":
        yield from (row.text for row in corpora.read_corpus(source, ignored=ignored)[1])
        return
    try:
        with open(source, encoding="utf-8-sig") as file:
            yield from (line.rstrip("\n") for line in file)
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"cannot read {source}: {error}") from None


def normalized(texts: Iterable[str], workers: int) -> Iterator[str]:
    """Normalises texts, with worker processes if there are to be any; drops empty ones."""
    if not workers:
        yield from filter(None, map(Normalizer(), texts))
        return
    texts, spawn = iter(texts), multiprocessing.get_context("spawn")
    with concurrent.futures.ProcessPoolExecutor(workers, spawn) as pool:
        while some := list(itertools.islice(texts, _AT_ONCE)):
            yield from filter(None, pool.map(Normalizer(), some, chunksize=256))


class Texts(Iterable[str]):
    """Texts in a file, for as often as they are read."""

    def __init__(self, texts: Iterable[str], file: IO[bytes]):
        self._file, self._count = file, 0
        for text in texts:
            file.write(json.dumps(text).encode() + b"\n")
            self._count += 1

    def __len__(self) -> int:
        return self._count

    def __iter__(self) -> Iterator[str]:
        self._file.seek(0)
        yield from map(json.loads, self._file)

    def sample(self, size: int) -> list[str]:
        """Draws `size` texts, the same each time (SentencePiece's own sample has no fixed seed)."""
        if size >= len(self):
            return list(self)
        picked = set(random.Random(0).sample(range(len(self)), size))
        return [text for index, text in enumerate(self) if index in picked]


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command line; returns the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m train.tokenizer",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    path = pathlib.Path
    parser.add_argument("--src", type=path, nargs="+", required=True, help="corpora, .txt files")
    parser.add_argument("--ignore", default="", metavar="COLUMN,...", help="columns of manifests")
    parser.add_argument("--out", type=path, required=True, help="model file to write")
    parser.add_argument("--size", type=int, default=12000, help="number of pieces")
    parser.add_argument(
        "--coverage", type=float, default=0.9995, help="share of characters that get pieces"
    )
    parser.add_argument(
        "--byte-fallback",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="spell characters without a piece in bytes; otherwise they are unknown",
    )
    parser.add_argument(
        "--sample", type=int, default=2_000_000, help="train on so many texts at most"
    )
    parser.add_argument("--workers", type=int, default=0, help="processes that normalise texts")
    args = parser.parse_args(argv)
    try:
        _run(args)
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


def _run(args: argparse.Namespace) -> None:
    if args.out.exists():
        raise InputError(f"{args.out} exists already; a tokenizer is never replaced")
    from tqdm import tqdm

    ignored = args.ignore.split(",")
    given = (text for source in args.src for text in read_texts(source, ignored))
    given = tqdm(given, "texts", unit="", leave=False, disable=None)
    with spool.unnamed_file(args.out.parent) as file:
        texts = Texts(normalized(given, args.workers), file)
        if not texts:
            raise InputError("there are no texts")
        model = train(
            texts.sample(args.sample),
            args.size,
            character_coverage=args.coverage,
            byte_fallback=args.byte_fallback,
        )
        with replacing(args.out) as temporary:
            temporary.write_bytes(model)
            report = coverage(Tokenizer(temporary), texts)
    print(json.dumps(report, indent=1, ensure_ascii=False))


if __name__ == "__main__":
    sys.exit(main())
