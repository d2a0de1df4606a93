"""One checkpoint of ours -> a PyTorch release (`indextts2 convert --reverse`), the way back.

    converted checkpoint   every tensor of every file bit by bit as it was, by provenance.json;
                           settings and tokenizers word for word
    any other checkpoint   float32 files under the released names; settings written from ours

`indextts2 convert` reads the result again; what the form of a release cannot hold is warned of.
"""

import dataclasses
import json
import logging
import pathlib
import shutil
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from tqdm import tqdm

from indextts2_jax import checkpoint, convert
from indextts2_jax.checkpoint import CheckpointError
from indextts2_jax.errors import InputError
from indextts2_jax.parts import PARTS, Settings
from indextts2_jax.release import TABLES, Release
from indextts2_jax.release_texts import FILES, release_texts
from indextts2_jax.t2s.conditioner import sinusoid
from indextts2_jax.torch_files import require_torch, unwrap, write_weights

# Positions of two tables that PyTorch models keep as buffers.
CONDITIONER_POSITIONS = 5000
VELOCITY_POSITIONS = 16384

_log = logging.getLogger(__name__)


def export_release(path: pathlib.Path, out: pathlib.Path) -> None:
    """Writes a checkpoint as a PyTorch release.

    Args:
      path: the checkpoint directory.
      out: must not exist; appears only when everything is written.

    Raises:
      CheckpointError: if the checkpoint is missing or damaged, or `out` exists.
      ConversionError: if PyTorch is missing.
    """
    require_torch()
    settings = Settings.load(path)
    with checkpoint.writing(out) as directory:
        exporter = _Exporter(path, directory, settings)
        with tqdm(settings.configs, unit="part", desc="export", disable=None) as bar:
            for name in bar:
                bar.set_postfix_str(name)
                exporter.part(name)
        exporter.tables()
        exporter.texts()
    exporter.warn_of_changes()
    exporter.warn_of_lost_settings(out)


@dataclasses.dataclass(frozen=True)
class _Origin:
    """The file that a part is written to.

    Attributes:
      file: path in the release.
      tensors: torch name -> (key in the file, dtype, shape), in the order of the file.
      metadata: of a safetensors file.
      left_out: entries of the original file that are no weights.
      unused: fingerprint of the tensors that no network reads; None if there are none.
    """

    file: str
    tensors: Mapping[str, tuple[str, np.dtype, tuple[int, ...]]]
    metadata: Mapping[str, str] | None
    left_out: Sequence[str] = ()
    unused: str | None = None

    @classmethod
    def read(cls, name: str, entry: Mapping[str, Any]) -> "_Origin":
        """Reads the entry of `provenance.json` about the part `name`."""
        tensors = {k: (k, np.dtype(dtype), tuple(shape)) for k, dtype, shape in entry["tensors"]}
        names = unwrap(name, tensors)[1]
        return cls(
            file=entry["file"],
            tensors={torch_name: tensors[key] for torch_name, key in names.items()},
            metadata=entry["metadata"],
            left_out=entry["left_out"],
            unused=entry.get("unused"),
        )

    @classmethod
    def standard(cls, name: str, tensors: Mapping[str, np.ndarray]) -> "_Origin":
        """The file of a part that was never in a release."""
        wrapper = "generator/" if name == "vocoder" else ""
        return cls(
            file=FILES[name],
            tensors={k: (wrapper + k, x.dtype, x.shape) for k, x in tensors.items()},
            metadata={"format": "pt"},
        )


