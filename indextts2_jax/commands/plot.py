"""A picture of a speech: mel above, wave below, segment borders in both."""

import os
import pathlib

import numpy as np

from indextts2_jax.request.results import Speech


def plot_speech(speech: Speech, path: str | os.PathLike) -> None:
    """Draws `speech` into the image file `path` (png, svg, pdf by its suffix)."""
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
    path = pathlib.Path(path)
    temporary = path.with_name(f".{os.getpid()}.tmp{path.suffix}")
    try:
        figure.savefig(temporary, dpi=120)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
