"""The batch command: many lines, good and bad, and a second run."""

import json

import numpy as np
import pytest
import soundfile

from indextts2_jax.cli import main


@pytest.fixture
def batch(converted, voice, tmp_path):
    """Runs the command over lines (dicts or text); returns exit code, output folder and report."""

    def run(*lines):
        (tmp_path / "v.wav").write_bytes(voice.read_bytes())
        text = "\n".join(x if isinstance(x, str) else json.dumps(x) for x in lines)
        (tmp_path / "in.jsonl").write_text(text)
        out = tmp_path / "out"
        args = ["--jsonl", tmp_path / "in.jsonl", "--out-dir", out, "--checkpoint", converted]
        code = main(["batch", *map(str, args), "--max-codes", "20", "--steps", "3", "--beams", "1"])
        report = out / "report.jsonl"
        entries = (
            [json.loads(x) for x in report.read_text().splitlines()] if report.exists() else []
        )
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
        (9, "would have 5000 codes"),
        (10, "emotion alpha is 3"),
        (12, "the output of an earlier line"),
    ]:
        assert any(
            x.strip().startswith(f"line {line}: ") and what in x for x in message.splitlines()
        )
    assert "1 of 12 spoken" in message
    assert [p.name for p in out.glob("*.wav")] == ["a.wav"]
    assert {e["id"] for e in entries if "error" in e} == {"missing", "empty", "long", "alpha"}
