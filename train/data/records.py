"""Prepared utterances by their number, over all shards of all data directories."""

import bisect
import contextlib
import itertools
import pathlib
from collections.abc import Iterator, Sequence

import grain

from train.data.shards import DataError, Index, Utterance


class Records:
    """Reads utterances; they are counted through the shards, in order."""

    def __init__(self, shards: Sequence[tuple[pathlib.Path, int]]):
        """Opens shard files.

        Args:
          shards: files, and how many utterances of each are wanted.

        Raises:
          DataError: if a file is missing.
        """
        for path, _ in shards:
            if not path.is_file():
                raise DataError(f"{path} is missing")
        self._shards = shards
        self._stops = list(itertools.accumulate(count for _, count in shards))
        self._source = grain.sources.ArrayRecordDataSource(
            [f"{path}[0:{count}]" for path, count in shards]
        )

    @classmethod
    def of(cls, index: Index) -> "Records":
        """Returns the utterances of one data directory, in the order of its table."""
        return cls(list(zip(index.shard_paths(), index.shards, strict=True)))

    def __getitem__(self, number: int) -> Utterance:
        """Reads an utterance."""
        return Utterance.from_bytes(self._source[number])

    @contextlib.contextmanager
    def naming(self, number: int) -> Iterator[None]:
        """Says which record it was where an utterance could not be read or used.

        Raises:
          DataError: names file and record.
        """
        try:
            yield
        except (OSError, RuntimeError, ValueError, TypeError, LookupError) as error:
            shard = bisect.bisect_right(self._stops, number)
            path, count = self._shards[shard]
            record = int(number) - (self._stops[shard] - count)
            raise DataError(f"{path}, record {record} cannot be read: {error}") from error
