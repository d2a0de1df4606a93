"""The `indextts2` command.

Exit codes: 0 done, 2 what a user can mend: arguments, input, a checkpoint, a full disk (one line on
stderr, and nothing is written; of a batch, the lines that failed), 1 internal error (with its
trace), 130 interrupted.
"""

import argparse
import contextlib
import dataclasses
import io
import json
import logging
import pathlib
import sys
import time
import warnings
import zipfile
from collections.abc import Iterator, Sequence
from typing import Any

from indextts2_jax.commands import arguments
from indextts2_jax.errors import InputError, os_error
from indextts2_jax.request import fields
from indextts2_jax.request.duration import Duration
from indextts2_jax.request.options import Emotion, Options

SAMPLE_VOICE = pathlib.Path(__file__).parent / "assets" / "sample_voice.flac"

SYNTHESIZE_HELP = """\
Speak a text in the voice of a recording.

  indextts2 synthesize --checkpoint CKPT --voice me.wav --text "Good morning." --out hello.wav
  indextts2 synthesize ... --emotion-voice angry.wav --emotion-alpha 0.6
  indextts2 synthesize ... --emotion-weights happy=.5,surprised=.2
  indextts2 synthesize ... --save-speaker me.npz      then --speaker me.npz in place of --voice
"""

