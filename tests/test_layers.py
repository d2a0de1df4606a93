"""Imports go down only: stages never import each other, shared code imports no stage."""

import ast
import pathlib

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "indextts2_jax"
STAGES = {"audio", "text", "prompt", "emotion", "t2s", "s2m", "vocoder"}
SHARED = {"nn", "errors", "outputs", "convert"}  # what a stage may import beside itself
ROOM_LIMIT = 24


def modules(path: pathlib.Path) -> set[str]:
    """Full names of everything that a file imports; a name of a module may follow."""
    out = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module:
            out |= {f"{node.module}.{alias.name}" for alias in node.names}
        elif isinstance(node, ast.Import):
            out |= {alias.name for alias in node.names}
    return out


def needed(path: pathlib.Path) -> set[str]:
    """Full names of everything that a file imports, and what that imports of the project."""
    out, left = set(), [path]
    while left:
        for name in modules(left.pop()) - out:
            out.add(name)
            files = (ROOT / f"{n.replace('.', '/')}.py" for n in (name, name.rpartition(".")[0]))
            left += [file for file in files if file.is_file()]
    return out


def imports(path: pathlib.Path) -> set[str]:
    """First level below `indextts2_jax` of everything that a file imports."""
    return {n.split(".")[1] for n in modules(path) if n.startswith("indextts2_jax.")}


def rooms(folder: str) -> dict[str, set[str]]:
    """Room of a folder -> rooms of it that its files import."""
    out: dict[str, set[str]] = {}
    for path in (ROOT / folder).rglob("*.py"):
        if path.name == "__init__.py":
            continue
        room = path.relative_to(ROOT / folder).with_suffix("").parts[0]
        to = {n.split(".")[1] for n in modules(path) if n.startswith(f"{folder}.")}
        out.setdefault(room, set()).update(to - {room})
    return {room: to & set(out) for room, to in out.items()}


@pytest.mark.parametrize("stage", sorted(STAGES | {"nn"}))
def test_a_stage_imports_itself_and_shared_code_alone(stage):
    for path in (PACKAGE / stage).rglob("*.py"):
        assert imports(path) <= {stage} | SHARED, path.name


@pytest.mark.parametrize("module", ["convert", "checkpoint/store", "errors", "outputs", "sharding"])
def test_shared_modules_import_no_stage(module):
    assert not imports(PACKAGE / f"{module}.py") & STAGES


def test_the_package_never_imports_the_trainer():
    for path in PACKAGE.rglob("*.py"):
        assert not {n for n in modules(path) if n.split(".")[0] == "train"}, path


def test_the_trainer_itself_knows_no_stage():
    for path in (ROOT / "train" / "run").rglob("*.py"):
        assert not imports(path) & (STAGES - {"audio"}), path.name


@pytest.mark.parametrize("place", ["text", "request", "audio/wav.py", "errors.py", "outputs.py"])
def test_texts_recordings_and_requests_need_no_jax(place):
    path = PACKAGE / place
    for file in path.rglob("*.py") if path.is_dir() else [path]:
        assert not {n for n in needed(file) if n.split(".")[0] in {"jax", "flax"}}, file.name


def test_reading_a_corpus_needs_no_jax():
    found = modules(ROOT / "train" / "corpus" / "recordings.py")
    assert not {n for n in found if n.split(".")[0] in {"jax", "flax"}}


@pytest.mark.parametrize("folder", ["indextts2_jax", "train"])
def test_rooms_are_few_and_have_no_circle(folder):
    left = rooms(folder)
    assert len(left) <= ROOM_LIMIT
    while done := [room for room, to in left.items() if not to & set(left)]:
        for room in done:
            del left[room]
    assert not left


def test_torch_is_imported_in_one_file_alone():
    for path in PACKAGE.rglob("*.py"):
        expected = path == PACKAGE / "release" / "files.py"
        assert ("import torch" in path.read_text()) == expected, path.name
