import argparse
import json
import os

import pytest

from indextts2_jax.errors import InputError
from train.corpus import corpora
from train.corpus.corpora import Row


def read_corpus(*args, **options):
    layout, rows = corpora.read_corpus(*args, **options)
    return layout, list(rows)


def tree(folder, files):
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return folder


def json_lines(*records):
    return "".join(json.dumps(record) + "\n" for record in records)


HELLO = {"audio": "a/x.wav", "text": "Hello.", "speaker": "ann"}


def test_manifest_paths_are_relative_to_it_and_the_id_is_the_path(tmp_path):
    more = {**HELLO, "audio": "/b.wav", "id": "b", "emotion": "sad", "words": "w/b.npz"}
    tree(tmp_path, {"list.jsonl": json_lines(HELLO, more)})
    layout, rows = read_corpus(tmp_path / "list.jsonl", language="en")
    assert layout == "manifest"
    assert rows[0] == Row(tmp_path / "a/x.wav", "Hello.", "ann", "a/x", "en")
    assert (str(rows[1].audio), rows[1].id, rows[1].emotion) == ("/b.wav", "b", "sad")
    assert rows[1].words == tmp_path / "w/b.npz"


def test_tables_say_what_json_lines_say(tmp_path):
    fields = {**HELLO, "text": 'He said "no", twice.', "language": "en"}
    tree(
        tmp_path,
        {
            "list.jsonl": json_lines(fields),
            "list.csv": 'audio,text,speaker,language\na/x.wav,"He said ""no"", twice.",ann,en\n\n',
            "list.tsv": 'audio\ttext\tspeaker\tlanguage\na/x.wav\tHe said "no", twice.\tann\ten\n',
        },
    )
    rows = [read_corpus(tmp_path / f"list.{suffix}")[1] for suffix in ("jsonl", "csv", "tsv")]
    assert rows[0] == rows[1] == rows[2]
    assert rows[0][0].text == fields["text"]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        (
            "m.jsonl",
            json_lines(HELLO, {**HELLO, "spaeker": "x"}),
            "line 2: unknown columns spaeker",
        ),
        ("m.jsonl", json_lines({"text": "Hello."}), "line 1: audio and speaker missing"),
        ("m.jsonl", json_lines({**HELLO, "speaker": 3}), "line 1: speaker is 3"),
        ("m.jsonl", json_lines(HELLO) + "{", "line 2: no JSON"),
        ("m.jsonl", "[1]", "line 1: want a JSON object"),
        ("m.csv", "audio,text\nx.wav,Hello\n", "line 2: speaker missing"),
        ("m.csv", "audio,text,speaker\nx.wav,Hello, you,ann\n", "line 2: 4 fields, want 3"),
        ("m.csv", "audio,text,speaker,mos\nx.wav,Hello,ann,4\n", "line 2: unknown columns mos"),
        ("m.tsv", b"audio\ttext\xff\tspeaker\n", "cannot read .*m.tsv"),
        ("m.jsonl", json_lines(HELLO).encode() * 500 + b"\xff", "cannot read .*after line [1-9]"),
        ("m.jsonl", "", "no recordings"),
        ("m.parquet", "", "a manifest is one of"),
    ],
)
def test_a_wrong_line_is_named(tmp_path, name, content, message):
    tree(tmp_path, {name: content})
    with pytest.raises(InputError, match=message):
        read_corpus(tmp_path / name)


@pytest.mark.parametrize("newline", ["\n", "\r\n"])
def test_a_line_ends_where_editors_end_it(tmp_path, newline):
    record = {**HELLO, "text": "One.\u2028Two.\x85"}
    lines = [json.dumps(record, ensure_ascii=False), "", json.dumps(HELLO), "{"]
    tree(tmp_path, {"m.jsonl": b"\xef\xbb\xbf" + newline.join(lines).encode()})
    rows = corpora.read_corpus(tmp_path / "m.jsonl")[1]
    assert [next(rows).text, next(rows).text] == [record["text"], HELLO["text"]]
    with pytest.raises(InputError, match="line 4: no JSON"):
        next(rows)


def test_columns_can_be_ignored(tmp_path):
    tree(tmp_path, {"manifest.jsonl": json_lines({**HELLO, "style": "x", "seconds": 1.5})})
    assert len(read_corpus(tmp_path, ignored=["style", "seconds"])[1]) == 1


def test_a_limit_takes_the_first_rows_and_reads_no_others(tmp_path, capsys):
    path = tree(tmp_path, {"m.jsonl": json_lines(HELLO, {**HELLO, "id": "b"}) + "{"}) / "m.jsonl"
    parser = argparse.ArgumentParser()
    corpora.add_arguments(parser)
    rows = corpora.read_arguments(parser.parse_args(["--src", str(path), "--limit", "2"]))
    assert [row.id for row in rows] == ["a/x", "b"]
    assert capsys.readouterr().err == f"{path}: 2 recordings, layout manifest\n"


