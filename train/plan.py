"""What a run will need, before anything is prepared: memory, time, and where the arrays lie.

    python -m train.plan --config configs/t2s_8xa100.py --devices 8 \
        --device-kind "NVIDIA A100-SXM4-80GB" --hours 55000 --efficiency 0.4

Everything is counted from shapes: no weight is made, and neither data nor accelerator is touched.
With `checkpoint=DIR` the networks are those that the trainer would take from there (of a checkpoint
only the settings are read), else those of the configuration's `model`.

    state        parameters and optimizer state in float32, as the sharding rules place them
    gradients    as large as the trained parameters; twice that with accumulation
    weights      all arrays once more in `compute_dtype`; whole on every device of the `fsdp` axis,
                 because XLA may keep what it has gathered
    activations  what the gradient of one row keeps (the residuals of `jax.vjp`, counted by
                 tracing), times the rows that a device computes at once. With remat it is what
                 goes in between the checkpointed blocks, and the inside of the largest of them,
                 twice: once for its gradients.
                 An estimate: XLA fuses some of it away and adds scratch space; what the tensor
                 axis splits of it is counted whole.

`--check` compiles the step for as many fake CPU devices and puts XLA's own numbers beside these. Of
temporary bytes, predicted / compiled is for T2S 1.20, with remat 0.80 (configs/t2s_1gpu.py), for
S2M 1.91, with remat 0.96 (s2m_1gpu.py). With remat on 8 devices it is 0.47 and 0.54: XLA:CPU
computes all weight gradients last there, and holds what they are made of until then.

Dims: B rows, T codes.
"""

import argparse
import contextlib
import dataclasses
import json
import math
import pathlib
import sys
from collections.abc import Sequence
from typing import Any

import jax

from indextts2_jax import sharding
from indextts2_jax.errors import InputError
from train.estimate.inputs import (
    CODES_PER_S,
    TEXT_PER_S,
    TYPICAL_S,
    find_stage,
    make_inputs,
)
from train.estimate.memory import (
    Check,
    Placed,
    activation_bytes,
    check,
    largest_arrays,
    state_bytes,
    step_bytes,
)
from train.run import config
from train.run.config import Config
from train.run.devices import KINDS, memory_bytes, peak_flops
from train.run.step import Step, make_step
from train.run.task import Batch

HOURS = 55_000.0  # corpus of the paper
EFFICIENCY = 0.4  # share of the peak FLOP/s (MFU)
USABLE = 0.9  # of a device's memory; the rest is the runtime's, and XLA's scratch space
_MEASURED = ("codes", "tokens", "mel", "features", "bank")  # the field whose length is a row's
PREALLOCATED = 0.75  # what JAX takes of a GPU unless it is told otherwise


@dataclasses.dataclass(frozen=True)
class Load:
    """A step on one shape of batches.

    Attributes:
      rows: of all devices.
      codes: of a row.
      tokens: positions of the step, padding included.
      flops: of the step, on all devices.
      step_s: seconds at the assumed efficiency; None on an unknown device.
    """

    rows: int
    codes: int
    tokens: int
    flops: float
    step_s: float | None


@dataclasses.dataclass(frozen=True)
class Plan:
    """What a stage of a run needs; bytes are those of one device.

    Attributes:
      trainer: a key of `train.estimate.inputs.INPUTS`; of the vocoder `codes` are mel frames, of
        the emotion model tokens, and hours say nothing of it; of encoder, codec and
        speaker encoder 20 ms.
      stage: its name.
      mesh: axis -> size.
      device_kind: of the devices, "" if it is left open.
      parameters: module -> (number of parameters, number of trained ones).
      total: number of parameters.
      trained: number of trained parameters; with LoRA of the adapters.
      bytes: use -> bytes, without activations.
      activations: of the largest batch, without remat.
      activations_remat: ... with remat.
      remat: whether the configuration says remat.
      device_bytes: memory of a device, None if unknown.
      placed: the largest arrays.
      largest: step on the largest batch.
      typical: step on a typical batch.
      efficiency: share of the peak FLOP/s that is assumed.
      hours: of the corpus.
      steps_per_epoch: typical steps.
      epoch_days: days of an epoch.
      steps: of the stage.
      stage_days: days of the stage.
    """

    trainer: str
    stage: str
    mesh: dict[str, int]
    device_kind: str
    parameters: dict[str, tuple[int, int]]
    total: int
    trained: int
    bytes: dict[str, int]
    activations: int
    activations_remat: int
    remat: bool
    device_bytes: int | None
    placed: tuple[Placed, ...]
    largest: Load
    typical: Load
    efficiency: float
    hours: float
    steps_per_epoch: int
    epoch_days: float | None
    steps: int
    stage_days: float | None

    def needed(self, *, remat: bool) -> int:
        """Counts bytes of a device that a step takes."""
        return sum(self.bytes.values()) + (self.activations_remat if remat else self.activations)

    def fits(self, *, remat: bool) -> bool | None:
        """Tells whether that is in the device's memory; None if that is unknown."""
        if self.device_bytes is None:
            return None
        return self.needed(remat=remat) <= USABLE * self.device_bytes

    def numbers(self) -> dict[str, Any]:
        """Returns all of it, for JSON."""
        verdicts = {
            f"{what}{'_remat' if remat else ''}": getattr(self, what)(remat=remat)
            for what in ("needed", "fits")
            for remat in (False, True)
        }
        return dataclasses.asdict(self) | verdicts


