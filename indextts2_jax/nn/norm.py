"""Norm constructors with torch's numerics (flax's defaults differ: epsilon 1e-6, fast variance)."""

from flax import nnx


def layer_norm(features: int, *, epsilon: float = 1e-5, rngs: nnx.Rngs) -> nnx.LayerNorm:
    """Computes torch's LayerNorm over the last axis, affine; statistics in float32."""
    return nnx.LayerNorm(features, epsilon=epsilon, use_fast_variance=False, rngs=rngs)
