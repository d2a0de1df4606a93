"""The command line: what is refused before the work, in one line, with nothing lost."""

import errno
import json
import os
import pathlib
import shutil

import numpy as np
import pytest
import soundfile

from indextts2_jax.cli import main
from indextts2_jax.commands import arguments
from indextts2_jax.errors import InputError
from indextts2_jax.pipeline import IndexTTS2
from indextts2_jax.request import fields
from indextts2_jax.request.duration import Duration
from indextts2_jax.request.options import Emotion, Options

SHORT = ("--max-codes", 12, "--steps", 1, "--beams", 1)


@pytest.fixture
def folder(tmp_path, voice):
    (tmp_path / "me.wav").write_bytes(voice.read_bytes())
    return tmp_path


@pytest.fixture
def synthesize(converted, folder, capsys):
    """Runs the command with paths relative to a folder that holds me.wav; returns code and line."""

    def run(*args, **named):
        given = {"checkpoint": converted, "voice": "me.wav", "text": "Hello.", "out": "o.wav"}
        paths = ("voice", "out", "speaker", "emotion-voice", "text-file", "dump", "plot", "words",
                 "noise", "glossary", "save-speaker")  # fmt: skip
        for name, value in {**given, **named}.items():
            name = name.replace("_", "-")
            if value is not None:
                args += (f"--{name}", folder / value if name in paths else value)
        code = main(["synthesize", *map(str, (*args, *SHORT))])
        lines = capsys.readouterr().err.strip().splitlines()
        return code, lines[-1] if lines else ""

    return run


@pytest.fixture
def refused(synthesize, folder, monkeypatch):
    """Runs the command, which has to fail with one line before any work is done."""

    def work(self, *args, **settings):
        raise AssertionError("it began to work")

    monkeypatch.setattr(IndexTTS2, "__init__", work)

    def run(*args, **named):
        before = {p: p.stat().st_mode for p in folder.iterdir()}
        voice = (folder / "me.wav").read_bytes()
        code, line = synthesize(*args, **named)
        assert code == 2 and line.startswith("indextts2: error: ")
        assert {p: p.stat().st_mode for p in folder.iterdir()} == before
        assert (folder / "me.wav").read_bytes() == voice
        return line

    return run


@pytest.mark.parametrize(
    "argv, reason",
    [
        ([], "required: COMMAND"),
        (["sing"], "invalid choice: 'sing'"),
        (["synthesize", "--text", "Hi"], "required: --out"),
        (["synthesize", "--out", "x.wav", "--mood", "glad"], "unrecognized arguments: --mood"),
        (["synthesize", "--out", "x.wav", "--seed", "x"], "argument --seed: invalid int value"),
        (["batch", "--out-dir", "x"], "required: --jsonl"),
        (["convert", "--out", "x"], "--src --encoders --reverse is required"),
    ],
)
def test_usage_errors_are_one_line(argv, reason, capsys):
    assert main(argv) == 2
    captured = capsys.readouterr()
    assert captured.err.count("\n") == 1 and not captured.out
    assert captured.err.startswith("indextts2: error: ") and reason in captured.err
    assert "--help)" in captured.err


@pytest.mark.parametrize("flag", ["voice", "speaker", "emotion_voice"])
def test_the_output_is_no_input(refused, flag):
    named = {"voice": None, flag: "me.wav"}
    assert "me.wav, which is needed" in refused(out="me.wav", **named)


def test_the_output_is_no_text_glossary_link_or_checkpoint(refused, folder, converted):
    (folder / "t.wav").write_text("Hello.")
    assert "which is needed" in refused(out="t.wav", text_file="t.wav", text=None)
    (folder / "g.wav").write_text("a: b")
    assert "which is needed" in refused(out="g.wav", glossary="g.wav")
    (folder / "soft.wav").symlink_to(folder / "me.wav")
    (folder / "hard.wav").hardlink_to(folder / "me.wav")
    for out in ("soft.wav", "hard.wav"):
        assert "which is needed" in refused(out=out)
    assert "which is needed" in refused(out=converted / "weights" / "o.wav")
    for flag in ("dump", "plot", "save_speaker"):
        name = "o.svg" if flag == "plot" else "o.wav"
        named = {"dump": "o.svg"} if flag == "plot" else {}
        assert "which is needed" in refused(**{**named, flag: name})


@pytest.mark.parametrize(
    "named, reason",
    [
        ({"out": "pipe.wav"}, "is no regular file"),
        ({"dump": "pipe.wav"}, "is no regular file"),
        ({"out": "x.m4a"}, "want a name that ends in .wav, .flac, .ogg, .opus, .mp3"),
        ({"out": "x"}, "want a name that ends in"),
        ({"plot": "p.xyz"}, "want a name that ends in .png, .svg, .pdf"),
        ({"plot": "p"}, "want a name that ends in"),
        ({"out": "b" * 260 + ".wav"}, "File name too long"),
        ({"out": "new/" + "b" * 260 + ".wav"}, "File name too long"),
        ({"save_speaker": "b" * 260}, "File name too long"),
        ({"dump": "me.wav/d.npz"}, "is not a writable directory"),
        ({"save_speaker": "."}, "is a directory"),
        ({"text": os.fsdecode(b"caf\xe9")}, "--text is not UTF-8"),
        ({"emotion_text": os.fsdecode(b"caf\xe9")}, "--emotion-text is not UTF-8"),
    ],
)
def test_what_cannot_be_written_or_read_is_said_before_the_work(refused, folder, named, reason):
    os.mkfifo(folder / "pipe.wav")
    assert reason in refused(**named)


