"""Writes what a run says of itself: a table, one line of progress, events, pictures and sounds.

    RUN/
      metrics.csv              a row per call of `scalars`
      events.out.tfevents.*    the same and more for TensorBoard, if tensorboardX is installed
      samples/STEP/            pictures and sounds

The number of a row is how many steps were done. A run that goes on from checkpoint n drops the rows
after n, so that its table ends up as that of a run which was never stopped.

Dims: T samples, M mel frames.
"""

import collections
import csv
import datetime
import importlib
import math
import pathlib
import sys
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import jax
import numpy as np
from tqdm import tqdm

from indextts2_jax.audio import wav
from indextts2_jax.errors import InputError
from indextts2_jax.outputs import replacing
from train.run.devices import peak_flops

if TYPE_CHECKING:
    from matplotlib.figure import Figure

TABLE = "metrics.csv"


VALIDATION = "validation_"  # in front of the names of metrics on validation data


# Metrics of the progress line, and how it says them.
_SHOWN = {
    "loss": "loss {:.4f}",
    f"{VALIDATION}loss": "validation loss {:.4f}",
    "rate": "lr {:.2e}",
    "tokens_per_s": "{:,.0f} tokens/s",
    "mfu": "MFU {:.1%}",
    "data_wait": "data wait {:.1%}",
}


class MetricsWriter:
    """Writes the metrics of a run; does nothing in any process but the first."""

    def __init__(
        self,
        directory: pathlib.Path,
        total_steps: int,
        done_steps: int = 0,
        *,
        process: int | None = None,
    ):
        """Opens the files of a run.

        Args:
          directory: of the run; made if it is missing.
          total_steps: of the whole run, for the progress line.
          done_steps: steps that are done; rows of later ones are dropped.
          process: number of this process; JAX's if None.

        Raises:
          InputError: if there is a `metrics.csv` that is none.
        """
        self._on = (jax.process_index() if process is None else process) == 0
        if not self._on:
            return
        directory.mkdir(parents=True, exist_ok=True)
        self._directory, self._total_steps = directory, total_steps
        self._table = _Table(directory / TABLE, done_steps)
        self._events = _open_events(directory, done_steps)
        # On a terminal; otherwise every call of `scalars` prints a line.
        self._bar = tqdm(
            total=total_steps, initial=done_steps, unit="step", dynamic_ncols=True, disable=None
        )
        self._latest: dict[str, str] = {}
        self._values: dict[str, tuple[int, float]] = {}  # the last of each metric, and its step

    def scalars(self, step: int, values: Mapping[str, Any]) -> None:
        """Writes a row, and shows what belongs in the progress line.

        Args:
          step: number of steps that are done.
          values: name -> number or array of one; names may be new.
        """
        if not self._on:
            return
        numbers = {name: x if isinstance(x, int) else float(x) for name, x in values.items()}
        self._table.write({"step": step, **numbers})
        self._values |= {name: (step, x) for name, x in numbers.items()}
        for name, number in numbers.items():
            if self._events is not None:
                self._events.add_scalar(name, number, step)
        self._show(step, numbers)

    def value(self, name: str, step: int) -> float:
        """Returns a metric of `step`; NaN where it has none, or not in this process."""
        found, value = self._values.get(name, (step, math.nan)) if self._on else (step, math.nan)
        return value if found == step else math.nan

    def column(self, name: str) -> dict[int, float]:
        """Returns a metric of all steps in the table, by step; nothing in other processes."""
        rows = read(self._directory / TABLE) if self._on else []
        return {int(row["step"]): float(row[name]) for row in rows if row.get(name)}

    def figure(self, step: int, name: str, figure: "Figure") -> None:
        """Keeps a picture, as `samples/STEP/NAME.png` and for TensorBoard.

        Args:
          step: number of steps that are done.
          name: may have folders in it.
          figure: a Matplotlib figure.
        """
        if not self._on:
            return
        with warnings.catch_warnings():  # of every ideograph, which Matplotlib's font lacks
            warnings.filterwarnings("ignore", r"Glyph .* missing from")
            figure.savefig(self._sample(step, f"{name}.png"), dpi=100)
            if self._events is not None:
                self._events.add_figure(name, figure, step, close=False)

    def audio(self, step: int, name: str, samples: np.ndarray, sample_rate: int) -> None:
        """Keeps a sound, as `samples/STEP/NAME.wav` and for TensorBoard.

        Args:
          step: number of steps that are done.
          name: may have folders in it.
          samples: [T] float, clipped to [-1, 1].
          sample_rate: Hz.

        Raises:
          InputError: if samples are not finite.
        """
        if not self._on:
            return
        wav.save(self._sample(step, f"{name}.wav"), samples, sample_rate)
        if self._events is not None:
            self._events.add_audio(name, np.clip(samples, -1, 1), step, sample_rate=sample_rate)

    def note(self, text: str) -> None:
        """Prints a line."""
        if self._on:
            tqdm.write(text, file=sys.stderr)

    def close(self) -> None:
        """Writes what is left and closes the files."""
        if not self._on:
            return
        self._bar.close()
        self._table.close()
        if self._events is not None:
            self._events.close()

    def _sample(self, step: int, name: str) -> pathlib.Path:
        path = self._directory / "samples" / f"{step:08d}" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        return path

    def _show(self, step: int, numbers: Mapping[str, float]) -> None:
        texts = {n: form.format(numbers[n]) for n, form in _SHOWN.items() if n in numbers}
        if not self._bar.disable:
            self._latest |= texts
            self._bar.update(step - self._bar.n)
            self._bar.set_postfix_str("  ".join(self._latest.values()))
        elif texts:
            if "step_s" in numbers:
                seconds = round(numbers["step_s"] * (self._total_steps - step))
                texts["eta"] = f"ETA {datetime.timedelta(seconds=seconds)}"
            line = "  ".join([f"step {step}/{self._total_steps}", *texts.values()])
            print(line, file=sys.stderr, flush=True)


