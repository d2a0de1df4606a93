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
temporary bytes, predicted / compiled is 1.29 for a released S2M on one device without remat, 0.68
with it, and 0.52 for the paper's T2S on 8 devices with remat (float32, 4 rows of 36 s on a device).

Dims: B rows, T codes.
"""

import argparse
import contextlib
import dataclasses
import json
import math
import pathlib
import re
import sys
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from typing import Any, cast

import jax
import jax.numpy as jnp
from jax.extend.core import ClosedJaxpr, jaxpr_as_fun
from jax.sharding import Mesh

from indextts2_jax import lora, sharding
from indextts2_jax.audio.mel import MelConfig
from indextts2_jax.errors import InputError
from indextts2_jax.prompt.semantic_codec import SemanticCodecConfig
from indextts2_jax.s2m.model import S2MConfig
from indextts2_jax.t2s.gpt import T2SConfig
from train import artifacts, common, config, loop, s2m, t2s
from train.adversary import SpeakerClassifierConfig
from train.batch_plan import round_up
from train.common import Batch, Step, Task
from train.config import Config
from train.data_config import LENGTHS
from train.metrics import peak_flops

CODES_PER_S = 50
TYPICAL_S = 6.0  # length of an utterance
TEXT_PER_S = 5.0  # text tokens of a second of speech
WORDS_PER_S = 3.0
NUM_SPEAKERS = 10_000  # of a corpus; decides the size of the speaker classifier alone
HOURS = 55_000.0  # corpus of the paper
EFFICIENCY = 0.4  # share of the peak FLOP/s (MFU)
USABLE = 0.9  # of a device's memory; the rest is the runtime's, and XLA's scratch space
PREALLOCATED = 0.75  # what JAX takes of a GPU unless it is told otherwise
NUM_SHOWN = 10  # largest arrays

# Of the fields that are no integers.
_DTYPES = {
    **dict.fromkeys(("features", "prompt_features", "word_vectors"), jnp.float16),
    **dict.fromkeys(("mel", "prompt_mel", "prompt_style"), jnp.float32),
}

# Else XLA:CPU takes away the barriers of remat, and starts what it can as early as it can.
_SPARING = {
    "xla_disable_hlo_passes": "cse_barrier_expander",
    "xla_cpu_scheduler_type": "CPU_SCHEDULER_TYPE_MEMORY_OPTIMIZED",
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


@dataclasses.dataclass(frozen=True)
class Inputs:
    """What a plan has to know of a trainer.

    Attributes:
      task: remat -> what the stage trains.
      largest: shapes of the batch of the longest utterances.
      typical: shapes of the batch of utterances of TYPICAL_S seconds.
    """

    task: Callable[[bool], Task]
    largest: Batch
    typical: Batch


def t2s_inputs(settings: Config, stage: Config, rows_multiple: int) -> Inputs:
    """What `train.t2s` trains in a stage, and on which shapes.

    Args:
      settings: of the run.
      stage: one of its stages.
      rows_multiple: of which the rows of a batch are a multiple.
    """
    base = _base(settings)
    if base is None:
        cfg = config.architecture(T2SConfig, settings.model)
    else:
        cfg = artifacts.t2s_config(settings, base)
    losses = t2s.Losses(stage.zero_duration, stage.text_loss, stage.speaker_loss, stage.reversal)
    classifier = SpeakerClassifierConfig(cfg.width, settings.speaker_classifier_width, NUM_SPEAKERS)

    def task(remat: bool) -> Task:
        slots = tuple(settings.duration_slots)
        return t2s.make_task(cfg, slots, losses, classifier=classifier, remat=remat)

    F = cfg.speaker.feature_dim
    widths = {"features": F, "prompt_features": F}
    batches = _batches(settings.data, t2s.FIELDS, widths, cfg, MelConfig(), rows_multiple)
    return Inputs(task, *batches)


def s2m_inputs(settings: Config, stage: Config, rows_multiple: int) -> Inputs:
    """As `t2s_inputs`, of `train.s2m`. Without a checkpoint its T2S and codec are the released."""
    base = _base(settings)
    if base is None:
        cfg = config.architecture(S2MConfig, settings.model)
        cfg = dataclasses.replace(cfg, word_width=settings.word_width)
        codec, decoder, mel = SemanticCodecConfig.indextts2(), T2SConfig.indextts2(), MelConfig()
    else:
        cfg = s2m.s2m_config(settings, base)
        codec, mel = base.config("semantic_codec"), base.settings.mel
        decoder = base.settings.configs.get("t2s", T2SConfig.paper())

    def task(remat: bool) -> Task:
        return s2m.make_task(cfg, codec, s2m.Method.of(stage), t2s_cfg=decoder, remat=remat)

    # As in training, a batch has the fields of all stages.
    fields = {name for x in settings.stages for name in s2m.Method.of(x).fields}
    if cfg.word_width:
        fields.add("word_vectors")
    widths = {
        "features": decoder.speaker.feature_dim,
        "prompt_features": decoder.speaker.feature_dim,
        "mel": mel.num_mels,
        "prompt_mel": mel.num_mels,
        "prompt_style": cfg.velocity.style_width,
        "word_vectors": cfg.word_width,
    }
    return Inputs(task, *_batches(settings.data, fields, widths, decoder, mel, rows_multiple))


INPUTS = {"t2s": t2s_inputs, "s2m": s2m_inputs}


def _base(settings: Config) -> artifacts.Base | None:
    return artifacts.Base.open(settings.checkpoint) if settings.checkpoint else None


def _batches(
    data: Config,
    fields: Collection[str],
    widths: Mapping[str, int],
    cfg: T2SConfig,
    mel: MelConfig,
    multiple: int,
) -> tuple[Batch, Batch]:
    """Shapes of the largest and of a typical batch, as `train.data` makes them.

    Args:
      data: settings of the data.
      fields: that are loaded.
      widths: last axis of the fields that have more than one.
      cfg: of T2S, which has a longest text and most codes.
      mel: how many frames a second has.
      multiple: of the rows.
    """
    if not data.budget:
        raise InputError("data.budget is not given; it decides how large a batch is")

    def frames(codes: int) -> int:
        return math.ceil(codes / CODES_PER_S * mel.sample_rate / mel.hop_length)

    def batch(codes: int) -> Batch:
        prompt, seconds = data.prompt_codes, codes / CODES_PER_S
        lengths = {
            "text": round_up(min(math.ceil(seconds * TEXT_PER_S), cfg.max_text_tokens)),
            **dict.fromkeys(("codes", "features"), round_up(codes)),
            "mel": round_up(frames(codes)),
            "word_vectors": round_up(math.ceil(seconds * WORDS_PER_S)),
            **dict.fromkeys(("prompt_codes", "prompt_features"), prompt),
            "prompt_mel": round_up(frames(prompt) + 1),
        }
        measured = lengths["codes"]
        if data.measure == "frames":
            measured = lengths["mel"] + lengths["prompt_mel"] * ("prompt_mel" in fields)
        rows = min(data.budget // measured, data.max_rows)
        rows = max(rows // multiple, 1) * multiple

        def shape(name: str) -> tuple[int, ...]:
            own = [x[name] for x in (lengths, widths) if name in x]
            return rows, *own

        out = {n: jax.ShapeDtypeStruct(shape(n), _DTYPES.get(n, jnp.int32)) for n in fields}
        if "word_vectors" in fields:
            out["word_frames"] = jax.ShapeDtypeStruct((rows, lengths["word_vectors"]), jnp.int32)
        for name in LENGTHS.keys() & fields:
            out[LENGTHS[name]] = jax.ShapeDtypeStruct((rows,), jnp.int32)
        return out | {"weight": jax.ShapeDtypeStruct((rows,), jnp.float32)}

    longest = min(data.max_codes or cfg.max_codes, cfg.max_codes)
    return batch(longest), batch(min(longest, round(CODES_PER_S * TYPICAL_S)))


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
      trainer: "t2s" or "s2m".
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
        """Bytes of a device that a step takes."""
        return sum(self.bytes.values()) + (self.activations_remat if remat else self.activations)

    def fits(self, *, remat: bool) -> bool | None:
        """Whether that is in the device's memory; None if that is unknown."""
        if self.device_bytes is None:
            return None
        return self.needed(remat=remat) <= USABLE * self.device_bytes

    def numbers(self) -> dict[str, Any]:
        """All of it, for JSON."""
        verdicts = {
            f"{what}{'_remat' if remat else ''}": getattr(self, what)(remat=remat)
            for what in ("needed", "fits")
            for remat in (False, True)
        }
        return dataclasses.asdict(self) | verdicts


