r"""Says when every word of prepared recordings is spoken (forced alignment by a trained encoder).

    python -m train.encoder --config configs/encoder_tiny.py checkpoint=CKPT data.paths=DATA out=RUN
    python -m train.align --checkpoint RUN/checkpoint --data DATA --pictures 8

DATA is made by `train.prepare --features fbank`, with the tokenizer of the checkpoint. Every line
of DATA/alignments.jsonl is an utterance, in the order of the data; times are seconds:

    {"id": "a1", "text": "GOOD DAY", "score": -0.1, "words": [["GOOD", 0.12, 0.31], ["DAY", ...]],
     "pieces": [["▁GO", 0.12, 0.2], ...], "word_frames": [36, 51], "recognizer": "5f3c..."}

`score` is the log-probability of the alignment per 20 ms: sort by it to find texts that were not
said. `word_frames` are mel frames that add up to the recording's: with a vector for each word they
are what `words` of a manifest points to (paper appendix B; S2M with `word_width`). A recording that
is too short for its text has `error` in place of all that. The words are those of the text as the
tokenizer has it; text without spaces is one word, and its pieces tell its times.

The same command, started again, goes on where it was.

Exit codes: 0 done, 2 input that cannot be used (one line says why), 130 interrupted.
"""

import argparse
import json
import math
import pathlib
import sys
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax
import numpy as np
from tqdm import tqdm

from indextts2_jax import programs
from indextts2_jax.checkpoint.parts import Settings, load_part
from indextts2_jax.errors import InputError, os_error
from indextts2_jax.outputs import locked
from train.data import shards
from train.data.batch_plan import round_up
from train.data.records import Records
from train.data.shards import Utterance
from train.recognition import recognizer, times
from train.recognition.recognizer import Units
from train.recognition.times import FRAME_SECONDS

ROWS = 8  # that are heard at once
Hear = Callable[[Sequence[np.ndarray]], list[np.ndarray]]


def align(
    checkpoint: pathlib.Path, data: pathlib.Path, out: pathlib.Path, *, pictures: int = 0
) -> int:
    """Aligns prepared data, or goes on where an earlier call was stopped.

    Args:
      checkpoint: with an encoder and a recognizer.
      data: directory of `train.prepare --features fbank`.
      out: JSONL file to write.
      pictures: of the first utterances, in the folder `<out>.pictures`.

    Returns:
      The number of utterances in `out`.

    Raises:
      InputError: if these do not fit each other; says why in one line.
    """
    settings, index = Settings.load(checkpoint), shards.Index.load(data)
    if "w2v_bert" in index.fingerprints:
        raise InputError(f"{data} has no filterbank; prepare it with --features fbank")
    wanted = shards.audio_fingerprints(checkpoint, settings)
    shards.check_fingerprints(
        index.fingerprints, wanted, f"data {data} and checkpoint {checkpoint}"
    )
    cfg = recognizer.config_of(checkpoint)
    made_with = settings.fingerprints[recognizer.PART]
    with locked(out) as file:
        done = _lines(out, made_with)
        if done > len(index):
            raise InputError(f"{out} is of other data, it has {done} lines; choose another --out")
        if done == len(index):
            return done
        units = Units.of(checkpoint / "tokenizer" / "bpe.model", cfg.units)
        hear, records = _hearing(checkpoint, settings), Records.of(index)
        with tqdm(total=len(index), initial=done, unit="utterance", disable=None) as bar:
            for start in range(done, len(index), ROWS):
                stop = min(start + ROWS, len(index))
                utterances = list(_read(records, range(start, stop)))
                heard = hear([x.takes[0].features for x in utterances])
                for number, (utterance, log_probabilities) in enumerate(
                    zip(utterances, heard, strict=True), start=start
                ):
                    row = _row(utterance, log_probabilities, units) | {"recognizer": made_with}
                    if number < pictures and "words" in row:
                        _draw(utterance, row, out.with_name(f"{out.name}.pictures"), number)
                    file.write(json.dumps(row, ensure_ascii=False).encode() + b"\n")
                    bar.update()
    return len(index)


