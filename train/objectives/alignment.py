"""Where T2S looks in the text while it writes codes: whether it has learned to read.

Dims: B rows, L text tokens, T codes, P prefix positions, N heads, H head dim, K layers.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import jax
import jax.numpy as jnp
import numpy as np

from indextts2_jax.t2s.gpt import T2S, Prefix

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def text_attention(model: T2S, prefix: Prefix, codes: jax.Array, num_text: int) -> jax.Array:
    """Computes the attention of the state that predicts each code on each text token.

    Args:
      model: T2S.
      prefix: of the codes.
      codes: [B, T] int32.
      num_text: L, of every row.

    Returns:
      [K, B, N, T, L] float32, from every layer and head; what goes to other positions is left out.
    """
    x, mask = model.teacher_forced_inputs(prefix, codes)
    P, T = prefix.x.shape[1], codes.shape[1]
    text = slice(P - 1 - num_text, P - 1)  # the prefix ends in the text and its stop token
    maps = []
    for block in model.blocks:
        query, key, _ = block.heads(x)  # [B, N, H, P + 1 + T]
        score = jnp.einsum("bnht,bnhs->bnts", query[..., P : P + T], key)
        score = score.astype(jnp.float32) / query.shape[2] ** 0.5
        weight = jax.nn.softmax(jnp.where(mask[:, None, P : P + T], score, -1e30), axis=-1)
        maps.append(weight[..., text])
        x, _ = block(x, mask)
    return jnp.stack(maps)


def sharpest(maps: np.ndarray) -> tuple[int, int]:
    """Finds the layer and head that look most at single tokens of the text.

    Args:
      maps: [K, N, T, L] of one row.
    """
    focus = maps.max(axis=-1).mean(axis=-1)  # [K, N]
    layer, head = np.unravel_index(focus.argmax(), focus.shape)
    return int(layer), int(head)


def attention_figure(maps: np.ndarray, pieces: Sequence[str]) -> "Figure":
    """Draws the sharpest head; a model that reads shows a rising line.

    Args:
      maps: [K, N, T, L] of one row.
      pieces: [L] of the text.
    """
    from matplotlib.figure import Figure

    layer, head = sharpest(maps)
    figure = Figure(figsize=(10, 1 + 0.15 * len(pieces)), layout="constrained")
    axes = figure.subplots()
    axes.imshow(maps[layer, head].T, origin="lower", aspect="auto")
    axes.set(title=f"layer {layer}, head {head}", xlabel="code", ylabel="text token")
    axes.set_yticks(range(len(pieces)), pieces, fontsize=6)
    return figure