@dataclasses.dataclass(frozen=True)
class Check:
    """Predicted bytes and those of XLA's compiled step, of one device, computed in float32.

    Attributes:
      arguments: state, frozen arrays and batch: predicted, compiled.
      temporaries: gradients, weights and activations: predicted, compiled.
    """

    arguments: tuple[int, int]
    temporaries: tuple[int, int]


def make_plan(
    settings: Config,
    num_devices: int,
    device_kind: str = "",
    *,
    stage: str = "",
    hours: float = HOURS,
    efficiency: float = EFFICIENCY,
) -> Plan:
    """Counts what a stage of a run needs.

    Args:
      settings: of the run; `checkpoint` and `data.paths` may be empty.
      num_devices: of all processes.
      device_kind: `jax.Device.device_kind`; "" leaves time and memory open.
      stage: name of the stage, "" for the first.
      hours: of speech in the corpus.
      efficiency: share of the peak FLOP/s that is reached.

    Raises:
      InputError: if the settings, the mesh or the device cannot be used.
    """
    memory = _find(_MEMORY_GIB, device_kind)
    peak = peak_flops(device_kind)
    if device_kind and (memory is None or peak is None):
        known = ", ".join(_MEMORY_GIB)
        raise InputError(f"device kind {device_kind!r} is not known; there are (regexes) {known}")
    chosen = find_stage(settings, stage)
    mesh = sharding.abstract_mesh(num_devices, **settings.mesh.to_dict())
    inputs = _inputs(settings, chosen, mesh)
    step = _make_step(settings, chosen, inputs, mesh)
    plain, again = activation_bytes(step, inputs)

    def load(batch: Batch) -> Load:
        flops = step.task.flops(batch)
        step_s = None if peak is None else flops / (efficiency * peak * num_devices)
        (B, T) = batch["codes"].shape
        return Load(B, T, step.task.tokens(batch), flops, step_s)

    typical = load(inputs.typical)
    epoch = math.ceil(hours * 3600 / TYPICAL_S / typical.rows)

    def days(steps: int) -> float | None:
        return None if typical.step_s is None else steps * typical.step_s / 86400

    return Plan(
        trainer=settings.trainer,
        stage=chosen.name,
        mesh=dict(mesh.shape),
        device_kind=device_kind,
        parameters=_by_module(step),
        total=sum(map(math.prod, step.task.shapes.values())),
        trained=sum(x.size for x in step.abstract_state.params.values()),
        bytes=state_bytes(step) | step_bytes(step, inputs.largest),
        activations=plain,
        activations_remat=again,
        remat=settings.remat,
        device_bytes=None if memory is None else memory << 30,
        placed=_largest_arrays(step),
        largest=load(inputs.largest),
        typical=typical,
        efficiency=efficiency,
        hours=hours,
        steps_per_epoch=epoch,
        epoch_days=days(epoch),
        steps=chosen.steps,
        stage_days=days(chosen.steps),
    )


