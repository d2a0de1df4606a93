"""From recordings to shards, which the trainers read.

    corpus -> rows -> workers: checked recordings -> the frozen encoders, in batches -> utterances
           -> OUT/shard-00000.arrayrecord, .json, ... -> index.json, rejected.jsonl, report.*

    python -m train.prepare --src LJSpeech-1.1 --checkpoint CKPT --out data/lj
    python -m train.prepare --src list.jsonl --checkpoint CKPT --out data/mine --workers 8
    python -m train.prepare --src list.jsonl --checkpoint CKPT --out data/fbank --features fbank

The last one asks no network: its data have the filterbank, audio, pitch and loudness, to train
encoder, codec, speaker encoder and vocoder with; the checkpoint needs no more than a tokenizer.

The same command, started again, goes on after the last whole shard. Several machines share the work
with --part 1/4, --part 2/4, ... and one OUT; who finds all shards there puts them together.

Exit codes: 0 done, 2 input that cannot be used, or of which nothing is left (one line says why).
"""

import argparse
import contextlib
import dataclasses
import json
import os
import pathlib
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

from indextts2_jax.errors import InputError, os_error
from indextts2_jax.outputs import locked, replacing
from train.corpus import corpora
from train.corpus.corpora import Row
from train.corpus.recordings import (
    CODE_SECONDS,
    Limits,
    Read,
    Recording,
    RecordingReader,
    Rejection,
    reading,
)
from train.corpus.spool import Spool, spooled

# JAX is imported where it is used: the workers import this file, and need none.


FEATURES = ("w2v_bert", "fbank")


@dataclasses.dataclass(frozen=True)
class Options:
    """What decides on the data, besides rows and checkpoint.

    Attributes:
      limits: of the recordings.
      speeds: takes at another speed, besides the recorded one.
      seed: of these speeds.
      shard_size: rows of a shard.
    """

    limits: Limits
    speeds: int = 1
    seed: int = 0
    shard_size: int = 512

    def __post_init__(self):
        if self.speeds < 0 or self.seed < 0:
            raise InputError("speeds and seed must be at least 0")
        if self.shard_size < 1:
            raise InputError(f"the shard size is {self.shard_size}; it must be at least 1")


def prepare(
    rows: Iterable[Row],
    checkpoint: pathlib.Path,
    out: pathlib.Path,
    options: Options,
    *,
    workers: int = 0,
    batch_seconds: float = 60.0,
    part: tuple[int, int] = (1, 1),
    features: str = FEATURES[0],
) -> dict[str, Any] | None:
    """Prepares a corpus, or goes on where an earlier call was stopped.

    Args:
      rows: of the corpus; read once, before anything is made.
      checkpoint: directory with the encoders and the tokenizer.
      out: directory to write.
      options: what decides on the data.
      workers: processes that read recordings; 0 = this one does.
      batch_seconds: speech in a batch of the encoders, padding included.
      part: (i, n): this call makes the i-th of n shares of the shards.
      features: one of FEATURES: what stands in the place of semantic features.

    Returns:
      What stands in `report.json`; None as long as shards of other parts are missing.

    Raises:
      InputError: if no data can be made; says why in one line.
    """
    from indextts2_jax.checkpoint.networks import Networks
    from indextts2_jax.t2s.gpt import T2SConfig
    from train.corpus import report as prepare_report
    from train.corpus.audio_rows import utterances
    from train.corpus.encoders import Encoders
    from train.data import shards

    networks = Networks(checkpoint)
    settings = networks.settings
    t2s = settings.configs.get("t2s", T2SConfig.paper())  # encoders alone: what they are to train
    encoded = features == FEATURES[0]
    made_with = (shards.fingerprints if encoded else shards.audio_fingerprints)(
        checkpoint, settings
    )
    scale = settings.configs["semantic_codec"].downsample_scale if encoded else 1
    if options.limits.max_seconds > (longest := t2s.max_codes * scale * CODE_SECONDS):
        raise InputError(f"T2S of {checkpoint} takes {longest:.1f} s at most (max_seconds)")
    reader = RecordingReader(
        tokenizer=checkpoint / "tokenizer",
        mel=settings.mel,
        limits=options.limits,
        max_text=t2s.max_text_tokens,
        max_tokens=t2s.max_codes * scale,
        speeds=options.speeds,
        seed=options.seed,
        keep_audio=not encoded,
    )
    with contextlib.ExitStack() as stack:
        spool = stack.enter_context(spooled(rows, out, options.shard_size))
        _claim(out, {**dataclasses.asdict(options), **made_with, "rows": spool.digest})
        stack.enter_context(locked(out / f".lock-{part[0]}-{part[1]}"))
        numbers = range(len(spool.starts))
        todo = [n for n in numbers[part[0] - 1 :: part[1]] if not _is_done(out, n)]
        if todo:
            with reading(reader, workers) as read:
                encode = utterances
                if encoded:
                    encode = Encoders(networks, batch_seconds)
                _make_shards(out, spool, todo, read, encode)
        if not all(_is_done(out, number) for number in numbers):
            return None
        notes = (json.loads(_notes_path(out, number).read_text()) for number in numbers)
        return prepare_report.finish(out, notes, made_with, settings.mel, scale)


def _make_shards(
    out: pathlib.Path, spool: Spool, numbers: Sequence[int], read: Read, encode: Any
) -> None:
    from tqdm import tqdm

    hours = 0.0
    with tqdm(total=sum(map(spool.size, numbers)), unit="utterance", disable=None) as bar:
        for number in numbers:
            rows = spool.shard(number)
            hours += _make_shard(out, number, rows, read=read, encode=encode, progress=bar.update)
            bar.set_postfix_str(f"{hours:.2f} h")


