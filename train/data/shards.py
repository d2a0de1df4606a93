"""Prepared utterances on disk: what `train.prepare` writes and the trainers read.

    DATA/
      index.json                which encoders and tokenizer made it, speakers, hours, shards
      table.npz                 one row per utterance: what batches are planned from, by column
      shard-00000.arrayrecord   utterances, one record each
      rejected.jsonl, report.*  what was left out, and why

`train.prepare --features fbank` writes the same without the encoders: `features` are then the
input of w2v-BERT, `codes` are zeros, `style` is empty, and audio, bank and prosody are there.

Dims: T 50 Hz frames, T_code codes (T of a codec of 50 Hz), F feature width, M mel frames, H samples
of a mel frame, L text tokens, W words, E vector width.
"""

import contextlib
import dataclasses
import hashlib
import json
import pathlib
from array import array
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from array_record.python import array_record_module  # pyright: ignore[reportAttributeAccessIssue]
from flax import serialization

from indextts2_jax.checkpoint import store
from indextts2_jax.checkpoint.parts import Settings, load_tables
from indextts2_jax.errors import InputError
from indextts2_jax.outputs import replacing

FORMAT_VERSION = 1
COLUMNS = ("speaker", "language", "emotion", "codes", "varied_codes", "frames", "text", "words")


class DataError(InputError):
    """Prepared data is missing, damaged or was made for another model; the message is one line."""


@dataclasses.dataclass(frozen=True)
class Take:
    """An utterance at one speed, read by the frozen encoders.

    Attributes:
      speed: 1 = as it was recorded; 1.25 = a quarter faster, at the same pitch.
      codes: [T_code] int32 semantic codes.
      features: [T, F] float16, the standardised w2v-BERT features that the conditioners read.
    """

    speed: float
    codes: np.ndarray
    features: np.ndarray


@dataclasses.dataclass(frozen=True)
class Utterance:
    """One prepared recording.

    Attributes:
      id: unique in its data.
      speaker: name of the voice.
      text: as it was normalised.
      text_ids: [L] int32, without start and stop.
      takes: the recorded speed first, then others.
      mel: [M, 80] float16 log-mel of the recorded speed.
      style: [192] float32 CAMPPlus embedding.
      language: "en", "zh", ... or "".
      emotion: a label, or "".
      word_vectors: [W, E] float16, one per word (paper appendix B), or None.
      word_frames: [W] int32, how many mel frames each word covers; their sum is M. None as above.
      audio: [M, H] int16 samples at the rate of the mel, or None.
      bank: [T, 160] float16, what CAMPPlus reads, two frames of 10 ms a row, or None; may be a row
        shorter than the takes.
      prosody: [T, 3] float16, see `train.corpus.prosody`, or None.
    """

    id: str
    speaker: str
    text: str
    text_ids: np.ndarray
    takes: tuple[Take, ...]
    mel: np.ndarray
    style: np.ndarray
    language: str = ""
    emotion: str = ""
    word_vectors: np.ndarray | None = None
    word_frames: np.ndarray | None = None
    audio: np.ndarray | None = None
    bank: np.ndarray | None = None
    prosody: np.ndarray | None = None

    def to_bytes(self) -> bytes:
        """Encodes the utterance as a record."""
        values = {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}
        values["takes"] = {str(i): vars(take) for i, take in enumerate(self.takes)}
        return serialization.msgpack_serialize({k: v for k, v in values.items() if v is not None})

    @classmethod
    def from_bytes(cls, record: bytes) -> "Utterance":
        """Decodes the utterance of a record."""
        values: dict[str, Any] = serialization.msgpack_restore(record)  # pyright: ignore
        takes = values.pop("takes")
        return cls(**values, takes=tuple(Take(**takes[str(i)]) for i in range(len(takes))))

    def row(self) -> dict[str, Any]:
        """Returns what the table says of it; names where the table has numbers.

        All are counts: `codes` and `frames` of the recorded speed, `varied_codes` of the longest
        take at another one (of the recorded one where there is none).
        """
        return {
            "speaker": self.speaker,
            "language": self.language,
            "emotion": self.emotion,
            "codes": len(self.takes[0].codes),
            "varied_codes": max(len(take.codes) for take in self.takes[1:] or self.takes),
            "frames": len(self.mel),
            "text": len(self.text_ids),
            "words": 0 if self.word_frames is None else len(self.word_frames),
        }


