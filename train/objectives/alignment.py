"""Where T2S looks in the text while it writes codes: whether it has learned to read.

A model that reads has a head that goes through the text, token by token. How much a head does so is
its *monotonicity*: the correlation of the attended position with time, times the share of the text
that the position passes through. It is 1 for a head that goes evenly from the first token to the
last; near 0 for one that stays where it is, looks everywhere at once or jumps about; and -1 for one
that goes backwards. The attended position is the centre of the squared attention, so that a thin
veil over all tokens counts for little beside a peak.

Dims: B rows, L text tokens, T codes, P prefix positions, N heads, H head dim, K layers.
"""

import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

import jax
import jax.numpy as jnp
import numpy as np

from indextts2_jax.t2s.gpt import T2S, Prefix

if TYPE_CHECKING:
    from matplotlib.figure import Figure


READS = 0.5  # monotonicity of the best head, above which a model is said to read


def text_attention(
    model: T2S, prefix: Prefix, codes: jax.Array, num_text: int
) -> Iterator[jax.Array]:
    """Computes, layer by layer, the attention of the state that predicts each code on each token.

    Args:
      model: T2S.
      prefix: of the codes; rows of shorter texts are padded on the left.
      codes: [B, T] int32.
      num_text: L, of the longest row.

    Yields:
      [B, N, T, L] float32 of every head; what goes to other positions is left out.
    """
    x, mask = model.teacher_forced_inputs(prefix, codes)
    P, T = prefix.x.shape[1], codes.shape[1]
    text = slice(P - 1 - num_text, P - 1)  # the prefix ends in the text and its stop token
    for block in model.blocks:
        query, key, _ = block.heads(x)  # [B, N, H, P + 1 + T]
        score = jnp.einsum("bnht,bnhs->bnts", query[..., P : P + T], key)
        score = score.astype(jnp.float32) / query.shape[2] ** 0.5
        weight = jax.nn.softmax(jnp.where(mask[:, None, P : P + T], score, -1e30), axis=-1)
        yield weight[..., text]
        x, _ = block(x, mask)


def monotonicity(
    attention: jax.Array, text_lengths: jax.Array, code_lengths: jax.Array
) -> jax.Array:
    """Measures how evenly heads go through the text, see the module.

    Args:
      attention: [B, N, T, L] float, on texts that are padded on the left; their codes on the right.
      text_lengths: [B] int32.
      code_lengths: [B] int32.

    Returns:
      [B, N] float32, -1 .. 1; 0 of texts of one token.
    """
    T, L = attention.shape[2:]
    place = jnp.arange(L) - (L - text_lengths)[:, None]  # [B, L]; negative on padding
    weight = jnp.where((place >= 0)[:, None, None], attention.astype(jnp.float32), 0)
    weight /= jnp.maximum(weight.max(axis=-1, keepdims=True), 1e-30)  # squares of it do not vanish
    weight = jnp.square(weight)
    total = jnp.maximum(weight.sum(axis=-1), 1e-30)
    share = place / jnp.maximum(text_lengths - 1, 1)[:, None]  # 0 .. 1 from first to last token
    position = jnp.einsum("bntl,bl->bnt", weight, share) / total
    valid = (jnp.arange(T) < code_lengths[:, None])[:, None]  # [B, 1, T]
    span = jnp.max(position, axis=-1, where=valid, initial=0) - jnp.min(
        position, axis=-1, where=valid, initial=1
    )
    time = jnp.where(valid, jnp.arange(T), 0)
    count = jnp.maximum(valid.sum(axis=-1), 1)

    def centred(x: jax.Array) -> jax.Array:
        mean = jnp.where(valid, x, 0).sum(axis=-1) / count
        return jnp.where(valid, x - mean[..., None], 0)

    x, y = centred(time), centred(position)
    spread = jnp.sqrt(jnp.square(x).sum(axis=-1) * jnp.square(y).sum(axis=-1))
    correlation = (x * y).sum(axis=-1) / jnp.maximum(spread, 1e-6)
    return jnp.where(span > 0, correlation * span, 0)


@functools.partial(jax.jit, static_argnames="prefix")
def attention_maps(
    model: T2S, batch: Mapping[str, jax.Array], prefix: Callable[..., Prefix]
) -> jax.Array:
    """Stacks `text_attention` of all layers, [K, B, N, T, L]; `prefix` is of (model, batch)."""
    layers = text_attention(model, prefix(model, batch), batch["codes"], batch["text"].shape[1])
    return jnp.stack(list(layers))


def attention_figure(maps: np.ndarray, pieces: Sequence[str]) -> "Figure":
    """Draws the head that follows the text best; a model that reads shows a rising line.

    Args:
      maps: [K, N, T, L] of one row.
      pieces: [L] of the text.
    """
    from matplotlib.figure import Figure

    lengths = jnp.array([maps.shape[3]]), jnp.array([maps.shape[2]])
    scores = np.stack([np.asarray(monotonicity(layer[None], *lengths))[0] for layer in maps])
    layer, head = np.unravel_index(scores.argmax(), scores.shape)
    figure = Figure(figsize=(10, 1 + 0.15 * len(pieces)), layout="constrained")
    axes = figure.subplots()
    axes.imshow(maps[layer, head].T, origin="lower", aspect="auto")
    title = f"layer {layer}, head {head}, monotonicity {scores.max():.2f}"
    axes.set(title=title, xlabel="code", ylabel="text token")
    axes.set_yticks(range(len(pieces)), pieces, fontsize=6)
    return figure
