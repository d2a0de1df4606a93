"""A run: stages one after the other, each resumed where it was, and a checkpoint to speak with.

    RUN/
      config.json            the configuration, as it was when the run began
      0-main/<step>/         checkpoints of stage 0 (see `train.run.checkpoints`)
      metrics.csv, events*   losses, speed; `python -m train.metrics RUN` draws them
      samples/STEP/          pictures and sounds (see `train.run.samples`)
      checkpoint/            the result: `indextts2 synthesize --checkpoint RUN/checkpoint ...`
      checkpoint-best/       the same of the step at which the metric `keep_best` was best, in the
                             stage that it was last measured in

Exit codes: 0 done, 2 input that cannot be used (or a loss that is not finite), 143 stopped
(SIGTERM: the state is saved; the same command goes on).
"""

import argparse
import contextlib
import dataclasses
import pathlib
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import Mesh

from indextts2_jax import programs, sharding
from indextts2_jax.errors import InputError, os_error
from indextts2_jax.outputs import locked
from train.run import config
from train.run.best import BEST_SUFFIX, Best
from train.run.checkpoints import Checkpoints
from train.run.config import Config
from train.run.start import Initial, begin_stage
from train.run.step import Step, TrainState, make_step, to_devices
from train.run.task import Task, TrainingError
from train.run.writer import MetricsWriter, Throughput

LOCK = ".lock"  # in the directory of a run


@dataclasses.dataclass(frozen=True, kw_only=True)
class Setup:
    """What a trainer gives the loop.

    Attributes:
      run: the configuration.
      mesh: of all devices.
      task: stage -> what is trained.
      initial: shardings by name -> arrays of those names that do not begin at random.
      batches: (stage, first step) -> endless iterator of this process's rows of batches.
      validation: the batches of one validation; may be empty.
      publish: all arrays of the last task -> the result is written; with the argument `suffix`
        beside it, in a directory whose name ends so.
      samples: (all arrays of a task, writer, steps that are done) -> pictures and sounds; or None.
    """

    run: Config
    mesh: Mesh
    task: Callable[[Config], Task]
    initial: Initial
    batches: Callable[[Config, int], Iterator[Mapping[str, np.ndarray]]]
    validation: Callable[[], Sequence[Mapping[str, np.ndarray]]]
    publish: Callable[..., None]
    samples: Callable[[Mapping[str, jax.Array], MetricsWriter, int], None] | None = None


