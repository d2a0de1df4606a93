"""IndexTTS2 in JAX: text and a voice in, speech out. Start at `pipeline`."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from indextts2_jax.pipeline import IndexTTS2
    from indextts2_jax.request.duration import Duration
    from indextts2_jax.request.options import Emotion, Options, Request
    from indextts2_jax.request.results import Speech
    from indextts2_jax.request.speaker import Speaker

__all__ = ["Duration", "Emotion", "IndexTTS2", "Options", "Request", "Speaker", "Speech"]

_HOMES = {
    "Duration": "request.duration",
    "Emotion": "request.options",
    "IndexTTS2": "pipeline",
    "Options": "request.options",
    "Request": "request.options",
    "Speaker": "request.speaker",
    "Speech": "request.results",
}


def __getattr__(name: str) -> Any:
    """Imports on first use, so that `indextts2 --help` does not wait for JAX."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    import importlib

    return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
