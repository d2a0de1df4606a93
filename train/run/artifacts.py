"""What a run reads and leaves: the checkpoint that it starts from, and the one that it makes."""

import contextlib
import dataclasses
import json
import os
import pathlib
import shutil
import sys
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils

from indextts2_jax.checkpoint import store
from indextts2_jax.checkpoint.parts import PARTS, Settings, require, save_part
from indextts2_jax.nn import pytree
from indextts2_jax.release.texts import FILES

Folders = Mapping[str, Mapping[str, np.ndarray]]  # folder in `weights` -> name -> array


@dataclasses.dataclass(frozen=True)
class Base:
    """A checkpoint on disk.

    Attributes:
      path: its directory.
      settings: of it.
    """

    path: pathlib.Path
    settings: Settings

    @classmethod
    def open(cls, path: str | os.PathLike) -> "Base":
        """Opens a checkpoint directory.

        Raises:
          CheckpointError: if it is none.
        """
        return cls(pathlib.Path(path), Settings.load(pathlib.Path(path)))

    def config(self, part: str) -> Any:
        """Returns the architecture of a part.

        Raises:
          CheckpointError: if the checkpoint has it not.
        """
        require(self.path, self.settings, part)
        return self.settings.configs[part]

    def arrays(self, part: str, places: Mapping[str, Any]) -> dict[str, jax.Array]:
        """Reads arrays of a part in float32, each to where it will lie.

        Args:
          part: name of the part.
          places: `<part>.<name>` -> sharding; other names are passed over.

        Raises:
          CheckpointError: if the part lacks some, or they have another shape.
        """
        prefix = f"{part}."
        own = {n.removeprefix(prefix): s for n, s in places.items() if n.startswith(prefix)}
        if not own:
            return {}
        shapes = pytree.shapes(PARTS[part].abstract(self.config(part)))
        wanted = {
            n: jax.ShapeDtypeStruct(shapes[n], np.float32) for n in own if n in shapes
        }  # adapters are no part of it
        arrays = store.load_arrays(
            self.path / "weights" / part, wanted, sharding={n: own[n] for n in wanted}
        )
        return {prefix + name: x for name, x in arrays.items()}


