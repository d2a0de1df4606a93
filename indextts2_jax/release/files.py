"""Weight files of PyTorch: pickles and safetensors, read and written tensor by tensor.

PyTorch is imported here alone, and only when a function needs it.
"""

import dataclasses
import errno
import json
import pathlib
import pickle
import re
from collections.abc import Iterable, Mapping
from typing import Any

import ml_dtypes
import numpy as np

from indextts2_jax.convert import ConversionError
from indextts2_jax.release.foreign import foreign_pickle, foreign_safetensors

# The level of a file that holds the weights, per part; other entries are optimizers, epochs.
WRAPPERS = {"t2s": "model", "s2m": "net", "vocoder": "generator"}
SHARDS = ".safetensors.index.json"  # ends the name of the index of weights in several files
SAFETENSORS_DTYPES = {
    "bool": "BOOL",
    "uint8": "U8",
    "uint16": "U16",
    "uint32": "U32",
    "uint64": "U64",
    "int8": "I8",
    "int16": "I16",
    "int32": "I32",
    "int64": "I64",
    "float16": "F16",
    "bfloat16": "BF16",
    "float32": "F32",
    "float64": "F64",
}


@dataclasses.dataclass(frozen=True)
class WeightFile:
    """What a weight file holds.

    Attributes:
      tensors: key -> torch tensor, in the order of the file; keys of nested dictionaries are joined
        by "/", and a file that is one tensor has the key "".
      others: keys of everything else (optimizer settings, counts of epochs).
      metadata: of a safetensors file.
    """

    tensors: Mapping[str, Any]
    others: tuple[str, ...] = ()
    metadata: Mapping[str, str] | None = None


def read_weights(path: pathlib.Path) -> WeightFile:
    """Reads a weight file, memory-mapped where the format allows.

    A pickle never runs code (`weights_only`).

    Args:
      path: of a pickle of PyTorch, a safetensors file, or the index of one in several files.

    Raises:
      ConversionError: if the file is no plain weight file.
    """
    import torch

    try:
        if path.name.endswith(SHARDS):
            return _read_shards(path)
        if path.suffix == ".safetensors":
            return _read_safetensors(path)
        content = _read_pickle(path)
    except ConversionError:
        raise
    except OSError as error:
        raise ConversionError(f"{path}: cannot be read: {error.strerror or error}") from error
    except Exception as error:  # PyTorch and safetensors document none
        first = next(iter(str(error).splitlines()), "") or type(error).__name__
        raise ConversionError(f"{path}: cannot be read: {first}") from error
    tensors: dict[str, Any] = {}
    others: list[str] = []

    def walk(prefix: str, value: Any) -> None:
        if isinstance(value, torch.Tensor):
            tensors[prefix] = value
        elif isinstance(value, Mapping):
            for key, inner in value.items():
                walk(f"{prefix}/{key}" if prefix else str(key), inner)
        else:
            others.append(prefix)

    walk("", content)
    return WeightFile(tensors, tuple(others))


def _read_pickle(path: pathlib.Path) -> Any:
    """Reads what `torch.save` wrote, and NumPy's scalars and arrays in it."""
    import torch

    if what := foreign_pickle(path):
        raise ConversionError(f"{path}: {what}")
    with torch.serialization.safe_globals(_numpy_globals()):
        try:
            try:
                return torch.load(path, map_location="cpu", weights_only=True, mmap=True)
            except RuntimeError:  # files of the old, unmappable format
                return torch.load(path, map_location="cpu", weights_only=True)
        except pickle.UnpicklingError as error:
            if unsafe := re.search(r"GLOBAL (\S+) was not|but got <class '(\S+)'>", str(error)):
                raise ConversionError(
                    f"{path}: not a plain weight file (it holds objects that loading would have to "
                    f"run: {unsafe[1] or unsafe[2]})"
                ) from error
            raise ConversionError(f"{path}: is damaged, or no file of PyTorch") from error


def _numpy_globals() -> list[Any]:
    """Returns what pickles of NumPy's numbers name; nothing of it runs code."""
    functions = {
        "scalar": np.float32(0).__reduce__()[0],
        "_reconstruct": np.array(0).__reduce__()[0],
    }
    modules = ("numpy.core.multiarray", "numpy._core.multiarray")  # of NumPy 1 and 2
    dtypes = {type(np.dtype(code)) for code in np.typecodes["All"].replace("O", "")}
    return [
        *((f, f"{module}.{name}") for module in modules for name, f in functions.items()),
        (np.ndarray, "numpy.ndarray"),
        (np.dtype, "numpy.dtype"),
        *dtypes,
    ]