def test_reports_make_missing_folders(synthesize, folder):
    named = {"plot": "new/p.SVG", "dump": "new/d.npz", "save_speaker": "new/me", "out": "new/o.mp3"}
    assert synthesize(**named)[0] == 0
    assert sorted(p.name for p in (folder / "new").iterdir()) == ["d.npz", "me", "o.mp3", "p.SVG"]
    assert soundfile.info(folder / "new" / "o.mp3").format == "MP3"
    assert "seg0_codes" in np.load(folder / "new" / "d.npz")
    assert b"<svg" in (folder / "new" / "p.SVG").read_bytes()[:2000]


def test_names_need_not_be_utf8(synthesize, folder, capsys):
    name = os.fsdecode(b"latin_\xe9.wav")
    (folder / "me.wav").rename(folder / name)
    assert synthesize("--json", voice=name, out="new" + name)[0] == 0
    assert (folder / ("new" + name)).is_file()


def test_a_full_disk_is_one_line_and_keeps_what_is_written(synthesize, folder, monkeypatch):
    def full(path, content):
        raise OSError(errno.ENOSPC, "No space left on device", str(path))

    (folder / "o.wav").write_text("old")
    monkeypatch.setattr(pathlib.Path, "write_bytes", full)
    code, line = synthesize()
    assert code == 2 and line.endswith("o.wav: No space left on device") and "cannot write" in line
    assert sorted(os.listdir(folder)) == ["me.wav", "o.wav"]
    assert (folder / "o.wav").read_text() == "old"


def test_a_report_that_fails_does_not_lose_the_speech(synthesize, folder, monkeypatch):
    def full(*args, **settings):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(np, "savez", full)
    code, line = synthesize(dump="d.npz")
    assert code == 2 and "d.npz: No space left" in line
    assert sorted(os.listdir(folder)) == ["me.wav", "o.wav"]


def test_system_errors_of_other_commands_are_one_line(folder, monkeypatch, capsys):
    monkeypatch.setenv("XDG_CACHE_HOME", str(folder / "me.wav"))
    long = str(folder / ("b" * 260))
    below = str(folder / "me.wav" / "x")
    for argv in (
        ["synthesize", "--text", "Hi", "--out", str(folder / "o.wav")],
        ["demo", "--out", long],
        ["demo", "--out", below],
        ["convert", "--src", long, "--out", below],
        ["batch", "--jsonl", long, "--out-dir", str(folder), "--checkpoint", str(folder)],
        ["batch", "--jsonl", str(folder / "me.wav"), "--out-dir", below, "--checkpoint", long],
    ):
        assert main(argv) == 2, argv
        error = capsys.readouterr().err
        assert error.splitlines()[-1].startswith("indextts2: error: ") and "Traceback" not in error


def test_a_voice_beside_a_speaker_file_is_refused(folder, capsys):
    argv = ["synthesize", "--text", "Hi", "--out", str(folder / "new.wav")]
    assert main([*argv, "--voice", str(folder / "v.wav"), "--speaker", str(folder / "s.npz")]) == 2
    line = "indextts2: error: --voice and --speaker are given; want one of them"
    assert capsys.readouterr().err.splitlines() == [line]
    assert not (folder / "new.wav").exists()


@pytest.mark.parametrize("cls", [Options, Duration, Emotion])
def test_a_setting_is_declared_once(cls, monkeypatch):
    """Flags, defaults and help are those of the dataclass; so are the types of JSONL values."""
    monkeypatch.setenv("COLUMNS", "1000")  # no line is broken
    parser = arguments.Parser()
    arguments.add_settings(parser, cls)
    assert cls(**arguments.given(cls, parser.parse_args([]))) == cls()
    text = " ".join(parser.format_help().split())
    for declared in fields.settings(cls):
        assert declared.help in text and declared.help in cls.__doc__
        with pytest.raises(InputError, match=f"{declared.name} is "):
            declared.check([])


def test_flags_change_their_field():
    parser = arguments.Parser()
    arguments.add_settings(parser, Options)
    args = parser.parse_args(["--no-fade", "--greedy", "--beams", "3", "--interval-silence", "5"])
    wanted = Options(fade=False, greedy=True, num_beams=3, interval_silence_ms=5)
    got = Options(**arguments.given(Options, args))
    assert got == wanted
    assert json.dumps(fields.changed(got)) == json.dumps(
        {"interval_silence_ms": 5.0, "greedy": True, "num_beams": 3, "fade": False}
    )


def test_values_of_python_are_held_to_the_same(tts):
    for cls, values, reason in [
        (Options, {"steps": "3"}, "steps is '3'; want a whole number"),
        (Options, {"seed": True}, "seed is True; want a whole number"),
        (Options, {"seed": None}, "seed is None"),
        (Options, {"fade": 1}, "fade is 1; want true or false"),
        (Emotion, {"weights": np.array([np.nan] * 8)}, "NaN"),
        (Emotion, {"features": np.full((9, 8), np.inf, np.float32)}, "NaN"),
    ]:
        with pytest.raises(InputError, match=reason):
            cls(**values)
    assert Options(steps=np.int64(3), temperature=1).steps == 3
    with pytest.raises(InputError, match="NaN"):
        tts.speaker((np.full(24000, np.nan), 24000))


def test_a_checkpoint_without_room_is_refused_and_leaves_nothing(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(9, 8, 1))
    assert main(["demo", "--out", str(tmp_path / "new" / "ck")]) == 2
    assert "MB, the disk has 0.0" in capsys.readouterr().err
    monkeypatch.setattr(
        pathlib.Path, "write_bytes", lambda *_: (_ for _ in ()).throw(OSError(28, "Full"))
    )
    assert main(["demo", "--out", str(tmp_path / "new" / "ck")]) == 2
    error = capsys.readouterr().err
    assert error == f"indextts2: error: cannot write {tmp_path}/new/ck: Full\n"
    assert not (tmp_path / "new").exists()
