"""Bytes of a device that a step takes, counted from shapes, and XLA's own numbers beside them.

    Step, shapes of a batch -> state_bytes, step_bytes, activation_bytes

`train.plan` says what is counted as what, and how well it agrees.
"""

import dataclasses
import math
from collections.abc import Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax.extend.core import ClosedJaxpr, jaxpr_as_fun

from indextts2_jax import sharding
from train.estimate.inputs import Inputs, find_stage, make_inputs
from train.run import lora
from train.run.config import Config
from train.run.step import Step, make_step
from train.run.task import Arrays, Batch, Task

NUM_SHOWN = 10  # largest arrays

# Else XLA:CPU starts what it can as early as it can.
_SPARING = {"xla_cpu_scheduler_type": "CPU_SCHEDULER_TYPE_MEMORY_OPTIMIZED"}


def state_bytes(step: Step) -> dict[str, int]:
    """Counts bytes of a device that last from step to step."""
    state = step.abstract_state
    return {
        "parameters": _held(state.current),
        "optimizer": _held(state.optimizer),
        "average": _held(state.average),
        "frozen": _held(_abstract_frozen(step)),
    }


def step_bytes(step: Step, batch: Batch) -> dict[str, int]:
    """Counts bytes of a device that a step takes, without activations."""
    tensor = step.mesh.shape["tensor"]
    copies = 0
    for name, place in _weight_shardings(step).items():
        dtype = _weight_dtype(step, name)
        if dtype != jnp.float32 or "fsdp" in place.spec:
            split = tensor if "tensor" in place.spec else 1
            copies += math.prod(step.task.shapes[name]) * dtype.itemsize // split
    return {
        "gradients": _held(step.abstract_state.params) * min(step.accumulation, 2),
        "weights": copies,
        "batch": _held(_abstract_batch(step, batch)),
    }


def _weight_shardings(step: Step) -> dict[str, Any]:
    shapes = {n: jax.ShapeDtypeStruct(s, jnp.float32) for n, s in step.task.shapes.items()}
    return sharding.shardings(shapes, step.task.rules, step.mesh)


def _held(tree: Any) -> int:
    """Counts bytes on one device of abstract arrays with shardings."""
    return sum(
        math.prod(x.sharding.shard_shape(x.shape)) * x.dtype.itemsize for x in jax.tree.leaves(tree)
    )


def _abstract_frozen(step: Step) -> dict[str, jax.ShapeDtypeStruct]:
    return {
        name: jax.ShapeDtypeStruct(step.task.shapes[name], jnp.float32, sharding=place)
        for name, place in step.frozen_shardings.items()
    }


def _abstract_batch(step: Step, batch: Batch) -> dict[str, jax.ShapeDtypeStruct]:
    place = sharding.batch_sharding(step.mesh)
    return {n: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=place) for n, x in batch.items()}


def _weight_dtype(step: Step, name: str) -> Any:
    return jnp.dtype(jnp.float32) if name in step.task.tables else step.dtype


def activation_bytes(step: Step, inputs: Inputs, batch: Batch) -> tuple[int, int]:
    """Counts bytes of a device for activations of a batch, without and with remat."""
    rows = batch["weight"].shape[0] // (step.accumulation * sharding.batch_parts(step.mesh))
    plain, again = (rows * _row_bytes(step, inputs.task(r), batch) for r in (False, True))
    return plain, again


def needed_bytes(step: Step, inputs: Inputs, batch: Batch, *, remat: bool) -> int:
    """Counts all bytes of a device that a step on a batch takes."""
    held = sum((state_bytes(step) | step_bytes(step, batch)).values())
    return held + activation_bytes(step, inputs, batch)[remat]


def _row_bytes(step: Step, task: Task, batch: Batch) -> int:
    """Counts bytes that the gradient of one row takes: what a third row adds to two."""
    weights = {
        name: jax.ShapeDtypeStruct(shape, _weight_dtype(step, name))
        for name, shape in task.shapes.items()
    }
    moved = {n.removesuffix(lora.A).removesuffix(lora.B) for n in step.partition.trained}
    trained = {name: weights[name] for name in moved}
    key = jax.eval_shape(lambda: jax.random.key(0))

    def loss(trained: Arrays, weights: Arrays, batch: Batch, key: jax.Array) -> Any:
        modules = task.fill({**weights, **trained})
        draws = task.draw(key, batch)
        return task.loss(modules, batch, draws, key, jnp.float32(0))[0].sum()

    def sizes(rows: int) -> tuple[int, list[int]]:
        some = {n: jax.ShapeDtypeStruct((rows, *x.shape[1:]), x.dtype) for n, x in batch.items()}
        program = jax.make_jaxpr(loss)(trained, weights, some, key)
        return _kept(program, len(trained)), list(_insides(program.jaxpr))

    (two, blocks_of_two), (three, blocks_of_three) = sizes(2), sizes(3)
    insides = (b - a for a, b in zip(blocks_of_two, blocks_of_three, strict=True))
    return three - two + 2 * max(insides, default=0)