def _make_shard(
    out: pathlib.Path,
    number: int,
    rows: Sequence[Row | Rejection],
    *,
    read: Read,
    encode: Any,
    progress: Callable[[], Any],
) -> float:
    """Writes a shard and then its notes, which make it count as done; returns its hours."""
    from train.data import shards

    rejected: list[dict[str, str]] = []
    rates: list[float] = []
    seconds = 0.0

    def recordings() -> Iterator[Recording]:
        nonlocal seconds
        for result in read(rows):
            progress()
            if isinstance(result, Rejection):
                rejected.append(dataclasses.asdict(result))
            else:
                rates.append(round(result.rate, 2))
                seconds += result.seconds
                yield result

    written = shards.write_shard(shards.shard_path(out, number), encode(recordings()))
    notes = {"utterances": written, "rates": rates, "rejected": rejected}
    _write_json(_notes_path(out, number), notes)
    return seconds / 3600


def _notes_path(out: pathlib.Path, number: int) -> pathlib.Path:
    return out / f"shard-{number:05d}.json"


def _is_done(out: pathlib.Path, number: int) -> bool:
    from train.data import shards

    return _notes_path(out, number).is_file() and shards.shard_path(out, number).is_file()


def _claim(out: pathlib.Path, made_by: Mapping[str, Any]) -> None:
    """Makes `out` a directory that is made by these values, or finds that it is one.

    Raises:
      InputError: if it is another one's.
    """
    path = out / "prepare.json"
    try:
        out.mkdir(parents=True, exist_ok=True)
        if not path.is_file():
            if any(not entry.name.startswith(".") for entry in out.iterdir()):
                raise InputError(f"{out} is not empty, and holds no prepared data")
            _write_json(path, made_by)
        found = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"cannot use {out}: {error}") from None
    made_by = json.loads(json.dumps(made_by))
    if other := sorted(k for k in made_by.keys() | found.keys() if made_by.get(k) != found.get(k)):
        raise InputError(
            f"{out} was begun with another {', '.join(other)}; choose another directory"
        )


def _write_json(path: pathlib.Path, value: Any) -> None:
    """Writes JSON, whole or not at all."""
    text = json.dumps(value, indent=1, ensure_ascii=False)
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8", errors="backslashreplace")  # as JSON escapes


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command line; returns the exit code."""
    args = _parser().parse_args(argv)
    try:
        _run(args)
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except OSError as error:
        print(f"error: {os_error(error)}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("interrupted; the same command goes on", file=sys.stderr)
        return 130
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m train.prepare",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    path, limits = pathlib.Path, Limits()
    corpora.add_arguments(parser)
    parser.add_argument("--checkpoint", type=path, required=True, help="has encoders, tokenizer")
    parser.add_argument(
        "--bpe",
        type=path,
        help="from train.tokenizer: makes an empty checkpoint where there is none",
    )
    parser.add_argument("--out", type=path, required=True, help="directory to write")
    parser.add_argument(
        "--features", choices=FEATURES, default=FEATURES[0], help="fbank: read by no network"
    )
    parser.add_argument("--speeds", type=int, default=1, help="takes at another speed, of each")
    parser.add_argument("--seed", type=int, default=0, help="of these speeds")
    group = parser.add_argument_group("what is rejected")
    group.add_argument("--min-seconds", type=float, default=limits.min_seconds)
    group.add_argument("--max-seconds", type=float, default=limits.max_seconds)
    group.add_argument(
        "--min-rate",
        type=float,
        default=limits.min_rate,
        help="letters a second; an ideograph counts for three",
    )
    group.add_argument("--max-rate", type=float, default=limits.max_rate)
    group = parser.add_argument_group("how it is done")
    group.add_argument(
        "--workers",
        type=int,
        default=max(1, (os.cpu_count() or 2) - 1),
        help="processes that read recordings; 0 = none but this (default: %(default)s)",
    )
    group.add_argument(
        "--batch-seconds", type=float, default=60.0, help="speech that the encoders read at once"
    )
    group.add_argument("--shard-size", type=int, default=512, help="recordings of a shard")
    group.add_argument(
        "--part", type=_part, default=(1, 1), metavar="I/N", help="only the I-th of N shares"
    )
    return parser


def _part(text: str) -> tuple[int, int]:
    index, _, count = text.partition("/")
    if not (index.isdigit() and count.isdigit() and 1 <= int(index) <= int(count)):
        raise argparse.ArgumentTypeError(f"{text} is no I/N such as 1/4")
    return int(index), int(count)


def _run(args: argparse.Namespace) -> None:
    limits = Limits(args.min_seconds, args.max_seconds, args.min_rate, args.max_rate)
    options = Options(limits, args.speeds, args.seed, args.shard_size)
    if args.workers < 0 or not args.batch_seconds > 0:
        raise InputError("workers must be at least 0 and batch seconds more than 0")
    rows = corpora.read_arguments(args)
    if args.bpe is not None:
        from train.corpus.empty import empty_checkpoint

        if args.features == FEATURES[0]:
            raise InputError("--bpe makes a checkpoint without encoders; add --features fbank")
        empty_checkpoint(args.bpe, args.checkpoint)
    report = prepare(
        rows,
        args.checkpoint,
        args.out,
        options,
        workers=args.workers,
        batch_seconds=args.batch_seconds,
        part=args.part,
        features=args.features,
    )
    if report is None:
        print(f"part {args.part[0]} of {args.part[1]} is done; others are not", file=sys.stderr)
    else:
        from train.corpus import report as prepare_report

        print(prepare_report.describe(report, args.out), file=sys.stderr)


if __name__ == "__main__":
    sys.exit(main())