@dataclasses.dataclass(frozen=True)
class Result:
    """The checkpoint that a run makes: that of its beginning with another network in it.

    Attributes:
      base: the checkpoint that the run began with.
      part: name of the trained network; its arrays are called `<part>.<name>` in a run.
      settings: of the new checkpoint; no `emotion_groups` leave the prototypes out.
      tokenizer: directory of the network's own tokenizer, if it has one.
    """

    base: Base
    part: str
    settings: Settings
    tokenizer: pathlib.Path | None = None

    @classmethod
    def of(
        cls,
        base: Base,
        part: str,
        configs: Mapping[str, Any],
        *,
        tokenizer: pathlib.Path | None = None,
        **changes: Any,
    ) -> "Result":
        """Returns what becomes of `base`.

        Args:
          base: the checkpoint that the run began with.
          part: name of the trained network.
          configs: name -> architecture of that network, and of others that change.
          tokenizer: directory of the network's own tokenizer, if it has one.
          **changes: of the other settings.
        """
        configs = {**base.settings.configs, **configs}
        settings = dataclasses.replace(base.settings, configs=configs, trained=True, **changes)
        return cls(base, part, settings, tokenizer)

    def gather(self, arrays: Mapping[str, jax.Array], part: str = "") -> dict[str, np.ndarray]:
        """Gathers a network's arrays of a run, whole, on the host of every process.

        Args:
          arrays: all of the run, by flat name.
          part: name of the network; the trained one if empty.
        """
        prefix = f"{part or self.part}."
        own = {n.removeprefix(prefix): x for n, x in arrays.items() if n.startswith(prefix)}
        if jax.process_count() == 1:
            return {name: np.asarray(x) for name, x in own.items()}
        return {n: multihost_utils.process_allgather(x, tiled=True) for n, x in own.items()}

    def publish(
        self,
        out: pathlib.Path,
        arrays: Mapping[str, jax.Array],
        *,
        suffix: str = "",
        beside: Folders | None = None,
        files: Mapping[str, Any] | None = None,
    ) -> None:
        """Writes the checkpoint. Files of the first one that stay are hard links.

        Args:
          out: directory to write. An older result in it is replaced, and a line says so; nothing
            happens if it is this one.
          arrays: all of the run, by flat name.
          suffix: of the directory's name, for a second result.
          beside: other arrays that are new, by folder in `weights`.
          files: values of JSON files that are new, by name.

        Raises:
          InputError: if there is something else in it.
        """
        out = out.with_name(out.name + suffix)
        folders = {self.part: self.gather(arrays), **(beside or {})}
        if jax.process_index() == 0:
            self._replace(out, folders, files or {})
        if jax.process_count() > 1:  # nobody leaves before the coordinator has written
            multihost_utils.sync_global_devices("published")

    def _replace(self, out: pathlib.Path, folders: Folders, files: Mapping[str, Any]) -> None:
        """Puts the checkpoint where it belongs, whole; until then the older one stays there."""
        if not out.exists():
            self._write(out, folders, files)
            return
        before = Settings.load(out)
        # `source` may name the run by an older place.
        now = dataclasses.replace(
            self.settings, fingerprints=before.fingerprints, source=before.source
        )
        prints = {name: store.fingerprint(values) for name, values in folders.items()}
        if now == before and prints.items() <= before.fingerprints.items():
            return
        new, old = (out.with_name(f".{out.name}.{what}") for what in ("new", "old"))
        for left in (new, old):  # by a process that was killed
            shutil.rmtree(left, ignore_errors=True)
        self._write(new, folders, files)
        out.rename(old)
        new.rename(out)
        shutil.rmtree(old, ignore_errors=True)
        print(f"{out}: replaced, it held older weights", file=sys.stderr)

    def _write(self, out: pathlib.Path, folders: Folders, files: Mapping[str, Any]) -> None:
        base = self.base.path
        replaced = {"checkpoint.json", *folders, *files}
        fingerprints = dict(self.settings.fingerprints)
        if not self.settings.emotion_groups:
            replaced.add("prototypes")
            fingerprints.pop("prototypes", None)

        def leave_out(folder: str, names: list[str]) -> list[str]:
            inside = pathlib.Path(folder) in (base, base / "weights")
            return [n for n in names if inside and n in replaced]

        with store.writing(out) as directory:
            shutil.copytree(
                base, directory, copy_function=_link, ignore=leave_out, dirs_exist_ok=True
            )
            for name, values in folders.items():
                fingerprints[name] = save_part(directory, name, values)
            for name, values in files.items():
                store.write_json(directory / name, values)
            if self.tokenizer is not None:
                self._replace_tokenizer(self.tokenizer, directory)
            dataclasses.replace(self.settings, fingerprints=fingerprints).save(directory)

    def _replace_tokenizer(self, source: pathlib.Path, directory: pathlib.Path) -> None:
        """Copies the tokenizer, and says where its files belong in a PyTorch release."""
        folder = directory / "tokenizer" / self.part
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(source, folder)
        provenance = directory / "provenance.json"
        if not provenance.exists():
            return
        entries = json.loads(provenance.read_text())
        own = f"tokenizer/{self.part}/"
        texts = {place: x for place, x in entries["texts"].items() if not x.startswith(own)}
        place = pathlib.PurePosixPath(entries.get(self.part, {}).get("file", FILES[self.part]))
        for file in sorted(folder.iterdir()):
            texts[str(place.with_name(file.name))] = own + file.name
        provenance.unlink()  # a hard link to that of the first checkpoint
        store.write_json(provenance, {**entries, "texts": texts})


def _link(source: str, target: str) -> None:
    with contextlib.suppress(OSError):  # another file system
        os.link(source, target)
        return
    shutil.copy2(source, target)
