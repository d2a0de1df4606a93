"""What lies where a file of a release should be: pointers, web pages, archives, cut downloads."""

import json
import pathlib
import re
import zipfile

_ARCHIVES = {
    b"\x1f\x8b": "a gzip archive",
    b"BZh": "a bzip2 archive",
    b"\xfd7zXZ": "an xz archive",
    b"7z\xbc\xaf": "a 7z archive",
    b"Rar!": "a RAR archive",
}
_ZIP = b"PK"
_PROTOCOL = b"\x80"  # the first byte of a pickle; old files of PyTorch begin so
_HEAD = 512  # bytes that tell


def foreign(path: pathlib.Path) -> str | None:
    """Says what a file is if it can be no file of any release.

    Args:
      path: of an existing file.

    Returns:
      What it is, to follow the file's name; None if it may be what it should be.

    Raises:
      OSError: if it cannot be read.
    """
    head = _head(path)
    if not head:
        return "is empty (0 bytes)"
    if head.startswith(b"version https://git-lfs.github.com/"):
        return "is a Git LFS pointer, not the file itself; `git lfs pull` fetches it"
    if re.match(rb"(\xef\xbb\xbf)?\s*<(!doctype|html|head|body|\?xml)", head, re.IGNORECASE):
        return "is a web page, not the file itself; download it again"
    return None


def foreign_binary(path: pathlib.Path) -> str | None:
    """Says what a file is if it can be no weights and no tokenizer; otherwise as `foreign`."""
    if what := foreign(path):
        return what
    head = _head(path)
    for magic, name in _ARCHIVES.items():
        if head.startswith(magic):
            return f"is {name}; unpack it first"
    line = head.split(b"\n")[0].strip()
    if line and all(byte in b"\t\r\n" or 32 <= byte < 127 for byte in head):
        text = line[:60].decode()
        return f"is a text file that begins with {text!r}, not the file itself"
    return None


def foreign_tokenizer(path: pathlib.Path) -> str | None:
    """Says what a file is if it can be no SentencePiece model; otherwise as `foreign_binary`."""
    head = _head(path)
    if head.startswith(_ZIP):
        return "is a zip archive; unpack it first"
    if head.startswith(_PROTOCOL):
        return "is a pickle, no SentencePiece model"
    return foreign_binary(path)


def foreign_pickle(path: pathlib.Path) -> str | None:
    """Says what a file is if it is none of `torch.save`; otherwise as `foreign_binary`."""
    head = _head(path)
    if head.startswith(_ZIP):
        if not zipfile.is_zipfile(path):
            return f"is cut short: of a file of PyTorch the end is missing ({_size(path)} are here)"
        with zipfile.ZipFile(path) as archive:
            if not any(name.endswith("data.pkl") for name in archive.namelist()):
                return "is a zip archive without weights of PyTorch; unpack it first"
    return foreign_binary(path)


def foreign_safetensors(path: pathlib.Path) -> str | None:
    """Says what a file is if it is no whole safetensors file; otherwise as `foreign_binary`."""
    size = path.stat().st_size
    with open(path, "rb") as file:
        length = int.from_bytes(file.read(8), "little")
        if 8 + length > size:
            other = foreign_binary(path) or foreign_pickle(path)
            return other or f"is cut short, or no safetensors file ({_size(path)} are here)"
        try:
            header = json.loads(file.read(length))
            end = max((x["data_offsets"][1] for k, x in header.items() if k[:2] != "__"), default=0)
        except (ValueError, TypeError, KeyError, IndexError, AttributeError):
            return foreign_binary(path) or "is no safetensors file"
    if 8 + length + end > size:
        return f"is cut short: {8 + length + end:,} bytes are wanted, {size:,} are here"
    return None


def _head(path: pathlib.Path) -> bytes:
    with open(path, "rb") as file:
        return file.read(_HEAD)


def _size(path: pathlib.Path) -> str:
    return f"{path.stat().st_size:,} bytes"
