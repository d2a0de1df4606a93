"""One trainer for all networks: parameters on a mesh, a loss per row, one jitted step.

    TrainState  step, trained parameters (float32), optimizer state, average of the weights
    Step.train  (state, frozen, batch) -> (state, metrics), donated and sharded

Everything random derives from (seed, step): a run that is resumed goes on as if nothing had been.

Batch normalisation measures the whole batch of all devices, so that sharded equals single. With
`accumulation` each part is normalised by itself, and the statistics move once a step, to the mean
of what the parts say: the loss is that of smaller batches.

Dims: B rows of a batch, A parts of it (accumulation).
"""

import dataclasses
import functools
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import optax.contrib
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from indextts2_jax.errors import InputError
from indextts2_jax.sharding import (
    BATCH_AXES,
    AnyMesh,
    batch_sharding,
    replicated,
    shardings,
)
from train.run import lora
from train.run.config import Config
from train.run.task import Arrays, Batch, Partition, Task


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class TrainState:
    """What a step changes; all of it is in a checkpoint."""

    step: jax.Array  # [] int32, steps of this stage that are done
    params: dict[str, jax.Array]  # float32, what is trained
    optimizer: Any
    statistics: dict[str, jax.Array] | None  # float32, of batches, if the task has any
    average: dict[str, jax.Array] | None  # of params and statistics, if `ema` is on
    key: jax.Array  # [2] uint32, data of the key that all randomness of the stage derives from

    @property
    def current(self) -> dict[str, jax.Array]:
        """Returns parameters and statistics, not averaged."""
        return self.params | (self.statistics or {})

    @property
    def kept(self) -> dict[str, jax.Array]:
        """Returns what is looked at and published: averaged if the run averages."""
        return self.current if self.average is None else self.average


def schedule(stage: Config) -> optax.Schedule:
    """Makes the learning rate by step.

    Raises:
      InputError: for an unknown kind.
    """
    warmup = optax.linear_schedule(0.0, stage.rate, stage.warmup)
    rest, start = max(stage.steps - stage.warmup, 1), max(stage.warmup, 1)
    main: Any  # optax's type of a schedule takes no function of ours
    if stage.schedule == "cosine":
        main = optax.cosine_decay_schedule(stage.rate, rest, stage.final_rate)
    elif stage.schedule == "constant":
        main = optax.constant_schedule(stage.rate)
    elif stage.schedule == "inverse_sqrt":
        main = lambda count: stage.rate * jnp.sqrt(start / (count + start))  # noqa: E731
    else:
        raise InputError(f"schedule is {stage.schedule!r}; want cosine, constant or inverse_sqrt")
    return optax.join_schedules([warmup, main], [stage.warmup]) if stage.warmup else main


OPTIMIZERS = ("adamw", "muon")

# What Muon leaves to AdamW though it has two axes: tables of vectors, heads over a vocabulary, and
# what is no product of matrices (depthwise kernels, learned latents and biases).
_NO_MATRIX = re.compile(
    r".*\.(embedding|latents|\w*bias)|.*(head|depthwise|classifier)(\.\w+)*\.kernel"
)
# An update has the root mean square of AdamW's, whatever the shape, so that both take one rate
# (arXiv 2502.16982, section 2.2).
_MUON_RMS = 0.2
_MUON_STEPS = 5  # of Newton and Schulz


def muon_names(shapes: Mapping[str, Sequence[int]], config: Config) -> frozenset[str]:
    """Names the parameters that Muon takes; AdamW has the others.

    Args:
      shapes: flat name -> shape.
      config: `optimizer` of the run.
    """

    def takes(name: str, shape: Sequence[int]) -> bool:
        own = name.removesuffix(lora.A).removesuffix(lora.B)
        excepted = any(re.fullmatch(pattern, own) for pattern in config.adamw_only)
        return len(shape) == 2 and not _NO_MATRIX.fullmatch(own) and not excepted

    return frozenset(name for name, shape in shapes.items() if takes(name, shape))


