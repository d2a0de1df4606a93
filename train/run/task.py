"""What is trained: the modules of a task, and which of their parameters learn in a stage.

    Task       modules, sharding rules, random draws, a loss per row
    Partition  which parameters learn in this stage, which are frozen, which are adapters (LoRA)

Statistics that a network measures while it learns (batch normalisation) are neither: a pass over a
batch moves them, if the loss puts the module into training mode.

Parameters are flat dicts, `<module>.<name>` -> array, so that sharding, freezing, weight decay and
LoRA are matters of names. A stage saves what it trains; the next one starts from that.

Dims: B rows of a batch.
"""

import dataclasses
import functools
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import jax
from flax import nnx

from indextts2_jax.errors import InputError
from indextts2_jax.nn import pytree
from indextts2_jax.nn.batch_norm import RunningStatistic
from indextts2_jax.sharding import (
    Rules,
    prefixed,
)
from train.run import lora
from train.run.config import Config

Arrays = Mapping[str, Any]  # flat name -> array, or whatever stands for one
Batch = Mapping[str, Any]


class TrainingError(InputError):
    """A run cannot start or go on; the message is one line."""


@dataclasses.dataclass(frozen=True)
class Module:
    """A network of a task.

    Attributes:
      build: makes it from its `rngs`.
      rules: sharding rules of its flat names.
    """

    build: Callable[[Any], Any]
    rules: Rules

    @functools.cached_property
    def abstract(self) -> Any:
        """The module with shapes in place of arrays."""
        return pytree.abstract(self.build)


@dataclasses.dataclass(frozen=True)
class Task:
    """What is trained, and by which loss.

    Attributes:
      modules: by name; parameters are called `<module>.<name>`.
      draw: draw(key, batch) -> pytree of arrays [B, ...], the random choices of a step. Drawn for
        the whole batch, so that they do not depend on how it is computed.
      loss: loss(modules, batch, draws, key, progress) -> ([B] losses, {name: [B] metrics}).
        `modules` are filled with weights in the dtype of computation, and are in evaluation mode;
        `key` is for dropout, None in validation; `progress` is the share of the stage that is done,
        0 .. 1.
      tokens: tokens(batch) -> number of positions that the step computes, padding included.
      flops: flops(batch) -> floating point operations of the step, forward and backward.
      heads: beginnings of names of parameters that no release has; LoRA trains them whole.
      lora_targets: regexes of the kernels that LoRA adapts if the run names none.
    """

    modules: Mapping[str, Module]
    draw: Callable[[jax.Array, Batch], Any]
    loss: Callable[..., tuple[jax.Array, dict[str, jax.Array]]]
    tokens: Callable[[Batch], int]
    flops: Callable[[Batch], float]
    heads: tuple[str, ...] = ()
    lora_targets: tuple[str, ...] = ()

    @functools.cached_property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Flat name -> shape of every array of all modules."""
        return self._flat(pytree.shapes)

    @functools.cached_property
    def tables(self) -> frozenset[str]:
        """Names of arrays that are no weights: never trained, always float32."""
        return frozenset(self._flat(lambda m: pytree.params(m, nnx.BatchStat)))

    @functools.cached_property
    def statistics(self) -> tuple[str, ...]:
        """Names those tables that a pass over a batch moves."""
        return tuple(self._flat(lambda m: pytree.params(m, RunningStatistic)))

    def moved_statistics(self, modules: Mapping[str, Any]) -> dict[str, jax.Array]:
        """Returns the statistics of modules that have seen a batch."""
        return self._flat_of(modules, lambda m: pytree.params(m, RunningStatistic))

    @property
    def rules(self) -> Rules:
        """Sharding rules of all modules, and of their adapters."""
        own = [r for name, m in self.modules.items() for r in prefixed(m.rules, f"{name}.")]
        return (*lora.sharding_rules(own), *own)

    def _flat(self, of: Callable[[Any], Mapping[str, Any]]) -> dict[str, Any]:
        return self._flat_of({name: m.abstract for name, m in self.modules.items()}, of)

    @staticmethod
    def _flat_of(
        modules: Mapping[str, Any], of: Callable[[Any], Mapping[str, Any]]
    ) -> dict[str, Any]:
        return {f"{name}.{n}": x for name, m in modules.items() for n, x in of(m).items()}

    def random(self, key: jax.Array, names: Iterable[str]) -> dict[str, jax.Array]:
        """Draws initial values of the named arrays; to be jitted with output shardings."""
        wanted, out = set(names), {}
        for number, (prefix, module) in enumerate(self.modules.items()):
            if any(name.startswith(f"{prefix}.") for name in wanted):
                built = module.build(pytree.Keys(jax.random.fold_in(key, number)))
                arrays = pytree.params(built)
                out |= {f"{prefix}.{n}": x for n, x in arrays.items() if f"{prefix}.{n}" in wanted}
        return out

    def fill(self, arrays: Arrays) -> dict[str, Any]:
        """Fills the modules with flat arrays."""
        out = {}
        for prefix, module in self.modules.items():
            names = pytree.shapes(module.abstract)
            out[prefix] = pytree.fill(module.abstract, {n: arrays[f"{prefix}.{n}"] for n in names})
        return out


@dataclasses.dataclass(frozen=True)
class Partition:
    """Which arrays a stage trains.

    Attributes:
      trained: names of the arrays that learn; with LoRA those of the adapters.
      frozen: names of all others of the task, but for its moving statistics.
      adapters: those of LoRA, or None.
    """

    trained: tuple[str, ...]
    frozen: tuple[str, ...]
    adapters: lora.LoraConfig | None = None

    @classmethod
    def of(cls, task: Task, stage: Config, adapters: lora.LoraConfig | None) -> "Partition":
        """Applies the patterns `train` and `freeze` of a stage.

        Raises:
          InputError: if a pattern matches nothing, or nothing is left to train.
        """
        names = [name for name in task.shapes if name not in task.tables]
        for pattern in (*stage.train, *stage.freeze):
            if not any(re.fullmatch(pattern, name) for name in names):
                raise InputError(f"stage {stage.name}: no parameter matches {pattern!r}")

        def matches(name: str, patterns: Sequence[str]) -> bool:
            return any(re.fullmatch(pattern, name) for pattern in patterns)

        chosen = [n for n in names if matches(n, stage.train) and not matches(n, stage.freeze)]
        if adapters is not None:
            kernels = lora.adapter_shapes({n: task.shapes[n] for n in chosen}, adapters)
            heads = [n for n in chosen if n.startswith(task.heads)]
            chosen = [*kernels, *heads]
        if not chosen:
            raise InputError(f"stage {stage.name}: nothing is left to train")
        moving = {*chosen, *task.statistics}
        frozen = tuple(name for name in task.shapes if name not in moving)
        return cls(tuple(chosen), frozen, adapters)
