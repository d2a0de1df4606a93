"""The arrays of a module: their flat names, shapes, random values, and filling it."""

from collections.abc import Callable, Mapping
from typing import Any

import jax
import numpy as np
from flax import nnx

from indextts2_jax.convert import Array, ConversionError


def _name(path: Any) -> str:
    return jax.tree_util.keystr(path, simple=True, separator=".").removesuffix(".value")


def params(model: Any, kind: Any = ...) -> dict[str, Any]:
    """Returns the arrays of a module under their flat names, e.g. `blocks.3.qkv.kernel`.

    Args:
      model: built or abstract.
      kind: nnx.Param for weights, nnx.BatchStat for frozen statistics and tables; `...` for all.

    Returns:
      Flat name -> array.
    """
    state = nnx.state(model, kind)
    return {_name(p): x for p, x in jax.tree_util.tree_flatten_with_path(state)[0]}


def shapes(model: Any) -> dict[str, tuple[int, ...]]:
    """Returns the shape of every array of a module (built or abstract) by its flat name."""
    return {name: tuple(x.shape) for name, x in params(model).items()}


class Keys:
    """Stands for `nnx.Rngs` where a module is built inside `jax.jit`, in far less time."""

    def __init__(self, key: jax.Array):
        self._key, self._count = key, 0

    def params(self) -> jax.Array:
        """Returns a new key."""
        self._count += 1
        return jax.random.fold_in(self._key, self._count)


class _OneKey:
    """Stands for `nnx.Rngs` where only shapes matter: counting keys while tracing takes seconds."""

    def __init__(self):
        self._key = jax.random.key(0)

    def params(self) -> jax.Array:
        return self._key


def abstract(build: Callable[[Any], Any]) -> Any:
    """Returns what `build(rngs)` would make, with shapes in place of arrays: none is allocated."""
    return nnx.eval_shape(lambda: build(_OneKey()))


def random_arrays(build: Callable[[Any], Any], seed: int) -> dict[str, Array]:
    """Makes random weights for demos and tests by NumPy: compiling initializers takes longer.

    Args:
      build: makes the module from its `rngs`.
      seed: of the draw.

    Returns:
      Flat name -> array. Matrices are normal with the inverse fan-in as variance, norm scales and
      gains 1, biases 0; frozen tables have the values that `build` gives them.
    """
    rng = np.random.default_rng(seed)
    out = {}
    for name, x in params(abstract(build), nnx.Param).items():
        if x.ndim > 1:
            noise = rng.standard_normal(x.shape, np.float32)
            out[name] = noise / np.sqrt(np.float32(np.prod(x.shape[:-1])))
        else:
            constant = 1.0 if name.rsplit(".", 1)[-1] in ("scale", "gain") else 0.0
            out[name] = np.full(x.shape, constant, np.float32)
    tables = jax.jit(lambda: params(build(_OneKey()), nnx.BatchStat))()
    return out | {name: np.asarray(x) for name, x in tables.items()}


def fill(model: Any, arrays: Mapping[str, Any]) -> Any:
    """Puts arrays into an abstract (or built) module.

    Args:
      model: a module, usually from `abstract`.
      arrays: flat name -> array, exactly the names and shapes of the module.

    Returns:
      The module with those arrays.

    Raises:
      ConversionError: lists names or shapes that differ.
    """
    want, got = shapes(model), {k: tuple(v.shape) for k, v in arrays.items()}
    if want != got:
        wrong = sorted(k for k in want.keys() | got.keys() if want.get(k) != got.get(k))
        raise ConversionError(
            "arrays do not fit the module:\n  "
            + "\n  ".join(f"{k}: got {got.get(k)}, want {want.get(k)}" for k in wrong)
        )
    graphdef, state = nnx.split(model)
    state = jax.tree_util.tree_map_with_path(lambda p, _: arrays[_name(p)], state)
    return nnx.merge(graphdef, state)
