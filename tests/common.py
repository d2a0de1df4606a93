"""What several test files share."""

import pathlib

import numpy as np
import pytest

ROOT = pathlib.Path(__file__).resolve().parents[1]
GOLDEN = ROOT / "tests" / "golden"
SHARED = ROOT.parent / "shared"  # development-only reference data; absent in a normal checkout

needs_shared = pytest.mark.skipif(
    not (SHARED / "golden").is_dir(), reason="the development goldens (../shared) are not here"
)


def relative_error(got, want) -> float:
    """max |got - want| / max |want|."""
    got, want = np.asarray(got, np.float64), np.asarray(want, np.float64)
    assert got.shape == want.shape, f"shape {got.shape}, want {want.shape}"
    return float(np.abs(got - want).max() / np.abs(want).max())


def load_golden(name: str) -> dict[str, np.ndarray]:
    """Reads `tests/golden/<name>.npz`."""
    with np.load(GOLDEN / f"{name}.npz") as file:
        return dict(file)


def weights_of(golden: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The torch-named weights (`w/<name>`) of a golden file."""
    return {k[2:]: v for k, v in golden.items() if k.startswith("w/")}


def manifest(name: str) -> dict[str, tuple[int, ...]]:
    """Names and shapes of a released weight file, from `../shared/manifests`."""
    out = {}
    for line in (SHARED / "manifests" / f"{name}.tsv").read_text().splitlines():
        key, shape, *_ = [*line.split("\t"), "", ""]
        if key and not key.startswith("#") and key != "key":
            digits = shape.strip("() ").replace("scalar", "").replace("x", ",").split(",")
            out[key] = tuple(int(d) for d in digits if d.strip())
    return out


def unread_rules(rules, texts):
    """Finds the rules (name, pattern, reading) of a table that change none of the texts."""
    unread = dict(enumerate(rules))
    for text in texts:
        for i, (_, pattern, reading) in enumerate(rules):
            read = pattern.sub(reading, text)
            if read != text:
                unread.pop(i, None)
            text = read
    return unread
