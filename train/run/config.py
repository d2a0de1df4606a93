"""Run configurations: ml_collections ConfigDicts, one file per run in `configs/`.

    python -m train.t2s --config configs/t2s_tiny.py --help
    python -m train.t2s --config configs/t2s_tiny.py checkpoint=CKPT out=RUN stages.0.steps=500

A file's `get_config()` starts from the trainer's `default_config()`, so that a key which no trainer
knows fails at start, with the nearest one that exists.
"""

import ast
import difflib
import importlib.util
import json
import pathlib
import re
from collections.abc import Iterable, Mapping
from typing import Any

from ml_collections import ConfigDict

from indextts2_jax.checkpoint import store
from indextts2_jax.errors import InputError

# A ConfigDict; type checkers know nothing of the attributes of one.
Config = Any


def load(path: pathlib.Path, assignments: Iterable[str] = (), *, key: str = "stages") -> ConfigDict:
    """Reads a configuration file and applies `key=value` assignments.

    Args:
      path: Python file with `get_config()`.
      assignments: as typed, e.g. `optimizer.rate=1e-4`, `stages.0.steps=10`.
      key: which tells that it is a configuration of this kind: `stages` of runs of a trainer.

    Raises:
      InputError: if the file or an assignment cannot be used.
    """
    spec = importlib.util.spec_from_file_location("_run_config", path)
    if spec is None or spec.loader is None or not path.is_file():
        raise InputError(f"{path} is no configuration file")
    module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
        config = module.get_config()
    except (AttributeError, KeyError, TypeError) as error:  # what a locked ConfigDict raises
        words = re.search(r'Key "\w+"', str(error)), re.search(r"Did you mean.*\?", str(error))
        text = "; ".join(m[0] for m in words if m) or str(error).splitlines()[0]
        raise InputError(f"{path}: {text}") from error
    if key not in config:
        raise InputError(f"{path} is of another command: it has no {key}")
    for assignment in assignments:
        assign(config, assignment)
    return config


def assign(config: ConfigDict, assignment: str) -> None:
    """Applies one `key=value`.

    Raises:
      InputError: if there is no such key, or the value is of another type.
    """
    name, equals, text = assignment.partition("=")
    if not equals:
        raise InputError(f"{assignment!r} is no key=value")
    known = flatten(config)
    if name not in known:
        close = difflib.get_close_matches(name, known, n=1)
        raise InputError(f"no such key: {name}" + (f"; did you mean {close[0]}?" if close else ""))
    old = known[name]
    try:
        value = ast.literal_eval(text)
    except (ValueError, SyntaxError):
        value = text
    if isinstance(old, str):
        value = text
    if isinstance(old, float) and isinstance(value, int) and not isinstance(value, bool):
        value = float(value)
    if isinstance(old, tuple) and not isinstance(value, tuple):
        value = (value,)
    if type(value) is not type(old):
        want = type(old).__name__
        raise InputError(f"{name}={text}: got {type(value).__name__}, want {want}, such as {old!r}")
    *folders, leaf = name.split(".")
    node: Any = config
    for folder in folders:
        node = node[int(folder)] if isinstance(node, tuple) else node[folder]
    node[leaf] = value


def flatten(value: Any, prefix: str = "") -> dict[str, Any]:
    """Finds every leaf by its dotted name; tuples of ConfigDicts are numbered."""
    if isinstance(value, Mapping | ConfigDict):
        items = value.items()
    elif isinstance(value, tuple) and value and isinstance(value[0], Mapping | ConfigDict):
        items = enumerate(value)
    else:
        return {prefix: value}
    out: dict[str, Any] = {}
    for key, inner in items:
        out |= flatten(inner, f"{prefix}.{key}" if prefix else str(key))
    return out


def to_json(config: ConfigDict) -> str:
    """Writes the configuration as sorted JSON of dotted names."""
    return json.dumps(flatten(config), indent=1, default=str)


def preset(architecture: Any) -> ConfigDict:
    """Makes a ConfigDict, which assignments can change, of an architecture dataclass."""
    return ConfigDict(store.to_dict(architecture)).lock()


def architecture(cls: type, values: ConfigDict) -> Any:
    """Makes the dataclass of `preset`'s numbers."""
    return store.from_dict(cls, values.to_dict())


def base_config() -> ConfigDict:
    """Returns what every trainer has; each adds `model`, `data` and `stages`."""
    return ConfigDict(
        {
            "checkpoint": "",  # the frozen encoders, tokenizer, and all that is not trained here
            "out": "",  # directory of the run
            "init": "scratch",  # or "checkpoint", or the directory of another checkpoint
            "seed": 0,
            "compute_dtype": "bfloat16",  # weights, optimizer state and sums stay float32
            "accumulation": 1,  # parts that a batch is computed in, one after the other
            "remat": False,  # compute activations again in the backward pass: less memory
            "mesh": {"data": -1, "fsdp": 1, "tensor": 1},  # -1: what is left
            "optimizer": {
                "b1": 0.9,
                "b2": 0.95,
                "epsilon": 1e-8,
                "decay": 0.01,
                "clip": 1.0,
                "adamw_only": (),  # regexes of further names that a stage with Muon gives to AdamW
            },
            "ema": 0.0,  # decay of an average of the weights that is published; 0 = off
            "lora": {"rank": 0, "alpha": 16.0, "targets": ()},  # rank 0 = train the weights
            "checkpoints": {"every": 1000, "keep": 3},  # steps
            "keep_best": "",  # metric, such as validation_loss: its best weights are kept as well
            "best_is": "min",  # or "max"
            "log_every": 10,
            "validate_every": 500,
            "sample_every": 1000,  # speak validation utterances (`RUN/samples`); 0 = never
            "samples": 2,  # how many
            "workers": 0,  # processes that load data
        }
    ).lock()


def base_stage() -> ConfigDict:
    """Returns what every stage of a run has."""
    return ConfigDict(
        {
            "name": "main",
            "steps": 100_000,
            "rate": 2e-4,  # paper section 4.1
            "optimizer": "adamw",  # or "muon": that for matrices, AdamW for the rest
            "muon_factor": 1.0,  # of `rate`, for these matrices
            "warmup": 1000,  # steps of linear growth to `rate`
            "schedule": "cosine",  # or "constant", "inverse_sqrt"
            "final_rate": 0.1,  # of `rate`, at the end of the cosine
            "train": (r".*",),  # regexes of parameter names; first these,
            "freeze": (),  # ... without these
        }
    ).lock()
