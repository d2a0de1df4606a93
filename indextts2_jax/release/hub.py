"""Releases by name: from the Hugging Face hub to a directory that `convert` reads.

    name -> Plan.make    what is needed, from where, how much, under which licences
         -> Plan.fetch   into the hub's own cache, checked; a directory of links to it is a release

PINNED says which commits are taken, with the size of every file and the SHA-256 of every file of
weights. Other models in the form of IndexTTS-2, such as fine-tuned ones, are taken as the hub has
them, and the auxiliary models that they lack from PINNED.

`huggingface_hub` (imported when it is needed) heeds HF_HOME, HF_ENDPOINT, HF_HUB_OFFLINE and
HF_TOKEN. A connection that breaks goes on where it was; of an interrupted command, whole files are
kept.
"""

import contextlib
import dataclasses
import fnmatch
import hashlib
import os
import pathlib
import re
import shutil
import sys
from collections.abc import Iterator, Mapping
from typing import Any

from tqdm import tqdm

from indextts2_jax.errors import InputError, os_error
from indextts2_jax.release.find import (
    AUXILIARY,
    OWN_SETTINGS,
    TOKENIZER_FILES,
    read_config,
)

TIMEOUT_S = 10.0  # for the first answer of the hub
PREFIX = "hf:"  # of a name where a path may stand, too
_NAME = re.compile(r"([\w-][\w.-]*/[\w-][\w.-]*)(?:@([\w][\w./-]*))?")
_DIGITS = 7  # of a commit that are shown
# Peak memory of the conversion relative to the largest file; see "Size" in the README.
_MEMORY_FACTOR = 1.4


@dataclasses.dataclass(frozen=True)
class File:
    """A file of a repository; `sha256` is known of pinned weights."""

    path: str
    size: int  # bytes
    sha256: str = ""

    @property
    def is_weights(self) -> bool:
        """Whether it goes through the conversion."""
        return self.path.endswith((".pth", ".pt", ".bin", ".safetensors"))


@dataclasses.dataclass(frozen=True)
class Source:
    """Files of one repository.

    Attributes:
      repo: its name.
      revision: a commit.
      licence: what it says of itself.
      folder: where its files belong in a release.
      files: those that are needed.
      pinned: the commit is that of PINNED.
    """

    repo: str
    revision: str
    licence: str
    folder: str
    files: tuple[File, ...]
    pinned: bool = True

    def place(self, file: File) -> str:
        """Returns the path of a file in a release."""
        return (pathlib.PurePosixPath(self.folder) / file.path).as_posix()


QWEN = "qwen0.6bemo4-merge"
PINNED = (
    Source(
        "IndexTeam/IndexTTS-2",
        "740dcaff396282ffb241903d150ac011cd4b1ede",
        "bilibili Model Use License (its LICENSE.txt)",
        "",
        (
            File("config.yaml", 2_882),
            File("LICENSE.txt", 10_554),
            File("LICENSE_ZH.txt", 7_336),
            File("bpe.model", 475_997),
            File("feat1.pt", 57_170),
            File("feat2.pt", 374_866),
            File("wav2vec2bert_stats.pt", 9_343),
            File(
                "gpt.pth",
                3_484_663_079,
                "baaaeb8b56328da81731dc540a85a7dee32eca9da28f174b05757cb651c602a4",
            ),
            File(
                "s2mel.pth",
                1_202_198_223,
                "aae1bb12017cbb47e7a5ce537fc82f40b6b1deb71acdb9b8f25686f32714b636",
            ),
            File(
                f"{QWEN}/model.safetensors",
                1_192_135_096,
                "11293257a8df593c154a8ecd5fc039f3076de35411e35f06d41b471e136f6641",
            ),
            File(f"{QWEN}/config.json", 727),
            File(f"{QWEN}/generation_config.json", 117),
            File(f"{QWEN}/added_tokens.json", 707),
            File(f"{QWEN}/special_tokens_map.json", 616),
            File(f"{QWEN}/tokenizer_config.json", 5_433),
            File(f"{QWEN}/tokenizer.json", 11_422_654),
            File(f"{QWEN}/vocab.json", 2_776_833),
            File(f"{QWEN}/merges.txt", 1_671_853),
            File(f"{QWEN}/chat_template.jinja", 550),
        ),
    ),
    Source(
        "facebook/w2v-bert-2.0",
        "da985ba0987f70aaeb84a80f2851cfac8c697a7b",
        "MIT",
        "hf_cache/w2v-bert-2.0",
        (
            File("config.json", 1_874),
            File("preprocessor_config.json", 275),
            File(
                "model.safetensors",
                2_322_063_736,
                "eb890c9660ed6e3414b6812e27257b8ce5454365d5490d3ad581ea60b93be043",
            ),
        ),
    ),
    Source(
        "amphion/MaskGCT",
        "265c6cef07625665d0c28d2faafb1415562379dc",
        "CC-BY-NC-4.0 (not for commercial use)",
        "hf_cache",
        (
            File(
                "semantic_codec/model.safetensors",
                177_183_712,
                "ec947271175d8cad75ec37e83aa487e27c97a0f72a303393772da5ffa84bddf2",
            ),
        ),
    ),
    Source(
        "funasr/campplus",
        "e4b6ede7ce16997aff4ae69fbca1f0175e2afede",
        "Apache-2.0",
        "hf_cache",
        (
            File(
                "campplus_cn_common.bin",
                28_036_335,
                "3388cf5fd3493c9ac9c69851d8e7a8badcfb4f3dc631020c4961371646d5ada8",
            ),
        ),
    ),
    Source(
        "nvidia/bigvgan_v2_22khz_80band_256x",
        "633ff708ed5b74903e86ff1298cf4a98e921c513",
        "MIT",
        "hf_cache/bigvgan",
        (
            File("config.json", 1_405),
            File(
                "bigvgan_generator.pt",
                449_228_171,
                "e95ba25972d3de0628d99cd156e9315a9c018899bf739988959ebe3544080ced",
            ),
        ),
    ),
)


