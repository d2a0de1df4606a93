"""Draws the losses of a run: `python -m train.metrics RUN` writes RUN/loss.png."""

import argparse
import pathlib
import sys
from collections.abc import Sequence

from indextts2_jax.errors import InputError
from train.run.writer import TABLE, VALIDATION, read


def loss_figure(table: pathlib.Path) -> pathlib.Path:
    """Draws every loss of a run, over training and validation data.

    Args:
      table: a `metrics.csv`.

    Returns:
      The picture, `loss.png` beside it.

    Raises:
      InputError: if the table cannot be read or has no losses.
    """
    from matplotlib.figure import Figure

    rows = read(table)
    names = [name for name in (rows[0] if rows else ()) if name.endswith("loss")]
    if not names:
        raise InputError(f"{table} has no losses yet")
    losses = list(dict.fromkeys(name.removeprefix(VALIDATION) for name in names))
    figure = Figure(figsize=(8, 3 * len(losses)), layout="constrained")
    for axes, loss in zip(figure.subplots(len(losses), squeeze=False)[:, 0], losses, strict=True):
        for name, label, style in (
            (loss, "training", {"linewidth": 0.8}),
            (VALIDATION + loss, "validation", {"marker": "."}),
        ):
            points = [(int(row["step"]), float(row[name])) for row in rows if row.get(name)]
            if points:
                axes.plot(*zip(*points, strict=True), label=label, **style)
        axes.set(xlabel="step", ylabel=loss)
        axes.grid(alpha=0.3)
        axes.legend()
    image = table.with_name("loss.png")
    figure.savefig(image, dpi=120)
    return image


def main(arguments: Sequence[str] | None = None) -> int:
    """Draws `loss.png` of a run."""
    parser = argparse.ArgumentParser(prog="python -m train.metrics", description=main.__doc__)
    parser.add_argument("run", type=pathlib.Path, help="directory of the run")
    run = parser.parse_args(arguments).run
    try:
        print(loss_figure(run / TABLE))
    except InputError as error:
        print(f"{parser.prog}: error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
