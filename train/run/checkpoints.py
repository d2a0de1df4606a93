"""Checkpoints of a stage that is being trained, written by Orbax.

    <directory>/<step>/      the newest few, each whole or not there at all

Writing goes on in the background while the next steps run. A process that is killed meanwhile
leaves a temporary directory, which the next one removes. The place in the data and all random keys
follow from the step, so that the state is all that has to be kept.

    <directory>/damaged-<step>/      could not be read, and is kept for whoever wants to know why
"""

import contextlib
import dataclasses
import pathlib
import sys
from collections.abc import Iterator
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp
import tensorstore
from jax.experimental import multihost_utils

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
        """Begins to write the state after `step` steps, once the one before is written.

        Raises:
          CheckpointError: if this one, or the one before, cannot be written.
        """
        if step != self.latest:
            with self._writing():
                self._manager.save(step, args=ocp.args.StandardSave(_to_dict(state)))

    def restore(self, abstract: TrainState) -> TrainState:
        """Reads the newest checkpoint that can be read; says so if newer ones cannot.

        Args:
          abstract: shapes and shardings; another mesh than the writer's is fine.

        Raises:
          CheckpointError: if none can be read: all are damaged, or were written for another model
            or optimizer.
        """
        reasons: dict[int, str] = {}
        for step in sorted(self._manager.all_steps(), reverse=True):
            reason = _unreadable(self.directory / str(step) / "default")
            if not _all_agree(reason is None):
                reasons[step] = reason or "another process cannot read it"
                continue
            values = None
            try:
                args = ocp.args.StandardRestore(_to_dict(abstract))
                values = self._manager.restore(step, args=args)
            except Exception as error:  # Orbax documents none
                reasons[step] = _reason(error)
            if _all_agree(values is not None):
                assert values is not None
                for damaged, reason in reasons.items():
                    self._set_aside(damaged, f"{reason}; going on from step {step}")
                return TrainState(**{"average": None, "statistics": None, **values})
            reasons.setdefault(step, "another process cannot read it")
        step, reason = next(iter(reasons.items()))
        raise CheckpointError(
            f"{self.directory}/{step} is damaged or does not fit this configuration: {reason}"
        )

    def _set_aside(self, step: int, reason: str) -> None:
        """Makes room for another checkpoint of this step."""
        if jax.process_index() == 0:
            path = self.directory / str(step)
            print(f"{path} is damaged, now damaged-{step}: {reason}", file=sys.stderr)
            path.rename(self.directory / f"damaged-{step}")
        if jax.process_count() > 1:
            multihost_utils.sync_global_devices(f"set aside {step}")
        self._manager.reload()

    def wait(self) -> None:
        """Waits until everything is written.

        Raises:
          CheckpointError: if it cannot be.
        """
        with self._writing():
            self._manager.wait_until_finished()

    @contextlib.contextmanager
    def _writing(self) -> Iterator[None]:
        try:
            yield
        except Exception as error:  # Orbax documents none
            raise CheckpointError(f"cannot write to {self.directory}: {_reason(error)}") from error

    def close(self) -> None:
        """Waits and lets go of the directory."""
        self._manager.close()


def _reason(error: Exception) -> str:
    """Tells what an error says, in a line."""
    line = f"{error} ".strip().split("\n")[0]
    return line.split(" See full TensorStore details")[0] or type(error).__name__


def _unreadable(path: pathlib.Path) -> str | None:
    """Tells why an Orbax item cannot be read, if so; each process tries its share of the values.

    Orbax itself reads all arrays at once and leaves with the first that fails; the others would end
    in a closed event loop, with a page about each on stderr.
    """
    try:
        store = tensorstore.KvStore.open({"driver": "ocdbt", "base": path.absolute().as_uri()})
        values = store.result()
        for key in sorted(values.list().result())[jax.process_index() :: jax.process_count()]:
            values.read(key).result()
    except (ValueError, OSError) as error:
        return _reason(error)
    return None


def _all_agree(mine: bool) -> bool:
    """Tells whether it is so in every process."""
    if jax.process_count() == 1:
        return mine
    return bool(np.all(multihost_utils.process_allgather(np.array(mine))))


def _to_dict(state: TrainState) -> dict[str, Any]:
    values = {f.name: getattr(state, f.name) for f in dataclasses.fields(state)}
    return {name: x for name, x in values.items() if x is not None}