BATCH_HELP = """\
Speak every line of a JSONL file. A run that is started again skips what is done; a bad line is
reported and does not stop the others.

  {"id": "a1", "text": "Hello.", "voice": "me.wav"}
  {"id": "a2", "text": "Run!", "voice": "me.npz", "emotion_weights": {"afraid": 0.6}}

Keys: id, text, voice (recording or speaker file), emotion_voice, emotion_weights, emotion_text,
out, and every setting by its name: {settings}. Paths are relative to the file.
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command line and returns its exit code."""
    parser = arguments.Parser(
        prog="indextts2", description="IndexTTS2 in JAX: text and a voice in, speech out."
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    _add_synthesize(commands)
    _add_batch(commands)
    _add_check_duration(commands)
    _add_convert(commands)
    _add_demo(commands)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # names of files need not be UTF-8
    try:
        args = parser.parse_args(argv)
        arguments.check_unicode(args)
        with _warnings_on_stderr():
            args.run(args)
    except (InputError, OSError) as error:
        reason = os_error(error) if isinstance(error, OSError) else error
        print(f"indextts2: error: {reason}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("indextts2: interrupted", file=sys.stderr)
        return 130
    return 0


@contextlib.contextmanager
def _warnings_on_stderr() -> Iterator[None]:
    """Shows what the library logs or warns of, one line each, while a command runs."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter("indextts2: warning: %(message)s"))
    logger = logging.getLogger("indextts2_jax")
    logger.addHandler(handler)
    logger.propagate = False  # some library may have given the root a handler
    show = warnings.showwarning
    warnings.showwarning = lambda message, *_, **__: logger.warning("%s", message)
    try:
        yield
    finally:
        warnings.showwarning = show
        logger.propagate = True
        logger.removeHandler(handler)


def _add_check_duration(commands: Any) -> None:
    parser = commands.add_parser(
        "check-duration",
        help="measure whether a checkpoint keeps to a number of codes by itself",
        description="Tell the model numbers of codes, force nothing, and count what it says: the "
        "token number error rate of the paper's Table 3, for every known reading of the duration "
        "slots. First, say what the weights suggest. Use the best reading with --duration-slots, "
        "or make it the checkpoint's with --write.",
    )
    parser.add_argument("--voice", type=pathlib.Path, help="recording (default: a sample)")
    parser.add_argument("--text-file", type=pathlib.Path, help="one text a line (default: four)")
    parser.add_argument("--json", action="store_true", help="print all numbers as JSON")
    parser.add_argument(
        "--write", action="store_true", help="make the best reading that of the checkpoint"
    )
    _add_options(parser)
    parser.set_defaults(run=_run_check_duration)


def _run_check_duration(args: argparse.Namespace) -> None:
    from indextts2_jax.commands import duration_check
    from indextts2_jax.text.glossary import load_glossary

    if args.write and args.checkpoint is None:
        raise InputError("--write needs --checkpoint")
    options = _options(args)
    glossary = None if args.glossary is None else load_glossary(args.glossary)
    texts = duration_check.TEXTS
    if args.text_file:
        texts = [line for line in _read_file(args.text_file).splitlines() if line.strip()]
        if not texts:
            raise InputError(f"{args.text_file} is empty")
    tts = _open_checkpoint(args, "t2s")
    rows = duration_check.speed_rows(tts.t2s)
    if rows and not args.json:
        norms = ", ".join(f"speed{i} {norm:.4g}" for i, norm in enumerate(rows["norms"]))
        print(f"norms: {norms}; positions {rows['position_norm']:.4g}\n{rows['says']}", flush=True)
    speaker = tts.speaker(args.voice or SAMPLE_VOICE)
    found = duration_check.check_duration(tts, speaker, texts, options=options, glossary=glossary)
    if args.json:
        print(json.dumps({"speed_rows": rows, **found}))
    else:
        _print_durations(found)
    if args.write:
        duration_check.write_reading(tts, found["best"])
        print(f"wrote {found['best']} into {tts.path}", file=sys.stderr)


def _print_durations(found: dict[str, Any]) -> None:
    print(f"codes by itself: {' '.join(map(str, found['free']))}")
    for name, factors in found["readings"].items():
        errors = "  ".join(f"x{factor} {row['error']:.2f} %" for factor, row in factors.items())
        print(f"{name}: token number error {found['errors'][name]:.2f} % ({errors})")
    print(f"a model that heeds no number: {found['unheard']:.2f} %")
    print(f"best: {found['best'] or 'none, no reading is heeded'}")


def _add_convert(commands: Any) -> None:
    parser = commands.add_parser(
        "convert",
        help="convert a PyTorch release into a checkpoint, or back",
        description="Convert a PyTorch release of IndexTTS-2, or the auxiliary models alone, into "
        "one checkpoint directory, or a checkpoint into a release. Every tensor must be accounted "
        "for, by name and shape; otherwise nothing is written.",
    )
    path = pathlib.Path
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument(
        "--src",
        type=path,
        help="the release directory, or its name on the Hugging Face hub: IndexTeam/IndexTTS-2, or "
        "ORG/NAME[@REVISION] of another model in its form",
    )
    source.add_argument(
        "--encoders",
        type=path,
        metavar="DIR",
        help="directory of the auxiliary models alone, to train T2S and S2M from scratch",
    )
    source.add_argument(
        "--reverse", type=path, metavar="CKPT", help="checkpoint directory to make a release of"
    )
    parser.add_argument("--out", type=path, required=True, help="directory to write")
    group = parser.add_argument_group("with --src")
    group.add_argument(
        "--aux", type=path, help="directory of the auxiliary models (default: SRC/hf_cache, SRC)"
    )
    group.add_argument(
        "--dtype",
        choices=("float32", "bfloat16"),
        default="float32",
        help="storage of T2S, S2M and Qwen3; the rest is always float32",
    )
    group.add_argument(
        "--no-emotion-text",
        action="store_true",
        help="leave out Qwen3 (no emotion from a sentence then)",
    )
    _add_yes(group)
    group = parser.add_argument_group("with --encoders")
    group.add_argument("--bpe", type=path, help="tokenizer, e.g. of python -m train.tokenizer")
    parser.set_defaults(run=_run_convert)


def _run_convert(args: argparse.Namespace) -> None:
    from indextts2_jax.commands import by_name
    from indextts2_jax.release import export, hub
    from indextts2_jax.release.convert import (
        ENCODERS_NOTICE,
        LICENCE_NOTICE,
        convert_encoders,
        convert_release,
    )

    if not args.src and (args.aux or args.dtype != "float32" or args.no_emotion_text):
        raise InputError("--aux, --dtype and --no-emotion-text go with --src alone")
    if (args.bpe is None) == (args.encoders is not None):
        raise InputError("--encoders needs --bpe, and nothing else does")
    notice = LICENCE_NOTICE
    if args.reverse:
        export.export_release(args.reverse, args.out)
    elif args.encoders:
        convert_encoders(args.encoders, args.bpe, args.out)
        notice = ENCODERS_NOTICE
    else:
        given: dict[str, Any] = {"aux": args.aux, "dtype": args.dtype}
        given["emotion_text"] = not args.no_emotion_text
        if hub.parse(args.src):
            by_name.convert_by_name(args.src, args.out, agreed=args.yes, **given)
        else:
            convert_release(args.src, args.out, **given)
    print(f"wrote {args.out}\n{notice}", file=sys.stderr)


def _add_yes(group: Any) -> None:
    group.add_argument(
        "--yes", action="store_true", help="agree to the licences of what is fetched, unasked"
    )


def _add_demo(commands: Any) -> None:
    parser = commands.add_parser(
        "demo",
        help="write a small random checkpoint, to try things with",
        description="Write the small random checkpoint that speaks where none is given: it babbles "
        "in nobody's voice, and its encoders hear nothing, but services and trainers run with it.",
    )
    parser.add_argument("--out", type=pathlib.Path, required=True, help="directory to write")
    parser.set_defaults(run=_run_demo)


def _run_demo(args: argparse.Namespace) -> None:
    from indextts2_jax.checkpoint import demo

    if args.out.exists():
        raise InputError(f"{args.out} exists already; remove it or choose another directory")
    demo.random_checkpoint(args.out)
    print(f"wrote {args.out}", file=sys.stderr)


def _add_synthesize(commands: Any) -> None:
    parser = commands.add_parser(
        "synthesize",
        help="speak a text in the voice of a recording",
        description=SYNTHESIZE_HELP,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    path = pathlib.Path
    group = parser.add_argument_group("what to say, and in whose voice")
    group.add_argument("--text", help="the text")
    group.add_argument("--text-file", type=path, help="... or a UTF-8 file that holds it")
    group.add_argument(
        "--words",
        type=path,
        metavar="NPZ",
        help="its word vectors, for checkpoints that read them (paper appendix B): `vectors` "
        "[words, width] and `frames` [words], how long each lasts relative to the others",
    )
    group.add_argument("--voice", type=path, help="recording of the voice (default: a sample)")
    group.add_argument("--speaker", type=path, help="... or a speaker file")
    group.add_argument("--save-speaker", type=path, help="write the speaker file (npz)")
    group.add_argument(
        "--out", type=path, required=True, help="what to write: wav, flac, ogg, opus or mp3"
    )

    group = parser.add_argument_group("emotion (default: that of the voice)")
    group.add_argument("--emotion-voice", type=path, help="recording of the emotion")
    group.add_argument(
        "--emotion-weights", metavar="happy=.5,sad=.2", help="... or one number per emotion"
    )
    group.add_argument(
        "--emotion-text",
        nargs="?",
        const="",
        metavar="SENTENCE",
        help="... or the mood of a sentence, read by Qwen3 (none given: of the text itself)",
    )
    arguments.add_settings(group, Emotion)

    group = parser.add_argument_group("duration (default: as the model wants)")
    arguments.add_settings(group, Duration)
    group.add_argument("--length-factor", type=float, help="the inverse of --speed")

    _add_options(parser)
    group = parser.add_argument_group("reports")
    group.add_argument("--noise", type=path, help="npz with `noise` [1, 80, N] to use")
    group.add_argument("--dump", type=path, help="write every intermediate array (npz)")
    group.add_argument("--plot", type=path, help="draw mel and wave (png, svg, pdf)")
    group.add_argument("--json", action="store_true", help="print what was made as JSON")
    parser.set_defaults(run=_run_synthesize)


def _add_batch(commands: Any) -> None:
    names = [x.name for cls in (Emotion, Duration, Options) for x in fields.settings(cls)]
    parser = commands.add_parser(
        "batch",
        help="speak every line of a JSONL file",
        description=BATCH_HELP.replace("{settings}", ", ".join(names)),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--jsonl", type=pathlib.Path, required=True, help="one object a line")
    parser.add_argument("--out-dir", type=pathlib.Path, required=True, help="for wavs and report")
    parser.add_argument("--batch-size", type=int, default=4, help="texts at a time")
    _add_options(parser)
    parser.set_defaults(run=_run_batch)


def _run_batch(args: argparse.Namespace) -> None:
    from tqdm import tqdm

    from indextts2_jax.checkpoint import store
    from indextts2_jax.commands import batch
    from indextts2_jax.text.glossary import load_glossary

    options = _options(args)
    if args.batch_size < 1:
        raise InputError(f"batch size is {args.batch_size}; it must be at least 1")
    glossary = None if args.glossary is None else load_glossary(args.glossary)
    args.checkpoint = _checkpoint(args)
    store.read_settings(args.checkpoint)  # complains now, before there is a report
    inputs = batch.Inputs(
        args.jsonl, args.out_dir, args.checkpoint, args.glossary,
        [fields.changed(options), args.dtype],
    )  # fmt: skip
    jobs, bad = batch.read_jobs(inputs)
    failed = [f"line {line}: {message}" for line, message in bad]
    with batch.reporting(args.out_dir) as report:
        todo = [job for job in jobs if not report.done(job)]
        with tqdm(total=len(jobs), initial=len(jobs) - len(todo), unit="text", disable=None) as bar:

            def add(job: Any, result: dict[str, Any]) -> None:
                report.add(job, result)
                if "error" in result:
                    failed.append(f"line {job.line}: {result['error']}")
                bar.update()

            if todo:
                tts = _open_checkpoint(args, "t2s", "s2m")
                reader = batch.Reader(tts, inputs, options, glossary)
                batch.run_jobs(tts, todo, reader, add, batch_size=args.batch_size)
    spoken = len(jobs) + len(bad) - len(failed)
    print(f"{spoken} of {len(jobs) + len(bad)} spoken, see {args.out_dir}", file=sys.stderr)
    if failed:
        raise InputError(f"{len(failed)} lines failed:\n  " + "\n  ".join(failed))


def _add_options(parser: argparse.ArgumentParser) -> None:
    """Flags that `synthesize` and `batch` share."""
    path = pathlib.Path
    group = parser.add_argument_group("model")
    group.add_argument(
        "--checkpoint",
        type=path,
        help="checkpoint directory, or hf:ORG/NAME: a release on the Hugging Face hub, fetched and "
        "converted at its first use (default: random weights: babble)",
    )
    _add_yes(group)
    group.add_argument(
        "--dtype",
        choices=("float32", "bfloat16"),
        default="float32",
        help="of T2S and S2M; bfloat16 is fast on GPU and TPU",
    )

    parser.add_argument("--glossary", type=path, help="YAML: term -> what to say")
    arguments.add_settings(parser, Options)


def _run_synthesize(args: argparse.Namespace) -> None:
    text = _read_text(args)
    if args.voice is not None and args.speaker is not None:
        raise InputError("--voice and --speaker are given; want one of them")
    started = time.perf_counter()
    from tqdm import tqdm

    from indextts2_jax.request.options import check_together
    from indextts2_jax.request.words import Words
    from indextts2_jax.text.glossary import load_glossary

    options, duration = _options(args), _duration(args)
    emotion = Emotion(**arguments.given(Emotion, args))
    check_together(options, duration)
    glossary = None if args.glossary is None else load_glossary(args.glossary)
    noise = None if args.noise is None else _read_noise(args.noise)
    words = None if args.words is None else Words.load(args.words)
    _check_outputs(args)
    tts = _open_checkpoint(args, "t2s", "s2m")
    weights = _weights(tts, args.emotion_weights, args.emotion_text, text)
    trace = None
    if args.dump:
        from indextts2_jax.commands.dump import Dump

        trace = Dump()
    with tqdm(desc="voice", unit="stage", disable=None, leave=False) as bar:
        if args.speaker:
            speaker = tts.load_speaker(args.speaker)
        else:
            speaker = tts.speaker(args.voice or SAMPLE_VOICE, trace=trace)
        features = None
        if args.emotion_voice:
            features = tts.emotion_features(args.emotion_voice, trace=trace)

        def progress(stage: str, done: int, total: int) -> None:
            bar.total, bar.n = total, done
            bar.set_description(stage)

        speech = tts.synthesize(
            text,
            speaker,
            emotion=dataclasses.replace(emotion, features=features, weights=weights),
            options=options,
            duration=duration,
            glossary=glossary,
            words=words,
            noise=noise,
            progress=progress,
            trace=trace,
        )
    speech.save(args.out)
    if args.save_speaker:
        speaker.save(args.save_speaker)
    if trace:
        trace.save(args.dump)
    if args.plot:
        from indextts2_jax.commands.plot import plot_speech

        plot_speech(speech, args.plot)
    seconds = time.perf_counter() - started
    if args.json:
        report = {
            "out": str(args.out),
            "checkpoint": str(tts.path),
            "seed": args.seed,
            **speech.report(),
            "emotion_weights": None if weights is None else weights.round(4).tolist(),
            "seconds": round(seconds, 3),
        }
        print(json.dumps(report, ensure_ascii=False))
    print(
        f"wrote {args.out}: {speech.duration_s:.2f} s of speech in {seconds:.1f} s",
        file=sys.stderr,
    )


def _options(args: argparse.Namespace) -> Options:
    return Options(**arguments.given(Options, args))


def _duration(args: argparse.Namespace) -> Duration:
    given, factor = arguments.given(Duration, args), args.length_factor
    if factor is not None:
        if not factor > 0:
            raise InputError(f"length factor is {factor}; it must be more than 0")
        if args.speed is not None:
            raise InputError("--speed and --length-factor are given; want one of them")
        given["speed"] = 1 / factor
    return Duration(**given)


def _open_checkpoint(args: argparse.Namespace, *parts: str) -> Any:
    import jax.numpy as jnp

    from indextts2_jax.pipeline import IndexTTS2

    tts = IndexTTS2(_checkpoint(args), dtype=jnp.dtype(args.dtype))
    tts.require(*parts)  # complains now, not after the prompt is read
    return tts


def _weights(tts: Any, spec: str | None, sentence: str | None, text: str) -> Any:
    """Reads emotion weights from what was typed and from a sentence; both together are added."""
    from indextts2_jax.emotion import mixing

    if spec is not None or sentence is not None:
        _ = tts.prototypes  # complains now, not after the prompt is read
    weights = None if spec is None else mixing.parse_weights(spec, tts.settings.emotions)
    if sentence is None:
        return weights
    read = tts.emotion_weights(sentence.strip() or text)
    return read if weights is None else weights + read


def _read_text(args: argparse.Namespace) -> str:
    if (args.text is None) == (args.text_file is None):
        raise InputError("give one of --text and --text-file")
    text = args.text if args.text is not None else _read_file(args.text_file)
    if not text.strip():
        raise InputError("the text is empty")
    return text


def _read_file(path: pathlib.Path) -> str:
    try:
        return path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"cannot read {path}: {error}") from None


def _read_noise(path: pathlib.Path) -> Any:
    import numpy as np

    try:
        with open(path, "rb") as file:
            noise = np.load(file, allow_pickle=False)["noise"]
    except (OSError, ValueError, EOFError, KeyError, IndexError, zipfile.BadZipFile) as error:
        raise InputError(f"{path} is no noise bank: {error}") from None
    if noise.ndim != 3 or noise.shape[0] != 1 or noise.dtype.kind != "f":
        raise InputError(f"{path}: noise is {noise.dtype} {noise.shape}, want float [1, mels, N]")
    if not np.isfinite(noise).all():
        raise InputError(f"{path}: noise holds NaN or infinite values")
    return noise.astype(np.float32)


def _check_outputs(args: argparse.Namespace) -> None:
    """Finds out before the work, not after it, that a file cannot be written."""
    from indextts2_jax import outputs
    from indextts2_jax.audio import wav

    read = (
        *(SAMPLE_VOICE, args.checkpoint, args.voice, args.speaker, args.emotion_voice),
        *(args.text_file, args.words, args.noise, args.glossary),
    )
    taken = outputs.Outputs(path for path in read if path is not None)
    for path in (args.out, args.dump, args.plot, args.save_speaker):
        if path is not None:
            taken.add(path)
    wav.check_suffix(args.out)
    if args.plot:
        from indextts2_jax.commands import plot

        plot.check_suffix(args.plot)


def _checkpoint(args: argparse.Namespace) -> pathlib.Path:
    """Returns the directory of the checkpoint that is asked for."""
    if args.checkpoint is None:
        return _babbling_checkpoint()
    from indextts2_jax.commands import by_name

    return by_name.checkpoint(args.checkpoint, agreed=args.yes)


def _babbling_checkpoint() -> pathlib.Path:
    from indextts2_jax.checkpoint import demo

    print(
        "indextts2: no --checkpoint given: using small random weights. They babble; this shows "
        "that everything runs, not how it sounds.",
        file=sys.stderr,
    )
    return demo.random_checkpoint()


if __name__ == "__main__":
    sys.exit(main())