def fingerprints(path: pathlib.Path, settings: Settings) -> dict[str, str]:
    """Identifies what prepared data depends on, by name: encoders, statistics, tokenizer, mel.

    Args:
      path: checkpoint directory.
      settings: its settings.

    Raises:
      InputError: if it lacks one of them.
    """
    tokenizer = path / "tokenizer" / "bpe.model"
    names = ("w2v_bert", "semantic_codec", "campplus")
    missing = [name for name in names if name not in settings.fingerprints]
    if missing or not tokenizer.is_file():
        raise DataError(f"{path} lacks {', '.join(missing) or tokenizer.name}")
    tables = load_tables(path)
    statistics = b"".join(tables[name].tobytes() for name in ("feature_mean", "feature_variance"))
    own = {
        "feature_statistics": statistics,
        "feature_layer": str(settings.feature_layer).encode(),
    }
    parts = {name: settings.fingerprints[name] for name in names}
    return parts | _digests(own) | audio_fingerprints(path, settings)


def audio_fingerprints(path: pathlib.Path, settings: Settings) -> dict[str, str]:
    """Identifies what data without the encoders depends on, by name: tokenizer, mel.

    Args:
      path: checkpoint directory.
      settings: its settings.

    Raises:
      InputError: if it lacks the tokenizer.
    """
    tokenizer = path / "tokenizer" / "bpe.model"
    if not tokenizer.is_file():
        raise DataError(f"{path} lacks {tokenizer.name}")
    mel = json.dumps(store.to_dict(settings.mel), sort_keys=True).encode()
    return _digests({"tokenizer": tokenizer.read_bytes(), "mel": mel})


def _digests(values: Mapping[str, bytes]) -> dict[str, str]:
    return {name: hashlib.sha256(x).hexdigest()[:16] for name, x in values.items()}


def check_fingerprints(got: Mapping[str, str], want: Mapping[str, str], what: str) -> None:
    """Compares what two artefacts were made with.

    Args:
      got: fingerprints by name.
      want: the same of the other one.
      what: the names of both, for the message.

    Raises:
      DataError: if they differ; names the parts.
    """
    if wrong := sorted(k for k in got.keys() | want.keys() if got.get(k) != want.get(k)):
        raise DataError(f"{what} were made with different {', '.join(wrong)}")


