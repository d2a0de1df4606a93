"""The rows of a corpus in a file, while they are prepared.

    rows -> one pass -> file, start of each shard, digest, repeated ids -> rows of any shard

Memory holds 50 bytes a row at most: an object per row would need a kilobyte, and Emilia has 40
million.
"""

import contextlib
import dataclasses
import hashlib
import json
import pathlib
import tempfile
from array import array
from collections.abc import Iterable, Iterator, Sequence
from typing import IO

import numpy as np

from indextts2_jax.errors import InputError
from train.corpus.corpora import Row
from train.corpus.recordings import Rejection

_HASH_BYTES = 16  # of an id; two ids of 40 million have the same with a probability of 2e-24


@dataclasses.dataclass(frozen=True)
class Spool:
    """Rows in a file, a line each.

    Attributes:
      digest: identifies the rows; where the corpus lies does not matter.
      shard_size: rows of a shard; the last one may have fewer.
      file: open.
      starts: place in the file at which each shard begins.
      repeated: [N] bool, the rows whose id an earlier one has.
    """

    digest: str
    shard_size: int
    file: IO[bytes]
    starts: Sequence[int]
    repeated: np.ndarray

    def size(self, number: int) -> int:
        """Counts the rows of shard `number`."""
        return min(self.shard_size, len(self.repeated) - number * self.shard_size)

    def shard(self, number: int) -> list[Row | Rejection]:
        """Returns the rows of shard `number`; a rejection for each whose id was there before."""
        first = number * self.shard_size
        self.file.seek(self.starts[number])
        rows = [_from_line(self.file.readline()) for _ in range(self.size(number))]
        return [_repetition(row) if self.repeated[first + i] else row for i, row in enumerate(rows)]


@contextlib.contextmanager
def spooled(rows: Iterable[Row], out: pathlib.Path, shard_size: int) -> Iterator[Spool]:
    """Yields a file of rows, for as long as the context lasts.

    Args:
      rows: are read once.
      out: folder of the shards; is not made, as the rows may be wrong.
      shard_size: rows of a shard.

    Raises:
      InputError: if there can be no file.
    """
    with unnamed_file(out) as file:
        yield _write(rows, file, shard_size)


def unnamed_file(out: pathlib.Path) -> IO[bytes]:
    """Opens a file that a killed process does not leave, in `out` or where it is to be.

    There is the room for it, which is little beside that of the shards. The system's temporary
    folder may be small, or in memory.

    Raises:
      InputError: if there can be none.
    """
    folder = next(path for path in (out, *out.absolute().parents) if path.is_dir())
    try:
        return tempfile.TemporaryFile(dir=folder, prefix=".rows-")
    except OSError as error:
        raise InputError(f"cannot use {out}: {error}") from None


def _write(rows: Iterable[Row], file: IO[bytes], shard_size: int) -> Spool:
    digest, starts, hashes = hashlib.sha256(), array("q"), bytearray()
    for number, row in enumerate(rows):
        if number % shard_size == 0:
            starts.append(file.tell())
        file.write(_to_line(row))
        values = (row.id, row.text, row.speaker, row.language, row.emotion, row.words is None)
        digest.update(json.dumps(values).encode())
        name = row.id.encode(errors="surrogatepass")  # a file's name need not be UTF-8
        hashes += hashlib.blake2b(name, digest_size=_HASH_BYTES).digest()
    return Spool(digest.hexdigest()[:16], shard_size, file, starts, _repeated(hashes))


def _repeated(hashes: bytearray) -> np.ndarray:
    """Marks the hashes that were there before, [N] bool."""
    halves = np.frombuffer(hashes, np.uint64).reshape(-1, 2)
    order = np.lexsort((halves[:, 0], halves[:, 1]))  # stable: the first of equal ones stays first
    halves = halves[order]
    repeated = np.zeros(len(order), bool)
    repeated[order[1:]] = (halves[1:] == halves[:-1]).all(axis=1)
    return repeated


def _repetition(row: Row) -> Rejection:
    return Rejection(row.id, str(row.audio), "repeated id", "an earlier row has it too")


def _to_line(row: Row) -> bytes:
    values = (row.text, row.speaker, row.id, row.language, row.emotion, row.problem)
    files = (str(row.audio), None if row.words is None else str(row.words))
    return json.dumps((*files, *values)).encode() + b"\n"


def _from_line(line: bytes) -> Row:
    audio, words, *values, problem = json.loads(line)
    words = None if words is None else pathlib.Path(words)
    return Row(pathlib.Path(audio), *values, words=words, problem=problem)
