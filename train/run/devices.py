"""What devices can do, by kind: peak FLOP/s and memory."""

import re
from collections.abc import Mapping

# Dense bfloat16 FLOP/s of one device (data sheets), by regex of its `device_kind`.
_PEAK_FLOPS = {
    r"NVIDIA (H100 80GB HBM3|H200)": 989e12,  # SXM; PCIe and NVL are slower
    r"NVIDIA A100.*": 312e12,
    r"TPU v4": 275e12,
    r"TPU v5( lite|e)": 197e12,
    r"TPU v5p?": 459e12,
    r"TPU v6( lite|e)": 918e12,
}

# Memory of one device in GiB (data sheets), by regex of its `device_kind`.
_MEMORY_GIB = {
    r"NVIDIA H200": 140,
    r"NVIDIA H100 80GB HBM3": 80,
    r"NVIDIA A100.*80GB.*": 80,
    r"NVIDIA A100.*40GB.*": 40,
    r"TPU v4": 32,
    r"TPU v5( lite|e)": 16,
    r"TPU v5p?": 95,
    r"TPU v6( lite|e)": 32,
}

KINDS = ", ".join(_MEMORY_GIB)  # for messages, as regexes


def peak_flops(device_kind: str) -> float | None:
    """Finds what a device can do at best.

    Args:
      device_kind: `jax.Device.device_kind`.

    Returns:
      Dense bfloat16 FLOP/s; None if it is not in our table, such as a CPU.
    """
    return _find(_PEAK_FLOPS, device_kind)


def memory_bytes(device_kind: str) -> int | None:
    """Finds how much memory a device has, in bytes; None if its kind is not in our table."""
    gib = _find(_MEMORY_GIB, device_kind)
    return None if gib is None else int(gib) << 30


def _find(table: Mapping[str, float], device_kind: str) -> float | None:
    return next((x for kind, x in table.items() if re.fullmatch(kind, device_kind)), None)
