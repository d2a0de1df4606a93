r"""Makes the sentences that `train.emotion` learns from, with a teacher or without one.

    python -m train.emotion_build templates --out SENTENCES.jsonl
    OPENAI_BASE_URL=https://HOST/v1 OPENAI_MODEL=NAME OPENAI_API_KEY=KEY \
        python -m train.emotion_build teacher --out SENTENCES.jsonl --count 35000

`templates` needs nothing: word lists and templates in English and Chinese, with soft labels. Its
test sentences have templates and words that its training sentences have not.

`teacher` asks any OpenAI-compatible server with the three prompts of the paper (appendix A):
describe an emotion, speak in it, weigh all seven for a sentence. Every sentence is appended as soon
as it is weighed; the same command goes on where it was stopped. Asked again is what a server
refused for the moment or what cannot be read, with growing pauses.

`python -m train.emotion_data FILE` checks any such file. Exit codes: 0 done, 2 input that cannot be
used or a server that does not answer (what is written stays).
"""

import argparse
import json
import pathlib
import sys
from collections.abc import Sequence

from tqdm import tqdm

from indextts2_jax.emotion.text_to_emotion import EmotionSet
from indextts2_jax.errors import InputError
from indextts2_jax.outputs import check_writable, replacing
from train import emotion_data
from train.corpus import emotion_sentences, emotion_teacher
from train.corpus.emotion_teacher import Teacher


def from_templates(out: pathlib.Path, count: int, langs: Sequence[str], seed: int) -> int:
    """Writes sentences of templates and word lists.

    Args:
      out: file to write; never replaced.
      count: of sentences, about.
      langs: "en", "zh" or both.
      seed: of their choice.

    Returns:
      How many they are.

    Raises:
      InputError: if the file exists.
    """
    if out.exists():
        raise InputError(f"{out} exists already; it is not replaced")
    lines = emotion_sentences.sentences(count, langs, seed)
    with replacing(out) as file:
        file.write_text("".join(map(_json_line, lines)), encoding="utf-8")
    return len(lines)


def from_teacher(
    out: pathlib.Path,
    teacher: Teacher,
    count: int,
    langs: Sequence[str],
    *,
    answers: int = 1,
    workers: int = 4,
) -> int:
    """Appends sentences of a teacher to a file until there are enough.

    Args:
      out: file to begin or to go on with.
      teacher: whom to ask.
      count: of sentences in the end, about.
      langs: "en", "zh" or both.
      answers: distributions of a sentence that are averaged.
      workers: questions at a time.

    Returns:
      How many there are now.

    Raises:
      InputError: if the file has errors, or the teacher does not answer; what is written stays.
    """
    check_writable(out)
    out.parent.mkdir(parents=True, exist_ok=True)
    have = _begun(out)
    number = len(have)
    lines = emotion_teacher.ask(teacher, have, count, langs, answers=answers, workers=workers)
    with (
        open(out, "a", encoding="utf-8") as file,
        tqdm(total=max(count, number), initial=number, unit="sentence", disable=None) as bar,
    ):
        for line in lines:
            file.write(_json_line(line))
            file.flush()
            number += 1
            bar.update()
    return number


def _begun(out: pathlib.Path) -> Sequence[emotion_data.Sentence]:
    """Reads sentences of an earlier call; half a line at the end, of one that was killed, goes."""
    if not out.exists() or not out.stat().st_size:
        return ()
    content = out.read_bytes()
    if not content.endswith(b"\n"):
        whole = content[: content.rfind(b"\n") + 1]
        with open(out, "r+b") as file:
            file.truncate(len(whole))
        if not whole:
            return ()
    return emotion_data.load(out, EmotionSet.paper())


def _json_line(values: object) -> str:
    return json.dumps(values, ensure_ascii=False) + "\n"


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command line; returns the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m train.emotion_build",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument("--out", type=pathlib.Path, required=True, help="file of JSON lines")
    common.add_argument("--count", type=int, default=8000, help="of sentences, about")
    languages = emotion_data.CHOICES["lang"]
    common.add_argument("--lang", nargs="+", choices=languages, default=languages, help="of them")
    ways = parser.add_subparsers(dest="way", required=True)
    templates = ways.add_parser("templates", parents=[common], help="templates and word lists")
    templates.add_argument("--seed", type=int, default=0, help="of their choice")
    asked = ways.add_parser("teacher", parents=[common], help="an OpenAI-compatible server")
    asked.add_argument("--url", help="instead of OPENAI_BASE_URL")
    asked.add_argument("--model", help="instead of OPENAI_MODEL")
    asked.add_argument("--answers", type=int, default=1, help="that are averaged for a sentence")
    asked.add_argument("--workers", type=int, default=4, help="questions at a time")
    args = parser.parse_args(argv)
    langs = tuple(dict.fromkeys(args.lang))
    try:
        for name in ("count", "answers", "workers"):
            if getattr(args, name, 1) < 1:
                raise InputError(f"{name} is {getattr(args, name)}; want 1 or more")
        if args.way == "templates":
            number = from_templates(args.out, args.count, langs, args.seed)
        else:
            teacher = Teacher.from_environment(args.url, args.model)
            number = from_teacher(
                args.out, teacher, args.count, langs, answers=args.answers, workers=args.workers
            )
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("interrupted; the same command goes on", file=sys.stderr)
        return 130
    print(f"{number} sentences in {args.out}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
