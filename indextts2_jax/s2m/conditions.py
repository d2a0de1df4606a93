"""What the velocity field is told: one struct for sampling, guidance and training.

Dims: B batch, T mel frames (prompt first), P prompt frames, F frames behind the prompt, M mel bins,
C condition width, S style width.
"""

import dataclasses

import jax
import jax.numpy as jnp

from indextts2_jax.nn.masking import length_mask, zero_padding


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Conditions:
    """The conditions of a batch.

    The first `prompt_lengths[b]` frames of an item belong to the prompt, and only these frames of
    `prompt_mel` are read: training passes the mel of prompt and target. All zeros are the null
    condition of guidance.
    """

    mu: jax.Array  # [B, T, C] of the length regulator, that of the prompt first
    prompt_mel: jax.Array  # [B, P, M] log-mel
    prompt_lengths: jax.Array  # [B] int32
    style: jax.Array  # [B, S] speaker embedding
    lengths: jax.Array  # [B] int32 valid frames of `mu`, prompt included

    @classmethod
    def behind_prompt(
        cls,
        before: jax.Array,
        after: jax.Array,
        *,
        prompt_mel: jax.Array,
        prompt_lengths: jax.Array,
        style: jax.Array,
        frame_lengths: jax.Array,
        num_frames: int,
    ) -> "Conditions":
        """Appends the conditions of targets to those of their prompts.

        Args:
          before: [B, P, C] what the length regulator makes of the prompts.
          after: [B, F, C] what it makes of the targets.
          prompt_mel: [B, P, M] log-mel of the prompts.
          prompt_lengths: [B] int32 valid frames of the prompts.
          style: [B, S] speaker embeddings.
          frame_lengths: [B] int32 valid frames of the targets.
          num_frames: T, at least the longest prompt and target together.

        Returns:
          The conditions.
        """
        mu = append_frames(before, after, prompt_lengths, num_frames)
        return cls(mu, prompt_mel, prompt_lengths, style, prompt_lengths + frame_lengths)

    def is_prompt(self) -> jax.Array:
        """Marks the frames [B, T] bool of the prompt."""
        return length_mask(self.prompt_lengths, self.mu.shape[1])

    def is_target(self) -> jax.Array:
        """Marks the frames [B, T] bool that are generated, or scored in training."""
        return length_mask(self.lengths, self.mu.shape[1]) & ~self.is_prompt()

    def placed_prompt(self) -> jax.Array:
        """Puts the prompt in front of zeros: [B, T, M]."""
        T, P = self.mu.shape[1], self.prompt_mel.shape[1]
        prompt = zero_padding(self.prompt_mel, length_mask(self.prompt_lengths, P))[:, :T]
        return jnp.pad(prompt, ((0, 0), (0, T - prompt.shape[1]), (0, 0)))


def append_frames(
    first: jax.Array, second: jax.Array, lengths: jax.Array, num_frames: int
) -> jax.Array:
    """Puts `second` [B, ., D] behind the first `lengths` [B] frames of `first`: [B, T, D]."""
    place = jnp.arange(num_frames)
    head = first[:, jnp.minimum(place, first.shape[1] - 1)]
    behind = jnp.clip(place - lengths[:, None], 0, second.shape[1] - 1)
    tail = jnp.take_along_axis(second, behind[..., None], axis=1)
    return jnp.where((place < lengths[:, None])[..., None], head, tail)