class _Exporter:
    """Exports part after part, collecting what is to be said in the end."""

    def __init__(self, path: pathlib.Path, out: pathlib.Path, settings: Settings):
        self.path, self.out, self.settings = path, out, settings
        self.origins: dict[str, _Origin] = {}
        self.kept_texts: dict[str, str] | None = None
        self.shapes: dict[str, dict[str, tuple[int, ...]]] = {}
        self.rounded: dict[str, str] = {}  # part -> dtype
        self.changed: list[str] = []
        provenance = path / "provenance.json"
        if provenance.exists():
            try:
                entries = json.loads(provenance.read_text())
                self.kept_texts = dict(entries.pop("texts"))
                self.origins = {name: _Origin.read(name, x) for name, x in entries.items()}
            except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
                raise CheckpointError(
                    f"{provenance} is damaged or of an older version ({error!r}); convert again"
                ) from None
        if missing := PARTS.keys() - settings.configs.keys() - self.origins.keys() - {"qwen3"}:
            raise CheckpointError(f"{path} is no whole model: {', '.join(sorted(missing))} missing")
        if not settings.emotion_groups:
            raise CheckpointError(f"{path} has no emotion prototypes, and so makes no release")
        s2m = settings.configs.get("s2m")
        if s2m and (s2m.word_width or not s2m.latent_widths):
            what = "reads word vectors" if s2m.word_width else "reads no latents"
            raise CheckpointError(f"{path} makes no release: its s2m {what}")

    def part(self, name: str) -> None:
        """Exports one network."""
        rules, origin = PARTS[name].rules, self.origins.get(name)
        tensors: dict[str, np.ndarray] = {}
        for our_name, array in self._read("weights", name, self.settings.fingerprints.get(name)):
            [(torch_name, tensor)] = convert.to_torch({our_name: array}, rules).items()
            tensors[torch_name] = self._restore(name, torch_name, tensor)
            del array, tensor  # they would stay while the next one is read
        if origin is None:
            tensors |= _buffers(name, self.settings.configs[name], tensors)
        elif origin.unused is not None:
            tensors |= self._read("unused", name, origin.unused)
        self._write(name, tensors)

    def tables(self) -> None:
        """Exports the feature statistics and the emotion prototypes."""
        fingerprints = self.settings.fingerprints
        arrays = dict(self._read("weights", "tables", fingerprints.get("tables")))
        if "prototypes" in fingerprints:  # older checkpoints have them among the other tables
            arrays |= self._read("weights", "prototypes", fingerprints["prototypes"])
        for name, names in TABLES.items():
            tensors = {
                torch_name: self._restore(name, torch_name, arrays[our_name])
                for torch_name, our_name in names.items()
            }
            self._write(name, tensors)

    def texts(self) -> None:
        """Exports tokenizers and settings."""
        if self.kept_texts is None:
            texts = release_texts(
                self.settings.configs, self.settings.emotion_groups, self.settings.mel
            )
            for place, text in texts.items():
                self._place(place).write_text(text, encoding="utf-8")
            kept_texts = dict(_tokenizers(self.path))
        else:
            kept_texts = self.kept_texts
        for place, kept in kept_texts.items():
            source, target = _inside(self.path, kept), self._place(place)
            try:
                shutil.copyfile(source, target)
            except OSError as error:
                raise CheckpointError(f"{source} cannot be copied: {error}") from None

    def warn_of_changes(self) -> None:
        """Says which files are not what they were in the original release."""
        for origin in self.origins.values():
            if origin.left_out:
                entries = ", ".join(origin.left_out)
                _log.warning(
                    "%s: entries that are no weights are left out: %s", origin.file, entries
                )
        if self.rounded:
            parts = ", ".join(f"{name} ({dtype})" for name, dtype in self.rounded.items())
            _log.warning("rounded, because the checkpoint stores them with fewer bits: %s", parts)
        if self.changed:
            parts = ", ".join(self.changed)
            _log.warning("in float32, because they were trained after their conversion: %s", parts)

    def warn_of_lost_settings(self, out: pathlib.Path) -> None:
        """Says what `indextts2 convert` will not find in the release at `out`."""
        configs = self.settings.configs
        if "qwen3" not in configs:
            _log.warning("there is no qwen3: the release converts with --no-emotion-text alone")
        try:
            release = Release.find(out, None, emotion_text="qwen3" in configs)
            again = release.settings(
                {name: release.part_config(name, self.shapes[name]) for name in configs},
                self.settings.fingerprints,
            )
        except InputError as error:
            _log.warning("the release cannot be converted again: %s", " ".join(str(error).split()))
            return
        had, has = _facts(self.settings), _facts(again)
        lost = sorted(key for key in had.keys() | has.keys() if had.get(key) != has.get(key))
        if lost:
            _log.warning("settings that a release cannot hold are lost: %s", ", ".join(lost))

    def _read(
        self, kind: str, name: str, fingerprint: str | None
    ) -> Iterator[tuple[str, np.ndarray]]:
        return checkpoint.read_arrays(self.path / kind / name, fingerprint or "unknown")

    def _restore(self, name: str, torch_name: str, tensor: np.ndarray) -> np.ndarray:
        """The tensor contiguous and in its original dtype, as far as that can hold it."""
        origin = self.origins.get(name)
        if origin is None or torch_name not in origin.tensors:
            return tensor.astype(np.float32, order="C", copy=False)
        dtype = origin.tensors[torch_name][1]
        if not np.can_cast(dtype, tensor.dtype):
            self.rounded[name] = str(tensor.dtype)
        restored = tensor.astype(dtype, order="C", copy=False)
        if dtype != tensor.dtype and not np.array_equal(
            restored.astype(tensor.dtype), tensor, equal_nan=True
        ):
            if name not in self.changed:
                self.changed.append(name)
            return tensor.astype(np.float32, order="C", copy=False)
        return restored

    def _write(self, name: str, tensors: dict[str, np.ndarray]) -> None:
        """Writes the file of a part, which empties `tensors`."""
        origin = self.origins.get(name) or _Origin.standard(name, tensors)
        self.shapes[name] = {torch_name: x.shape for torch_name, x in tensors.items()}
        wanted = {torch_name: shape for torch_name, (_, _, shape) in origin.tensors.items()}
        if self.shapes[name] != wanted:
            got = self.shapes[name]
            odd = sorted(k for k in got.keys() | wanted.keys() if got.get(k) != wanted.get(k))
            raise CheckpointError(
                f"{self.path}: the tensors of {name} are not those of provenance.json: {odd[:5]}"
            )
        write_weights(
            self._place(origin.file),
            {key: tensors.pop(torch_name) for torch_name, (key, *_) in origin.tensors.items()},
            origin.metadata,
        )

    def _place(self, place: str) -> pathlib.Path:
        """The file at `place` in the release, its directory made."""
        path = _inside(self.out, place)
        path.parent.mkdir(parents=True, exist_ok=True)
        return path


