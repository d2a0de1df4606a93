"""Imports go down only: stages never import each other, shared code imports no stage."""

import ast
import pathlib

import pytest

PACKAGE = pathlib.Path(__file__).resolve().parents[1] / "indextts2_jax"
STAGES = {"audio", "text", "prompt", "emotion", "t2s", "s2m", "vocoder"}
SHARED = {"nn", "errors", "convert"}  # what a stage may import beside itself


def imports(path: pathlib.Path) -> set[str]:
    """First level below `indextts2_jax` of everything that a file imports."""
    out = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module:
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        elif isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        else:
            continue
        out |= {n.split(".")[1] for n in names if n.startswith("indextts2_jax.")}
    return out


@pytest.mark.parametrize("stage", sorted(STAGES | {"nn"}))
def test_a_stage_imports_itself_and_shared_code_alone(stage):
    for path in (PACKAGE / stage).rglob("*.py"):
        assert imports(path) <= {stage} | SHARED, path.name


@pytest.mark.parametrize("module", ["convert", "checkpoint", "errors"])
def test_shared_modules_import_no_stage(module):
    assert imports(PACKAGE / f"{module}.py") <= SHARED


def test_torch_is_imported_in_one_file_alone():
    for path in PACKAGE.rglob("*.py"):
        assert ("import torch" in path.read_text()) == (path.name == "torch_files.py"), path.name