def optimizer(
    config: Config, rate: optax.Schedule, *, kind: str = "adamw", muon_factor: float = 1.0
) -> optax.GradientTransformation:
    """Makes the optimizer of a stage, which clips by the global norm first.

    Args:
      config: `optimizer` of the run.
      rate: of a step.
      kind: "adamw", or "muon" for matrices and AdamW for the rest. With either, only what has two
        axes or more decays.
      muon_factor: of the rate, for what Muon takes.

    Raises:
      InputError: for an unknown kind.
    """
    if kind not in OPTIMIZERS:
        raise InputError(f"optimizer is {kind!r}; want one of {', '.join(OPTIMIZERS)}")

    def decaying(params: Any) -> Any:  # without leaves for what the other optimizer has
        return jax.tree.map(lambda x: x.ndim > 1, params)

    adam = optax.adamw(
        rate,
        b1=config.b1,
        b2=config.b2,
        eps=config.epsilon,
        weight_decay=config.decay,
        mask=decaying,
    )
    clip = optax.clip_by_global_norm(config.clip)
    if kind == "adamw":
        return optax.chain(clip, adam)
    muon = optax.contrib.muon(
        lambda count: muon_factor * rate(count),
        ns_steps=_MUON_STEPS,
        weight_decay=config.decay,
        consistent_rms=_MUON_RMS,
    )

    def kinds(params: Any) -> dict[str, str]:
        names = muon_names({name: x.shape for name, x in params.items()}, config)
        return {name: "muon" if name in names else "adamw" for name in params}

    return optax.chain(clip, optax.partition({"muon": muon, "adamw": adam}, kinds))


def state_shardings(state: Any, params: Mapping[str, NamedSharding], mesh: AnyMesh) -> Any:
    """Places an abstract state: what has a parameter's name lies as the parameter does."""

    def place(path: Any, x: Any) -> NamedSharding:
        name = str(getattr(path[-1], "key", ""))
        fits = name in params and len(params[name].spec) <= x.ndim
        return params[name] if fits else replicated(mesh)

    return jax.tree_util.tree_map_with_path(place, state)


# Else XLA:CPU drops the barriers early: those of remat, and those between the blocks of a network,
# without which it computes the gradient at each block again from those at all later ones.
_CPU_OPTIONS = {"xla_disable_hlo_passes": "cse_barrier_expander"}


