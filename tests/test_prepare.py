import dataclasses
import itertools
import json
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import time
import tracemalloc
import types

import numpy as np
import pytest
import soundfile

from indextts2_jax.audio import mel, wav
from indextts2_jax.checkpoint import demo
from indextts2_jax.checkpoint.demo import random_checkpoint
from indextts2_jax.errors import InputError
from indextts2_jax.outputs import locked
from indextts2_jax.pipeline import IndexTTS2
from tests.common import ROOT, SHARED, needs_shared
from train import prepare
from train.corpus import encoders
from train.corpus import report as prepare_report
from train.corpus.corpora import Row, read_corpus
from train.corpus.recordings import (
    SPEEDS,
    Limits,
    RecordingReader,
    Rejection,
    draw_speeds,
    num_letters,
    reading,
)
from train.corpus.report import describe
from train.corpus.speed import change_speed
from train.data import shards

TEXT = "Hello there, how are you?"
RATE = 16000
OPTIONS = prepare.Options(Limits(), shard_size=3)
BATCH_SECONDS = 10.24  # 4 rows of the shortest bucket, which is the only one here


def vowel(seconds, hertz=130.0, rate=RATE):
    t = np.arange(int(seconds * rate)) / rate
    tone = sum(np.sin(2 * np.pi * hertz * k * t) / k for k in range(1, 15))
    noise = np.random.default_rng(int(hertz)).standard_normal(len(t))
    return (0.2 * tone * (1 + 0.5 * np.sin(9 * t)) + 0.01 * noise).astype(np.float32)


def corrupted(value):
    samples = vowel(1.5)
    samples[700] = value
    return samples


GOOD = {
    "ann/0": vowel(1.5, 200),
    "ann/1": np.stack([vowel(1.7, 210)] * 2, axis=1),
    "bob/0": vowel(1.2, 110),
    "bob/1": vowel(0.45, 120),
    "eve/0": vowel(1.4, 170),
}
BAD = {  # id -> samples or bytes, text, reason
    "bob/corrupt": (b"RIFF" + bytes(range(200)), TEXT, "unreadable audio"),
    "bob/empty_file": (b"", TEXT, "unreadable audio"),
    "bob/empty_text": (vowel(1.5), "", "empty text"),
    "bob/fast": (vowel(1.0), "word " * 15, "speaking rate"),
    "bob/infinite": (corrupted(np.inf), TEXT, "not finite"),
    "bob/long": (vowel(60), TEXT, "too long"),
    "bob/long_text": (vowel(29), "jump " * 160, "long text"),
    "bob/marks": (vowel(1.5), "... !", "empty text"),
    "bob/nan": (corrupted(np.nan), TEXT, "not finite"),
    "bob/no_utf8": (vowel(1.5), b"caf\xe9", "broken text"),
    "bob/short": (vowel(0.1), "Hi.", "too short"),
    "bob/silent": (np.zeros(RATE), TEXT, "silent"),
    "bob/slow": (vowel(20), "Hi.", "speaking rate"),
}


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    return random_checkpoint(tmp_path_factory.mktemp("demo") / "checkpoint")


def write_corpus(folder, items):
    for name, (audio, text) in items.items():
        path = folder / f"{name}.wav"
        path.parent.mkdir(parents=True, exist_ok=True)
        if isinstance(audio, bytes):
            path.write_bytes(audio)
        else:
            soundfile.write(path, audio, RATE, subtype="FLOAT")
        path.with_suffix(".txt").write_bytes(text if isinstance(text, bytes) else text.encode())
    return list(read_corpus(folder)[1])


@pytest.fixture(scope="module")
def rows(tmp_path_factory):
    texts = {name: "Hi." if name == "bob/1" else TEXT for name in GOOD}
    return write_corpus(
        tmp_path_factory.mktemp("good"), {n: (x, texts[n]) for n, x in GOOD.items()}
    )


@pytest.fixture(scope="module")
def prepared(rows, checkpoint, tmp_path_factory):
    out = tmp_path_factory.mktemp("out") / "data"
    report = prepare.prepare(rows, checkpoint, out, OPTIONS, batch_seconds=BATCH_SECONDS)
    return out, report