def _kept(program: ClosedJaxpr, count: int) -> int:
    """Counts bytes that the gradient by the first `count` arguments keeps of the forward pass."""
    run = jaxpr_as_fun(program)

    def residuals(*given: Any) -> Any:
        return jax.vjp(lambda *first: run(*first, *given[count:]), *given[:count])[1]

    given = [jax.ShapeDtypeStruct(x.shape, x.dtype) for x in program.in_avals]
    kept = jax.tree.leaves(jax.eval_shape(residuals, *given))
    return sum(x.size * x.dtype.itemsize for x in kept)


def _insides(jaxpr: Any) -> Iterator[int]:
    """Yields bytes that the gradient of each checkpointed block keeps while it is computed."""
    known: dict[tuple[Any, ...], int] = {}
    for equation in jaxpr.eqns:
        if equation.primitive.name not in ("remat2", "checkpoint"):
            continue
        block = ClosedJaxpr(equation.params["jaxpr"], ())
        alike = tuple(block.in_avals)
        if alike not in known:
            known[alike] = _kept(block, len(alike))
        yield known[alike]


@dataclasses.dataclass(frozen=True)
class Placed:
    """Where an array lies.

    Attributes:
      name: of the array.
      shape: of the whole.
      spec: which mesh axes split which of its axes.
      bytes: of the whole, float32.
      bytes_per_device: of the part on a device.
    """

    name: str
    shape: tuple[int, ...]
    spec: str
    bytes: int
    bytes_per_device: int


def largest_arrays(step: Step) -> tuple[Placed, ...]:
    """Finds the largest parameters of a step, and how they are split."""
    places = _weight_shardings(step)
    size = {name: 4 * math.prod(shape) for name, shape in step.task.shapes.items()}
    out = []
    for name in sorted(size, key=lambda n: -size[n])[:NUM_SHOWN]:
        shape, place = step.task.shapes[name], places[name]
        axes = ", ".join(str(axis) for axis in place.spec)
        part = 4 * math.prod(place.shard_shape(shape))
        out.append(Placed(name, shape, f"({axes})", size[name], part))
    return tuple(out)


@dataclasses.dataclass(frozen=True)
class Check:
    """Predicted bytes and those of XLA's compiled step, of one device, computed in float32.

    Attributes:
      arguments: state, frozen arrays and batch: predicted, compiled.
      temporaries: gradients, weights and activations: predicted, compiled.
    """

    arguments: tuple[int, int]
    temporaries: tuple[int, int]


def check(run: Config, devices: Sequence[Any], *, stage: str = "") -> Check:
    """Compiles the step of a stage and compares.

    Args:
      run: the configuration; computed in float32 whatever they say, because CPUs have no bfloat16.
      devices: the mesh is made of these.
      stage: name of the stage, "" for the first.
    """
    run = run.copy_and_resolve_references()
    run.compute_dtype = "float32"
    chosen = find_stage(run, stage)
    mesh = sharding.make_mesh(**run.mesh.to_dict(), devices=devices)
    inputs = make_inputs(run, chosen, mesh)
    step = make_step(run, chosen, mesh, inputs.task(run.remat))
    batch = _abstract_batch(step, inputs.largest)
    train: Any = step.train  # jitted
    lowered = train.lower(step.abstract_state, _abstract_frozen(step), batch)
    compiled = lowered.compile(compiler_options=_SPARING).memory_analysis()
    passing = step_bytes(step, inputs.largest)
    arguments = sum(state_bytes(step).values()) + passing.pop("batch")
    temporaries = sum(passing.values()) + activation_bytes(step, inputs, inputs.largest)[run.remat]
    return Check(
        (arguments, compiled.argument_size_in_bytes),
        (temporaries, compiled.temp_size_in_bytes),
    )
