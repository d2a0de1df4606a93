"""The `indextts2` command.

Exit codes: 0 done, 2 input or checkpoint that cannot be used (one line on stderr, nothing written),
1 internal error (with its trace), 130 interrupted.
"""

import argparse
import contextlib
import json
import logging
import os
import pathlib
import sys
import time
import warnings
import zipfile
from collections.abc import Iterator, Sequence
from typing import Any

from indextts2_jax.errors import InputError

SAMPLE_VOICE = pathlib.Path(__file__).parent / "assets" / "sample_voice.flac"

SYNTHESIZE_HELP = """\
Speak a text in the voice of a recording.

  indextts2 synthesize --checkpoint CKPT --voice me.wav --text "Good morning." --out hello.wav
  indextts2 synthesize ... --emotion-voice angry.wav --emotion-alpha 0.6
  indextts2 synthesize ... --emotion-weights happy=.5,surprised=.2
  indextts2 synthesize ... --save-speaker me.npz      then --speaker me.npz in place of --voice
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command line and returns its exit code."""
    parser = argparse.ArgumentParser(
        prog="indextts2", description="IndexTTS2 in JAX: text and a voice in, speech out."
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    _add_synthesize(commands)
    _add_convert(commands)
    args = parser.parse_args(argv)
    try:
        with _warnings_on_stderr():
            args.run(args)
    except InputError as error:
        print(f"indextts2: error: {error}", file=sys.stderr)
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
    show = warnings.showwarning
    warnings.showwarning = lambda message, *_, **__: logger.warning("%s", message)
    try:
        yield
    finally:
        warnings.showwarning = show
        logger.removeHandler(handler)


def _add_convert(commands: Any) -> None:
    parser = commands.add_parser(
        "convert",
        help="convert a PyTorch release into a checkpoint, or back",
        description="Convert a PyTorch release of IndexTTS-2 into one checkpoint directory, or a "
        "checkpoint into a release. Every tensor must be accounted for, by name and shape; "
        "otherwise nothing is written.",
    )
    path = pathlib.Path
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("--src", type=path, help="the release directory")
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
    parser.set_defaults(run=_run_convert)


def _run_convert(args: argparse.Namespace) -> None:
    from indextts2_jax import export, release

    if args.reverse:
        if args.aux or args.dtype != "float32" or args.no_emotion_text:
            raise InputError("--aux, --dtype and --no-emotion-text do not go with --reverse")
        export.export_release(args.reverse, args.out)
    else:
        release.convert_release(
            args.src,
            args.out,
            aux=args.aux,
            dtype=args.dtype,
            emotion_text=not args.no_emotion_text,
        )
    print(f"wrote {args.out}\n{release.LICENCE_NOTICE}", file=sys.stderr)


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
    group.add_argument("--voice", type=path, help="recording of the voice (default: a sample)")
    group.add_argument("--speaker", type=path, help="... or a speaker file")
    group.add_argument("--save-speaker", type=path, help="write the speaker file (npz)")
    group.add_argument("--out", type=path, required=True, help="16-bit wav to write")
    group.add_argument(
        "--checkpoint", type=path, help="checkpoint directory (default: random weights: babble)"
    )
    group.add_argument(
        "--dtype",
        choices=("float32", "bfloat16"),
        default="float32",
        help="of T2S and S2M; bfloat16 is fast on GPU and TPU",
    )

    group = parser.add_argument_group("text")
    group.add_argument("--normalized", action="store_true", help="take the text as it is")
    group.add_argument("--glossary", type=path, help="YAML: term -> what to say")
    group.add_argument("--max-text-tokens", type=int, default=120, help="longest segment")
    group.add_argument(
        "--interval-silence", type=float, default=200, metavar="MS", help="silence between segments"
    )

    group = parser.add_argument_group("emotion (default: that of the voice)")
    group.add_argument("--emotion-voice", type=path, help="recording of the emotion")
    group.add_argument(
        "--emotion-alpha",
        type=float,
        default=1.0,
        help="0..1: how much of that emotion, or of the weights",
    )
    group.add_argument(
        "--emotion-weights", metavar="happy=.5,sad=.2", help="... or one number per emotion"
    )
    group.add_argument(
        "--raw-emotion-weights", action="store_true", help="keep a sum over 0.8 as it is"
    )

    group = parser.add_argument_group("decoding")
    group.add_argument("--greedy", action="store_true", help="take the best code every time")
    group.add_argument("--temperature", type=float, default=0.8)
    group.add_argument("--top-k", type=int, default=30, help="0 = off")
    group.add_argument("--top-p", type=float, default=0.8, help="1 = off")
    group.add_argument("--repetition-penalty", type=float, default=10.0, help="1 = off")
    group.add_argument("--typical-mass", type=float, default=1.0, help="1 = off")
    group.add_argument("--max-codes", type=int, default=1500, help="of a segment; one is 20 ms")
    group.add_argument("--seed", type=int, default=0, help="of all randomness")
    group.add_argument(
        "--positions",
        choices=("plain", "released"),
        help="rows of the position table (default: the checkpoint's)",
    )

    group = parser.add_argument_group("mel and wave")
    group.add_argument("--steps", type=int, default=25, help="of flow matching")
    group.add_argument("--guidance", type=float, default=0.7, help="of flow matching; 0 = off")
    group.add_argument("--noise", type=path, help="npz with `noise` [1, 80, N] to use")
    group.add_argument("--no-fade", action="store_true", help="no fade-out at segment ends")
    group.add_argument(
        "--compat", action="store_true", help="reproduce the defects of the original"
    )

    group = parser.add_argument_group("reports")
    group.add_argument("--dump", type=path, help="write every intermediate array (npz)")
    group.add_argument("--plot", type=path, help="draw mel and wave (png)")
    group.add_argument("--json", action="store_true", help="print what was made as JSON")
    parser.set_defaults(run=_run_synthesize)


def _run_synthesize(args: argparse.Namespace) -> None:
    text = _read_text(args)
    started = time.perf_counter()
    import jax.numpy as jnp
    from tqdm import tqdm

    from indextts2_jax.emotion import mixing
    from indextts2_jax.options import Emotion, Options
    from indextts2_jax.pipeline import IndexTTS2
    from indextts2_jax.text.glossary import load_glossary

    options = Options(
        greedy=args.greedy,
        temperature=args.temperature,
        top_k=args.top_k,
        top_p=args.top_p,
        repetition_penalty=args.repetition_penalty,
        typical_mass=args.typical_mass,
        max_codes=args.max_codes,
        seed=args.seed,
        positions=args.positions,
        max_text_tokens=args.max_text_tokens,
        interval_silence_ms=args.interval_silence,
        steps=args.steps,
        guidance=args.guidance,
        normalized=args.normalized,
        fade=not args.no_fade,
        compat=args.compat,
    )
    glossary = None if args.glossary is None else load_glossary(args.glossary)
    noise = None if args.noise is None else _read_noise(args.noise)
    for output in (args.out, args.dump, args.plot, args.save_speaker):
        _check_writable(output)
    emotion = Emotion(alpha=args.emotion_alpha, raw=args.raw_emotion_weights)

    checkpoint = args.checkpoint or _babbling_checkpoint()
    tts = IndexTTS2(checkpoint, dtype=jnp.dtype(args.dtype))
    weights = args.emotion_weights
    if weights is not None:
        weights = mixing.parse_weights(weights, tts.settings.emotions)

    trace = None
    if args.dump:
        from indextts2_jax.dump import Dump

        trace = Dump()
    with tqdm(desc="voice", unit="stage", disable=None, leave=False) as bar:
        if args.speaker:
            speaker = tts.load_speaker(args.speaker)
        else:
            speaker = tts.speaker(args.voice or SAMPLE_VOICE, trace=trace)
        features = None
        if args.emotion_voice:
            features = tts.emotion_features(args.emotion_voice, trace=trace)
        emotion = Emotion(features, emotion.alpha, weights, emotion.raw)

        def progress(stage: str, done: int, total: int) -> None:
            bar.total, bar.n = total, done
            bar.set_description(stage)

        speech = tts.synthesize(
            text,
            speaker,
            emotion=emotion,
            options=options,
            glossary=glossary,
            noise=noise,
            progress=progress,
            trace=trace,
        )
    if args.save_speaker:
        speaker.save(args.save_speaker)
    if trace:
        trace.save(args.dump)
    if args.plot:
        from indextts2_jax.plot import plot_speech

        plot_speech(speech, args.plot)
    speech.save(args.out)
    seconds = time.perf_counter() - started
    if args.json:
        print(json.dumps(_report(args, speech, checkpoint, seconds), ensure_ascii=False))
    print(
        f"wrote {args.out}: {speech.duration_s:.2f} s of speech in {seconds:.1f} s",
        file=sys.stderr,
    )


def _read_text(args: argparse.Namespace) -> str:
    if (args.text is None) == (args.text_file is None):
        raise InputError("give one of --text and --text-file")
    if args.text is not None:
        text = args.text
    else:
        try:
            text = args.text_file.read_text(encoding="utf-8-sig")
        except (OSError, UnicodeDecodeError) as error:
            raise InputError(f"cannot read {args.text_file}: {error}") from None
    if not text.strip():
        raise InputError("the text is empty")
    return text


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


def _check_writable(path: pathlib.Path | None) -> None:
    """Finds out before the work, not after it, that a file cannot be written."""
    if path is None:
        return
    if path.is_dir():
        raise InputError(f"{path} is a directory, want a file name")
    parent = next(p for p in path.absolute().parents if p.exists())
    if not parent.is_dir() or not os.access(parent, os.W_OK):
        raise InputError(f"cannot write {path}: {parent} is not a writable directory")


def _babbling_checkpoint() -> pathlib.Path:
    from indextts2_jax import demo

    print(
        "indextts2: no --checkpoint given: using small random weights. They babble; this shows "
        "that everything runs, not how it sounds.",
        file=sys.stderr,
    )
    return demo.random_checkpoint()


def _report(
    args: argparse.Namespace, speech: Any, checkpoint: pathlib.Path, seconds: float
) -> dict[str, Any]:
    return {
        "out": str(args.out),
        "checkpoint": str(checkpoint),
        "seed": args.seed,
        "sample_rate": speech.sample_rate,
        "duration_s": round(speech.duration_s, 4),
        "samples": len(speech.samples),
        "segments": [
            {
                "text": s.text,
                "codes": len(s.codes),
                "stopped": s.stopped,
                "frames": len(s.mel),
            }
            for s in speech.segments
        ],
        "seconds": round(seconds, 3),
        "seconds_by_stage": {k: round(v, 3) for k, v in speech.seconds_by_stage.items()},
    }


if __name__ == "__main__":
    sys.exit(main())