@pytest.fixture(scope="module")
def reader(checkpoint):
    return RecordingReader(
        tokenizer=checkpoint / "tokenizer",
        mel=mel.MelConfig(),
        limits=Limits(),
        max_text=100,
        max_tokens=1815,
        speeds=0,
        seed=0,
    )


def read_all(out):
    index = shards.Index.load(out)
    return [u for path in index.shard_paths() for u in shards.read_shard(path)]


@pytest.mark.slow
def test_a_prepared_utterance_is_what_the_pipeline_reads_of_a_prompt(prepared, rows, checkpoint):
    tts = IndexTTS2(checkpoint)
    files = {row.id: row.audio for row in rows}
    for utterance in read_all(prepared[0]):
        if utterance.id not in ("ann/0", "ann/1"):  # mono, stereo
            continue
        speaker, take = tts.speaker(files[utterance.id]), utterance.takes[0]
        assert take.speed == 1
        np.testing.assert_array_equal(take.codes, speaker.codes)
        np.testing.assert_allclose(take.features, speaker.features, rtol=2e-3, atol=2e-5)
        np.testing.assert_array_equal(utterance.mel, speaker.mel.astype(np.float16))
        np.testing.assert_allclose(utterance.style, speaker.style, atol=1e-5)
        tokenizer = tts.tokenizer()
        assert utterance.text_ids.tolist() == tokenizer.ids(tokenizer.encode(utterance.text))