def make_plan(
    run: Config,
    num_devices: int,
    device_kind: str = "",
    *,
    stage: str = "",
    hours: float = HOURS,
    efficiency: float = EFFICIENCY,
) -> Plan:
    """Counts what a stage of a run needs.

    Args:
      run: the configuration; `checkpoint` and `data.paths` may be empty.
      num_devices: of all processes.
      device_kind: `jax.Device.device_kind`; "" leaves time and memory open.
      stage: name of the stage, "" for the first.
      hours: of speech in the corpus.
      efficiency: share of the peak FLOP/s that is reached.

    Raises:
      InputError: if the configuration, the mesh or the device cannot be used.
    """
    memory = memory_bytes(device_kind)
    peak = peak_flops(device_kind)
    if device_kind and (memory is None or peak is None):
        raise InputError(f"device kind {device_kind!r} is not known; there are (regexes) {KINDS}")
    chosen = find_stage(run, stage)
    mesh = sharding.abstract_mesh(num_devices, **run.mesh.to_dict())
    inputs = make_inputs(run, chosen, mesh)
    step = make_step(run, chosen, mesh, inputs.task(run.remat))
    plain, again = activation_bytes(step, inputs, inputs.largest)

    def load(batch: Batch) -> Load:
        flops = step.task.flops(batch)
        step_s = None if peak is None else flops / (efficiency * peak * num_devices)
        (B, T, *_) = next(batch[name] for name in _MEASURED if name in batch).shape
        return Load(B, T, step.task.tokens(batch), flops, step_s)

    typical = load(inputs.typical)
    epoch = math.ceil(hours * 3600 / TYPICAL_S / typical.rows)

    def days(steps: int) -> float | None:
        return None if typical.step_s is None else steps * typical.step_s / 86400

    return Plan(
        trainer=run.trainer,
        stage=chosen.name,
        mesh=dict(mesh.shape),
        device_kind=device_kind,
        parameters=_by_module(step),
        total=sum(map(math.prod, step.task.shapes.values())),
        trained=sum(x.size for x in step.abstract_state.params.values()),
        bytes=state_bytes(step) | step_bytes(step, inputs.largest),
        activations=plain,
        activations_remat=again,
        remat=run.remat,
        device_bytes=memory,
        placed=largest_arrays(step),
        largest=load(inputs.largest),
        typical=typical,
        efficiency=efficiency,
        hours=hours,
        steps_per_epoch=epoch,
        epoch_days=days(epoch),
        steps=chosen.steps,
        stage_days=days(chosen.steps),
    )


def _by_module(step: Step) -> dict[str, tuple[int, int]]:
    """Counts parameters and trained ones, by the first two words of their names."""
    counts: dict[str, list[int]] = {}
    trained = {name: x.shape for name, x in step.abstract_state.params.items()}
    for place, shapes in enumerate((step.task.shapes, trained)):
        for name, shape in shapes.items():
            module = ".".join(name.split(".")[:2])
            counts.setdefault(module, [0, 0])[place] += math.prod(shape)
    return {name: (total, own) for name, (total, own) in counts.items()}


def report(plan: Plan) -> str:
    """Writes the plan as a text of tables."""
    mesh = " x ".join(f"{name} {size}" for name, size in plan.mesh.items())
    kind = plan.device_kind or "of an open kind"
    lines = [
        f"trainer {plan.trainer}, stage {plan.stage}, "
        f"{math.prod(plan.mesh.values())} devices ({kind}), mesh {mesh}",
        "",
        f"{'parameters':<34}{'all':>16}{'trained':>16}",
        *(f"  {n:<32}{a:>16,}{b:>16,}" for n, (a, b) in plan.parameters.items()),
        f"  {'total':<32}{plan.total:>16,}{plan.trained:>16,}",
        "",
        f"{'memory of a device':<34}{'without remat':>16}{'with remat':>16}",
        *(f"  {n:<32}{_gib(x):>16}{_gib(x):>16}" for n, x in plan.bytes.items()),
        f"  {'activations (estimate)':<32}"
        f"{_gib(plan.activations):>16}{_gib(plan.activations_remat):>16}",
        f"  {'needed':<32}{_gib(plan.needed(remat=False)):>16}{_gib(plan.needed(remat=True)):>16}",
        *_verdict(plan),
        "",
        f"{'largest arrays':<42}{'shape':>16}  {'split over':<20}{'whole':>12}{'a device':>12}",
        *(
            f"  {p.name:<40}{'x'.join(map(str, p.shape)):>16}  {p.spec:<20}"
            f"{_gib(p.bytes):>12}{_gib(p.bytes_per_device):>12}"
            for p in plan.placed
        ),
        "",
        f"{'step':<18}{'rows':>8}{'codes':>8}{'tokens':>10}{'TFLOP':>12}{'seconds':>10}",
        *(
            f"  {name:<16}{x.rows:>8}{x.codes:>8}{x.tokens:>10,}{x.flops / 1e12:>12.4g}"
            f"{'?' if x.step_s is None else f'{x.step_s:.3g}':>10}"
            for name, x in (("largest batch", plan.largest), ("typical batch", plan.typical))
        ),
        "",
        f"an epoch of {plan.hours:,.0f} h: {plan.steps_per_epoch:,} steps{_days(plan.epoch_days)}",
        f"the stage: {plan.steps:,} steps ({plan.steps / plan.steps_per_epoch:.3g} epochs)"
        f"{_days(plan.stage_days)}",
        "",
        f"assumed: MFU {plan.efficiency:.0%}, no wait for data; utterances of {TYPICAL_S:g} s, "
        f"{CODES_PER_S} codes/s, {TEXT_PER_S:g} text tokens/s.",
        "FLOPs as for MFU: nothing for what remat computes again; frozen weights of the trained",
        "network count as if they learned.",
    ]
    return "\n".join(lines)


