"""Checkpoints of a stage that is being trained, written by Orbax.

    <directory>/<step>/      the newest few, each whole or not there at all

Writing goes on in the background while the next steps run. A process that is killed meanwhile
leaves a temporary directory, which the next one removes. The place in the data and all random keys
follow from the step, so that the state is all that has to be kept.
"""

import dataclasses
import pathlib
from typing import Any

import orbax.checkpoint as ocp

from indextts2_jax.checkpoint.store import CheckpointError
from train.run.step import TrainState


class Checkpoints:
    """The checkpoints of one stage."""

    def __init__(self, directory: pathlib.Path, *, keep: int):
        """Opens the directory, made if it is missing; `keep` is how many of the newest stay."""
        options = ocp.CheckpointManagerOptions(max_to_keep=keep, enable_async_checkpointing=True)
        self._manager = ocp.CheckpointManager(directory.absolute(), options=options)
        self.directory = directory

    @property
    def latest(self) -> int | None:
        """The newest step that is whole, or None."""
        return self._manager.latest_step()

    def save(self, state: TrainState, step: int) -> None:
        """Begins to write the state after `step` steps, once the one before is written."""
        if step != self.latest:
            self._manager.save(step, args=ocp.args.StandardSave(_to_dict(state)))

    def restore(self, abstract: TrainState) -> TrainState:
        """Reads the newest checkpoint.

        Args:
          abstract: shapes and shardings; another mesh than the writer's is fine.

        Raises:
          CheckpointError: if it was written for another model or optimizer.
        """
        step = self.latest
        args = ocp.args.StandardRestore(_to_dict(abstract))
        try:
            values = self._manager.restore(step, args=args)
        except (ValueError, KeyError, TypeError) as error:
            reason = str(error).strip().split("\n")[0]
            raise CheckpointError(
                f"{self.directory}/{step} does not fit this configuration: {reason}"
            ) from error
        return TrainState(**{"average": None, **values})

    def wait(self) -> None:
        """Waits until everything is written."""
        self._manager.wait_until_finished()

    def close(self) -> None:
        """Waits and lets go of the directory."""
        self._manager.close()


def _to_dict(state: TrainState) -> dict[str, Any]:
    values = {f.name: getattr(state, f.name) for f in dataclasses.fields(state)}
    return {name: x for name, x in values.items() if x is not None}
