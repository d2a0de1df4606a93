r"""Weight names and layouts between PyTorch and JAX: declarative rules, strict, both ways.

Every network file ends in a `TORCH_RULES` table. A rule pairs a torch name with ours; `{i}` stands
for an index on both sides (`{i+1}` on the torch side where upstream counts from one), so one table
serves both directions:

    to_jax(state_dict, TORCH_RULES, expected=shapes(model))   names and shapes match, or it raises
    to_torch(params(model), TORCH_RULES)                      the inverse, bit by bit
"""

import dataclasses
import functools
import re
from collections.abc import Callable, Iterable, Mapping, Sequence

import numpy as np

from indextts2_jax.errors import InputError

Array = np.ndarray


@dataclasses.dataclass(frozen=True)
class Layout:
    """A reversible change of axes."""

    name: str
    to_jax: Callable[[Array], Array]
    to_torch: Callable[[Array], Array]


SAME = Layout("same", lambda w: w, lambda w: w)
LINEAR = Layout("linear", lambda w: w.T, lambda w: w.T)  # [out, in] <-> [in, out]
POINTWISE = Layout("pointwise", lambda w: w[..., 0].T, lambda w: w.T[..., None])  # Conv1d, K = 1
POINTWISE_2D = Layout(
    "pointwise_2d", lambda w: w[..., 0, 0].T, lambda w: w.T[..., None, None]
)  # Conv2d, 1 x 1
CONV_1D = Layout(
    "conv_1d", lambda w: w.transpose(2, 1, 0), lambda w: w.transpose(2, 1, 0)
)  # [out, in/groups, K] <-> [K, in/groups, out]; ConvTranspose [in, out, K] <-> [K, out, in]
CONV_2D = Layout(
    "conv_2d", lambda w: w.transpose(2, 3, 1, 0), lambda w: w.transpose(3, 2, 0, 1)
)  # [out, in, H, W] <-> [H, W, in, out]
DEPTHWISE = Layout("depthwise", lambda w: w[:, 0].T, lambda w: w.T[:, None])  # [C, 1, K] <-> [K, C]
GAIN_1D = Layout(
    "gain_1d", lambda w: w[:, 0, 0], lambda w: w[:, None, None]
)  # weight_g of a convolution: [C, 1, 1] <-> [C]
GAIN_LINEAR = Layout("gain_linear", lambda w: w[:, 0], lambda w: w[:, None])  # weight_g: [C, 1]


@dataclasses.dataclass(frozen=True)
class Rule:
    """Pairs the torch name template `torch` with our name template `jax`."""

    torch: str
    jax: str
    layout: Layout = SAME


def linear(torch: str, jax: str, layout: Layout = LINEAR, *, bias: bool = True) -> tuple[Rule, ...]:
    """Rules of a Linear or Conv: `torch`.weight/.bias <-> `jax`.kernel/.bias."""
    kernel = Rule(f"{torch}.weight", f"{jax}.kernel", layout)
    return (kernel, Rule(f"{torch}.bias", f"{jax}.bias")) if bias else (kernel,)


def norm(torch: str, jax: str) -> tuple[Rule, ...]:
    """Rules of an affine norm: `torch`.weight/.bias <-> `jax`.scale/.bias."""
    return Rule(f"{torch}.weight", f"{jax}.scale"), Rule(f"{torch}.bias", f"{jax}.bias")


def weight_norm(
    torch: str, jax: str, layout: Layout, gain: Layout = GAIN_1D, *, bias: bool = True
) -> tuple[Rule, ...]:
    """Rules of a weight-normed layer: weight_v/weight_g/bias <-> kernel/gain/bias."""
    rules = (
        Rule(f"{torch}.weight_v", f"{jax}.kernel", layout),
        Rule(f"{torch}.weight_g", f"{jax}.gain", gain),
    )
    return (*rules, Rule(f"{torch}.bias", f"{jax}.bias")) if bias else rules


def prefixed(rules: Iterable[Rule], torch: str, jax: str) -> tuple[Rule, ...]:
    """Returns the same rules with `torch` and `jax` put in front of their names."""
    return tuple(Rule(torch + r.torch, jax + r.jax, r.layout) for r in rules)


class ConversionError(InputError):
    """Names or shapes do not match; the message lists all of them."""


