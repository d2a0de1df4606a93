"""Gradient reversal and the speaker classifier behind it, for training alone (paper section 3.1.2).

    emotion vector e [B, D] -> reverse_gradient -> SpeakerClassifier -> logits [B, V] -> loss

The classifier learns to tell the speaker from e; through the reversal, the emotion conditioner
learns to make that impossible.

Dims: B rows, D width, H hidden width, V speakers.

Source: IndexTTS2, equation 4; gradient reversal: Ganin et al. (arXiv 1505.07818).
"""

import dataclasses

import jax
import jax.numpy as jnp
import optax
from flax import nnx
from jax.sharding import PartitionSpec as P


@jax.custom_vjp
def reverse_gradient(x: jax.Array, scale: jax.Array | float) -> jax.Array:
    """Returns x; its gradient is multiplied by -scale.

    Args:
      x: any shape.
      scale: [], may be traced; it gets no gradient itself.

    Returns:
      x.
    """
    return x


def _forward(x: jax.Array, scale: jax.Array) -> tuple[jax.Array, jax.Array]:
    return x, scale


def _backward(scale: jax.Array, gradient: jax.Array) -> tuple[jax.Array, None]:
    return (-scale * gradient).astype(gradient.dtype), None


reverse_gradient.defvjp(_forward, _backward)


def reversal_schedule(progress: jax.Array | float, peak: float) -> jax.Array:
    """Scales the reversal: it grows from 0 to `peak`, so that the classifier learns first.

    Args:
      progress: [], the share of the stage that is done, 0 .. 1.
      peak: the scale at the end.

    Returns:
      [] peak * (2 / (1 + exp(-10 progress)) - 1).
    """
    return peak * (2 / (1 + jnp.exp(-10 * progress)) - 1)


@dataclasses.dataclass(frozen=True)
class SpeakerClassifierConfig:
    """Sizes of the classifier."""

    width: int  # of the emotion vector
    hidden: int
    num_speakers: int

    @classmethod
    def tiny(cls) -> "SpeakerClassifierConfig":
        """Returns one for tests."""
        return cls(width=6, hidden=16, num_speakers=3)


class SpeakerClassifier(nnx.Module):
    """A vector -> whose it is."""

    def __init__(self, cfg: SpeakerClassifierConfig, *, rngs: nnx.Rngs):
        self.hidden = nnx.Linear(cfg.width, cfg.hidden, rngs=rngs)
        self.out = nnx.Linear(cfg.hidden, cfg.num_speakers, rngs=rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps vectors [B, D] to float32 logits [B, V]."""
        x = jax.nn.relu(self.hidden(x.astype(self.hidden.kernel.dtype)))
        return self.out(x).astype(jnp.float32)


def speaker_loss(logits: jax.Array, speaker: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Computes the cross-entropy of the speakers.

    Args:
      logits: [B, V] float32.
      speaker: [B] int32, 0 .. V - 1.

    Returns:
      [B] losses, and [B] bool, whether the best guess is right.
    """
    loss = optax.softmax_cross_entropy_with_integer_labels(logits, speaker)
    return loss, jnp.argmax(logits, axis=-1) == speaker


# The number of speakers hardly ever divides: their axis is whole.
SHARDING_RULES = (
    (r"hidden\.kernel", P("fsdp", "tensor")),
    (r"out\.kernel", P("tensor", None)),
    (r".*", P()),
)
