"""One checkpoint of ours -> a PyTorch release (`indextts2 convert --reverse`), the way back.

    converted networks   every tensor of every file bit by bit as it was, by provenance.json;
                         settings and tokenizers word for word
    any other network    a float32 file under its released name; settings written from ours

What a release has no form for (the paper's one duration slot, an S2M without latents, ...) goes
into indextts2_jax.json beside it, so that `indextts2 convert` always makes the same checkpoint.
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

from indextts2_jax import convert
from indextts2_jax.checkpoint import store
from indextts2_jax.checkpoint.parts import PARTS, Settings
from indextts2_jax.checkpoint.store import CheckpointError
from indextts2_jax.errors import InputError
from indextts2_jax.release.convert import TABLES
from indextts2_jax.release.files import require_torch, unwrap, write_weights
from indextts2_jax.release.find import OWN_SETTINGS, Release
from indextts2_jax.release.texts import FILES, release_texts
from indextts2_jax.t2s.conditioner import sinusoid
from indextts2_jax.t2s.gpt import POSITIONS

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
    with store.writing(out) as directory:
        exporter = _Exporter(path, directory, settings)
        with tqdm(settings.configs, unit="part", desc="export", disable=None) as bar:
            for name in bar:
                bar.set_postfix_str(name)
                exporter.part(name)
        exporter.tables()
        exporter.texts()
        exporter.own_settings()
    exporter.warn_of_changes()


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
    def standard(cls, name: str, tensors: Mapping[str, np.ndarray], place: str) -> "_Origin":
        """Returns the file of a part that was never in a release, at `place` in it."""
        wrapper = "generator/" if name == "vocoder" else ""
        return cls(
            file=place,
            tensors={k: (wrapper + k, x.dtype, x.shape) for k, x in tensors.items()},
            metadata={"format": "pt"},
        )


class _Exporter:
    """Exports part after part, collecting what is to be said in the end."""

    def __init__(self, path: pathlib.Path, out: pathlib.Path, settings: Settings):
        self.path, self.out, self.settings = path, out, settings
        self.origins: dict[str, _Origin] = {}
        self.places = dict(FILES)
        self.kept_texts: dict[str, str] | None = None
        self.shapes: dict[str, dict[str, tuple[int, ...]]] = {}
        self.rounded: dict[str, str] = {}  # part -> dtype
        self.changed: list[str] = []
        provenance = path / "provenance.json"
        if provenance.exists():
            try:
                entries = json.loads(provenance.read_text())
                self.kept_texts = dict(entries.pop("texts"))
                entries.pop("sources", None)
                self._read_origins(entries)
            except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
                raise CheckpointError(
                    f"{provenance} is damaged or of an older version ({error!r}); convert again"
                ) from None
        if missing := PARTS.keys() - settings.configs.keys() - self.origins.keys() - {"qwen3"}:
            raise CheckpointError(f"{path} is no whole model: {', '.join(sorted(missing))} missing")

    def _read_origins(self, entries: Mapping[str, Any]) -> None:
        """Reads provenance.json; of a network with a new architecture the file's place alone."""
        for name, entry in entries.items():
            self.places[name] = entry["file"]
            config = self.settings.configs.get(name)
            if config and store.from_dict(PARTS[name].config, entry["config"]) != config:
                self._forget(name)
            else:
                self.origins[name] = _Origin.read(name, entry)
        for place, kept in (self.kept_texts or {}).items():
            if kept == "tokenizer/bpe.model":
                self.places["tokenizer"] = place

    def _forget(self, name: str) -> None:
        """Lets a part have a new form; the settings of the original release do not describe it."""
        self.origins.pop(name, None)
        if self.kept_texts is not None:
            self.kept_texts.pop("config.yaml", None)

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
        """Exports the feature statistics and, if there are, the emotion prototypes."""
        fingerprints = self.settings.fingerprints
        arrays = dict(self._read("weights", "tables", fingerprints.get("tables")))
        if "prototypes" in fingerprints:  # older checkpoints have them among the other tables
            arrays |= self._read("weights", "prototypes", fingerprints["prototypes"])
        for name, names in TABLES.items():
            if name != "feature_statistics" and not self.settings.emotion_groups:
                continue
            tensors = {
                torch_name: self._restore(name, torch_name, arrays[our_name])
                for torch_name, our_name in names.items()
            }
            origin = self.origins.get(name)
            if origin and any(origin.tensors[k][2] != x.shape for k, x in tensors.items()):
                self._forget(name)  # other recordings, or of another T2S
            self._write(name, tensors)

    def texts(self) -> None:
        """Exports tokenizers and settings."""
        kept_texts, settings = self.kept_texts, self.settings
        if kept_texts is None or "config.yaml" not in kept_texts:
            texts = release_texts(
                settings.configs, settings.emotion_groups, settings.mel, self.places
            )
            for place in ("config.yaml",) if kept_texts else texts:
                self._place(place).write_text(texts[place], encoding="utf-8")
        if kept_texts is None:
            kept_texts = dict(_tokenizers(self.path))
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

    def own_settings(self) -> None:
        """Writes our settings, too, where `indextts2 convert` would not find all in the release."""
        configs = self.settings.configs
        try:
            release = Release.find(self.out, None, emotion_text="qwen3" in configs)
            again = release.settings(
                {name: release.part_config(name, self.shapes[name]) for name in configs}, {}
            )
            had, has = _facts(self.settings), _facts(again)
            more = [key for key in had.keys() | has.keys() if had.get(key) != has.get(key)]
            what = ", ".join(sorted(more))
        except InputError as error:
            what = " ".join(str(error).replace(f"{self.out}/", "").split())
        if what:
            dataclasses.replace(self.settings, fingerprints={}).save(self.out, OWN_SETTINGS)
            _log.warning(
                "a release does not hold all of this model, %s beside it does, for `indextts2 "
                "convert`: %s",
                OWN_SETTINGS,
                what,
            )
        elif "qwen3" not in configs:
            _log.warning("there is no qwen3: the release converts with --no-emotion-text alone")

    def _read(
        self, kind: str, name: str, fingerprint: str | None
    ) -> Iterator[tuple[str, np.ndarray]]:
        return store.read_arrays(self.path / kind / name, fingerprint or "unknown")

    def _restore(self, name: str, torch_name: str, tensor: np.ndarray) -> np.ndarray:
        """Makes the tensor contiguous and in its original dtype, as far as that can hold it."""
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
        origin = self.origins.get(name) or _Origin.standard(name, tensors, self.places[name])
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
        """Returns the file at `place` in the release, its directory made."""
        path = _inside(self.out, place)
        path.parent.mkdir(parents=True, exist_ok=True)
        return path


