"""A checkpoint on disk: one directory, Orbax items per network, JSON for everything else.

    checkpoint.json     format version and settings: architectures, audio, text, decoding
    provenance.json     where every tensor and file came from (converted checkpoints)
    tokenizer/          files of the tokenizers
    release/            settings and licences of the release, word for word (converted checkpoints)
    weights/<part>/*/   Orbax: flat name -> array, in pieces; besides networks `tables` (statistics
                        of features) and `prototypes` (of emotions; they belong to the T2S)
    unused/<part>/*/    Orbax: torch tensors that no network reads, kept for the way back

A directory appears whole or not at all: `writing` fills a temporary neighbour and renames it.
"""

import contextlib
import dataclasses
import errno
import hashlib
import json
import os
import pathlib
import re
import shutil
import types
import typing
from collections.abc import Iterator, Mapping
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp
import tensorstore

from indextts2_jax import outputs
from indextts2_jax.errors import InputError, os_error

FORMAT_VERSION = 1
SETTINGS_FILE = "checkpoint.json"
PIECE_BYTES = 2**29
_FINGERPRINT_DIGITS = 16
T = typing.TypeVar("T")


class CheckpointError(InputError):
    """A checkpoint is missing, broken or of another kind; the message is one line."""


@contextlib.contextmanager
def writing(path: str | os.PathLike) -> Iterator[pathlib.Path]:
    """Yields a temporary directory that becomes `path` when the block ends without an error.

    Raises:
      CheckpointError: if `path` exists already, or for what the operating system refuses inside
        the block (a full disk, no permission); nothing stays then.
    """
    path = pathlib.Path(path).absolute()
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    new_parents: list[pathlib.Path] = []
    try:
        require_new(path)
        new_parents += [folder for folder in path.parents if not folder.exists()]
        path.parent.mkdir(parents=True, exist_ok=True)
        shutil.rmtree(temporary, ignore_errors=True)
        temporary.mkdir()
        yield temporary
        temporary.rename(path)
        new_parents.clear()
    except OSError as error:
        raise CheckpointError(_refusal(error, path, temporary)) from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
        for folder in new_parents:
            with contextlib.suppress(OSError):  # others use it by now
                folder.rmdir()


def require_new(path: pathlib.Path) -> None:
    """Finds out before the work that a directory cannot be made.

    Raises:
      CheckpointError: if something lies there already.
      InputError: if nothing can be written there.
    """
    if os.path.lexists(path):
        raise CheckpointError(f"{path} exists already; remove it or choose another directory")
    outputs.check_writable(path)


def _refusal(error: OSError, path: pathlib.Path, temporary: pathlib.Path) -> str:
    """Says in one line what the operating system refused while `path` was being written."""
    reason = error.strerror or str(error)
    name = os.fsdecode(error.filename) if isinstance(error.filename, str | bytes) else ""
    ours = not name or name.startswith(str(temporary)) or pathlib.Path(name) in path.parents
    if ours or error.errno in (errno.ENOSPC, errno.EDQUOT):  # a copy's error names the source
        return f"cannot write {path}: {reason}"
    return os_error(error)


def save_arrays(path: pathlib.Path, arrays: Mapping[str, Any]) -> str:
    """Writes arrays as Orbax items of at most PIECE_BYTES, so that it needs little memory.

    Args:
      path: directory to make.
      arrays: flat name -> NumPy array (a view, or memory-mapped, is fine).

    Returns:
      The fingerprint of names, dtypes, shapes and values.

    Raises:
      CheckpointError: if the disk has no room for them.
      OSError: for what else the system refuses.
    """
    path.mkdir(parents=True)
    _check_room(path, sum(array.nbytes for array in arrays.values()))
    digest = hashlib.sha256()
    for number, names in enumerate(_pieces(arrays)):
        piece = {name: np.asarray(arrays[name], order="C") for name in names}
        for name, array in piece.items():
            _add_to_digest(digest, name, array)
        handler = ocp.PyTreeCheckpointHandler(
            use_compression=False,  # weights hardly shrink
            use_ocdbt=True,
            use_zarr3=False,
        )
        with (
            _refusals(path),
            ocp.Checkpointer(handler, multiprocessing_options=_alone()) as checkpointer,
        ):
            checkpointer.save((path / f"{number:03d}").absolute(), piece)
    return digest.hexdigest()[:_FINGERPRINT_DIGITS]


