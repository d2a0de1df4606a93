"""A mark between blocks that gradients are computed up to, once."""

from typing import Any

import jax


@jax.custom_vjp
def gradient_barrier(x: jax.Array) -> jax.Array:
    """Returns `x`; its gradient is whole before anything is computed from it.

    The gradient at a residual stream is a sum over all later blocks. XLA takes the addends for
    cheap, and computes the sum again in everything that reads it, for each block from all later
    ones: of 12 layers, 40 % of a training step on a CPU.
    """
    return x


def _forward(x: jax.Array) -> tuple[jax.Array, None]:
    return x, None


def _backward(_: None, gradient: Any) -> tuple[Any]:
    return (jax.lax.optimization_barrier(gradient),)


gradient_barrier.defvjp(_forward, _backward)