@pytest.mark.slow
def test_codes_of_25_hz_are_those_of_the_pipeline(rows, tmp_path, monkeypatch):
    parts = demo.configs(demo.NUM_PIECES)
    half = dataclasses.replace(parts["semantic_codec"], downsample_scale=2)
    monkeypatch.setattr(demo, "configs", lambda _: {**parts, "semantic_codec": half})
    checkpoint, out = demo.random_checkpoint(tmp_path / "checkpoint"), tmp_path / "data"
    rows = [row for row in rows if row.id in ("ann/0", "ann/1")]
    prepare.prepare(rows, checkpoint, out, OPTIONS, batch_seconds=BATCH_SECONDS)
    tts, files = IndexTTS2(checkpoint), {row.id: row.audio for row in rows}
    assert shards.Index.load(out).features_per_code == 2
    for utterance in read_all(out):
        speaker, take = tts.speaker(files[utterance.id]), utterance.takes[0]
        assert len(take.codes) == -(-len(take.features) // 2) == len(speaker.embedding)
        np.testing.assert_array_equal(take.codes, speaker.codes)
        assert all(len(x.codes) == -(-len(x.features) // 2) for x in utterance.takes)


def test_every_recording_has_its_takes_and_its_row(prepared, rows):
    out, report = prepared
    utterances, index = read_all(out), shards.Index.load(out)
    assert {u.id for u in utterances} == {row.id for row in rows}
    assert index.shards == (3, 2)
    for utterance in utterances:
        recorded, varied = utterance.takes
        assert len(varied.codes) == pytest.approx(len(recorded.codes) / varied.speed, abs=2)
        assert SPEEDS[0] <= varied.speed <= SPEEDS[1]
        assert recorded.features.dtype == np.float16
        assert recorded.features.shape[0] == len(recorded.codes)
    assert index.speakers == ("ann", "bob", "eve")
    assert [index.speakers[i] for i in index.table["speaker"]] == [u.speaker for u in utterances]
    assert report == json.loads((out / "report.json").read_text())
    assert (report["utterances"], report["speakers_of_one_utterance"]) == (5, 1)
    assert "no prompt for T2S and S2M, which leave it out" in describe(report, out)
    assert (out / "report.png").stat().st_size > 1000
    assert (out / "rejected.jsonl").read_text() == ""


def test_what_is_of_no_use_is_rejected_with_its_reason(reader, tmp_path):
    bad = write_corpus(tmp_path, {name: item[:2] for name, item in BAD.items()})
    missing = Row(tmp_path / "gone.wav", TEXT, "ann", "gone")
    nobody = Row(tmp_path / "bob/marks.wav", TEXT, "", "nobody")
    reasons = {name: item[2] for name, item in BAD.items()}
    reasons |= {"gone": "unreadable audio", "nobody": "no speaker"}
    for row in [*bad, missing, nobody]:
        result = reader(row)
        assert isinstance(result, Rejection)
        assert (result.id, result.reason) == (row.id, reasons.pop(row.id))
    assert not reasons


def test_rejections_stop_nothing_and_are_reported(rows, checkpoint, tmp_path, capsys):
    bad = write_corpus(tmp_path / "bad", {name: BAD[name][:2] for name in ("bob/marks", "bob/nan")})
    manifest = tmp_path / "list.csv"
    lines = [f"{r.audio},{r.text!r},{r.speaker},{r.id}" for r in [*bad, rows[0], rows[2], rows[0]]]
    manifest.write_text("\n".join(["audio,text,speaker,id", *lines]).replace("'", '"'))
    out = tmp_path / "data"
    arguments = ["--src", manifest, "--checkpoint", checkpoint, "--out", out, "--shard-size", 2]
    arguments += ["--workers", 0, "--batch-seconds", BATCH_SECONDS]
    assert prepare.main(list(map(str, arguments))) == 0
    assert "2 utterances" in (text := capsys.readouterr().err)
    assert "1 empty text, 1 not finite, 1 repeated id" in text
    rejected = [json.loads(line) for line in (out / "rejected.jsonl").read_text().splitlines()]
    assert [(r["id"], r["reason"]) for r in rejected] == [
        ("bob/marks", "empty text"),
        ("bob/nan", "not finite"),
        (rows[0].id, "repeated id"),
    ]
    assert shards.Index.load(out).shards == (0, 2, 0)  # a shard may be empty
    assert {u.id for u in read_all(out)} == {rows[0].id, rows[2].id}


def test_names_that_are_no_utf_8_are_rejected(rows, checkpoint, tmp_path):
    name = os.fsdecode(b"caf\xe9")
    bad = [
        Row(tmp_path / f"{name}.wav", TEXT, "ann", name),
        Row(rows[0].audio, TEXT, name, "x"),
        Row(rows[0].audio, name, "ann", "y"),
    ]
    out = tmp_path / "data"
    report = prepare.prepare([rows[0], *bad], checkpoint, out, OPTIONS, batch_seconds=BATCH_SECONDS)
    assert (report["utterances"], report["rejected"]) == (1, {"no UTF-8": 3})
    rejected = [json.loads(line) for line in (out / "rejected.jsonl").read_text().splitlines()]
    assert [(r["id"], r["detail"]) for r in rejected] == [
        (name, "id"), ("x", "speaker"), ("y", "text")
    ]  # fmt: skip


def test_a_stopped_run_goes_on_after_the_last_whole_shard(prepared, rows, checkpoint, tmp_path):
    out = tmp_path / "data"
    shutil.copytree(prepared[0], out)
    kept, lost = (out / f"shard-0000{n}.arrayrecord" for n in (0, 1))
    before = lost.read_bytes()
    age = kept.stat().st_mtime_ns
    (out / "shard-00001.json").unlink()  # as if killed between shard and notes
    lost.write_bytes(b"half")
    (out / "index.json").unlink()
    report = prepare.prepare(rows, checkpoint, out, OPTIONS, batch_seconds=BATCH_SECONDS)
    assert report == prepared[1]
    assert kept.stat().st_mtime_ns == age
    assert lost.read_bytes() == before


def test_another_run_is_not_continued(prepared, rows, checkpoint, tmp_path):
    out = prepared[0]
    with pytest.raises(InputError, match="begun with another speeds"):
        prepare.prepare(rows, checkpoint, out, prepare.Options(Limits(), 0, shard_size=3))
    with pytest.raises(InputError, match="begun with another rows"):
        prepare.prepare(rows[:3], checkpoint, out, OPTIONS)
    (tmp_path / "mine.txt").touch()
    with pytest.raises(InputError, match="is not empty"):
        prepare.prepare(rows, checkpoint, tmp_path, OPTIONS)


def test_parts_of_the_work_are_put_together_by_the_last(prepared, rows, checkpoint, tmp_path):
    out = tmp_path / "data"
    for part, whole in (((2, 2), False), ((1, 2), True)):
        report = prepare.prepare(
            rows, checkpoint, out, OPTIONS, batch_seconds=BATCH_SECONDS, part=part
        )
        assert (report is not None) == whole
    assert report == prepared[1]


def test_workers_read_what_the_main_process_reads(reader, rows):
    repeated = Rejection("x", "x.wav", "repeated id", "")
    with reading(reader, 1) as read:
        there = list(read([*rows, repeated]))
    with reading(reader, 0) as read:
        here = list(read([*rows, repeated]))
    assert there[-1] == here[-1] == repeated
    for a, b in zip(there[:-1], here[:-1], strict=True):
        assert (a.row, a.text, a.rate) == (b.row, b.text, b.rate)
        # Another number of threads may add in another order: a step of float16.
        np.testing.assert_allclose(a.mel, b.mel, rtol=2e-3, atol=2e-3)
        np.testing.assert_allclose(a.takes[0].features, b.takes[0].features, rtol=1e-3, atol=1e-3)


def test_audio_is_read_as_a_prompt_is(reader, tmp_path):
    path = tmp_path / "a.wav"
    soundfile.write(path, np.stack([vowel(1, 150), vowel(1, 170)], axis=1), RATE)
    recording = reader(Row(path, TEXT, "ann", "a"))
    np.testing.assert_array_equal(
        recording.mel, mel.log_mel(wav.load(path, 22050), mel.MelConfig()).astype(np.float16)
    )
    assert np.abs(recording.bank.mean(axis=0)).max() < 1e-4


def test_word_vectors_must_cover_the_mel(reader, tmp_path):
    path = tmp_path / "a.wav"
    soundfile.write(path, vowel(1), RATE)
    words = tmp_path / "a.npz"
    row = Row(path, TEXT, "ann", "a", words=words)
    frames = len(reader(Row(path, TEXT, "ann", "a")).mel)
    for lengths, fits in (([40, frames - 40], True), ([40, 40], False)):
        np.savez(words, vectors=np.ones((2, 5)), frames=np.array(lengths))
        result = reader(row)
        if fits:
            assert result.word_vectors.shape == (2, 5)
            assert result.word_frames.tolist() == lengths
        else:
            assert result.reason == "broken words"
    words.write_bytes(b"no npz")
    assert reader(row).reason == "broken words"


def test_what_is_left_of_short_inputs_rides_with_longer_ones():
    batches = []

    def compute(inputs, size, rows):
        batches.append((size, rows, inputs))
        return inputs

    def job(name, tokens):
        anyone = types.SimpleNamespace(finish=lambda place, result: iter([result]))
        return encoders._Job(anyone, 0, name, tokens)

    queues = encoders._Queues(compute, 512)
    done = [x for name in "abcde" for x in queues.put(job(name, 100))]
    assert done == list("abcd")
    assert list(queues.put(job("f", 200))) == []
    assert list(queues.flush()) == ["e", "f"]
    assert list(queues.flush()) == []
    assert batches == [(128, 4, list("abcd")), (256, 2, ["e", "f"])]


def test_speeds_depend_on_seed_and_name_and_keep_codes_in_bounds():
    args = {"count": 2, "seconds": 3.0, "max_tokens": 1815}
    assert draw_speeds("a", 0, **args) == draw_speeds("a", 0, **args)
    assert draw_speeds("a", 0, **args) != draw_speeds("b", 0, **args)
    assert draw_speeds("a", 0, **args) != draw_speeds("a", 1, **args)
    long = draw_speeds("a", 0, 500, 30.0, 1815)
    assert 1500 / 1815 <= min(long) < 0.85
    assert max(draw_speeds("a", 0, 500, 3.0, 1815)) > 1.3


@pytest.mark.parametrize("speed", [0.75, 1.0, 1.33])
def test_speed_changes_the_length_and_keeps_the_pitch(speed):
    samples = vowel(1.0, 130, 22050)
    changed = change_speed(samples, speed, 22050)
    assert len(changed) == round(len(samples) / speed)
    middle = changed[4000:12000]
    correlation = np.correlate(middle, middle, "full")[len(middle) - 1 :]
    period = 100 + np.argmax(correlation[100:250])
    assert 22050 / period == pytest.approx(130, rel=0.01)
    assert np.std(changed) == pytest.approx(np.std(samples), rel=0.05)
    if speed == 1:
        np.testing.assert_allclose(changed, samples, atol=1e-6)


def test_an_ideograph_counts_for_three_letters():
    assert num_letters("Hi, you 2!") == 6
    assert num_letters("你好, ok") == 8


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"--src": "nowhere"}, "no such file"),
        ({"--checkpoint": "nowhere"}, "no checkpoint"),
        ({"--max-seconds": "50"}, "36.3 s at most"),
        ({"--min-seconds": "40"}, "no such lengths"),
        ({"--min-rate": "30"}, "nothing is left"),
        ({"--shard-size": "0"}, "shard size"),
        ({"--limit": "0"}, "limit"),
    ],
)
def test_what_cannot_be_used_is_one_line_and_exit_code_2(
    rows, checkpoint, tmp_path, capsys, change, message
):
    corpus = pathlib.Path(rows[0].audio).parents[1]
    arguments = {"--src": corpus, "--checkpoint": checkpoint, "--out": tmp_path / "data"}
    arguments |= {"--workers": 0, **change}
    assert prepare.main([str(x) for pair in arguments.items() for x in pair]) == 2
    *_, error = capsys.readouterr().err.splitlines()
    assert error.startswith("error: ") and message in error