@contextlib.contextmanager
def _refusals(path: pathlib.Path) -> Iterator[None]:
    """Turns what TensorStore makes of the operating system's refusals back into OSError."""
    try:
        yield
    except ValueError as error:
        if code := re.search(r"os_error_code='(\d+)'", str(error)):
            raise OSError(int(code[1]), os.strerror(int(code[1])), str(path)) from error
        raise


def _check_room(path: pathlib.Path, size: int) -> None:
    """Refuses to write more bytes than there is room for; TensorStore would print pages of it."""
    disk = shutil.disk_usage(path)
    if disk.total and disk.free < size:  # some network disks tell nothing
        raise CheckpointError(
            f"no room for {path.name}: it takes {size / 1e6:.1f} MB, "
            f"the disk has {disk.free / 1e6:.1f} MB"
        )


def fingerprint(arrays: Mapping[str, Any]) -> str:
    """Computes the fingerprint that `save_arrays` returns, without writing anything."""
    digest = hashlib.sha256()
    for name in sorted(arrays):
        _add_to_digest(digest, name, np.asarray(arrays[name], order="C"))
    return digest.hexdigest()[:_FINGERPRINT_DIGITS]


def _alone() -> ocp.options.MultiprocessingOptions:
    """Lets this process write while others do not: Orbax would wait for them."""
    me = jax.process_index()
    if jax.process_count() == 1:
        return ocp.options.MultiprocessingOptions()
    return ocp.options.MultiprocessingOptions(
        primary_host=me, active_processes={me}, barrier_sync_key_prefix=f"process{me}"
    )


def read_arrays(path: pathlib.Path, fingerprint: str) -> Iterator[tuple[str, np.ndarray]]:
    """Reads what `save_arrays` wrote on the host, array after array, in the stored dtypes.

    Args:
      path: the directory.
      fingerprint: that `save_arrays` returned.

    Yields:
      Names and arrays, in the order of names.

    Raises:
      CheckpointError: if arrays are missing or damaged, which may show only after the last one.
    """
    digest = hashlib.sha256()
    for piece, shapes in _piece_types(path).items():
        # TensorStore itself: Orbax would read the whole piece at once, and on a damaged file it
        # leaves running reads behind, which print a trace each.
        store = {"driver": "ocdbt", "base": piece.absolute().as_uri()}
        for name in sorted(shapes):
            spec = {"driver": "zarr", "kvstore": {**store, "path": name}}
            try:
                array = tensorstore.open(spec, open=True).result().read().result()
            except (ValueError, OSError) as error:
                first_line = str(error).split("\n")[0]
                raise CheckpointError(f"{piece} is damaged: {first_line}") from error
            _add_to_digest(digest, name, array)
            yield name, array
            del array  # before the next one comes
    if digest.hexdigest()[:_FINGERPRINT_DIGITS] != fingerprint:
        raise CheckpointError(
            f"{path} is damaged: its arrays do not have fingerprint {fingerprint}"
        )


def _add_to_digest(digest: Any, name: str, array: np.ndarray) -> None:
    digest.update(f"{name} {array.dtype} {array.shape}".encode())
    digest.update(array.reshape(-1).view(np.uint8).data)


def _pieces(arrays: Mapping[str, Any]) -> Iterator[list[str]]:
    """Returns the sorted names in groups of at most PIECE_BYTES, or of one array."""
    names: list[str] = []
    size = 0
    for name in sorted(arrays):
        if names and size + arrays[name].nbytes > PIECE_BYTES:
            yield names
            names, size = [], 0
        names.append(name)
        size += arrays[name].nbytes
    yield names


def array_types(path: pathlib.Path) -> dict[str, jax.ShapeDtypeStruct]:
    """Returns the names, shapes and stored dtypes of what `save_arrays` wrote, without reading it.

    Raises:
      CheckpointError: if it is missing.
    """
    return {name: x for types in _piece_types(path).values() for name, x in types.items()}


def _piece_directories(path: pathlib.Path) -> list[pathlib.Path]:
    if not path.is_dir():
        raise CheckpointError(f"{path} is missing")
    return sorted(path.iterdir())


def _piece_types(path: pathlib.Path) -> dict[pathlib.Path, dict[str, jax.ShapeDtypeStruct]]:
    with ocp.PyTreeCheckpointer() as checkpointer:
        out = {}
        for piece in _piece_directories(path):
            try:
                items = checkpointer.metadata(piece.absolute()).item_metadata
                out[piece] = {
                    name: jax.ShapeDtypeStruct(tuple(x.shape), x.dtype) for name, x in items.items()
                }
            except Exception as error:  # Orbax documents none
                raise CheckpointError(f"{piece} is damaged: its metadata cannot be read") from error
        return out