def test_ljspeech(tmp_path):
    source = tree(
        tmp_path / "Linda",
        {"metadata.csv": "L-1|Chapter 2.|Chapter two.\nL-2|Yes.|Yes.\n", "wavs/L-1.wav": ""},
    )
    layout, rows = read_corpus(source)
    assert layout == "ljspeech"
    assert rows[0] == Row(source / "wavs/L-1.wav", "Chapter two.", "Linda", "L-1", "en")
    assert rows[1].audio == source / "wavs/L-2.wav"  # missing: found out when it is read
    (source / "metadata.csv").write_text("L-1\n")
    with pytest.raises(InputError, match="line 1"):
        read_corpus(source)


def test_ljspeech_text_is_the_second_column_where_there_is_no_third(tmp_path):
    lines = "a|Chapter 2.|\nb|Yes.\n"
    source = tree(tmp_path, {"metadata.csv": lines, "wavs/a.wav": "", "wavs/b.WAV": ""})
    _, rows = read_corpus(source)
    assert [(r.text, r.audio.name) for r in rows] == [("Chapter 2.", "a.wav"), ("Yes.", "b.WAV")]


def test_ljspeech_columns_with_names_are_taken_by_them(tmp_path):
    lines = "audio_file|text|speaker_name\na|Hello, my friend.|Maria the narrator\n"
    lines += "b|Hello.|\nc|He said so | and left.|narrator\n"
    files = {f"wavs/{name}.wav": "" for name in "abcd"}
    _, rows = read_corpus(tree(tmp_path / "Linda", {"metadata.csv": lines, **files}))
    assert [(r.id, r.text, r.speaker, r.problem) for r in rows] == [
        ("a", "Hello, my friend.", "Maria the narrator", ""),
        ("b", "Hello.", "Linda", ""),
        ("c", "", "Linda", "metadata.csv, line 4: 4 columns, want 3"),
        ("d", "", "Linda", "metadata.csv has no line of it"),
    ]


@pytest.mark.parametrize(
    ("text", "third", "fits"),
    [
        ("In 1990 Mr. Bell paid the 2nd of 5%.", "In nineteen ninety Mister Bell paid the second "
         "of five percent.", True),
        ("Hello there, how are you?", "Maria Gonzalez", False),
        ("Yes.", "narrator", False),
        ("Dr. 5", "Doctor five", True),
        ("我有3个苹果，很甜。", "我有三个苹果，很甜。", True),
        ("卡尔普陪外孙玩。", "ka2 er2 pu3 pei2", False),
    ],
)  # fmt: skip
def test_ljspeech_third_column_must_be_a_reading_of_the_second(tmp_path, text, third, fits):
    (row,) = read_corpus(tree(tmp_path, {"metadata.csv": f"a|{text}|{third}\n", "wavs/a.wav": ""}))[
        1
    ]
    assert (row.text, bool(row.problem)) == ((third, False) if fits else ("", True))


def test_libritts(tmp_path):
    folder = "train-clean-100/19/198"
    source = tree(
        tmp_path,
        {
            f"{folder}/19_198_000000_000000.wav": "",
            f"{folder}/19_198_000000_000000.normalized.txt": "Northanger Abbey.\n",
            f"{folder}/19_198_000000_000000.original.txt": "Northanger Abbey",
            f"{folder}/19_198_000001_000000.wav": "",
            f"{folder}/19_198.trans.tsv": "",
        },
    )
    layout, rows = read_corpus(source)
    assert layout == "libritts"
    assert [(row.speaker, row.text) for row in rows] == [("19", "Northanger Abbey."), ("19", "")]


def test_esd(tmp_path):
    chinese = "0001_000001\t打远一看。\t中立\n0001_000351\t他很高兴。\t生气\n"
    english = "0012_001355 The fisherman sees George. Neutral\n0012_000352\tIt’s Tom.\tAngry\n"
    source = tree(
        tmp_path,
        {
            "0001/0001.txt": chinese.encode("gb18030"),
            "0001/Neutral/train/0001_000001.wav": "",
            "0001/Angry/test/0001_000351.wav": "",
            "0012/0012.txt": english.encode("utf-16"),
            "0012/Neutral/0012_001355.wav": "",
            "0012/Angry/0012_000352.wav": "",
            "0016/0016.txt": "0016_000001\tIt’s I.\tSad\n".encode("cp1252"),
            "0016/Sad/evaluation/0016_000001.wav": "",
        },
    )
    layout, rows = read_corpus(source)
    assert layout == "esd"
    assert [(r.id, r.speaker, r.language, r.emotion, r.text) for r in rows] == [
        ("0001_000351", "0001", "zh", "angry", "他很高兴。"),
        ("0001_000001", "0001", "zh", "neutral", "打远一看。"),
        ("0012_000352", "0012", "en", "angry", "It’s Tom."),
        ("0012_001355", "0012", "en", "neutral", "The fisherman sees George."),
        ("0016_000001", "0016", "en", "sad", "It’s I."),
    ]