def test_a_second_process_on_one_directory_is_refused(prepared, rows, checkpoint):
    with (
        locked(prepared[0] / ".lock-1-1"),
        pytest.raises(InputError, match="another process writes to"),
    ):
        prepare.prepare(rows, checkpoint, prepared[0], OPTIONS)


def test_a_full_disk_is_one_line(rows, checkpoint, tmp_path, capsys, monkeypatch):
    def refuse(*_):
        raise OSError(28, "No space left on device", "x.json")

    monkeypatch.setattr(prepare, "_write_json", refuse)
    corpus = pathlib.Path(rows[0].audio).parents[1]
    words = ["--src", corpus, "--checkpoint", checkpoint, "--out", tmp_path / "d", "--workers", 0]
    assert prepare.main(list(map(str, words))) == 2
    *_, error = capsys.readouterr().err.splitlines()
    assert error.startswith("error: ") and "No space left on device" in error


def test_a_wrong_line_is_found_before_anything_is_made(rows, checkpoint, tmp_path, capsys):
    manifest, out = tmp_path / "list.jsonl", tmp_path / "data"
    records = [{"audio": str(row.audio), "text": row.text, "speaker": "ann"} for row in rows]
    manifest.write_text("\n".join([*map(json.dumps, records), "{"]))
    arguments = ["--src", manifest, "--checkpoint", checkpoint, "--out", out, "--shard-size", 2]
    assert prepare.main(list(map(str, arguments))) == 2
    assert f"list.jsonl, line {len(rows) + 1}: no JSON" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == [manifest]