def load_arrays(
    path: pathlib.Path,
    wanted: Mapping[str, jax.ShapeDtypeStruct],
    *,
    sharding: jax.sharding.Sharding | Mapping[str, jax.sharding.Sharding] | None = None,
) -> dict[str, jax.Array]:
    """Reads some arrays of an Orbax item.

    Args:
      path: the item's directory.
      wanted: flat name -> shape, and dtype to cast to; other arrays are not read.
      sharding: where to put them, or each; the default device if None.

    Returns:
      Flat name -> array.

    Raises:
      CheckpointError: if arrays are missing or have another shape.
    """
    pieces = _piece_types(path)
    found = {name: x.shape for types in pieces.values() for name, x in types.items()}
    wrong = [
        f"{name} is {found.get(name, 'missing')}, want {x.shape}"
        for name, x in wanted.items()
        if found.get(name) != tuple(x.shape)
    ]
    if wrong:
        raise CheckpointError(f"{path}: {'; '.join(wrong[:5])}{' ...' if len(wrong) > 5 else ''}")
    sharding = sharding or jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
    out: dict[str, jax.Array] = {}
    with ocp.PyTreeCheckpointer() as checkpointer:
        for piece, types in pieces.items():
            target = {name: wanted[name] for name in types if name in wanted}
            how = {
                name: ocp.ArrayRestoreArgs(
                    sharding=sharding[name] if isinstance(sharding, Mapping) else sharding,
                    dtype=x.dtype,
                )
                for name, x in target.items()
            }
            if target:
                args = ocp.args.PyTreeRestore(item=target, restore_args=how, partial_restore=True)
                out |= checkpointer.restore(piece.absolute(), args=args)
    return out


def write_json(path: pathlib.Path, value: Any) -> None:
    """Writes pretty JSON."""
    path.write_text(json.dumps(value, indent=1, ensure_ascii=False) + "\n")


def read_settings(path: str | os.PathLike, file: str = SETTINGS_FILE) -> dict[str, Any]:
    """Reads a file of settings, that of a checkpoint unless it is said otherwise.

    Raises:
      CheckpointError: if the directory is no checkpoint, or of another format version.
    """
    path = pathlib.Path(path)
    if not path.is_dir():
        raise CheckpointError(f"no checkpoint directory at {path}")
    try:
        settings = json.loads((path / file).read_text())
    except OSError as error:
        raise CheckpointError(f"{path} is no checkpoint of this project: {error}") from None
    except ValueError as error:
        raise CheckpointError(f"{path / file} is damaged: {error}") from None
    if not isinstance(settings, dict):
        raise CheckpointError(f"{path / file} holds no settings")
    if settings.get("format_version") != FORMAT_VERSION:
        raise CheckpointError(
            f"{path} has format version {settings.get('format_version')}, want {FORMAT_VERSION}"
        )
    return settings


def to_dict(config: Any) -> dict[str, Any]:
    """Returns a config dataclass as plain JSON values."""
    return dataclasses.asdict(config)


def from_dict(cls: type[T], data: Mapping[str, Any]) -> T:
    """Builds the config dataclass `cls` from what `to_dict` made; what is missing has its default.

    Raises:
      CheckpointError: if names do not match the dataclass.
    """
    hints = typing.get_type_hints(cls)
    fields = dataclasses.fields(cls)  # pyright: ignore[reportArgumentType]
    needed = {f.name for f in fields if f.default is f.default_factory is dataclasses.MISSING}
    if odd := sorted(set(data) - {f.name for f in fields} | needed - set(data)):
        raise CheckpointError(f"{cls.__name__} in the settings: unknown or missing {odd}")
    return cls(**{name: _from_json(hints[name], value) for name, value in data.items()})


def _from_json(hint: Any, value: Any) -> Any:
    if dataclasses.is_dataclass(hint):
        return from_dict(hint, value)  # pyright: ignore[reportArgumentType]
    if isinstance(value, list):
        inner = (typing.get_args(hint) or (Any,))[0]
        if typing.get_origin(hint) is types.UnionType:  # tuple[...] | None
            inner = (typing.get_args(inner) or (Any,))[0]
        return tuple(_from_json(inner, v) for v in value)
    return value
