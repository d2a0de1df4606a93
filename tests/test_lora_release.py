"""LoRA of a converted release, from recordings to a PyTorch release with the adapted weights."""

import re

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from indextts2_jax import cli, convert
from indextts2_jax.checkpoint.parts import PARTS, Settings, load_part
from indextts2_jax.nn import pytree
from indextts2_jax.release.texts import FILES
from tests.common import ROOT
from tests.test_prepare import vowel, write_corpus
from train import prepare, t2s
from train.corpus.recordings import Limits
from train.run import config, loop, lora

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def data(converted, tmp_path_factory):
    """Six recordings of two voices, prepared."""
    text = "Hello there, how are you?"
    items = {f"v{i % 2}/{i}": (vowel(1.2 + 0.1 * i, 110 + 20 * i), text) for i in range(6)}
    rows = write_corpus(tmp_path_factory.mktemp("corpus"), items)
    out = tmp_path_factory.mktemp("data") / "data"
    options = prepare.Options(Limits(max_seconds=3.0), speeds=0)
    prepare.prepare(rows, converted, out, options, batch_seconds=10)
    return out


@pytest.fixture(scope="module")
def tuned(converted, data, tmp_path_factory):
    """The checkpoint of a short run, and the release made of it."""
    folder = tmp_path_factory.mktemp("lora")
    changes = (
        "lora.rank=4",
        "compute_dtype=float32",
        "accumulation=1",
        "workers=0",
        "data.budget=800",
        "data.validation=0",
        "stages.0.steps=3",
        "stages.0.rate=1e-2",
        "stages.0.warmup=1",
    )
    paths = f"checkpoint={converted}", f"data.paths={data}", f"out={folder / 'run'}"
    run = config.load(ROOT / "configs" / "t2s_1gpu.py", (*paths, *changes))
    loop.run(t2s.setup(run))
    checkpoint, release = folder / "run" / "checkpoint", folder / "release"
    assert cli.main(["convert", "--reverse", str(checkpoint), "--out", str(release)]) == 0
    return checkpoint, release


def read(path):
    """Names -> (dtype, shape, bytes) of a weight file, at any level of it."""
    is_pickle = path.suffix != ".safetensors"
    content = torch.load(path, weights_only=True) if is_pickle else load_file(path)
    out = {}

    def walk(name, value):
        if isinstance(value, dict):
            for key, inner in value.items():
                walk((*name, key), inner)
        elif isinstance(value, torch.Tensor):
            content = value.contiguous().view(-1).view(torch.uint8).numpy().tobytes()
            out[name] = value.dtype, tuple(value.shape), content

    walk((), content)
    return out


def test_what_lora_does_not_touch_is_the_release(release, tuned):
    _, tuned_release = tuned
    for name, place in FILES.items():
        if name in ("t2s", "tokenizer"):
            continue
        assert read(tuned_release / place) == read(release / place), name
    for path in release.rglob("*"):
        if path.is_file() and path.suffix in (".json", ".yaml", ".model"):
            assert (tuned_release / path.relative_to(release)).read_bytes() == path.read_bytes()


def test_adapted_kernels_differ_and_are_those_of_the_checkpoint(release, converted, tuned):
    checkpoint, tuned_release = tuned
    before, after = (read(folder / FILES["t2s"]) for folder in (release, tuned_release))
    assert list(before) == list(after)  # in the same order
    ours = {n: np.asarray(x) for n, x in pytree.params(_t2s(checkpoint)).items()}
    theirs = torch.load(tuned_release / FILES["t2s"], weights_only=True)
    adapted = set()
    for our_name, x in ours.items():
        [(torch_name, tensor)] = convert.to_torch({our_name: x}, PARTS["t2s"].rules).items()
        np.testing.assert_array_equal(theirs[torch_name].numpy(), tensor, err_msg=torch_name)
        if any(re.fullmatch(target, our_name) for target in lora.T2S_TARGETS):
            adapted.add((torch_name,))
    assert len(adapted) == 4 * Settings.load(converted).configs["t2s"].num_layers
    assert {name for name in before if before[name] != after[name]} == adapted


def _t2s(checkpoint):
    return load_part(checkpoint, Settings.load(checkpoint), "t2s")