def note(rows, rates, rejected):
    keys = ("speaker", "language", "emotion", "codes", "varied_codes", "frames", "text", "words")
    items = [{"id": i, "audio": i, "reason": reason, "detail": "é"} for i, reason in rejected]
    rows = [dict(zip(keys, row, strict=True)) for row in rows]
    return {"utterances": rows, "rates": rates, "rejected": items}


def test_the_end_puts_the_notes_of_shards_together(tmp_path):
    one = ("eve", "zh", "sad", 120, 121, 240, 12, 0), ("ann", "", "", 90, 91, 180, 9, 3)
    two = ("bob", "en", "angry", 75, 76, 150, 7, 0), ("eve", "en", "sad", 200, 201, 400, 20, 0)
    notes = [
        note(one, [3.5, 14.25], [("x", "too long")]),
        note([], [], [("y", "silent"), ("z", "silent")]),
        note(two, [9.0, 12.0], []),
    ]
    report = prepare_report.finish(tmp_path, iter(notes), {"codec": "x"}, mel.MelConfig())
    index = shards.Index.load(tmp_path)
    assert (index.shards, index.hours) == ((2, 0, 2), 0.0031)
    assert index.speakers == ("ann", "bob", "eve")
    assert (index.languages, index.emotions) == (("", "en", "zh"), ("", "angry", "sad"))
    assert list(index.table) == list(shards.COLUMNS)
    assert {column.dtype for column in index.table.values()} == {np.dtype(np.int32)}
    numbers = (2, 2, 2, 120, 121, 240, 12, 0), (0, 0, 0, 90, 91, 180, 9, 3)
    numbers += (1, 1, 1, 75, 76, 150, 7, 0), (2, 1, 2, 200, 201, 400, 20, 0)
    np.testing.assert_array_equal(np.stack(list(index.table.values()), axis=1), numbers)
    assert list(report["rejected"].items()) == [("silent", 2), ("too long", 1)]
    assert report["hours_by_language"] == {"unknown": 0.0006, "en": 0.0018, "zh": 0.0008}
    bounds = {n: (h["low"], h["median"], h["high"]) for n, h in report["histograms"].items()}
    assert bounds["rate"] == (3.5, 10.5, 14.25)
    assert bounds["seconds"] == (1.741, 2.438, 4.644)
    assert report["warnings"] == [
        '0 of 4 utterances are shorter than 1 s: add some, or "Yes." will fail',
        "0 of 4 utterances are longer than 8 s: speak with max_text_tokens=19",
    ]
    assert json.loads((tmp_path / "report.json").read_text()) == report
    said = prepare_report.describe(report, tmp_path).splitlines()
    assert said[-2:] == [f"  warning: {warning}" for warning in report["warnings"]]
    lines = (tmp_path / "rejected.jsonl").read_text(encoding="utf-8").splitlines()
    assert lines == [json.dumps(x, ensure_ascii=False) for n in notes for x in n["rejected"]]