def main(
    trainer: Callable[[Config], Setup], description: str | None, argv: Sequence[str] | None = None
) -> int:
    """Runs the command line of a trainer.

    Args:
      trainer: makes a setup of a configuration.
      description: for `--help`.
      argv: arguments; of the process if None.

    Returns:
      The exit code.
    """
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--config", type=pathlib.Path, required=True, help="file in configs/")
    parser.add_argument("assignments", nargs="*", metavar="key=value", help="changes of it")
    parser.add_argument("--show", action="store_true", help="print the configuration and stop")
    group = parser.add_argument_group("several machines (one process each)")
    group.add_argument("--distributed", action="store_true", help="find the others (TPU, SLURM)")
    group.add_argument("--coordinator", metavar="HOST:PORT", help="... or say where process 0 is,")
    group.add_argument("--processes", type=int, help="... how many there are,")
    group.add_argument("--process", type=int, help="... and which one this is, from 0")
    args = parser.parse_args(argv)
    try:
        given = config.load(args.config, args.assignments)
        if args.show:
            print(config.to_json(given))
            return 0
        for key in ("checkpoint", "out"):
            if not given[key]:
                raise InputError(f"{key} is not given; add {key}=DIRECTORY")
        if args.distributed or args.coordinator:
            jax.distributed.initialize(args.coordinator, args.processes, args.process)
        programs.enable_compilation_cache()
        with Stop() as stop:
            run(trainer(given), stop)
        return 143 if stop.requested else 0
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except OSError as error:
        print(f"error: {os_error(error)}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130


def run(setup: Setup, stop: "Stop | None" = None) -> None:
    """Runs all stages that are not done yet, and publishes the result.

    Raises:
      InputError: if the run cannot start or go on; nothing that was saved is lost.
      OSError: likewise; the disk is full, for example.
    """
    out = pathlib.Path(setup.run.out)
    first = jax.process_index() == 0  # the others of a run wait for it
    with locked(out / LOCK) if first else contextlib.nullcontext():
        if first:
            _keep_config(out, setup.run)
        _run_stages(setup, out, stop or Stop())


def _run_stages(setup: Setup, out: pathlib.Path, stop: "Stop") -> None:
    run = setup.run
    total = sum(stage.steps for stage in run.stages)
    learned: dict[str, jax.Array] = {}  # by earlier stages
    arrays: dict[str, jax.Array] = {}  # all of the last one
    begin = 0
    for number, stage in enumerate(run.stages):
        step = make_step(run, stage, setup.mesh, setup.task(stage))
        checkpoints = Checkpoints(out / f"{number}-{stage.name}", keep=run.checkpoints.keep)
        with contextlib.closing(checkpoints):
            state, frozen = begin_stage(
                step, checkpoints, setup.initial, learned, seed=run.seed, number=number
            )
            if int(state.step) < stage.steps:
                first = begin + int(state.step)
                with contextlib.closing(MetricsWriter(out, total, first)) as writer:
                    best = Best.of(run, writer, begin)
                    state = _Loop(
                        setup=setup,
                        stage=stage,
                        step=step,
                        begin=begin,
                        checkpoints=checkpoints,
                        writer=writer,
                        stop=stop,
                        best=best,
                        learned=learned,
                    ).run(state, frozen)
            if int(state.step) < stage.steps:
                return
        last = number == len(run.stages) - 1
        kept = state.kept if last else state.current
        learned |= step.learned(kept, frozen)
        arrays = step.merged(kept, frozen)
        begin += stage.steps
    setup.publish({**learned, **arrays})


@dataclasses.dataclass(kw_only=True)
class _Loop:
    """The steps of one stage."""

    setup: Setup
    stage: Config
    step: Step
    begin: int  # steps of earlier stages
    checkpoints: Checkpoints
    writer: MetricsWriter
    stop: "Stop"
    best: Best | None
    learned: Mapping[str, jax.Array]  # by earlier stages

    def run(self, state: TrainState, frozen: Mapping[str, jax.Array]) -> TrainState:
        """Trains to the end of the stage, or until it is told to stop."""
        run, steps = self.setup.run, self.stage.steps
        every = run.checkpoints.every
        done = int(state.step)
        batches = self.setup.batches(self.stage, done)
        validation = self.setup.validation()
        speed = Throughput(
            getattr(self.setup.mesh.devices.flat[0], "device_kind", ""), self.setup.mesh.size
        )
        waiting: tuple[int, Any, Any] | None = None
        while done < steps:
            started = time.perf_counter()
            rows = next(batches)
            batch = to_devices(rows, self.setup.mesh)
            waited = time.perf_counter() - started
            state, metrics = self.step.train(state, frozen, batch)
            done += 1
            # Looked at one step late, so that the device never waits for the host.
            self._check(waiting)
            waiting = (done, metrics, rows)
            speed.step(waited, self.step.task.tokens(batch), self.step.task.flops(batch))
            if done % run.log_every == 0 or done == steps:
                self._check(waiting)
                self._log(done, metrics, speed)
            if validation and (done % run.validate_every == 0 or done == steps):
                self._check(waiting)
                self._validate(done, state, frozen, validation)
                speed.pause()
            if self.setup.samples and (done % run.sample_every == 0 or done == steps):
                self._check(waiting)
                arrays = self.step.merged(state.kept, frozen)
                self.setup.samples(arrays, self.writer, self.begin + done)
                speed.pause()
            if self.best and self.best.improved(self.begin + done):
                arrays = self.step.merged(state.kept, frozen)
                self.setup.publish({**self.learned, **arrays}, suffix=BEST_SUFFIX)
                speed.pause()
            stopped = self.stop.agreed(done)
            if done % every == 0 or done == steps or stopped:
                self._check(waiting)
                self.checkpoints.save(state, done)
            if stopped:
                self.checkpoints.wait()
                self.writer.note(f"told to stop: saved at step {self.begin + done}")
                break
        return state

    def _check(self, waiting: tuple[int, Any, Any] | None) -> None:
        """Ends the run if the loss of a step was not finite."""
        if waiting is None or bool(waiting[1]["finite"]):
            return
        done, metrics, rows = waiting
        step = self.begin + done
        path = pathlib.Path(self.setup.run.out) / f"not_finite-{step}-{jax.process_index()}.npz"
        arrays: dict[str, Any] = {f"metric_{n}": np.asarray(x) for n, x in metrics.items()}
        np.savez(path, **arrays, **rows)
        raise TrainingError(
            f"loss {float(metrics['loss'])} (gradient norm {float(metrics['gradient_norm'])}) at "
            f"step {step}; its batch is in {path}"
        )

    def _log(self, done: int, metrics: Mapping[str, jax.Array], speed: Throughput) -> None:
        values = {n: float(x) for n, x in metrics.items() if n != "finite"}
        self.writer.scalars(self.begin + done, {**values, **speed.metrics()})

    def _validate(
        self,
        done: int,
        state: TrainState,
        frozen: Mapping[str, jax.Array],
        batches: Sequence[Mapping[str, np.ndarray]],
    ) -> None:
        sums: dict[str, float] = {}
        rows = 0.0
        for number, rows_of in enumerate(batches):
            batch = to_devices(rows_of, self.setup.mesh)
            key = jax.random.fold_in(jax.random.key(0), number)
            out = self.step.validate(state.kept, frozen, batch, key)
            weight = float(jnp.sum(batch["weight"]))
            rows += weight
            for name, x in out.items():
                sums[name] = sums.get(name, 0.0) + weight * float(x)
        means = {f"validation_{name}": x / rows for name, x in sums.items()}
        self.writer.scalars(self.begin + done, means)


class Stop:
    """Notes SIGTERM, and lets all processes agree that they got it."""

    def __init__(self) -> None:
        self.requested = False
        self._before: Any = None

    def __enter__(self) -> "Stop":
        if jax.process_count() == 1 and threading.current_thread() is threading.main_thread():
            self._before = signal.signal(signal.SIGTERM, self._note)
        return self

    def __exit__(self, *_: object) -> None:
        if self._before is not None:
            signal.signal(signal.SIGTERM, self._before)

    def _note(self, *_: object) -> None:
        self.requested = True

    def agreed(self, step: int) -> bool:
        """Tells whether all processes stop after `step`."""
        if jax.process_count() > 1:  # jax.distributed has its own handler
            self.requested = multihost_utils.reached_preemption_sync_point(step)
        return self.requested


def _keep_config(out: pathlib.Path, run: Config) -> None:
    """Writes config.json; says what has changed since the run began."""
    out.mkdir(parents=True, exist_ok=True)
    path, text = out / "config.json", config.to_json(run)
    if not path.exists():
        path.write_text(text + "\n")
        return
    before, now = set(path.read_text().splitlines()), text.splitlines()
    if changed := [line.strip(" ,") for line in now if line not in before and line.strip("{}")]:
        print(f"goes on with changed configuration: {'; '.join(changed)}", file=sys.stderr)


def make_mesh(run: Config) -> Mesh:
    """Makes the mesh of a run."""
    return sharding.make_mesh(**run.mesh.to_dict())