def _on_cpu(mesh: Any) -> bool:
    return isinstance(mesh, Mesh) and mesh.devices.flat[0].platform == "cpu"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Step:
    """The compiled functions of a stage; see `make_step`."""

    task: Task
    partition: Partition
    mesh: AnyMesh
    tx: optax.GradientTransformation
    rate: optax.Schedule
    num_steps: int
    accumulation: int
    dtype: Any
    ema: float

    @functools.cached_property
    def param_shardings(self) -> dict[str, NamedSharding]:
        """Of the trained parameters."""
        return shardings(self._trained_shapes, self.task.rules, self.mesh)

    @functools.cached_property
    def frozen_shardings(self) -> dict[str, NamedSharding]:
        """Of the frozen ones."""
        shapes = {
            n: jax.ShapeDtypeStruct(self.task.shapes[n], jnp.float32) for n in self.partition.frozen
        }
        return shardings(shapes, self.task.rules, self.mesh)

    @functools.cached_property
    def kept_shardings(self) -> dict[str, NamedSharding]:
        """Places the trained parameters and the statistics: what is kept."""
        return shardings(self._kept_shapes, self.task.rules, self.mesh)

    @functools.cached_property
    def _kept_shapes(self) -> dict[str, jax.ShapeDtypeStruct]:
        own = {n: self.task.shapes[n] for n in self.task.statistics}
        shapes = {n: jax.ShapeDtypeStruct(x, jnp.float32) for n, x in own.items()}
        return self._trained_shapes | shapes

    @functools.cached_property
    def _trained_shapes(self) -> dict[str, jax.ShapeDtypeStruct]:
        shapes = dict(self.task.shapes)
        if self.partition.adapters is not None:
            frozen = {n: shapes[n] for n in self.partition.frozen}
            shapes |= lora.adapter_shapes(frozen, self.partition.adapters)
        return {n: jax.ShapeDtypeStruct(shapes[n], jnp.float32) for n in self.partition.trained}

    def _start(self, kept: dict[str, jax.Array], key: jax.Array) -> TrainState:
        average = jax.tree.map(jnp.copy, kept) if self.ema else None
        params = {name: kept[name] for name in self._trained_shapes}
        statistics = {name: kept[name] for name in self.task.statistics} or None
        return TrainState(jnp.int32(0), params, self.tx.init(params), statistics, average, key)

    @functools.cached_property
    def abstract_state(self) -> TrainState:
        """The state with shapes and shardings in place of arrays."""
        key = jax.ShapeDtypeStruct((2,), jnp.uint32)
        state = jax.eval_shape(self._start, self._kept_shapes, key)
        places = state_shardings(state, self.kept_shardings, self.mesh)
        return jax.tree.map(
            lambda x, s: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=s), state, places
        )

    def start(self, kept: Arrays, key: jax.Array) -> TrainState:
        """Makes the state before the first step, every array where it will lie.

        Args:
          kept: the trained parameters and the statistics.
          key: data of the key of the stage.
        """
        places = jax.tree.map(lambda x: x.sharding, self.abstract_state)
        return jax.jit(self._start, out_shardings=places)(dict(kept), key)

    def random(self, key: jax.Array, names: Iterable[str]) -> dict[str, jax.Array]:
        """Draws initial values of parameters and adapters; to be jitted with output shardings."""
        names = list(names)
        out = self.task.random(key, names)
        if self.partition.adapters is not None:
            shapes = {n: self.task.shapes[n] for n in self.partition.frozen}
            adapters = lora.init(key, shapes, self.partition.adapters)
            out |= {name: x for name, x in adapters.items() if name in names}
        return out

    def merged(self, kept: Arrays, frozen: Arrays) -> dict[str, Any]:
        """Returns all arrays of the task, adapters added to their kernels."""
        arrays = {**frozen, **kept}
        adapters = self.partition.adapters
        return arrays if adapters is None else lora.merge(arrays, adapters)

    def learned(self, kept: Arrays, frozen: Arrays) -> dict[str, Any]:
        """Returns what the stage has changed, adapters added to their kernels."""
        names = {n.removesuffix(lora.A).removesuffix(lora.B) for n in self.partition.trained}
        names |= set(self.task.statistics)
        return {name: x for name, x in self.merged(kept, frozen).items() if name in names}

    def weights(self, kept: Arrays, frozen: Arrays) -> dict[str, jax.Array]:
        """Returns all arrays of the task in the dtype of computation."""
        return {
            name: x if name in self.task.tables else x.astype(self.dtype)
            for name, x in self.merged(kept, frozen).items()
        }

    def _rows(
        self, params: Arrays, frozen: Arrays, batch: Batch, *, draws: Any, key: Any, progress: Any
    ) -> tuple[jax.Array, tuple[dict[str, jax.Array], dict[str, jax.Array]]]:
        """Computes the loss of a part of a batch: a sum over its rows times their shares of all.

        Beside it metrics, likewise, and the statistics, which are among the frozen, as they move.
        """
        modules = self.task.fill(self.weights(params, frozen))
        losses, metrics = self.task.loss(modules, batch, draws, key, progress)
        share = batch["share"]
        metrics = {name: jnp.dot(x, share) for name, x in metrics.items()}
        return jnp.dot(losses, share), (metrics, self.task.moved_statistics(modules))

    def _parts(self, tree: Any) -> Any:
        """Splits [B, ...] into [A, B / A, ...]; every device keeps its rows."""

        def split(x: jax.Array) -> jax.Array:
            x = x.reshape(-1, self.accumulation, *x.shape[1:]).swapaxes(0, 1)
            spec = PartitionSpec(None, BATCH_AXES)
            return jax.lax.with_sharding_constraint(x, NamedSharding(self.mesh, spec))

        return jax.tree.map(split, tree)

    def gradients(
        self, params: Arrays, frozen: Arrays, batch: Batch, key: jax.Array, progress: jax.Array
    ) -> tuple[jax.Array, dict[str, jax.Array], dict[str, jax.Array], dict[str, jax.Array]]:
        """Loss, metrics, gradients and moved statistics of a batch, in `accumulation` parts."""
        draw_key, dropout_key = jax.random.split(key)
        draws = self.task.draw(draw_key, batch)
        batch = {**batch, "share": batch["weight"] / jnp.maximum(batch["weight"].sum(), 1e-9)}
        compute = jax.value_and_grad(self._rows, has_aux=True)
        if self.accumulation == 1:
            (loss, (metrics, moved)), grads = compute(
                params, frozen, batch, draws=draws, key=dropout_key, progress=progress
            )
            return loss, metrics, grads, moved

        def one(part: Any) -> Any:
            number, batch, draws = part
            part_key = jax.random.fold_in(dropout_key, number)
            return compute(params, frozen, batch, draws=draws, key=part_key, progress=progress)

        def add(total: Any, part: Any) -> tuple[Any, None]:
            return jax.tree.map(jnp.add, total, one(part)), None

        parts = (jnp.arange(self.accumulation), self._parts(batch), self._parts(draws))
        first = jax.tree.map(lambda x: x[0], parts)
        zero = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), jax.eval_shape(one, first))
        ((loss, (metrics, moved)), grads), _ = jax.lax.scan(add, zero, parts)
        return loss, metrics, grads, {n: x / self.accumulation for n, x in moved.items()}

    def _train(
        self, state: TrainState, frozen: Arrays, batch: Batch
    ) -> tuple[TrainState, dict[str, jax.Array]]:
        key = jax.random.fold_in(jax.random.wrap_key_data(state.key), state.step)
        progress = state.step / self.num_steps
        arrays = {**frozen, **(state.statistics or {})}
        loss, metrics, grads, moved = self.gradients(state.params, arrays, batch, key, progress)
        norm = optax.tree.norm(grads)
        updates, opt = self.tx.update(grads, state.optimizer, state.params)
        params: Any = optax.apply_updates(state.params, updates)
        average: Any = state.average
        if average is not None:
            average = optax.incremental_update(params | moved, average, 1 - self.ema)
        finite = jnp.isfinite(loss) & jnp.isfinite(norm)
        new = TrainState(state.step + 1, params, opt, moved or None, average, state.key)
        # A step that went wrong changes nothing, so that what is saved afterwards is sound.
        new = jax.tree.map(lambda a, b: jnp.where(finite, a, b), new, state)
        metrics = {"loss": loss, **metrics, "gradient_norm": norm, "rate": self.rate(state.step)}
        return new, {**metrics, "finite": finite}

    @functools.cached_property
    def train(self) -> Callable[[TrainState, Arrays, Batch], Any]:
        """Jitted (state, frozen, batch) -> (state, metrics); the state is donated."""
        places = jax.tree.map(lambda x: x.sharding, self.abstract_state)
        options = _CPU_OPTIONS if _on_cpu(self.mesh) else None
        return jax.jit(
            self._train,
            compiler_options=options,
            in_shardings=(places, self.frozen_shardings, batch_sharding(self.mesh)),
            out_shardings=(places, replicated(self.mesh)),
            donate_argnums=0,
        )

    @functools.cached_property
    def validate(self) -> Callable[[Arrays, Arrays, Batch, jax.Array], Any]:
        """Jitted (kept, frozen, batch, key) -> metrics: no dropout, draws of `key`."""

        def run(kept: Arrays, frozen: Arrays, batch: Batch, key: jax.Array) -> Any:
            share = batch["weight"] / jnp.maximum(batch["weight"].sum(), 1e-9)
            draws = self.task.draw(key, batch)
            batch = {**batch, "share": share}
            loss, (metrics, _) = self._rows(
                kept, frozen, batch, draws=draws, key=None, progress=jnp.float32(1)
            )
            return {"loss": loss, **metrics}

        return jax.jit(
            run,
            in_shardings=(
                self.kept_shardings, self.frozen_shardings, batch_sharding(self.mesh),
                replicated(self.mesh),
            ),
            out_shardings=replicated(self.mesh),
        )  # fmt: skip