def _read_shards(path: pathlib.Path) -> WeightFile:
    """Reads safetensors files by their index, as if they were one file."""
    index = json.loads(path.read_text(encoding="utf-8"))
    places = index.get("weight_map") if isinstance(index, dict) else None
    if not isinstance(places, dict) or not places:
        raise ConversionError(f"{path}: holds no weight_map")
    tensors: dict[str, Any] = {}
    metadata = None
    for name in sorted(set(map(str, places.values()))):
        shard = path.parent / name
        if pathlib.PurePath(name).name != name:
            raise ConversionError(f"{path}: leads out of its directory: {name}")
        if not shard.is_file():
            raise ConversionError(f"{path}: {name} is missing")
        file = _read_safetensors(shard)
        metadata = metadata or file.metadata
        tensors |= file.tensors
    if odd := sorted(tensors.keys() ^ places.keys()):
        raise ConversionError(f"{path}: does not fit its files, e.g. in {odd[0]}")
    return WeightFile(tensors, metadata=metadata)


def _read_safetensors(path: pathlib.Path) -> WeightFile:
    from safetensors.torch import load_file

    if what := foreign_safetensors(path):
        raise ConversionError(f"{path}: {what}")
    tensors = load_file(path)  # in an order of its own
    with open(path, "rb") as file:
        header = json.loads(file.read(int.from_bytes(file.read(8), "little")))
    metadata = header.pop("__metadata__", None)
    order = sorted(header, key=lambda key: header[key]["data_offsets"])
    return WeightFile({key: tensors[key] for key in order}, metadata=metadata)


def unwrap(name: str, keys: Iterable[str]) -> tuple[str, dict[str, str]]:
    """Removes the wrapper level and `module.` prefixes that trainers leave in a file.

    Args:
      name: of the part.
      keys: of the file's tensors.

    Returns:
      The wrapper ("" for none), and torch name -> key of the tensors below it, in order. S2M keeps
      its `net/<network>/` levels.

    Raises:
      ConversionError: if two keys lead to one name.
    """
    wrapper = WRAPPERS.get(name, "")
    inside = [key for key in keys if wrapper and key.startswith(f"{wrapper}/")]
    if not inside:
        wrapper, inside = "", list(keys)
    prefix = f"{wrapper}/" if name != "s2m" else ""
    names = {re.sub(r"(^|/)module\.", r"\1", key.removeprefix(prefix)): key for key in inside}
    if len(names) < len(inside):
        twice = sorted(set(inside) - set(names.values()))
        raise ConversionError(f"tensors with and without `module.`: {', '.join(twice[:5])}")
    return wrapper, names


def to_numpy(tensor: Any) -> np.ndarray:
    """Views a torch tensor as NumPy, without a copy, bfloat16 included."""
    import torch

    if tensor.dtype == torch.bfloat16:
        return tensor.contiguous().view(torch.uint16).numpy().view(ml_dtypes.bfloat16)
    return tensor.numpy()


def write_weights(
    path: pathlib.Path, tensors: Mapping[str, np.ndarray], metadata: Mapping[str, str] | None
) -> None:
    """Writes a weight file, a pickle of PyTorch or safetensors by its name.

    Args:
      path: of the file.
      tensors: key -> contiguous array, in the order of the file; "/" in a key nests dictionaries.
      metadata: of a safetensors file.

    Raises:
      OSError: for a full disk and the like.
    """
    if path.suffix == ".safetensors":
        _write_safetensors(path, tensors, metadata)
        return
    import torch

    root: dict[str, Any] = {}
    for key, x in tensors.items():
        *levels, leaf = key.split("/")
        level = root
        for name in levels:
            level = level.setdefault(name, {})
        flat = x.reshape(-1)  # NumPy's strides of axes of length 1 are not PyTorch's
        if x.dtype == ml_dtypes.bfloat16:
            tensor = torch.from_numpy(flat.view(np.int16)).view(torch.bfloat16)
        else:
            tensor = torch.from_numpy(flat)
        level[leaf] = tensor.reshape(x.shape)
    try:
        torch.save(root[""] if root.keys() == {""} else root, path)
    except RuntimeError as error:  # what PyTorch makes of a full disk
        raise OSError(errno.ENOSPC, f"is the disk full? {str(error).splitlines()[0]}") from error


def _write_safetensors(
    path: pathlib.Path, tensors: Mapping[str, np.ndarray], metadata: Mapping[str, str] | None
) -> None:
    """Writes it; unlike the library's writer, keeps the order of the tensors."""
    header: dict[str, Any] = {} if metadata is None else {"__metadata__": metadata}
    start = 0
    for key, x in tensors.items():
        header[key] = {
            "dtype": SAFETENSORS_DTYPES[str(x.dtype)],
            "shape": x.shape,
            "data_offsets": [start, start := start + x.nbytes],
        }
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)
    with open(path, "wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for x in tensors.values():
            file.write(x.reshape(-1).view(np.uint8).data)


def require_torch() -> None:
    """Says what to install where PyTorch is missing.

    Raises:
      ConversionError: if it is.
    """
    try:
        import torch  # noqa: F401
    except ImportError:
        raise ConversionError(
            "converting needs PyTorch: pip install 'indextts2-jax[convert]'"
        ) from None
