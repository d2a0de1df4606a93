import dataclasses
import json
import pathlib
import subprocess
import sys

import pytest

from indextts2_jax.errors import InputError
from train.corpus.corpora import Row, read_corpus
from train.corpus.recordings import Rejection
from train.corpus.spool import spooled

P = pathlib.Path
ROWS = [
    Row(P("a/1.wav"), "Hello.", "ann", "1", "en"),
    Row(
        audio=P("a/2.wav"),
        text='你好，\n"世界"！',
        speaker="bob",
        id="caf\udce9",
        language="zh",
        emotion="sad",
        words=P("w/2.npz"),
    ),
    Row(P("b/1.wav"), "Again.", "ann", "1"),
]


def test_prepared_data_of_before_can_be_continued(tmp_path):
    digests = []
    for rows in (ROWS, []):
        with spooled(iter(rows), tmp_path, 2) as spool:
            digests.append(spool.digest)
    assert digests == ["902a9eadbc918f4a", "e3b0c44298fc1c14"]  # prepare.json of earlier versions


def test_rows_come_back_shard_by_shard_in_any_order(tmp_path):
    rows = [dataclasses.replace(row, id=row.id * i) for i in (1, 3, 5, 7, 9) for row in ROWS[:2]]
    with spooled(iter(rows), tmp_path, 4) as spool:
        assert [spool.size(number) for number in range(len(spool.starts))] == [4, 4, 2]
        for number in (2, 0, 2, 1):
            assert spool.shard(number) == rows[4 * number : 4 * number + 4]


def test_of_one_id_the_first_row_is_kept_in_whatever_shard_it_lies(tmp_path):
    ids = "abcadbeafccg"
    rows = [Row(P(f"{i}.wav"), "Hello.", "ann", name) for i, name in enumerate(ids)]
    with spooled(iter(rows), tmp_path, 3) as spool:
        shards = [spool.shard(number) for number in (3, 2, 1, 0)]
    checked = [row for shard in reversed(shards) for row in shard]
    assert [i for i, row in enumerate(checked) if isinstance(row, Row)] == [0, 1, 2, 4, 6, 8, 11]
    assert checked[7] == Rejection("a", "7.wav", "repeated id", "an earlier row has it too")


def test_the_file_has_no_name_and_makes_no_folder(tmp_path):
    with spooled(iter(ROWS), tmp_path / "data" / "mine", 2) as spool:
        assert list(tmp_path.iterdir()) == []
        assert spool.shard(0) == ROWS[:2]
    assert list(tmp_path.iterdir()) == []


def test_an_error_among_the_rows_is_passed_on(tmp_path):
    (tmp_path / "m.jsonl").write_text("{}")
    rows = read_corpus(tmp_path / "m.jsonl")[1]
    with pytest.raises(InputError, match="line 1"), spooled(rows, tmp_path / "data", 2):
        pass
    assert not (tmp_path / "data").exists()


_SCAN = """
import pathlib, sys, tracemalloc
from train.corpus.corpora import read_corpus
from train.corpus.spool import spooled

folder, count = pathlib.Path(sys.argv[1]), int(sys.argv[2])
tracemalloc.start()
rows = read_corpus(folder / "m.jsonl")[1]
with spooled(rows, folder / "data", 500) as spool:
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert len(spool.repeated) == count and not spool.repeated.any()
    assert spool.shard(count // 500 - 1)[-1].id == f"{(count - 1) % 100}/{count - 1}"
print(peak / count)
"""


@pytest.mark.slow
def test_a_manifest_is_scanned_in_little_memory(tmp_path):
    count = 100_000
    with open(tmp_path / "m.jsonl", "w") as file:
        for i in range(count):
            record = {"audio": f"{i % 100}/{i}.wav", "text": "Hello there. " * 20, "speaker": "ann"}
            file.write(json.dumps(record) + "\n")
    # In a process of its own: pathlib interns the parts of paths, and the table of all interned
    # strings, which grows once meanwhile, has megabytes in a process that has imported much.
    command = [sys.executable, "-c", _SCAN, str(tmp_path), str(count)]
    scan = subprocess.run(command, capture_output=True, text=True)
    assert scan.returncode == 0, scan.stderr
    assert float(scan.stdout) < 90  # of which 25 do not grow with the rows