def find_stage(settings: Config, name: str) -> Config:
    """The stage of that name, the first for "".

    Raises:
      InputError: if there is none.
    """
    stages = {stage.name: stage for stage in settings.stages}
    if name and name not in stages:
        raise InputError(f"there is no stage {name!r}; there are {', '.join(stages)}")
    return stages[name] if name else settings.stages[0]


def _inputs(settings: Config, stage: Config, mesh: sharding.AnyMesh) -> Inputs:
    if settings.trainer not in INPUTS:
        raise InputError(f"trainer is {settings.trainer!r}, want one of {', '.join(INPUTS)}")
    multiple = sharding.batch_parts(mesh) * settings.accumulation
    return INPUTS[settings.trainer](settings, stage, multiple)


def _make_step(settings: Config, stage: Config, inputs: Inputs, mesh: sharding.AnyMesh) -> Step:
    unused: Any = None
    setup = loop.Setup(
        settings=settings,
        mesh=cast(Mesh, mesh),
        task=lambda stage: inputs.task(settings.remat),
        initial=unused,
        batches=unused,
        validation=unused,
        publish=unused,
    )
    return loop.make_step(setup, stage)


def _by_module(step: Step) -> dict[str, tuple[int, int]]:
    """Parameters and trained ones, by the first two words of their names."""
    counts: dict[str, list[int]] = {}
    trained = {name: x.shape for name, x in step.abstract_state.params.items()}
    for place, shapes in enumerate((step.task.shapes, trained)):
        for name, shape in shapes.items():
            module = ".".join(name.split(".")[:2])
            counts.setdefault(module, [0, 0])[place] += math.prod(shape)
    return {name: (total, own) for name, (total, own) in counts.items()}


