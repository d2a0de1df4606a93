"""Settings of a user, each declared once: as a dataclass field with its help and its limits.

    seed: int = setting(0, "of all randomness", limits=(0, 2**32 - 1), group="decoding")

`check` holds values to what is declared; the command line and JSONL files get their names, types,
defaults and help from `settings`. So a new setting is one such line, and the code that reads it.
"""

import dataclasses
import numbers
import types
import typing
from collections.abc import Sequence
from typing import Any

from indextts2_jax.errors import InputError

_METADATA = "setting"
_KINDS = {
    bool: (bool, "true or false"),
    int: (numbers.Integral, "a whole number"),
    float: (numbers.Real, "a number"),
    str: (str, "text"),
}


@dataclasses.dataclass(frozen=True)
class Setting:
    """What is declared of a field.

    Attributes:
      help: what it is, in one line.
      limits: least and greatest value.
      choices: values that it may have.
      name: of the key in JSONL files, and with dashes of the flag; that of the field if empty.
      flag: of the command line, where it is another; false `--no-...` flags come by themselves.
      metavar: what the help calls the value.
      group: of the help.
      field: its name in the dataclass.
      kind: bool, int, float or str.
      default: its value where none is given; None where that is the checkpoint's, or nothing.
    """

    help: str
    limits: tuple[float, float] | None = None
    choices: Sequence[str] | None = None
    name: str = ""
    flag: str = ""
    metavar: str | None = None
    group: str = ""
    field: str = ""
    kind: type = str
    default: Any = None

    def check_kind(self, value: Any) -> None:
        """Raises an InputError if a value is of another type."""
        kind, wanted = _KINDS[self.kind]
        if not isinstance(value, kind) or (isinstance(value, bool) and self.kind is not bool):
            raise InputError(f"{self.name} is {value!r}; want {wanted}")

    def check(self, value: Any) -> None:
        """Raises an InputError if a value cannot be used."""
        self.check_kind(value)
        if self.limits is not None:
            low, high = self.limits
            if not low <= value <= high:  # also NaN
                raise InputError(f"{self.name} is {value}; it must be in {low:g} .. {high:g}")
        if self.choices is not None and value not in self.choices:
            raise InputError(f"{self.name} is {value!r}; want {' or '.join(self.choices)}")


def setting(default: Any, help: str, **declared: Any) -> Any:
    """Declares a field; the arguments are those of `Setting`."""
    return dataclasses.field(
        default=default, metadata={_METADATA: Setting(help, default=default, **declared)}
    )


def settings(cls: type) -> list[Setting]:
    """Returns everything that a dataclass declares with `setting`."""
    hints = typing.get_type_hints(cls)
    return [
        dataclasses.replace(
            field.metadata[_METADATA],
            field=field.name,
            name=field.metadata[_METADATA].name or field.name,
            kind=_kind(hints[field.name]),
        )
        for field in dataclasses.fields(cls)
        if _METADATA in field.metadata
    ]


def _kind(hint: Any) -> type:
    """Returns the type of a value that is given: `int` of `int | None`."""
    if isinstance(hint, types.UnionType):
        return next(x for x in typing.get_args(hint) if x is not types.NoneType)
    return hint


def check(values: Any) -> None:
    """Holds a dataclass to what its fields declare.

    Raises:
      InputError: for the first value that cannot be used.
    """
    for declared in settings(type(values)):
        value = getattr(values, declared.field)
        if value is not None or declared.default is not None:
            declared.check(value)


def changed(values: Any) -> dict[str, Any]:
    """Returns the settings of a dataclass that are not its defaults, by name."""
    pairs = ((x, getattr(values, x.field)) for x in settings(type(values)))
    return {x.name: value for x, value in pairs if value != x.default}


def documented(cls: type) -> type:
    """Adds the help of all settings to the docstring of a dataclass."""
    lines = [f"  {x.field}: {x.help} (default: {x.default})." for x in settings(cls)]
    cls.__doc__ = f"{cls.__doc__}\n\nSettings:\n" + "\n".join(lines)
    return cls


def is_unicode(text: str) -> bool:
    """Tells whether it can be written: bytes that are not UTF-8 and halves of escapes cannot."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