def _lines(out: pathlib.Path, made_with: str) -> int:
    """Counts the whole lines of a file, and cuts off one that a kill left half written.

    Raises:
      InputError: if another recognizer wrote it, or it is something else.
    """
    text = out.read_bytes()
    whole = text[: text.rfind(b"\n") + 1]
    lines = whole.splitlines()
    try:
        found = {json.loads(line)["recognizer"] for line in lines}
    except (ValueError, KeyError, TypeError):
        raise InputError(f"{out} holds something else than alignments") from None
    if (text and not lines) or found - {made_with}:
        raise InputError(f"{out} is not of this recognizer; choose another --out")
    if whole != text:
        with out.open("r+b") as file:
            file.truncate(len(whole))
    return len(lines)


def _read(records: Records, numbers: range) -> Iterator[Utterance]:
    for number in numbers:
        with records.naming(number):
            yield records[number]


def _hearing(checkpoint: pathlib.Path, settings: Settings) -> Hear:
    """A function from the filterbanks [T, 160] of some utterances to log-probabilities [T, K]."""
    encoder, heads = load_part(checkpoint, settings, "w2v_bert"), recognizer.load(checkpoint)

    @jax.jit
    def run(features: jax.Array, mask: jax.Array) -> jax.Array:
        return jax.nn.log_softmax(heads(encoder(features, mask)))

    def hear(features: Sequence[np.ndarray]) -> list[np.ndarray]:
        longest = max(map(len, features))
        # Lengths as they come would be compiled one by one; these are few.
        length = round_up(2 ** (math.ceil(4 * math.log2(max(longest, 32))) / 4))
        padded = np.zeros((ROWS, length, features[0].shape[1]), np.float32)
        mask = np.zeros((ROWS, length), bool)
        for row, x in enumerate(features):
            padded[row, : len(x)] = x
            mask[row, : len(x)] = True
        heard = np.asarray(run(padded, mask))
        return [heard[row, : len(x)] for row, x in enumerate(features)]

    return hear


def _row(utterance: Utterance, log_probabilities: np.ndarray, units: Units) -> dict[str, Any]:
    """The line of an utterance."""
    row = {"id": utterance.id, "text": utterance.text}
    try:
        found = times.times_of(log_probabilities, utterance.text_ids.tolist(), units)
    except ValueError as error:
        return row | {"error": str(error)}
    return row | {
        "score": round(found.score, 4),
        "words": _seconds(found.words),
        "pieces": _seconds(found.pieces),
        "word_frames": found.word_frames(len(log_probabilities), len(utterance.mel)),
    }


def _seconds(timed: Sequence[times.Timed]) -> list[tuple[str, float, float]]:
    return [
        (x.text, round(x.first * FRAME_SECONDS, 2), round(x.stop * FRAME_SECONDS, 2)) for x in timed
    ]


def _draw(utterance: Utterance, row: dict[str, Any], folder: pathlib.Path, number: int) -> None:
    """Draws the words on the mel."""
    from matplotlib.figure import Figure

    mel = utterance.mel.astype(np.float32)
    seconds = len(utterance.takes[0].codes) * FRAME_SECONDS
    figure = Figure(figsize=(max(6, 2.5 * seconds), 3), layout="constrained")
    axes = figure.subplots()
    axes.imshow(mel.T, origin="lower", aspect="auto", extent=(0, seconds, 0, mel.shape[1]))
    for text, first, stop in row["words"]:
        axes.axvspan(first, stop, color="white", alpha=0.25)
        axes.text(first, mel.shape[1], text, fontsize=8, rotation=30, va="bottom")
    axes.set(xlabel="seconds", ylabel="mel bin", xlim=(0, seconds))
    folder.mkdir(exist_ok=True)
    figure.savefig(folder / f"{number:05d}.png")


def main(argv: Sequence[str] | None = None) -> int:
    """The command line; returns the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m train.align",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    path = pathlib.Path
    parser.add_argument("--checkpoint", type=path, required=True, help="result of train.encoder")
    parser.add_argument("--data", type=path, required=True, help="of train.prepare, with fbank")
    parser.add_argument("--out", type=path, help="JSONL to write (default: DATA/alignments.jsonl)")
    parser.add_argument(
        "--pictures", type=int, default=0, metavar="N", help="draw the words of the first N"
    )
    args = parser.parse_args(argv)
    out = args.out or args.data / "alignments.jsonl"
    try:
        programs.enable_compilation_cache()
        count = align(args.checkpoint, args.data, out, pictures=args.pictures)
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except OSError as error:
        print(f"error: {os_error(error)}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("interrupted; the same command goes on", file=sys.stderr)
        return 130
    print(f"{out}: {count} utterances", file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(main())