def _held(tree: Any) -> int:
    """Bytes on one device of abstract arrays with shardings."""
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


def state_bytes(step: Step) -> dict[str, int]:
    """Bytes of a device that last from step to step."""
    state = step.abstract_state
    return {
        "parameters": _held(state.params),
        "optimizer": _held(state.optimizer),
        "average": _held(state.average),
        "frozen": _held(_abstract_frozen(step)),
    }


def step_bytes(step: Step, batch: Batch) -> dict[str, int]:
    """Bytes of a device that a step takes, without activations."""
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


def _largest_arrays(step: Step) -> tuple[Placed, ...]:
    places = _weight_shardings(step)
    size = {name: 4 * math.prod(shape) for name, shape in step.task.shapes.items()}
    out = []
    for name in sorted(size, key=lambda n: -size[n])[:NUM_SHOWN]:
        shape, place = step.task.shapes[name], places[name]
        axes = ", ".join(str(axis) for axis in place.spec)
        part = 4 * math.prod(place.shard_shape(shape))
        out.append(Placed(name, shape, f"({axes})", size[name], part))
    return tuple(out)


def activation_bytes(step: Step, inputs: Inputs) -> tuple[int, int]:
    """Bytes of a device for activations of the largest batch, without and with remat."""
    rows = inputs.largest["weight"].shape[0]
    rows //= step.accumulation * sharding.batch_parts(step.mesh)
    plain, again = (rows * _row_bytes(step, inputs.task(r), inputs.largest) for r in (False, True))
    return plain, again


def _row_bytes(step: Step, task: Task, batch: Batch) -> int:
    """Bytes that the gradient of one row takes: what a third row adds to two."""
    weights = {
        name: jax.ShapeDtypeStruct(shape, _weight_dtype(step, name))
        for name, shape in task.shapes.items()
    }
    moved = {n.removesuffix(lora.A).removesuffix(lora.B) for n in step.partition.trained}
    trained = {name: weights[name] for name in moved}
    key = jax.eval_shape(lambda: jax.random.key(0))

    def loss(trained: common.Arrays, weights: common.Arrays, batch: Batch, key: jax.Array) -> Any:
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
    """Bytes that the gradient by the first `count` arguments keeps of the forward pass."""
    run = jaxpr_as_fun(program)

    def residuals(*given: Any) -> Any:
        return jax.vjp(lambda *first: run(*first, *given[count:]), *given[:count])[1]

    given = [jax.ShapeDtypeStruct(x.shape, x.dtype) for x in program.in_avals]
    kept = jax.tree.leaves(jax.eval_shape(residuals, *given))
    return sum(x.size * x.dtype.itemsize for x in kept)


