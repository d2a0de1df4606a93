"""Checkpoints by the name of a model on the Hugging Face hub (`convert --src`, `hf:ORG/NAME`).

Says what is needed and under which licences, asks, fetches (`release.hub`) and converts.
"""

import pathlib
import sys

from indextts2_jax.checkpoint import store
from indextts2_jax.errors import InputError
from indextts2_jax.release import hub
from indextts2_jax.release.convert import LICENCE_NOTICE, convert_release
from indextts2_jax.release.files import require_torch


def convert_by_name(
    name: pathlib.Path,
    out: pathlib.Path,
    *,
    agreed: bool,
    aux: pathlib.Path | None = None,
    dtype: str = "float32",
    emotion_text: bool = True,
) -> None:
    """Fetches a release and converts it into the new checkpoint directory `out`.

    Args:
      name: ORG/NAME or ORG/NAME@REVISION.
      out: must not exist; appears only when everything is converted.
      agreed: the user agrees to the licences; otherwise asks on the terminal.
      aux: where the auxiliary models lie; None fetches them, too.
      dtype: float32 or bfloat16 storage of the large generators.
      emotion_text: also the Qwen3 emotion model.

    Raises:
      InputError: if something cannot be fetched or converted, or the user does not agree.
    """
    require_torch()
    store.require_new(out)
    parsed = hub.parse(name)
    if parsed is None:
        raise InputError(f"{name} is no name of a model; want ORG/NAME or ORG/NAME@REVISION")
    plan = hub.Plan.make(*parsed, auxiliary=aux is None, emotion_text=emotion_text)
    if plan.missing:
        _agree(plan, str(name), agreed)
    print(_needs(plan, out, dtype), file=sys.stderr)
    convert_release(
        plan.fetch(),
        out,
        aux=aux,
        dtype=dtype,
        emotion_text=emotion_text,
        sources=plan.provenance(),
    )


def checkpoint(name: pathlib.Path, *, agreed: bool) -> pathlib.Path:
    """Returns the kept checkpoint of hf:ORG/NAME, converted at its first use; else the path.

    Args:
      name: what the user gave.
      agreed: as in `convert_by_name`.

    Raises:
      InputError: as in `convert_by_name`.
    """
    if not str(name).startswith(hub.PREFIX):
        return name
    path = hub.user_cache() / "checkpoints" / _folder(name)
    if not path.is_dir():
        convert_by_name(name, path, agreed=agreed)
        print(f"wrote {path}\n{LICENCE_NOTICE}", file=sys.stderr)
    return path


def _folder(name: pathlib.Path) -> str:
    """Names the folder of a model: a pinned one gets another with every new pin."""
    repo, revision = hub.parse(name) or (str(name), None)
    first = hub.PINNED[0]
    if repo == first.repo and revision is None:
        revision = first.revision
    return f"{repo}@{revision}".replace("/", "--") if revision else repo.replace("/", "--")


def _agree(plan: hub.Plan, name: str, agreed: bool) -> None:
    """Shows the licences of what is to be fetched, and asks.

    Raises:
      InputError: if the user does not agree, or cannot be asked.
    """
    size = f"{plan.download_bytes / 1e9:.2f} GB"
    if not agreed and not sys.stdin.isatty():
        licences = ", ".join(f"{s.repo}: {s.licence}" for s in plan.sources)
        raise InputError(
            f"{name} would be fetched ({size}); agree to the licences with --yes ({licences})"
        )
    lines = [f"{name} takes these files of {hub.endpoint()}:"]
    for source in plan.sources:
        missing = sum(f.size for f in source.files if (source.repo, f) in plan.missing)
        lines.append(
            f"  {source.repo} @{source.revision[:7]}{'' if source.pinned else ' (not pinned)'}: "
            f"{missing / 1e9:.2f} GB to fetch; licence: {source.licence}"
        )
    print("\n".join(lines), file=sys.stderr)
    if agreed:
        return
    print(f"Fetch {size}, and agree to these licences? [y/N] ", end="", file=sys.stderr, flush=True)
    if sys.stdin.readline().strip().lower() not in ("y", "yes"):
        raise InputError("nothing was fetched")


def _needs(plan: hub.Plan, out: pathlib.Path, dtype: str) -> str:
    cache = hub.hub_cache()
    return (
        f"{plan.download_bytes / 1e9:.2f} GB go to {cache} ({hub.free_bytes(cache) / 1e9:.1f} GB "
        f"free), at most {plan.checkpoint_bytes(dtype) / 1e9:.2f} GB to {out} "
        f"({hub.free_bytes(out.absolute()) / 1e9:.1f} GB free); the conversion takes about "
        f"{plan.memory_bytes / 1e9:.2f} GB of memory"
    )
