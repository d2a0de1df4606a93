"""What a user can mend: bad input, a broken checkpoint. The command line exits with 2 on these."""


class InputError(ValueError):
    """Input that cannot be used; the message says in one line what was got and what is wanted."""


def os_error(error: Exception) -> str:
    """Returns what the system has against a file, in one line: which, and why."""
    reason = getattr(error, "strerror", None) or " ".join(str(error).split())
    name = getattr(error, "filename", None)
    return reason if name is None else f"{name}: {reason}"
