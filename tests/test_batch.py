"""The batch command: many lines, good and bad, and a second run."""

import json

import numpy as np
import pytest
import soundfile

from indextts2_jax import outputs
from indextts2_jax.cli import main
from indextts2_jax.pipeline import IndexTTS2


@pytest.fixture
def batch(converted, voice, tmp_path):
    """Runs the command over lines (dicts or text); returns exit code, output folder and report."""

    (tmp_path / "v.wav").write_bytes(voice.read_bytes())

    def run(*lines, args=(), out=tmp_path / "out"):
        text = "\n".join(x if isinstance(x, str) else json.dumps(x) for x in lines)
        (tmp_path / "in.jsonl").write_text(text, encoding="utf-8")
        args = [*("--jsonl", tmp_path / "in.jsonl", "--out-dir", out), *args]
        args += ["--checkpoint", converted, "--max-codes", 12, "--steps", 1, "--beams", 1]
        code = main(["batch", *map(str, args)])
        report = out / "report.jsonl"
        written = report.read_text("utf-8", "replace") if report.exists() else ""
        entries = [json.loads(x) for x in written.split("\n") if x.endswith("}")]
        return code, out, entries

    return run


GOOD = {"id": "a", "text": "Hello.", "voice": "v.wav", "emotion_weights": {"happy": 0.5}, "seed": 3}
TOKENS = {"text": "Hello there.", "voice": "v.wav", "tokens": 9, "out": "sub/b.wav"}


@pytest.mark.slow
def test_every_line_is_spoken_and_a_second_run_does_nothing(batch, capsys):
    code, out, entries = batch(GOOD, "", TOKENS)
    assert code == 0
    assert [e["out"] for e in entries] == ["a.wav", "sub/b.wav"]
    assert entries[1]["codes"] == 9
    assert soundfile.info(out / "sub/b.wav").frames == entries[1]["samples"]
    first, _ = soundfile.read(out / "a.wav")
    code, _, entries = batch(GOOD, "", TOKENS)
    assert code == 0 and len(entries) == 2
    (out / "a.wav").unlink()
    code, _, entries = batch(GOOD, "", TOKENS)
    assert code == 0 and len(entries) == 3
    alone, _ = soundfile.read(out / "a.wav")
    np.testing.assert_allclose(alone, first, atol=1e-3)  # it was in a batch of two before
    assert batch({**GOOD, "seed": 4}, "", TOKENS)[0] == 0
    other, _ = soundfile.read(out / "a.wav")
    assert len(other) != len(alone) or np.abs(other - alone).max() > 1e-2


def test_bad_lines_are_reported_and_the_others_spoken(batch, capsys):
    code, out, entries = batch(
        "{",
        "[]",
        {"id": "x", "text": "Hello.", "voice": "v.wav", "mood": "happy"},
        {"text": "Hello."},
        {"text": "Hello.", "voice": "v.wav", "seed": "three"},
        {"text": "Hello.", "voice": "v.wav", "out": "../x.wav"},
        {"id": "missing", "text": "Hello.", "voice": "none.wav"},
        {"id": "empty", "text": " ", "voice": "v.wav"},
        {"id": "marks", "text": "...", "voice": "v.wav"},
        {"id": "long", "text": "Hello.", "voice": "v.wav", "tokens": 5000},
        {"id": "alpha", "text": "Hello.", "voice": "v.wav", "emotion_alpha": 3},
        GOOD,
        GOOD,
    )
    assert code == 2
    message = capsys.readouterr().err
    for line, what in [
        (1, "no JSON"),
        (2, "want a JSON object"),
        (3, "unknown keys mood"),
        (4, "voice missing"),
        (5, "seed is 'three'"),
        (6, "not inside the output directory"),
        (7, "no such file"),
        (8, "the text is empty"),
        (9, "nothing of the text is left to say"),
        (10, "would have 5000 codes"),
        (11, "emotion_alpha is 3"),
        (13, "is an earlier output"),
    ]:
        assert any(
            x.strip().startswith(f"line {line}: ") and what in x for x in message.splitlines()
        )
    assert "1 of 13 spoken" in message
    assert [p.name for p in out.glob("*.wav")] == ["a.wav"]
    failed = {entry["id"] for entry in entries if "error" in entry}
    assert failed == {"missing", "empty", "marks", "long", "alpha"}