def user_cache() -> pathlib.Path:
    """Finds where the project keeps what can be made again."""
    return pathlib.Path(os.environ.get("XDG_CACHE_HOME", "~/.cache")).expanduser() / "indextts2_jax"


def parse(name: str | os.PathLike) -> tuple[str, str | None] | None:
    """Splits ORG/NAME or ORG/NAME@REVISION, with or without `hf:`.

    Returns:
      The repository and the revision, if there is one; None for what is a path.
    """
    text = os.fspath(name)
    if not text.startswith(PREFIX) and os.path.lexists(text):
        return None  # a folder of that name wins
    match = _NAME.fullmatch(text.removeprefix(PREFIX))
    return None if match is None else (match[1], match[2])


@dataclasses.dataclass(frozen=True)
class Plan:
    """What a release by name needs.

    Attributes:
      sources: of all its files.
      missing: those that are not in the hub's cache yet.
    """

    sources: tuple[Source, ...]
    missing: frozenset[tuple[str, File]]

    @classmethod
    def make(
        cls, repo: str, revision: str | None, *, auxiliary: bool = True, emotion_text: bool = True
    ) -> "Plan":
        """Finds out what is needed; of a model that is not pinned, fetches its config.yaml.

        Args:
          repo: of a model in the form of IndexTTS-2.
          revision: a commit, branch or tag; None for the pinned one, or the newest.
          auxiliary: also the auxiliary models.
          emotion_text: also the Qwen3 emotion model.

        Raises:
          InputError: if the hub cannot be reached, or does not have or give out what is needed.
        """
        first = PINNED[0]
        if repo == first.repo and revision in (None, first.revision):
            kept = (f for f in first.files if emotion_text or not f.path.startswith(f"{QWEN}/"))
            main = dataclasses.replace(first, files=tuple(kept))
        else:
            main = _at_hub(repo, revision, emotion_text)
        own = _auxiliary_names(main)
        others = (source for source in PINNED[1:] if not _auxiliary_names(source) <= own)
        sources = (main, *(others if auxiliary else ()))
        missing = frozenset((s.repo, f) for s in sources for f in s.files if not _cached(s, f))
        for source in sources:  # complains now, not after gigabytes
            if absent := [f for f in source.files if (source.repo, f) in missing]:
                _ask_for(source, absent[0])
        return cls(sources, missing)

    @property
    def download_bytes(self) -> int:
        """What is to be fetched."""
        return sum(file.size for _, file in self.missing)

    def checkpoint_bytes(self, dtype: str) -> int:
        """Returns the most that a checkpoint takes which stores large parts in `dtype`."""
        sizes = {s.place(f): f.size for s in self.sources for f in s.files if f.is_weights}
        # Qwen3 comes in 16 bits; T2S and S2M come in 32.
        wide = sum(n for place, n in sizes.items() if place.startswith(QWEN))
        large = sum(n for place, n in sizes.items() if place.endswith(".pth"))
        return sum(sizes.values()) + (wide if dtype == "float32" else -large // 2)

    @property
    def memory_bytes(self) -> int:
        """Roughly what the conversion takes at its peak."""
        largest = max(f.size for s in self.sources for f in s.files)
        return round(_MEMORY_FACTOR * largest)

    def fetch(self) -> pathlib.Path:
        """Fetches what is missing.

        Returns:
          A directory in the form of a release, of links into the hub's cache.

        Raises:
          InputError: if something cannot be fetched, or is not what it should be; files that were
            fetched before stay in the cache.
        """
        import huggingface_hub as hub

        main = self.sources[0]
        folder = user_cache() / "releases" / f"{main.repo.replace('/', '--')}@{main.revision}"
        self._check_room()
        with (
            _quiet(),
            tqdm(total=len(self.missing), unit="file", desc="fetch", disable=None) as bar,
        ):
            for source in self.sources:
                for file in source.files:
                    bar.set_postfix_str(file.path)
                    with _explained(source.repo, file.path):
                        path = pathlib.Path(
                            hub.hf_hub_download(source.repo, file.path, revision=source.revision)
                        )
                    new = (source.repo, file) in self.missing
                    _check(path, source, file, new=new)
                    _link(path, folder / source.place(file))
                    bar.update(new)
        return folder

    def _check_room(self) -> None:
        cache = hub_cache()
        if self.download_bytes > (free := free_bytes(cache)):
            raise InputError(
                f"no room in {cache}: the download takes {self.download_bytes / 1e9:.1f} GB, the "
                f"disk has {free / 1e9:.1f} GB; HF_HOME moves it"
            )

    def provenance(self) -> list[dict[str, Any]]:
        """Returns what `provenance.json` says of where the files came from."""
        return [
            {
                "repository": source.repo,
                "revision": source.revision,
                "pinned": source.pinned,
                "licence": source.licence,
                "files": [file.path for file in source.files],
            }
            for source in self.sources
        ]


def hub_cache() -> pathlib.Path:
    """Returns the directory that `huggingface_hub` fetches into."""
    from huggingface_hub import constants

    return pathlib.Path(constants.HF_HUB_CACHE)


def endpoint() -> str:
    """Returns the address of the hub."""
    from huggingface_hub import constants

    return constants.ENDPOINT


def free_bytes(path: pathlib.Path) -> int:
    """Measures the room on the disk on which `path` lies, or will lie."""
    while not path.exists():
        path = path.parent
    return shutil.disk_usage(path).free


def _cached(source: Source, file: File) -> bool:
    import huggingface_hub as hub

    found = hub.try_to_load_from_cache(source.repo, file.path, revision=source.revision)
    return isinstance(found, str) and os.path.exists(found)


def _ask_for(source: Source, file: File) -> None:
    """Asks the hub for a file without fetching it."""
    import huggingface_hub as hub

    url = hub.hf_hub_url(source.repo, file.path, revision=source.revision, endpoint=endpoint())
    with _quiet(), _explained(source.repo, file.path):
        hub.get_hf_file_metadata(url, timeout=TIMEOUT_S)


def _at_hub(repo: str, revision: str | None, emotion_text: bool) -> Source:
    """Returns a model that is not pinned, as the hub has it."""
    import huggingface_hub as hub

    with _quiet(), _explained(repo):
        api = hub.HfApi(endpoint=endpoint())
        info = api.model_info(repo, revision=revision, files_metadata=True, timeout=TIMEOUT_S)
        sizes = {x.rfilename: x.size or 0 for x in info.siblings or ()}
        if "config.yaml" not in sizes:
            raise InputError(f"{repo} has no config.yaml: is it in the form of IndexTTS-2?")
        if OWN_SETTINGS in sizes:
            hub.hf_hub_download(repo, OWN_SETTINGS, revision=info.sha)
        config = pathlib.Path(hub.hf_hub_download(repo, "config.yaml", revision=info.sha))
    assert info.sha is not None
    paths = _needed(repo, sizes, read_config(config.parent, emotion_text=emotion_text)[2])
    return Source(
        repo=repo,
        revision=info.sha,
        licence=getattr(info.card_data, "license", None) or "says no licence",
        folder="",
        files=tuple(File(path, sizes[path]) for path in paths),
        pinned=False,
    )


def _auxiliary_names(source: Source) -> set[str]:
    """Says which files of the auxiliary models a source has."""
    return {name for file in source.files for name in AUXILIARY if _is_in(source.place(file), name)}


def _is_in(place: str, name: str) -> bool:
    """Tells whether the auxiliary file `name` is looked for at this path of a release."""
    patterns = (pathlib.PurePosixPath(pattern).as_posix() for pattern in AUXILIARY[name])
    return any(fnmatch.fnmatchcase(place.removeprefix("hf_cache/"), p) for p in patterns)


def _needed(repo: str, sizes: Mapping[str, int], places: Mapping[str, str]) -> list[str]:
    """Says which files of a repository a release needs; `places` is what its config.yaml names."""
    wanted = {pathlib.PurePosixPath(place).as_posix() for place in places.values()}
    patterns = ["*LICEN[CS]E*", "glossary.yaml", OWN_SETTINGS]
    patterns += ["hf_cache/*/preprocessor_config.json"]
    if "qwen3" in places:
        model = pathlib.PurePosixPath(places["qwen3"])
        patterns += [f"{model.parent}/{pattern}" for pattern in TOKENIZER_FILES]
        if f"{model}.index.json" in sizes:  # its weights are in several files
            wanted.remove(model.as_posix())
            patterns += [f"{model.parent}/{model.stem}*{model.suffix}"]
    if missing := sorted(wanted - sizes.keys()):
        raise InputError(f"{repo} lacks what its config.yaml names: {', '.join(missing)}")
    found = {path for path in sizes if any(_is_in(path, name) for name in AUXILIARY)}
    found |= {path for path in sizes for pattern in patterns if _matches(path, pattern)}
    return sorted(wanted | found)


def _matches(path: str, pattern: str) -> bool:
    return fnmatch.fnmatchcase(path, pattern) and path.count("/") == pattern.count("/")


def _check(path: pathlib.Path, source: Source, file: File, *, new: bool) -> None:
    """Compares a file with what is known of it; what has just been fetched wrongly is removed."""
    size = path.stat().st_size
    wrong = ""
    if size != file.size:
        wrong = f"{size:,} bytes, want {file.size:,}"
    elif new and file.sha256:
        with open(path, "rb") as content:
            digest = hashlib.file_digest(content, "sha256").hexdigest()
        if digest != file.sha256:
            wrong = f"SHA-256 {digest}, want {file.sha256}"
    if not wrong:
        return
    if new:
        path.resolve().unlink()
        path.unlink(missing_ok=True)
    raise InputError(
        f"{source.repo}/{file.path} from {endpoint()} is not the file that is known: {wrong}"
        + ("" if new else f"; remove {path}")
    )


def _link(target: pathlib.Path, path: pathlib.Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.exists() and path.samefile(target):
        return
    path.unlink(missing_ok=True)
    try:
        path.symlink_to(target.resolve())
    except OSError:  # a system without links
        shutil.copyfile(target, path)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Leaves the library's bars to terminals, and its complaints to our messages."""
    from huggingface_hub import utils

    level, bars = utils.logging.get_verbosity(), not utils.are_progress_bars_disabled()
    utils.logging.set_verbosity_error()
    if not sys.stderr.isatty():
        utils.disable_progress_bars()
    try:
        yield
    finally:
        utils.logging.set_verbosity(level)
        if bars:
            utils.enable_progress_bars()


@contextlib.contextmanager
def _explained(repo: str, file: str = "") -> Iterator[None]:
    """Turns what the library raises into one line that says what can be done."""
    from huggingface_hub import constants, errors

    what = f"{repo}/{file}" if file else repo
    try:
        yield
    except InputError:
        raise
    except errors.GatedRepoError:
        raise InputError(
            f"{repo} is gated: accept its terms at {endpoint()}/{repo}, then log in "
            "(hf auth login, or HF_TOKEN)"
        ) from None
    except errors.RepositoryNotFoundError:
        raise InputError(
            f"there is no folder {repo} here, and {endpoint()} has no model {repo}, or shows it to "
            "those who may see it alone (hf auth login, or HF_TOKEN)"
        ) from None
    except errors.RevisionNotFoundError:
        raise InputError(f"{repo} at {endpoint()} has no such revision") from None
    except (errors.OfflineModeIsEnabled, errors.LocalEntryNotFoundError) as error:
        if constants.HF_HUB_OFFLINE:
            reason = f"HF_HUB_OFFLINE is set, and {what} is not in {hub_cache()}"
        else:
            reason = (
                f"cannot reach {endpoint()} for {what}: {_first_line(error.__cause__ or error)}"
            )
        raise InputError(reason) from None
    except errors.EntryNotFoundError:
        raise InputError(f"{repo} at {endpoint()} has no file {file}") from None
    except errors.HfHubHTTPError as error:
        code = error.response.status_code if error.response is not None else "nothing"
        raise InputError(f"{endpoint()} answered {code} for {what}") from None
    except Exception as error:  # of the HTTP client, another one in each version of the library
        if isinstance(error, OSError) and error.errno is not None and error.filename is not None:
            raise InputError(os_error(error)) from None
        raise InputError(f"cannot fetch {what} from {endpoint()}: {_first_line(error)}") from None


def _first_line(error: BaseException) -> str:
    return next(iter(str(error).splitlines()), "") or type(error).__name__