def _inside(folder: pathlib.Path, place: str) -> pathlib.Path:
    """The path `place` of provenance.json, which may come from anywhere, in `folder`."""
    path = pathlib.PurePosixPath(place)
    if path.is_absolute() or ".." in path.parts:
        raise CheckpointError(f"provenance.json leads out of its directory: {place}")
    return folder / path


def _tokenizers(path: pathlib.Path) -> Iterator[tuple[str, str]]:
    """Place in a release and in the checkpoint `path` of every tokenizer file."""
    folders = {"tokenizer": FILES["tokenizer"], "tokenizer/qwen3": FILES["qwen3"]}
    for folder, neighbour in folders.items():
        for file in sorted((path / folder).glob("*")):
            if file.is_file():
                place = pathlib.PurePosixPath(neighbour).with_name(file.name)
                yield str(place), f"{folder}/{file.name}"


def _facts(settings: Settings) -> dict[str, Any]:
    """All settings but names and fingerprints, under dotted names."""
    out: dict[str, Any] = {}

    def walk(prefix: str, value: Any) -> None:
        if isinstance(value, Mapping):
            for key, inner in value.items():
                walk(f"{prefix}.{key}" if prefix else key, inner)
        else:
            out[prefix] = value

    walk("", checkpoint.to_dict(dataclasses.replace(settings, fingerprints={})))
    del out["source"], out["trained"]
    return out


def _buffers(name: str, cfg: Any, tensors: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """What PyTorch models keep beside weights, for the part `name` with those `tensors`."""
    if name == "t2s":
        return {
            f"{prefix}conditioning_encoder.embed.pos_enc.pe": sinusoid(
                CONDITIONER_POSITIONS, conditioner.width
            )[None]
            for prefix, conditioner in (("", cfg.speaker), ("emo_", cfg.emotion))
        }
    if name == "s2m":
        return {"net/cfm/estimator.input_pos": np.arange(VELOCITY_POSITIONS, dtype=np.int64)}
    if name == "campplus":
        means = (key for key in tensors if key.endswith(".running_mean"))
        return {
            key.replace("running_mean", "num_batches_tracked"): np.zeros((), np.int64)
            for key in means
        }
    if name == "vocoder":
        fir = tensors["activation_post.upsample.filter"]
        return {
            key.replace("act.alpha", table): fir.copy()
            for key in tensors
            for table in ("upsample.filter", "downsample.lowpass.filter")
            if key.endswith(".act.alpha")
        }
    return {}
