"""Command-line arguments out of the settings that dataclasses declare (`request.fields`)."""

import argparse
from typing import Any, NoReturn

from indextts2_jax.errors import InputError
from indextts2_jax.request import fields


class Parser(argparse.ArgumentParser):
    """A parser whose complaints are one line, and not its whole usage."""

    def error(self, message: str) -> NoReturn:
        """Refuses the arguments."""
        raise InputError(f"{message} (see {self.prog} --help)")


def add_settings(parser: Any, *classes: type) -> None:
    """Adds a flag for each setting of dataclasses to a parser or a group of it."""
    groups = {"": parser}
    for declared in (x for cls in classes for x in fields.settings(cls)):
        if declared.group not in groups:
            groups[declared.group] = parser.add_argument_group(declared.group)
        _add(groups[declared.group], declared)


def _add(group: Any, declared: fields.Setting) -> None:
    dashed = declared.name.replace("_", "-")
    text = declared.help.replace("%", "%%")
    if declared.kind is bool:
        flag = declared.flag or (f"--no-{dashed}" if declared.default else f"--{dashed}")
        action = "store_false" if declared.default else "store_true"
        text = f"do not {text}" if declared.default else text
        group.add_argument(flag, dest=declared.name, action=action, help=text)
        return
    if declared.default is not None:
        text += " (default: %(default)s)"
    group.add_argument(
        declared.flag or f"--{dashed}",
        dest=declared.name,
        type=declared.kind,
        default=declared.default,
        choices=declared.choices,
        metavar=declared.metavar,
        help=text,
    )


def given(cls: type, args: argparse.Namespace) -> dict[str, Any]:
    """Returns the fields of a dataclass that `add_settings` has added, as a user has given them."""
    return {x.field: getattr(args, x.name) for x in fields.settings(cls)}


def check_unicode(args: argparse.Namespace) -> None:
    """Refuses texts that are not in the encoding of the system; names of files may be.

    Raises:
      InputError: names the flag.
    """
    for name, value in vars(args).items():
        if isinstance(value, str) and not fields.is_unicode(value):
            raise InputError(f"--{name.replace('_', '-')} is not UTF-8: {value!r}")