SHORT = {"id": "b", "text": "Hello.", "voice": "v.wav"}


@pytest.mark.parametrize(
    "line, reason",
    [
        ({**SHORT, "id": "a", "tokens": 10**20}, "tokens is 100000000000000000000"),
        ('{"text": "x", "voice": "v.wav", "seed": ' + 5000 * "3" + "}", "no JSON"),
        ({**SHORT, "id": "x" * 300}, "File name too long"),
        ({**SHORT, "id": "a", "voice": "n" * 300 + ".wav"}, "File name too long"),
        ({**SHORT, "id": "x\0y"}, "null"),
        ({**SHORT, "id": "a", "voice": "x\0.wav"}, "null"),
        ({**SHORT, "id": "a", "voice": "x\0.npz"}, "null"),
        ({**SHORT, "id": "a", "text": "hi \ud83d"}, "half of a surrogate pair"),
        ({**SHORT, "id": "a\ud83d"}, "half of a surrogate pair"),
        ({**SHORT, "id": "a", "emotion_weights": {"happy": None}}, "want a number"),
        ({**SHORT, "id": "a", "emotion_alpha": float("nan")}, "emotion_alpha is nan"),
        ({**SHORT, "id": "a", "compat": 1}, "compat is 1; want true or false"),
        ({**SHORT, "out": "b.m4a"}, "want a name that ends in"),
        ({**SHORT, "id": "v", "out": "../out/../v.wav"}, "not inside"),
        ("[" * 100_000, "no JSON"),
        ('{"id": "\\u00', "no JSON"),
    ],
)
def test_a_bad_line_is_reported_and_the_next_one_spoken(batch, capsys, line, reason):
    code, out, _ = batch(line, SHORT)
    message = capsys.readouterr().err
    assert code == 2 and "1 of 2 spoken" in message and "Traceback" not in message
    assert f"\n  line 1: {message.split('line 1: ')[1]}" in message
    assert reason in message.split("line 1: ")[1]
    assert [p.name for p in out.glob("*.wav")] == ["b.wav"]


def test_what_fails_inside_is_of_its_line_alone(batch, capsys, monkeypatch):
    speak = IndexTTS2.synthesize_batch

    def fail(self, requests, **settings):
        if any(r.text == "Fail." for r in requests):
            raise RuntimeError("RESOURCE_EXHAUSTED:\nout of memory")
        return speak(self, requests, **settings)

    monkeypatch.setattr(IndexTTS2, "synthesize_batch", fail)
    code, out, entries = batch({**SHORT, "id": "a", "text": "Fail."}, SHORT)
    assert code == 2 and (out / "b.wav").is_file() and not (out / "a.wav").exists()
    reason = "internal error (RuntimeError: RESOURCE_EXHAUSTED: out of memory)"
    assert entries[0]["error"] == reason and reason in capsys.readouterr().err


def test_a_file_below_another_output_is_refused_before(batch, capsys):
    code, out, _ = batch({**SHORT, "id": "a"}, {**SHORT, "out": "a.wav/b.wav"}, SHORT)
    assert code == 2 and "line 2: the output" in capsys.readouterr().err
    assert sorted(p.name for p in out.iterdir()) == ["a.wav", "b.wav", "report.jsonl"]