@dataclasses.dataclass(frozen=True)
class Index:
    """`index.json` and `table.npz` of a data directory.

    Attributes:
      path: the directory.
      fingerprints: from `fingerprints`.
      speakers: names; the table holds places in this list. Likewise languages and emotions.
      shards: number of utterances of each shard file, in order.
      hours: of all utterances at the recorded speed.
      table: column (one of COLUMNS) -> [N] int32, N utterances in the order of the shards.
      features_per_code: of the codec; 1 where there is none.
    """

    path: pathlib.Path
    fingerprints: Mapping[str, str]
    speakers: tuple[str, ...]
    languages: tuple[str, ...]
    emotions: tuple[str, ...]
    shards: tuple[int, ...]
    hours: float
    table: Mapping[str, np.ndarray]
    features_per_code: int = 1

    def __len__(self) -> int:
        return sum(self.shards)

    @classmethod
    def load(cls, path: pathlib.Path) -> "Index":
        """Reads a data directory.

        Raises:
          DataError: if it is none, or is damaged.
        """
        try:
            values = json.loads((path / "index.json").read_text())
            with np.load(path / "table.npz") as file:
                table = dict(file)
        except (OSError, ValueError) as error:
            raise DataError(f"{path} holds no prepared data: {error}") from None
        if values.pop("format_version", None) != FORMAT_VERSION:
            raise DataError(f"{path} has another format; prepare it again")
        lists = {k: tuple(v) for k, v in values.items() if isinstance(v, list)}
        index = cls(path=path, table=table, **{**values, **lists})
        if {len(column) for column in table.values()} != {len(index)} or set(table) != set(COLUMNS):
            raise DataError(f"{path} is damaged: table.npz does not fit index.json")
        return index

    def save(self) -> None:
        """Writes both files; `index.json` last, so that a directory which has it is whole."""
        values = {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}
        del values["path"], values["table"]
        np.savez(self.path / "table.npz", **dict(self.table))  # pyright: ignore[reportArgumentType]
        with replacing(self.path / "index.json") as temporary:
            store.write_json(temporary, {"format_version": FORMAT_VERSION, **values})

    @classmethod
    def build(
        cls,
        path: pathlib.Path,
        made_with: Mapping[str, str],
        shards: Iterable[Sequence[Mapping[str, Any]]],
        frame_seconds: float,
        features_per_code: int = 1,
    ) -> "Index":
        """Puts the rows of all shards together.

        Args:
          path: the data directory.
          made_with: from `fingerprints`.
          shards: per shard the `Utterance.row` of each of its records; not kept.
          frame_seconds: length of a mel frame.
          features_per_code: of the codec.
        """
        # Names are numbered as they are found, and in the end as they are sorted.
        found: dict[str, dict[str, int]] = {"speaker": {}, "language": {}, "emotion": {}}
        columns = {column: array("i") for column in COLUMNS}  # 4 bytes a value
        sizes = []
        for shard in shards:
            sizes.append(len(shard))
            for column, values in columns.items():
                if (places := found.get(column)) is None:
                    values.extend(row[column] for row in shard)
                else:
                    values.extend(places.setdefault(row[column], len(places)) for row in shard)
        table = {column: np.frombuffer(values, np.int32) for column, values in columns.items()}
        names = {column: sorted(places) for column, places in found.items()}
        for column, places in found.items():
            order = {name: i for i, name in enumerate(names[column])}
            table[column] = np.array([order[name] for name in places], np.int32)[table[column]]
        return cls(
            path=path,
            fingerprints=dict(made_with),
            speakers=tuple(names["speaker"]),
            languages=tuple(names["language"]),
            emotions=tuple(names["emotion"]),
            shards=tuple(sizes),
            hours=round(float(table["frames"].sum()) * frame_seconds / 3600, 4),
            table=table,
            features_per_code=features_per_code,
        )

    def shard_paths(self) -> list[pathlib.Path]:
        """Returns the shard files, in order."""
        return [shard_path(self.path, number) for number in range(len(self.shards))]


def shard_path(path: pathlib.Path, number: int) -> pathlib.Path:
    """Tells where shard `number` of the data directory `path` lies."""
    return path / f"shard-{number:05d}.arrayrecord"


def write_shard(path: pathlib.Path, utterances: Iterable[Utterance]) -> list[dict[str, Any]]:
    """Writes one shard file, whole or not at all.

    Args:
      path: of the file.
      utterances: in order.

    Returns:
      The `Utterance.row` of each.
    """
    # Compression would save 7 % of float16 features and make reading four times as expensive.
    options = "group_size:1,uncompressed"
    rows = []
    with replacing(path) as temporary:
        writer = array_record_module.ArrayRecordWriter(str(temporary), options)
        with contextlib.closing(writer):
            for utterance in utterances:
                writer.write(utterance.to_bytes())
                rows.append(utterance.row())
    return rows


def read_shard(path: pathlib.Path) -> Iterator[Utterance]:
    """Reads a shard file from its beginning.

    Raises:
      DataError: if it is missing or damaged.
    """
    try:
        reader = array_record_module.ArrayRecordReader(str(path))
        try:
            for record in reader.read_all():
                yield Utterance.from_bytes(record)
        finally:
            reader.close()
    except (RuntimeError, ValueError) as error:
        raise DataError(f"{path} cannot be read: {error}") from None