def _verdict(plan: Plan) -> list[str]:
    if plan.device_bytes is None:
        return []
    words = {remat: "yes" if plan.fits(remat=remat) else "NO" for remat in (False, True)}
    room = f"in {USABLE:.0%} of {_gib(plan.device_bytes)}"
    out = [
        f"  {room:<32}{words[False]:>16}{words[True]:>16}",
        f"  the configuration says remat={plan.remat}",
    ]
    share = plan.needed(remat=plan.remat) / plan.device_bytes
    if "NVIDIA" in plan.device_kind and PREALLOCATED < share <= USABLE:
        out.append(
            f"  JAX takes {PREALLOCATED:.0%} of a GPU: set XLA_PYTHON_CLIENT_MEM_FRACTION={USABLE}"
        )
    return out


def check_report(checked: Check) -> str:
    """Writes the comparison as a table."""
    lines = [f"{'bytes of a device, float32':<34}{'predicted':>16}{'compiled':>16}{'ratio':>8}"]
    for name, pair in dataclasses.asdict(checked).items():
        lines.append(f"  {name:<32}{pair[0]:>16,}{pair[1]:>16,}{pair[0] / max(pair[1], 1):>8.2f}")
    return "\n".join(lines)


def _gib(size: int) -> str:
    return f"{size / 2**30:,.2f} GiB" if size >= 1 << 28 else f"{size / 2**20:,.2f} MiB"


def _days(days: float | None) -> str:
    return "" if days is None else f", {days:.3g} days"


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command line; returns the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m train.plan",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--config", type=pathlib.Path, required=True, help="file in configs/")
    parser.add_argument("assignments", nargs="*", metavar="key=value", help="changes of it")
    parser.add_argument("--stage", default="", help="its name; the first one if not given")
    parser.add_argument("--devices", type=int, help="how many; as the mesh says if not given")
    parser.add_argument("--device-kind", default="", help='such as "TPU v5p"; else no times')
    parser.add_argument("--hours", type=float, default=HOURS, help="of the corpus")
    parser.add_argument("--efficiency", type=float, default=EFFICIENCY, help="MFU, 0 .. 1")
    parser.add_argument("--check", action="store_true", help="compile (minutes for large models)")
    parser.add_argument("--json", action="store_true", help="print numbers")
    args = parser.parse_intermixed_args(argv)
    jax.config.update("jax_platforms", "cpu")  # leave the accelerator to whoever trains on it
    try:
        if not 0 < args.efficiency <= 1:
            raise InputError(f"efficiency is {args.efficiency}, want 0 .. 1")
        run = config.load(args.config, args.assignments)
        devices = args.devices or _least_devices(run)
        fake = _fake_devices(devices) if args.check else []
        made = make_plan(
            run,
            devices,
            args.device_kind,
            stage=args.stage,
            hours=args.hours,
            efficiency=args.efficiency,
        )
        checked = check(run, fake, stage=args.stage) if args.check else None
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    if args.json:
        extra = {} if checked is None else {"check": dataclasses.asdict(checked)}
        print(json.dumps(made.numbers() | extra, indent=1))
        return 0
    print(report(made))
    if checked is not None:
        print(f"\n{check_report(checked)}")
    return 0


def _least_devices(run: Config) -> int:
    """Counts the devices that the mesh names."""
    return math.prod(1 if size == -1 else size for size in run.mesh.to_dict().values())


def _fake_devices(count: int) -> list[Any]:
    with contextlib.suppress(RuntimeError):  # JAX runs already: the devices are what they are
        jax.config.update("jax_num_cpu_devices", count)
    devices = jax.devices()[:count]
    if len(devices) < count:
        raise InputError(f"JAX runs with {len(devices)} CPU devices already, want {count}")
    return devices


if __name__ == "__main__":
    sys.exit(main())
