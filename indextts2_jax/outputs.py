"""Files that are written: whole or not at all, never in place of an input or a device.

Outputs(inputs).add(path)  before the work: can it be written, and is it no input?
replacing(path)            after it: a temporary neighbour becomes the file
locked(path)               one process alone writes to it
"""

import contextlib
import errno
import io
import logging
import os
import pathlib
import stat
import uuid
from collections.abc import Hashable, Iterable, Iterator

from indextts2_jax.errors import InputError, os_error

_log = logging.getLogger(__name__)


@contextlib.contextmanager
def replacing(path: str | os.PathLike) -> Iterator[pathlib.Path]:
    """Yields a temporary path that becomes `path` when the block ends without an error.

    It lies beside `path` and has the same suffix. Missing folders are made, links are followed.

    Args:
      path: the file to write; replaced where it exists.

    Raises:
      InputError: if the system cannot write it: no room, no permission, no regular file.
    """
    check_writable(path)
    real = pathlib.Path(os.path.realpath(path))
    temporary = real.with_name(f".{uuid.uuid4().hex}.tmp{real.suffix}")
    try:
        real.parent.mkdir(parents=True, exist_ok=True)
        yield temporary
        os.replace(temporary, real)
    except OSError as error:
        if error.filename not in (None, str(temporary), str(real), str(real.parent)):
            raise  # of another file
        raise InputError(f"cannot write {path}: {error.strerror or error}") from error
    finally:
        with contextlib.suppress(OSError):  # such as of a folder that is none
            temporary.unlink()


def check_writable(path: str | os.PathLike) -> None:
    """Finds out before the work that a file cannot be written.

    Raises:
      InputError: if the file is a directory, a device or the like, or its folder cannot be written.
    """
    try:
        mode = _mode(path)
        if mode is not None and stat.S_ISDIR(mode):
            raise InputError(f"{path} is a directory, want a file name")
        if mode is not None and not stat.S_ISREG(mode):
            raise InputError(f"{path} is no regular file; it is not replaced")
        folder = pathlib.Path(os.path.realpath(path))
        while (mode := _mode(folder := folder.parent)) is None:
            pass
        # The first of the missing folders shows whether its name is too long; so do the others,
        # put in its place.
        for name in pathlib.Path(os.path.realpath(path)).relative_to(folder).parts:
            _mode(folder / name)
    except (OSError, ValueError) as error:  # ValueError: a NUL in the name, and InputError
        if isinstance(error, InputError):
            raise
        raise InputError(f"cannot write {str(path)!r}: {os_error(error)}") from None
    if not stat.S_ISDIR(mode) or not os.access(folder, os.W_OK | os.X_OK):
        raise InputError(f"cannot write {path}: {folder} is not a writable directory")


def _mode(path: str | os.PathLike) -> int | None:
    try:
        return os.stat(path).st_mode
    except (FileNotFoundError, NotADirectoryError):
        return None


class Outputs:
    """The outputs of a command; none of them replaces an input, or another one."""

    def __init__(self, inputs: Iterable[str | os.PathLike]):
        """Takes the files that are read, and directories in which nothing may be written."""
        self._taken = {name: path for path in inputs for name in identities(path)}
        self._folders: set[str] = set()

    def add(self, path: str | os.PathLike) -> None:
        """Checks an output before the work.

        Raises:
          InputError: if it cannot be written, or would replace what is needed.
        """
        check_writable(path)
        names, folders = (
            identities(path),
            list(map(str, pathlib.Path(os.path.realpath(path)).parents)),
        )
        for name in (*names, *folders):
            if name in self._taken:
                where = "is" if name in names else "lies in"
                raise InputError(f"the output {path} {where} {self._taken[name]}, which is needed")
        if not names.isdisjoint(self._folders):
            raise InputError(f"the output {path} is the folder of another output")
        self._taken |= dict.fromkeys(names, "an earlier output")
        self._folders.update(folders)


def identities(path: str | os.PathLike) -> set[Hashable]:
    """Returns what two paths to one file share: its real path, and its number if it exists."""
    found: set[Hashable] = {str(path)}
    with contextlib.suppress(OSError, ValueError):  # ValueError: a NUL in the name
        found = {os.path.realpath(path)}
        status = os.stat(path)
        found.add((status.st_dev, status.st_ino))
    return found


@contextlib.contextmanager
def locked(path: str | os.PathLike) -> Iterator[io.RawIOBase]:
    """Opens a file to append to it, which no other process can do at the same time.

    The lock goes with the process, however it ends.

    Args:
      path: the file; made if it is missing, with its folder.

    Raises:
      InputError: if another process has it, or it cannot be written.
    """
    import fcntl  # here: not everywhere

    path = pathlib.Path(path)
    check_writable(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        file = open(path, "ab", buffering=0)  # noqa: SIM115
    except OSError as error:
        raise InputError(os_error(error)) from None
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno in (errno.EWOULDBLOCK, errno.EACCES):
                raise InputError(f"another process writes to {path.parent}") from None
            _log.warning("%s cannot be locked (%s)", path, error.strerror)  # some network disks
        yield file
