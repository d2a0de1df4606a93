"""Where parameters and batches lie on a mesh of devices.

Every network file ends in `SHARDING_RULES`: (regex of our flat names, PartitionSpec), first match
wins. The mesh has three axes: `data` (whole copies), `fsdp` (parameters and optimizer state in
slices) and `tensor` (matrices split inside a layer); batches are split over the first two.
"""

import re
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np
from jax.sharding import AbstractMesh, AxisType, Mesh, NamedSharding, PartitionSpec

from indextts2_jax.errors import InputError

AXES = ("data", "fsdp", "tensor")
BATCH_AXES = ("data", "fsdp")
Rules = Sequence[tuple[str, PartitionSpec]]
AnyMesh = Mesh | AbstractMesh


def make_mesh(
    data: int = -1, fsdp: int = 1, tensor: int = 1, *, devices: Sequence[Any] | None = None
) -> Mesh:
    """Makes a mesh over all devices of all processes.

    Args:
      data: size of the axis; -1 = as many as are left.
      fsdp: size of the axis.
      tensor: size of the axis.
      devices: to use; all if None.

    Returns:
      A mesh with the axes `data`, `fsdp` and `tensor`.

    Raises:
      InputError: if the sizes do not make up the number of devices.
    """
    devices = jax.devices() if devices is None else list(devices)
    sizes = _sizes(len(devices), data=data, fsdp=fsdp, tensor=tensor)
    # Auto: XLA places what is between; jax.make_mesh alone would give Explicit axes.
    return jax.make_mesh(sizes, AXES, devices=devices, axis_types=(AxisType.Auto,) * 3)


def abstract_mesh(num_devices: int, data: int = -1, fsdp: int = 1, tensor: int = 1) -> AbstractMesh:
    """Makes the mesh that so many devices would have, without any.

    Args:
      num_devices: of all processes.
      data: as in `make_mesh`.
      fsdp: as in `make_mesh`.
      tensor: as in `make_mesh`.

    Raises:
      InputError: as `make_mesh`.
    """
    sizes = _sizes(num_devices, data=data, fsdp=fsdp, tensor=tensor)
    return AbstractMesh(sizes, AXES, axis_types=(AxisType.Auto,) * 3)


def _sizes(num_devices: int, **wanted: int) -> tuple[int, ...]:
    open_axes = [name for name, size in wanted.items() if size == -1]
    known = int(np.prod([size for size in wanted.values() if size != -1]))
    if len(open_axes) == 1 and known > 0 and num_devices % known == 0:
        wanted[open_axes[0]] = num_devices // known
    sizes = tuple(wanted[axis] for axis in AXES)
    if min(sizes) < 1 or np.prod(sizes) != num_devices:
        asked = ", ".join(f"{name} {size}" for name, size in zip(AXES, sizes, strict=True))
        raise InputError(f"a mesh of {asked} does not make up {num_devices} devices")
    return sizes


def batch_sharding(mesh: AnyMesh) -> NamedSharding:
    """Returns rows of a batch over all devices but those of one tensor group."""
    return NamedSharding(mesh, PartitionSpec(BATCH_AXES))


def replicated(mesh: AnyMesh) -> NamedSharding:
    """Returns the whole array on every device."""
    return NamedSharding(mesh, PartitionSpec())


def batch_parts(mesh: AnyMesh) -> int:
    """Says in how many parts the rows of a batch are split."""
    return int(np.prod([mesh.shape[axis] for axis in BATCH_AXES]))


def shardings(arrays: Mapping[str, Any], rules: Rules, mesh: AnyMesh) -> dict[str, NamedSharding]:
    """Finds the sharding of every array.

    Args:
      arrays: flat name -> anything with a shape.
      rules: regexes of names and their specs; first match wins, no match is replicated.
      mesh: the mesh.

    Returns:
      Flat name -> sharding. Mesh axes that do not divide the array's axis are left out.
    """
    return {
        name: NamedSharding(mesh, _spec(name, x.shape, rules, mesh)) for name, x in arrays.items()
    }


def _spec(name: str, shape: Sequence[int], rules: Rules, mesh: AnyMesh) -> PartitionSpec:
    for pattern, spec in rules:
        if re.fullmatch(pattern, name) and len(spec) <= len(shape):
            axes = [
                axis if axis is not None and size % mesh.shape[axis] == 0 else None
                for axis, size in zip(spec, shape, strict=False)
            ]
            return PartitionSpec(*axes)
    return PartitionSpec()


def prefixed(rules: Rules, prefix: str) -> tuple[tuple[str, PartitionSpec], ...]:
    """Returns the same rules for names that begin with `prefix`."""
    return tuple((re.escape(prefix) + pattern, spec) for pattern, spec in rules)
