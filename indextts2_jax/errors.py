"""What a user can mend: bad input, a broken checkpoint. The command line exits with 2 on these."""


class InputError(ValueError):
    """Input that cannot be used; the message says in one line what was got and what is wanted."""