@pytest.mark.parametrize(
    ("seconds", "lines"),
    [
        (np.linspace(0.5, 12, 100), []),
        (
            np.linspace(4, 12, 100),
            ['0 of 100 utterances are shorter than 4 s: add some, or "Yes." will fail'],
        ),
        (
            [0.5, *np.linspace(1, 1.9, 500), *np.linspace(4, 7, 499)],
            [
                '1 of 1,000 utterances are shorter than 1 s: add some, or "Yes." will fail',
                "0 of 1,000 utterances are between 2 and 4 s: add some, or such speech will fail",
                "0 of 1,000 utterances are longer than 8 s: speak with max_text_tokens=25",
            ],
        ),
    ],
)
def test_lengths_that_the_corpus_lacks_are_said(seconds, lines):
    text = np.linspace(1, 25, len(seconds)).round()
    assert prepare_report.missing_lengths(np.array(seconds), text) == lines


def test_the_index_is_built_in_little_memory(tmp_path):
    count, size = 50_000, 500
    row = {name: 1000 for name in shards.COLUMNS} | {"language": "en", "emotion": ""}
    notes = ([{**row, "speaker": f"s{i % 50}"} for i in range(size)] for _ in range(count // size))
    tracemalloc.start()
    index = shards.Index.build(tmp_path, {}, notes, 0.0116)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert len(index) == count
    assert peak / count < 80


@pytest.mark.slow
def test_a_killed_run_leaves_no_worker_and_goes_on(rows, checkpoint, tmp_path):
    manifest = tmp_path / "list.jsonl"
    records = [
        {"audio": str(row.audio), "text": row.text, "speaker": row.speaker, "id": f"{row.id}-{i}"}
        for i in range(24)
        for row in rows
    ]
    manifest.write_text("\n".join(map(json.dumps, records)))
    before = set(tmp_path.iterdir())
    out = tmp_path / "data"
    flags = ["--src", manifest, "--checkpoint", checkpoint, "--out", out, "--shard-size", 10]
    command = [sys.executable, "-m", "train.prepare", *map(str, flags), "--workers", "1"]
    process = subprocess.Popen(command, cwd=ROOT)
    while not (out / "shard-00001.json").exists():
        assert process.poll() is None
        time.sleep(0.05)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not (out / "index.json").exists()
    assert set(tmp_path.iterdir()) == {*before, out}
    assert subprocess.run(command, cwd=ROOT, check=False).returncode == 0
    assert shards.Index.load(out).shards == (10,) * 12
    assert len({u.id for u in read_all(out)}) == 120


@needs_shared
@pytest.mark.slow
def test_clips_of_the_corpus_are_all_taken(checkpoint, tmp_path):
    ignored = ["style", "speed", "seconds"]
    _, rows = read_corpus(SHARED / "corpus", ignored=ignored)
    first = itertools.islice(rows, 20)
    report = prepare.prepare(first, checkpoint, tmp_path / "data", prepare.Options(Limits()))
    assert (report["utterances"], report["rejected"]) == (20, {})