@pytest.mark.parametrize("name", ["v", "soft", "hard", "later"])
def test_an_output_never_replaces_a_recording(batch, tmp_path, capsys, name):
    before = (tmp_path / "v.wav").read_bytes()
    (tmp_path / "soft.wav").symlink_to(tmp_path / "v.wav")
    (tmp_path / "hard.wav").hardlink_to(tmp_path / "v.wav")
    reads_later = {**SHORT, "id": "c", "emotion_voice": "later.wav"}
    code, out, _ = batch({**SHORT, "id": name}, reads_later, SHORT, out=tmp_path)
    assert code == 2 and "which is needed" in capsys.readouterr().err
    assert (tmp_path / "v.wav").read_bytes() == before
    assert (out / "b.wav").is_file() and not (out / "later.wav").exists()


def test_lines_end_at_newlines_alone(batch):
    lines = [{**SHORT, "id": f"{i}", "text": f"One{c}two."} for i, c in enumerate("\u2028\x85 ")]
    code, _, entries = batch(*(json.dumps(x, ensure_ascii=False) + "\r" for x in lines))
    assert code == 0 and [e["id"] for e in entries] == ["0", "1", "2"]
    assert len(batch(*(json.dumps(x, ensure_ascii=False) + "\r" for x in lines))[2]) == 3


def test_the_newest_entry_says_what_is_done(batch):
    first, other = SHORT, {**SHORT, "text": "Run away now!"}
    sounds = []
    for line in (first, other, first, first):
        code, out, entries = batch(line)
        assert code == 0
        sounds.append((out / "b.wav").read_bytes())
    assert sounds[0] == sounds[2] == sounds[3] != sounds[1]
    assert len(entries) == 3


def test_a_recording_of_other_content_is_another_one(batch, tmp_path, voice):
    line = {**SHORT, "emotion_voice": "e.wav"}
    counts = []
    for name, gain in (("e", 1), ("e", 0.5), ("e", 0.5), ("v", 0.5)):
        samples, rate = soundfile.read(voice)
        soundfile.write(tmp_path / f"{name}.wav", gain * samples, rate)
        counts.append(len(batch(line)[2]))
    assert counts == [1, 2, 2, 3]


def test_the_glossary_is_read_and_its_content_counts(batch, tmp_path, capsys):
    glossary = tmp_path / "g.yaml"
    line = {**SHORT, "text": "Hello NVMe."}
    args = ("--glossary", glossary)
    assert batch(line, args=args)[0] == 2
    assert "g.yaml" in capsys.readouterr().err and not (tmp_path / "out").exists()
    for reading in ("Goodbye", "Welcome"):
        glossary.write_text(f"NVMe: N-V-M-E\nHello: {reading}\n")
        code, _, entries = batch(line, args=args)
        assert code == 0
        assert entries[-1]["segments"][0]["text"] == f"{reading.upper()} N-V-M-E."
    assert len(entries) == 2


@pytest.mark.parametrize("half", [b'{"line": 1, "id": "zz", "ou', b'{"id": "\xe4\xbd', b"[1]\n{"])
def test_a_killed_run_leaves_a_half_line_that_spoils_nothing(batch, tmp_path, half):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "report.jsonl").write_bytes(half)
    for _ in range(2):
        code, out, _ = batch(SHORT)
        lines = (out / "report.jsonl").read_bytes()[len(half) :].split(b"\n")
        assert code == 0 and len(lines) == 3 and json.loads(lines[1])["id"] == "b"


def test_a_second_run_into_one_directory_is_refused(batch, tmp_path, capsys):
    with outputs.locked(tmp_path / "out" / "report.jsonl"):
        assert batch(SHORT)[0] == 2
    assert "another process writes to" in capsys.readouterr().err
    assert batch(SHORT)[0] == 0


def test_every_setting_may_stand_in_a_line(batch):
    code, _, entries = batch({**SHORT, "max_codes": 7, "trim_tail": False, "leading_silence_ms": 9})
    assert code == 0 and entries[0]["codes"] <= 7 and entries[0]["segments"][0]["start_s"] == 0.009
