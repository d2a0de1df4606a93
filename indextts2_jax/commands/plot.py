"""A picture of a speech: mel above, wave below, segment borders in both."""

import os
import pathlib

import numpy as np

from indextts2_jax import outputs
from indextts2_jax.errors import InputError
from indextts2_jax.request.results import Speech

SUFFIXES = (".png", ".svg", ".pdf")


def plot_speech(speech: Speech, path: str | os.PathLike) -> None:
    """Draws a speech into an image file, whole or not at all.

    Args:
      speech: what to draw.
      path: the file, of a suffix in SUFFIXES; missing folders are made.

    Raises:
      InputError: if the system cannot write it.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 5), layout="constrained")
    top, bottom = figure.subplots(2, 1, sharex=True, height_ratios=(3, 1))
    hop = len(speech.segments[0].samples) // len(speech.segments[0].mel) / speech.sample_rate
    for segment, first in zip(speech.segments, speech.starts, strict=True):
        start = first / speech.sample_rate
        end = start + len(segment.mel) * hop
        top.imshow(
            segment.mel.T,
            origin="lower",
            aspect="auto",
            extent=(start, end, 0, segment.mel.shape[1]),
            vmin=-11.5,
            vmax=2.0,
        )
        top.text(start, segment.mel.shape[1] + 1, segment.text[:40], fontsize=8)
    seconds = np.arange(len(speech.samples)) / speech.sample_rate
    bottom.plot(seconds, speech.samples, linewidth=0.4)
    top.set(ylabel="mel bin", xlim=(0, speech.duration_s))
    bottom.set(xlabel="seconds", ylabel="wave", ylim=(-1, 1))
    with outputs.replacing(path) as temporary:
        figure.savefig(temporary, dpi=120)


def check_suffix(path: str | os.PathLike) -> None:
    """Refuses the name of a file that `plot_speech` cannot draw.

    Raises:
      InputError: its suffix is not in SUFFIXES.
    """
    if pathlib.Path(path).suffix.lower() not in SUFFIXES:
        raise InputError(f"cannot draw {path}: want a name that ends in {', '.join(SUFFIXES)}")
