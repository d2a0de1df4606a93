"""How fast a run steps on the devices that are there: seconds, tokens, MFU and memory.

    python -m train.benchmark --config configs/t2s_1gpu.py
    python -m train.benchmark --config configs/s2m_8xa100.py --longest --steps 50 data.budget=32768

The step, the mesh and the shapes of batches are those of `train.plan`; weights and batches are
random, so that neither a checkpoint nor data are needed, and nothing is written. Time for data and
for the host is not counted: a run has that in its column `data_wait`.
"""

import argparse
import dataclasses
import json
import pathlib
import sys
import time
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np

from indextts2_jax import programs
from indextts2_jax.errors import InputError
from train.data.config import LENGTHS
from train.estimate import memory as plan_memory
from train.estimate.inputs import find_stage, make_inputs
from train.run import config, loop
from train.run.config import Config
from train.run.devices import peak_flops
from train.run.step import Step, TrainState, make_step, to_devices
from train.run.task import Arrays, Batch

STEPS = 20
_WARM_STEPS = 2  # the first one compiles
_IDS = 2, 30  # of text and codes: even the smallest vocabularies have them


@dataclasses.dataclass(frozen=True)
class Report:
    """What was measured.

    Attributes:
      trainer: "t2s" or "s2m".
      stage: its name.
      device_kind: `jax.Device.device_kind`.
      mesh: axis -> size.
      dtype: of the computation.
      remat: whether activations are computed again.
      rows: of a batch, on all devices.
      codes: of a row.
      compile_s: seconds of the first step, which compiles.
      step_s: mean seconds of a step.
      tokens_per_s: positions of all devices, padding included.
      tflops: 1e12 floating point operations a second of one device, counted as for MFU.
      mfu: share of the device's peak; None if that is unknown.
      peak_bytes: most memory of a device that was taken at once; None where JAX does not say.
      planned_bytes: what `train.plan` expects.
    """

    trainer: str
    stage: str
    device_kind: str
    mesh: dict[str, int]
    dtype: str
    remat: bool
    rows: int
    codes: int
    compile_s: float
    step_s: float
    tokens_per_s: float
    tflops: float
    mfu: float | None
    peak_bytes: int | None
    planned_bytes: int


def benchmark(run: Config, *, stage: str = "", longest: bool = False, steps: int = STEPS) -> Report:
    """Trains some steps on a random batch.

    Args:
      run: the configuration; `checkpoint` and `data.paths` may be empty.
      stage: name of the stage, "" for the first.
      longest: take the batch of the longest utterances, not that of typical ones.
      steps: that are timed.

    Raises:
      InputError: if the configuration or the mesh cannot be used, or a loss is not finite.
    """
    if steps < 1:
        raise InputError(f"steps is {steps}; it must be at least 1")
    chosen = find_stage(run, stage)
    mesh = loop.make_mesh(run)
    inputs = make_inputs(run, chosen, mesh)
    step = make_step(run, chosen, mesh, inputs.task(run.remat))
    shapes = inputs.largest if longest else inputs.typical
    if "codes" not in shapes:
        raise InputError(f"{run.trainer} cannot be timed here; its runs print tokens/s")
    batch = to_devices(random_batch(shapes), mesh)
    frozen, state = _begin(step)

    started = time.perf_counter()
    state, compile_s = _run(step, state, frozen, batch, 1), time.perf_counter() - started
    state = _run(step, state, frozen, batch, _WARM_STEPS - 1)
    started = time.perf_counter()
    _run(step, state, frozen, batch, steps)
    step_s = (time.perf_counter() - started) / steps

    device = mesh.devices.flat[0]
    flops = step.task.flops(batch) / step_s / mesh.size
    peak = peak_flops(device.device_kind)
    memory: Mapping[str, int] = device.memory_stats() or {}
    (rows, codes) = batch["codes"].shape
    return Report(
        trainer=run.trainer,
        stage=chosen.name,
        device_kind=device.device_kind,
        mesh=dict(mesh.shape),
        dtype=run.compute_dtype,
        remat=run.remat,
        rows=rows,
        codes=codes,
        compile_s=compile_s,
        step_s=step_s,
        tokens_per_s=step.task.tokens(batch) / step_s,
        tflops=flops / 1e12,
        mfu=None if peak is None else flops / peak,
        peak_bytes=memory.get("peak_bytes_in_use"),
        planned_bytes=plan_memory.needed_bytes(step, inputs, shapes, remat=run.remat),
    )