class _Table:
    """A CSV file with a row per call; a new name adds a column, empty in the rows before."""

    def __init__(self, path: pathlib.Path, done_steps: int):
        self._path = path
        old = read(path) if path.exists() else []
        rows = [row for row in old if int(row["step"]) <= done_steps]
        columns = [name for name in (rows[0] if rows else ()) if any(row[name] for row in rows)]
        self._rewrite(columns or ["step"], rows)

    def _rewrite(self, columns: Sequence[str], rows: Sequence[Mapping[str, str]]) -> None:
        """Puts a whole new file in place of the old one, and opens it for more rows."""
        self._columns = list(columns)
        with replacing(self._path) as temporary, open(temporary, "w", newline="") as file:
            writer = self._writer(file)
            writer.writeheader()
            writer.writerows(rows)
        self._file = open(self._path, "a", newline="")  # noqa: SIM115

    def _writer(self, file: Any) -> csv.DictWriter:
        return csv.DictWriter(
            file, self._columns, restval="", extrasaction="ignore", lineterminator="\n"
        )

    def write(self, row: Mapping[str, float]) -> None:
        if new := [name for name in row if name not in self._columns]:
            self._file.close()
            self._rewrite([*self._columns, *new], read(self._path))
        # 9 digits are exact for float32.
        cells = {n: x if isinstance(x, int) else f"{x:.9g}" for n, x in row.items()}
        self._writer(self._file).writerow(cells)
        self._file.flush()

    def close(self) -> None:
        self._file.close()