EMILIA = {
    "text": " Und so. ",
    "duration": 3.2,
    "speaker": "DE_B0_S0",
    "language": "de",
    "dnsmos": 3,
}


def test_emilia_unpacked_from_its_tars(tmp_path):
    source = tree(
        tmp_path,
        {
            "DE_B0_S0_W0.json": json.dumps({"id": "DE_B0_S0_W0", **EMILIA}),
            "DE_B0_S0_W0.mp3": "",
            "DE_B0_S0_W1.json": "broken",
            "DE_B0_S0_W1.mp3": "",
        },
    )
    layout, rows = read_corpus(source)
    assert layout == "emilia"
    assert rows[0] == Row(source / "DE_B0_S0_W0.mp3", "Und so.", "DE_B0_S0", "DE_B0_S0_W0", "de")
    assert (rows[1].id, rows[1].text) == ("DE_B0_S0_W1", "")  # rejected later, stops nothing


def test_emilia_with_lists_of_batches(tmp_path):
    audio = "DE_B0/DE_B0_S0/mp3/DE_B0_S0_W0.mp3"
    source = tree(tmp_path, {"DE_B0.jsonl": json_lines({"wav": audio, **EMILIA}), audio: ""})
    layout, rows = read_corpus(source)
    assert layout == "emilia"
    assert (rows[0].audio, rows[0].id) == (source / audio, "DE_B0_S0_W0")


def test_a_folder_of_recordings_with_texts(tmp_path):
    source = tree(
        tmp_path,
        {
            "ann/1.wav": "",
            "ann/1.txt": "One.",
            "ann/2.flac": "",
            "bob/1.opus": "",
            "bob/1.txt": "caf\xe9".encode("latin-1"),
        },
    )
    layout, rows = read_corpus(source)
    assert layout == "folder"
    assert [(r.id, r.speaker, r.text) for r in rows] == [
        ("ann/1", "ann", "One."),
        ("ann/2", "ann", ""),
        ("bob/1", "bob", "caf\ufffd"),
    ]


def test_capitals_and_linked_folders_are_data_too(tmp_path):
    files = {"f/ann/a.wav": "", "f/ann/b.WAV": "", "real/c.Flac": "", "f/ann/d.m4a": ""}
    texts = {"f/ann/a.txt": "a", "f/ann/b.TXT": "b", "real/c.Txt": "c"}
    tree(tmp_path, files | texts)
    (tmp_path / "f" / "bob").symlink_to(tmp_path / "real")
    _, rows = read_corpus(tmp_path / "f")
    assert [(r.id, r.speaker, r.text) for r in rows] == [
        ("ann/a", "ann", "a"), ("ann/b", "ann", "b"), ("ann/d", "ann", ""), ("bob/c", "bob", "c")
    ]  # fmt: skip


def test_a_folder_that_cannot_be_listed_is_named(tmp_path, capsys, monkeypatch):
    source = tree(tmp_path, {"ann/1.wav": "", "ann/1.txt": "One.", "bob/1.wav": ""})
    scandir = os.scandir

    def refuse(path):
        if os.fspath(path).endswith("bob"):
            raise PermissionError(13, "Permission denied")
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refuse)
    assert len(read_corpus(source)[1]) == 1
    assert f"{source / 'bob'} is left out: Permission denied" in capsys.readouterr().err


def test_a_walk_has_the_order_of_sorted_paths(tmp_path):
    names = ["b", "a/2/z", "a/10", "a/2.x", "a.b/1", "a-b/1", "a b/1", "A/1", "a/.h/1", "é/ü", "a0"]
    names += ["a.wav/1.wav", "a/b/c/d/e", "a/b.c/d", "a/b-c", "~", ".wav", "c.d/e.f/g", "c.d.e"]
    root = tree(tmp_path / "root", dict.fromkeys(names, ""))
    (root / os.fsdecode(b"\xff")).touch()
    (root / "empty").mkdir()
    (root / "a" / "loop").symlink_to(root)
    (root / "a.link").symlink_to(root / "a")
    (root / "gone").symlink_to(root / "nowhere")
    linked = {root / "a.link" / path.relative_to(root / "a") for path in (root / "a").rglob("*")}
    paths = sorted({*root.rglob("*"), *linked})
    assert list(corpora._walk(root, "")) == paths
    assert list(corpora._walk(root, ".wav")) == [x for x in paths if x.name.endswith(".wav")]


def test_what_is_no_corpus_is_refused(tmp_path):
    with pytest.raises(InputError, match="no such file"):
        read_corpus(tmp_path / "nowhere")
    with pytest.raises(InputError, match="none of the layouts"):
        read_corpus(tmp_path)
    with pytest.raises(InputError, match="has not the layout esd"):
        read_corpus(tmp_path, "esd")
    with pytest.raises(InputError, match="has not the layout folder"):
        read_corpus(tree(tmp_path, {"m.csv": ""}) / "m.csv", "folder")