def random_batch(shapes: Batch) -> dict[str, np.ndarray]:
    """Makes a batch of these shapes in which nothing is padding."""
    rng = np.random.default_rng(0)
    lengths = {length: field for field, length in LENGTHS.items()}
    out = {}
    for name, x in shapes.items():
        if name == "weight":
            out[name] = np.ones(x.shape, x.dtype)
        elif name in lengths:
            out[name] = np.full(x.shape, shapes[lengths[name]].shape[1], x.dtype)
        elif name == "word_frames":  # they cover the mel
            out[name] = np.full(x.shape, shapes["mel"].shape[1] // x.shape[1], x.dtype)
        elif x.dtype == np.int32:
            out[name] = rng.integers(*_IDS, x.shape, x.dtype)
        else:
            out[name] = rng.standard_normal(x.shape, np.float32).astype(x.dtype)
    return out


def _begin(step: Step) -> tuple[dict[str, jax.Array], TrainState]:
    """Makes random frozen arrays, and the state before the first step."""
    places = {**step.frozen_shardings, **step.kept_shardings}
    arrays = jax.jit(lambda key: step.random(key, places), out_shardings=places)(jax.random.key(0))
    kept = {name: arrays.pop(name) for name in step.kept_shardings}
    return arrays, step.start(kept, jax.random.key_data(jax.random.key(1)))


def _run(step: Step, state: TrainState, frozen: Arrays, batch: Batch, steps: int) -> TrainState:
    metrics: dict[str, Any] = {"finite": True}
    for _ in range(steps):
        state, metrics = step.train(state, frozen, batch)
    if not bool(metrics["finite"]):  # waits for the step
        raise InputError(f"the loss is {float(metrics['loss'])}: no figures of such a step")
    return state


def describe(report: Report) -> str:
    """Tells the report as a text."""
    mesh = " x ".join(f"{name} {size}" for name, size in report.mesh.items())
    peak = report.peak_bytes
    taken = "?" if peak is None else f"{peak / 2**30:.2f} GiB"
    return "\n".join(
        [
            f"trainer {report.trainer}, stage {report.stage}, {report.device_kind}, mesh {mesh}, "
            f"{report.dtype}{', remat' if report.remat else ''}",
            f"batch          {report.rows} rows of {report.codes} codes",
            f"first step     {report.compile_s:.1f} s (compiles)",
            f"step           {report.step_s:.4g} s ({1 / report.step_s:.3g} steps/s)",
            f"tokens/s       {report.tokens_per_s:,.0f}",
            f"TFLOP/s        {report.tflops:.4g} a device"
            + ("" if report.mfu is None else f", MFU {report.mfu:.1%}"),
            f"memory         {taken} a device at most; planned {report.planned_bytes / 2**30:.2f} "
            "GiB",
        ]
    )


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command line; returns the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m train.benchmark",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--config", type=pathlib.Path, required=True, help="file in configs/")
    parser.add_argument("assignments", nargs="*", metavar="key=value", help="changes of it")
    parser.add_argument("--stage", default="", help="its name; the first one if not given")
    parser.add_argument("--longest", action="store_true", help="batch of the longest utterances")
    parser.add_argument("--steps", type=int, default=STEPS, help="that are timed")
    parser.add_argument("--json", action="store_true", help="print numbers")
    args = parser.parse_intermixed_args(argv)
    try:
        run = config.load(args.config, args.assignments)
        programs.enable_compilation_cache()
        report = benchmark(run, stage=args.stage, longest=args.longest, steps=args.steps)
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(json.dumps(dataclasses.asdict(report), indent=1) if args.json else describe(report))
    return 0


if __name__ == "__main__":
    sys.exit(main())