def read(path: pathlib.Path) -> list[dict[str, str]]:
    """Reads a `metrics.csv`.

    Args:
      path: the file.

    Returns:
      Its rows, column -> text, "" where a row has no such value. Of a run that was killed while it
      wrote a row, that row is left out.

    Raises:
      InputError: if it cannot be read, or is no such file.
    """
    try:
        text = path.read_text()
        lines = text[: text.rfind("\n") + 1].splitlines()
        rows = list(csv.DictReader(lines, restval=""))
        for row in rows:
            int(row["step"])
    except (OSError, ValueError, KeyError, csv.Error) as error:
        raise InputError(f"{path} is no table of metrics: {error!r}") from None
    return rows


def _open_events(directory: pathlib.Path, done_steps: int) -> Any:
    try:
        module = importlib.import_module("tensorboardX")
    except ImportError:
        print(
            "note: nothing is written for TensorBoard: tensorboardX (extra `train`) is missing",
            file=sys.stderr,
        )
        return None
    return module.SummaryWriter(str(directory), purge_step=done_steps + 1)


class Throughput:
    """Times the steps of a training loop.

    Steps run behind Python's back: `metrics` is to be called when the newest loss has been waited
    for, so that the steps between two calls have run between them.
    """

    def __init__(
        self,
        device_kind: str,
        num_devices: int,
        *,
        skip_steps: int = 2,
        window: int = 5,
        clock: Callable[[], float] = time.perf_counter,
    ):
        """Starts the clock.

        Args:
          device_kind: `jax.Device.device_kind`.
          num_devices: of all processes.
          skip_steps: first steps that do not count, because they compile.
          window: calls of `metrics` whose time is averaged.
          clock: seconds.
        """
        peak = peak_flops(device_kind)
        self._peak_flops = None if peak is None else peak * num_devices
        self._skip_steps, self._clock = skip_steps, clock
        self._window: collections.deque[np.ndarray] = collections.deque(maxlen=window)
        self._restart()

    def _restart(self) -> None:
        self._start = self._last = self._clock()
        self._steps = self._tokens = self._flops = self._waited = 0.0

    def step(self, waited: float, tokens: int, flops: float) -> None:
        """Counts a step.

        Args:
          waited: seconds for data.
          tokens: of the global batch.
          flops: floating point operations on all devices.
        """
        if self._skip_steps:
            self._skip_steps -= 1
            self._restart()
            return
        self._last = self._clock()
        self._steps += 1
        self._tokens += tokens
        self._flops += flops
        self._waited += waited

    def pause(self) -> None:
        """Leaves out the time since the last call, e.g. of a validation that ends now."""
        now = self._clock()
        self._start += now - self._last
        self._last = now

    def metrics(self) -> dict[str, float]:
        """Computes means over the last `window` calls.

        Returns:
          step_s, tokens_per_s, data_wait (share of the time), and mfu (share of the peak) if the
          peak is known; nothing as long as no step counts.
        """
        if self._steps:
            passed = self._clock() - self._start
            interval = (passed, self._steps, self._tokens, self._flops, self._waited)
            self._window.append(np.array(interval))
            self._restart()
        if not self._window:
            return {}
        passed, steps, tokens, flops, waited = np.sum(self._window, axis=0).tolist()
        out = {
            "step_s": passed / steps,
            "tokens_per_s": tokens / passed,
            "data_wait": waited / passed,
        }
        if self._peak_flops is not None:
            out["mfu"] = flops / passed / self._peak_flops
        return out


def mel_figure(target: np.ndarray, predicted: np.ndarray) -> "Figure":
    """Draws two log-mels side by side.

    Args:
      target: [M, 80] of the recording.
      predicted: [M', 80].

    Returns:
      A Matplotlib figure, for `MetricsWriter.figure`.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 3), layout="constrained")
    pictures = figure.subplots(1, 2, sharey=True)
    for axes, mel, title in zip(
        pictures, (target, predicted), ("target", "predicted"), strict=True
    ):
        axes.imshow(mel.T, origin="lower", aspect="auto", vmin=-11.5, vmax=2.0)
        axes.set(title=title, xlabel="frame")
    pictures[0].set(ylabel="mel bin")
    return figure