def _insides(jaxpr: Any) -> Iterator[int]:
    """Bytes that the gradient of each checkpointed block keeps while it is computed."""
    known: dict[tuple[Any, ...], int] = {}
    for equation in jaxpr.eqns:
        if equation.primitive.name not in ("remat2", "checkpoint"):
            continue
        block = ClosedJaxpr(equation.params["jaxpr"], ())
        alike = tuple(block.in_avals)
        if alike not in known:
            known[alike] = _kept(block, len(alike))
        yield known[alike]


def check(settings: Config, devices: Sequence[Any], *, stage: str = "") -> Check:
    """Compiles the step of a stage and compares.

    Args:
      settings: of the run; computed in float32 whatever they say, because CPUs have no bfloat16.
      devices: the mesh is made of these.
      stage: name of the stage, "" for the first.
    """
    settings = settings.copy_and_resolve_references()
    settings.compute_dtype = "float32"
    chosen = find_stage(settings, stage)
    mesh = sharding.make_mesh(**settings.mesh.to_dict(), devices=devices)
    inputs = _inputs(settings, chosen, mesh)
    step = _make_step(settings, chosen, inputs, mesh)
    batch = _abstract_batch(step, inputs.largest)
    train: Any = step.train  # jitted
    lowered = train.lower(step.abstract_state, _abstract_frozen(step), batch)
    compiled = lowered.compile(compiler_options=_SPARING).memory_analysis()
    passing = step_bytes(step, inputs.largest)
    arguments = sum(state_bytes(step).values()) + passing.pop("batch")
    temporaries = sum(passing.values()) + activation_bytes(step, inputs)[settings.remat]
    return Check(
        (arguments, compiled.argument_size_in_bytes),
        (temporaries, compiled.temp_size_in_bytes),
    )


def _find(table: Mapping[str, int], device_kind: str) -> int | None:
    return next((x for kind, x in table.items() if re.fullmatch(kind, device_kind)), None)


def report(plan: Plan) -> str:
    """The plan as a text of tables."""
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
    """The comparison as a table."""
    lines = [f"{'bytes of a device, float32':<34}{'predicted':>16}{'compiled':>16}{'ratio':>8}"]
    for name, pair in dataclasses.asdict(checked).items():
        lines.append(f"  {name:<32}{pair[0]:>16,}{pair[1]:>16,}{pair[0] / max(pair[1], 1):>8.2f}")
    return "\n".join(lines)


def _gib(size: int) -> str:
    return f"{size / 2**30:,.2f} GiB" if size >= 1 << 28 else f"{size / 2**20:,.2f} MiB"


def _days(days: float | None) -> str:
    return "" if days is None else f", {days:.3g} days"


def main(argv: Sequence[str] | None = None) -> int:
    """The command line; returns the exit code."""
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
        settings = config.load(args.config, args.assignments)
        devices = args.devices or _least_devices(settings)
        fake = _fake_devices(devices) if args.check else []
        made = make_plan(
            settings,
            devices,
            args.device_kind,
            stage=args.stage,
            hours=args.hours,
            efficiency=args.efficiency,
        )
        checked = check(settings, fake, stage=args.stage) if args.check else None
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


def _least_devices(settings: Config) -> int:
    """As many as the mesh names."""
    return math.prod(1 if size == -1 else size for size in settings.mesh.to_dict().values())


def _fake_devices(count: int) -> list[Any]:
    with contextlib.suppress(RuntimeError):  # JAX runs already: the devices are what they are
        jax.config.update("jax_num_cpu_devices", count)
    devices = jax.devices()[:count]
    if len(devices) < count:
        raise InputError(f"JAX runs with {len(devices)} CPU devices already, want {count}")
    return devices


if __name__ == "__main__":
    sys.exit(main())
