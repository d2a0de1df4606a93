"""Where a run starts, and each of its stages: decided here alone, for all trainers.

What the trained network begins as, by the key `init` (`Start.of`):

    1. scratch       a new one: its architecture is `model`, fitted to the other networks
    2. checkpoint    that of `checkpoint` learns further
    3. DIRECTORY     weights of another library, where the trainer reads such: they are converted
    4. DIRECTORY     that of another checkpoint, such as the result of another run

What a stage begins with (`begin_stage`); of each array the first that has it:

    1. resume        the stage's own checkpoint: trained arrays, optimizer, average, step and key
    2. stages        what earlier stages of the run have learned
    3. start         what the trainer reads: the trained network as above, others of `checkpoint`
    4. random        values by `seed`: new networks, heads that no checkpoint has, adapters
"""

import dataclasses
import pathlib
from collections.abc import Callable, Mapping
from typing import Any

import jax

from train.run.artifacts import Base
from train.run.checkpoints import Checkpoints
from train.run.config import Config
from train.run.step import Step, TrainState

# Shardings by name -> arrays of those names that do not begin at random.
Initial = Callable[[Mapping[str, Any]], dict[str, jax.Array]]


@dataclasses.dataclass(frozen=True)
class Start:
    """What the network that a run trains begins as; see the cases above.

    Attributes:
      base: the checkpoint of the run.
      source: the checkpoint whose network learns further; None in cases 1 and 3.
      foreign: directory of another library's weights; None but in case 3.
    """

    base: Base
    source: Base | None
    foreign: pathlib.Path | None = None

    @classmethod
    def of(
        cls, run: Config, *, is_foreign: Callable[[pathlib.Path], bool] = lambda path: False
    ) -> "Start":
        """Decides by the configuration which case it is.

        Args:
          run: the configuration.
          is_foreign: tells whether a directory has weights of another library that the trainer
            can read.

        Raises:
          CheckpointError: if there is no such checkpoint.
        """
        base = Base.open(run.checkpoint)
        if run.init == "scratch":
            return cls(base, None)
        if run.init == "checkpoint":
            return cls(base, base)
        if is_foreign(path := pathlib.Path(run.init)):
            return cls(base, None, path)
        return cls(base, Base.open(path))

    @property
    def continues(self) -> bool:
        """Whether the network of the run's own checkpoint learns further."""
        return self.source is self.base

    def arrays(self, part: str, places: Mapping[str, Any]) -> dict[str, jax.Array]:
        """Reads the arrays of a part that learns further; none of a new one.

        Args:
          part: its name.
          places: `<part>.<name>` -> sharding; others are passed over.

        Raises:
          CheckpointError: if the part lacks some, or they have another shape.
        """
        return {} if self.source is None else self.source.arrays(part, places)

    def provenance(self, name: str, run: Config) -> str:
        """Returns the setting `source` of the result: where its new network comes from.

        Args:
          name: of the network, for people.
          run: the configuration.
        """
        if self.continues:
            return self.base.settings.source
        if run.init == "scratch":
            return f"{name} trained from scratch ({run.out})"
        return f"{name} of {run.init}, trained further ({run.out})"


def begin_stage(
    step: Step,
    checkpoints: Checkpoints,
    initial: Initial,
    learned: Mapping[str, jax.Array],
    *,
    seed: int,
    number: int,
) -> tuple[TrainState, dict[str, jax.Array]]:
    """Makes what a stage begins with, each array where it will lie; see the cases above.

    Args:
      step: of the stage.
      checkpoints: of the stage.
      initial: what the trainer reads.
      learned: by earlier stages.
      seed: of the run.
      number: of the stage.

    Returns:
      The state, and the frozen arrays.

    Raises:
      InputError: if a checkpoint cannot be read, or does not fit.
    """
    resumes = checkpoints.latest is not None
    places = dict(step.frozen_shardings)
    if not resumes:
        places |= step.kept_shardings
    have = {name: learned[name] for name in places if name in learned}
    have |= initial({n: s for n, s in places.items() if n not in have})
    new = {n: s for n, s in places.items() if n not in have}
    if new:
        key = jax.random.key(seed)
        have |= jax.jit(lambda k: step.random(k, new), out_shardings=new)(key)
    frozen = {name: have[name] for name in step.frozen_shardings}
    if resumes:
        return checkpoints.restore(step.abstract_state), frozen
    key = jax.random.fold_in(jax.random.key(seed), number)
    kept = {name: have[name] for name in step.kept_shardings}
    return step.start(kept, jax.random.key_data(key)), frozen