def make_step(run: Config, stage: Config, mesh: AnyMesh, task: Task) -> Step:
    """Makes the compiled functions of a stage.

    Args:
      run: the configuration.
      stage: one of its stages.
      mesh: of all devices; an abstract one does for shapes and places.
      task: what the stage trains.

    Raises:
      InputError: if the stage cannot be trained so.
    """
    adapters = None
    if run.lora.rank:
        targets = run.lora.targets or task.lora_targets
        adapters = lora.LoraConfig(run.lora.rank, run.lora.alpha, targets)
    rate = schedule(stage)
    return Step(
        task=task,
        partition=Partition.of(task, stage, adapters),
        mesh=mesh,
        tx=optimizer(run.optimizer, rate, kind=stage.optimizer, muon_factor=stage.muon_factor),
        rate=rate,
        num_steps=stage.steps,
        accumulation=run.accumulation,
        dtype=jnp.dtype(run.compute_dtype),
        ema=run.ema,
    )


def to_devices(batch: Mapping[str, np.ndarray], mesh: Mesh) -> dict[str, jax.Array]:
    """Makes global arrays, split over the mesh, of this process's rows of a batch."""
    place = batch_sharding(mesh)
    return {n: jax.make_array_from_process_local_data(place, x) for n, x in batch.items()}