_FIELD = re.compile(r"\{([a-z]+)(?:\+(\d+))?\}")


def _expand(template: str, values: Mapping[str, int]) -> str:
    return _FIELD.sub(lambda field: str(values[field[1]] + int(field[2] or 0)), template)


class _Names:
    """Translates names of one side of a rule table into the other."""

    def __init__(self, pairs: Sequence[tuple[str, str]]):
        self._entries = []
        for source, target in pairs:
            parts, last = [], 0
            for m in _FIELD.finditer(source):
                parts += [re.escape(source[last : m.start()]), rf"(?P<{m[1]}>\d+)"]
                last = m.end()
            pattern = re.compile("".join(parts) + re.escape(source[last:]))
            offsets = {m[1]: int(m[2] or 0) for m in _FIELD.finditer(source)}
            self._entries.append((pattern, offsets, target))

    def find(self, name: str) -> list[tuple[int, str]]:
        """Returns (rule index, translated name) of every rule that matches `name`."""
        hits = []
        for index, (pattern, offsets, target) in enumerate(self._entries):
            if m := pattern.fullmatch(name):
                values = {k: int(v) - offsets[k] for k, v in m.groupdict().items()}
                hits.append((index, _expand(target, values)))
        return hits


@functools.lru_cache(maxsize=32)
def _torch_names(rules: tuple[Rule, ...]) -> _Names:
    """Maps from our names to torch's; kept, because `to_torch` may be called array by array."""
    return _Names([(r.jax, r.torch) for r in rules])


def to_jax(
    tensors: Mapping[str, Array],
    rules: Sequence[Rule],
    expected: Mapping[str, tuple[int, ...]],
    unused: Sequence[str] = (),
) -> dict[str, Array]:
    """Converts a torch state dict to our flat names.

    Args:
      tensors: torch name -> array (any float dtype; kept).
      rules: the table; each torch name must match exactly one rule.
      expected: our name -> shape, from `shapes(model)`.
      unused: regexes of torch names that no network reads (buffers, unused layers).

    Returns:
      Our name -> array; its names and shapes are exactly those of `expected`.

    Raises:
      ConversionError: lists every unknown, doubly matched, missing or misshapen tensor.
    """
    names = _Names([(r.torch, r.jax) for r in rules])
    errors: list[str] = []
    out: dict[str, Array] = {}
    for name, value in tensors.items():
        if any(re.fullmatch(pattern, name) for pattern in unused):
            continue
        hits = names.find(name)
        if not hits:
            errors.append(f"{name}: unexpected tensor")
        elif len(hits) > 1 or hits[0][1] in out:
            errors.append(f"{name}: more than one tensor or rule for {hits[0][1]}")
        elif hits[0][1] not in expected:
            errors.append(f"{name}: unexpected tensor (the model has no {hits[0][1]})")
        else:
            index, target = hits[0]
            want = tuple(expected[target])
            try:
                array = rules[index].layout.to_jax(value)
            except (IndexError, ValueError):  # wrong number of axes
                array = value
            if array.shape == want:
                out[target] = array
            else:
                errors.append(f"{name}: shape {tuple(value.shape)} does not fit {target} {want}")
                expected = {k: v for k, v in expected.items() if k != target}
    torch_names = _torch_names(tuple(rules))
    for name in expected.keys() - out.keys():
        hits = torch_names.find(name)
        errors.append(f"{hits[0][1] if hits else name}: missing tensor")
    if errors:
        raise ConversionError(
            f"{len(errors)} tensors do not match:\n  " + "\n  ".join(sorted(errors))
        )
    return out


def to_torch(arrays: Mapping[str, Array], rules: Sequence[Rule]) -> dict[str, Array]:
    """Converts our flat names back to a torch state dict, the inverse of `to_jax`.

    Raises:
      ConversionError: lists every name that no rule or more than one rule covers.
    """
    names = _torch_names(tuple(rules))
    out, errors = {}, []
    for name, value in arrays.items():
        hits = names.find(name)
        if len(hits) != 1:
            errors.append(f"{name}: {len(hits)} rules match, want 1")
        else:
            out[hits[0][1]] = rules[hits[0][0]].layout.to_torch(value)
    if errors:
        raise ConversionError("\n  ".join(errors))
    return out