def _inside(folder: pathlib.Path, place: str) -> pathlib.Path:
    """Returns the path `place` of provenance.json, which may come from anywhere, in `folder`."""
    path = pathlib.PurePosixPath(place)
    if path.is_absolute() or ".." in path.parts:
        raise CheckpointError(f"provenance.json leads out of its directory: {place}")
    return folder / path


def _tokenizers(path: pathlib.Path) -> Iterator[tuple[str, str]]:
    """Returns the place of every tokenizer file in a release and in the checkpoint `path`."""
    folders = {"tokenizer": FILES["tokenizer"], "tokenizer/qwen3": FILES["qwen3"]}
    for folder, neighbour in folders.items():
        for file in sorted((path / folder).glob("*")):
            if file.is_file():
                place = pathlib.PurePosixPath(neighbour).with_name(file.name)
                yield str(place), f"{folder}/{file.name}"


def _facts(settings: Settings) -> dict[str, Any]:
    """Returns all settings but names and fingerprints, under dotted names."""
    out: dict[str, Any] = {}

    def walk(prefix: str, value: Any) -> None:
        if isinstance(value, Mapping):
            for key, inner in value.items():
                walk(f"{prefix}.{key}" if prefix else key, inner)
        else:
            out[prefix] = value

    walk("", store.to_dict(dataclasses.replace(settings, fingerprints={})))
    del out["source"]
    for part in POSITIONS:  # the weights tell
        out.pop(f"configs.t2s.{part}.num_positions", None)
    return out


def _buffers(name: str, cfg: Any, tensors: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Returns what PyTorch models keep beside weights, for the part `name` with those `tensors`."""
    if name == "t2s":
        return {
            torch_name: sinusoid(CONDITIONER_POSITIONS, getattr(cfg, part).width)[None]
            for part, torch_name in POSITIONS.items()
            if not getattr(cfg, part).num_positions
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
