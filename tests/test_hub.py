"""Releases by name, from a server on this machine that speaks the hub's protocol."""

import dataclasses
import filecmp
import hashlib
import json
import os
import pathlib
import shutil
import subprocess
import sys

import huggingface_hub
import pytest
from huggingface_hub import constants

from indextts2_jax.checkpoint.parts import Settings
from indextts2_jax.cli import main
from indextts2_jax.commands import by_name
from indextts2_jax.errors import InputError
from indextts2_jax.release import hub
from indextts2_jax.release.export import export_release
from tests.common import ROOT
from tests.hub_server import Hub

NAME = "IndexTeam/IndexTTS-2"
# Where the synthetic release has the files of the other repositories.
PLACES = {
    "facebook/w2v-bert-2.0": {"": "hf_cache/w2v-bert-2.0"},
    "amphion/MaskGCT": {
        "semantic_codec/model.safetensors": "hf_cache/semantic_codec_model.safetensors"
    },
    "funasr/campplus": {"campplus_cn_common.bin": "hf_cache/campplus_cn_common.bin"},
    "nvidia/bigvgan_v2_22khz_80band_256x": {"": "hf_cache/bigvgan"},
}


@pytest.fixture(scope="module")
def repositories(release, tmp_path_factory):
    """The synthetic release as five repositories, with files that nobody needs."""
    root = tmp_path_factory.mktemp("repositories")
    main_repo = root / NAME
    shutil.copytree(release, main_repo, ignore=shutil.ignore_patterns("hf_cache"))
    (main_repo / "LICENSE.txt").write_text("a licence")
    (main_repo / "README.md").write_text("not needed")
    (main_repo / "optimizer.pth").write_bytes(b"not needed")
    for repo, places in PLACES.items():
        for path, place in places.items():
            (root / repo / path).parent.mkdir(parents=True, exist_ok=True)
            source = release / place
            if source.is_dir():
                shutil.copytree(source, root / repo, dirs_exist_ok=True)
            else:
                shutil.copyfile(source, root / repo / path)
    return {repo: root / repo for repo in (NAME, *PLACES)}


@pytest.fixture
def server(repositories):
    return Hub(repositories)


@pytest.fixture
def address(server, monkeypatch, tmp_path):
    """The server is the hub, the caches are empty, and PINNED holds what the server has."""
    with server.serving() as url:
        _go_to(url, monkeypatch, tmp_path)
        pinned = []
        for source in hub.PINNED:
            wanted = {f.path for f in source.files}
            files = [
                hub.File(name, path.stat().st_size, hashlib.sha256(path.read_bytes()).hexdigest())
                for name, path in sorted(server.files(source.repo).items())
                if name in wanted
            ]
            commit = server.commit(source.repo)
            pinned.append(dataclasses.replace(source, revision=commit, files=tuple(files)))
        monkeypatch.setattr(hub, "PINNED", tuple(pinned))
        yield url


def _go_to(url, monkeypatch, tmp_path):
    monkeypatch.setenv("NO_PROXY", "127.0.0.1,localhost")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(constants, "ENDPOINT", url)
    template = url + "/{repo_id}/resolve/{revision}/{filename}"
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))


@pytest.fixture
def convert(tmp_path, capsys):
    """Runs `convert --src NAME --yes`; returns the exit code and the lines on stderr."""

    def run(*args, src=NAME, out="out", agree=True):
        argv = ["convert", "--src", src, "--out", str(tmp_path / out), *args]
        code = main([*argv, "--yes"] if agree else argv)
        return code, capsys.readouterr().err.splitlines()

    return run


def _refused(result):
    """The one line of a command that ended with 2; what it said before is no error."""
    code, lines = result
    assert code == 2
    (error,) = [line for line in lines if "error" in line]
    assert error == lines[-1]
    return error.removeprefix("indextts2: error: ")


def test_a_release_by_name_is_that_of_a_folder(address, server, convert, converted, tmp_path):
    code, lines = convert()
    assert code == 0, "\n".join(lines)
    assert Settings.load(tmp_path / "out") == Settings.load(converted)
    said = "\n".join(lines)
    for source in hub.PINNED:
        assert f"{source.repo} @{source.revision[:7]}: " in said
        assert source.licence in said
    assert "GB free" in said and "GB of memory" in said
    sent = {path for path, _ in server.gets}
    assert sent == {f"{s.repo}/{f.path}" for s in hub.PINNED for f in s.files}
    provenance = json.loads((tmp_path / "out" / "provenance.json").read_text())
    assert [(x["repository"], x["revision"], x["pinned"]) for x in provenance["sources"]] == [
        (s.repo, s.revision, True) for s in hub.PINNED
    ]
    assert (tmp_path / "out" / "release" / "LICENSE.txt").read_text() == "a licence"


@pytest.mark.slow
def test_what_was_fetched_goes_back_byte_by_byte(address, convert, release, tmp_path):
    assert convert()[0] == 0
    export_release(tmp_path / "out", tmp_path / "back")
    for name in ("gpt.pth", "config.yaml", "bpe.model", "qwen0.6bemo4-merge/model.safetensors"):
        assert filecmp.cmp(release / name, tmp_path / "back" / name, shallow=False)
    codec = tmp_path / "back" / "hf_cache" / "semantic_codec" / "model.safetensors"
    assert filecmp.cmp(release / "hf_cache/semantic_codec_model.safetensors", codec, shallow=False)


@pytest.mark.slow
def test_a_broken_connection_goes_on_in_the_middle(address, server, convert, monkeypatch):
    monkeypatch.setattr(huggingface_hub.file_download.time, "sleep", lambda seconds: None)
    monkeypatch.setattr(constants, "DOWNLOAD_CHUNK_SIZE", 1024)
    server.cut.add(f"{NAME}/gpt.pth")
    assert convert()[0] == 0
    half = server.files(NAME)["gpt.pth"].stat().st_size // 2
    first, second = [asked for path, asked in server.gets if path == f"{NAME}/gpt.pth"]
    assert (first, second) == (None, f"bytes={half // 1024 * 1024}-")


def test_an_interrupted_download_goes_on_with_what_is_missing(
    address, server, convert, converted, tmp_path
):
    server.refused.add("funasr/campplus/campplus_cn_common.bin")
    assert "answered 403 for funasr/campplus/campplus_cn_common.bin" in _refused(convert())
    assert not (tmp_path / "out").exists()
    server.refused.clear()
    server.gets.clear()
    code, lines = convert()
    assert code == 0
    assert "IndexTeam/IndexTTS-2 @" in lines[1] and "0.00 GB to fetch" in lines[1]
    repos = {"/".join(path.split("/")[:2]) for path, _ in server.gets}
    assert repos == {"funasr/campplus", "nvidia/bigvgan_v2_22khz_80band_256x"}
    assert Settings.load(tmp_path / "out") == Settings.load(converted)


def test_nothing_is_fetched_without_agreement(address, server, convert, monkeypatch, tmp_path):
    monkeypatch.setattr(sys, "stdin", open(os.devnull))  # noqa: SIM115
    code, lines = convert(agree=False)
    sys.stdin.close()
    assert (code, len(lines)) == (2, 1)
    assert "agree to the licences with --yes" in lines[0]
    assert "amphion/MaskGCT: CC-BY-NC-4.0" in lines[0]
    assert server.gets == []
    assert not (tmp_path / "hub").exists()


@pytest.mark.parametrize("answer, code", [("y", 0), ("", 2), ("n", 2)])
def test_a_terminal_is_asked(address, server, convert, monkeypatch, answer, code):
    class Terminal:
        isatty = staticmethod(lambda: True)
        readline = staticmethod(lambda: f"{answer}\n")

    monkeypatch.setattr(sys, "stdin", Terminal)
    got, lines = convert(agree=False)
    assert got == code
    assert any("[y/N]" in line for line in lines)
    assert bool(server.gets) == (code == 0)


@pytest.mark.slow
def test_what_is_there_is_not_fetched_or_asked_for_again(address, server, convert, monkeypatch):
    assert convert()[0] == 0
    server.gets.clear()
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert convert(out="again", agree=False)[0] == 0
    assert server.gets == []


def test_an_existing_checkpoint_is_told_before_anything_is_fetched(
    address, server, convert, tmp_path
):
    (tmp_path / "out").mkdir()
    assert "exists already" in _refused(convert())
    assert server.gets == []


def test_a_missing_file_is_named(address, server, convert, tmp_path):
    main_source, *others = hub.PINNED
    files = (*main_source.files, hub.File("missing.pth", 5))
    hub.PINNED = (dataclasses.replace(main_source, files=files), *others)
    assert "has no file missing.pth" in _refused(convert())
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    "change, message",
    [({"size": 7}, "bytes, want 7"), ({"sha256": "00"}, "SHA-256 [0-9a-f]{64}, want 00")],
)
def test_another_file_than_the_pinned_one_is_refused_and_removed(
    address, server, monkeypatch, change, message
):
    campplus = hub.PINNED[3]
    files = tuple(dataclasses.replace(f, **change) for f in campplus.files)
    monkeypatch.setattr(
        hub,
        "PINNED",
        (*hub.PINNED[:3], dataclasses.replace(campplus, files=files), hub.PINNED[4]),
    )
    for _ in range(2):  # it is not in the cache the second time
        with pytest.raises(InputError, match=f"campplus_.*is not the file.*{message}"):
            hub.Plan.make(NAME, None).fetch()
    assert [path for path, _ in server.gets].count("funasr/campplus/campplus_cn_common.bin") == 2


@pytest.mark.parametrize(
    "closed, message",
    [
        ({NAME: "gated"}, f"{NAME} is gated: accept its terms at http"),
        ({"amphion/MaskGCT": "gated"}, "amphion/MaskGCT is gated"),
        ({NAME: "private"}, f"there is no folder {NAME} here, and http.* has no model"),
    ],
)
def test_models_that_need_a_login_say_so(address, server, convert, closed, message):
    import re

    server.closed = closed
    assert re.search(message, _refused(convert()))
    assert server.gets == []


def test_no_network_is_one_line(convert, monkeypatch, tmp_path):
    _go_to("http://127.0.0.1:9", monkeypatch, tmp_path)  # nobody answers there
    for src in (NAME, "someone/fine-tuned"):
        code, lines = convert(src=src)
        assert (code, len(lines)) == (2, 1)
        assert "from http://127.0.0.1:9: " in lines[0]
    assert not (tmp_path / "out").exists()


def test_offline_mode_says_what_is_not_in_the_cache(address, convert, monkeypatch):
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    code, lines = convert()
    assert (code, len(lines)) == (2, 1)
    assert f"HF_HUB_OFFLINE is set, and {NAME}/" in lines[0]


@pytest.mark.slow
def test_a_local_folder_of_that_name_wins(address, server, convert, repositories, release,
                                          monkeypatch, tmp_path):  # fmt: skip
    shutil.copytree(release, tmp_path / NAME)
    monkeypatch.chdir(tmp_path)
    assert convert()[0] == 0
    assert server.gets == []
    assert json.loads((tmp_path / "out" / "provenance.json").read_text())["sources"] == []


def test_other_models_in_that_form_are_taken_with_their_commit(
    address, server, convert, converted, repositories, tmp_path
):
    server.repos["me/mine"] = repositories[NAME]
    server.licence = "cc-by-4.0"
    code, lines = convert(src="me/mine")
    assert code == 0, "\n".join(lines)
    assert "(not pinned): " in lines[1] and lines[1].endswith("licence: cc-by-4.0")
    assert Settings.load(tmp_path / "out") == Settings.load(converted)
    (source, *others) = json.loads((tmp_path / "out/provenance.json").read_text())["sources"]
    assert (source["revision"], source["pinned"]) == (server.commit("me/mine"), False)
    assert all(x["pinned"] for x in others)
    assert not {"me/mine/README.md", "me/mine/optimizer.pth"} & {path for path, _ in server.gets}
    assert "has no such revision" in _refused(convert(src="me/mine@v2", out="other"))


@pytest.mark.slow
def test_auxiliary_models_of_the_repository_itself_go_first(
    address, server, convert, release, tmp_path
):
    server.repos["me/whole"] = release
    assert convert(src="me/whole", agree=True)[0] == 0
    sources = json.loads((tmp_path / "out" / "provenance.json").read_text())["sources"]
    assert [x["repository"] for x in sources] == ["me/whole"]


def test_models_in_another_form_are_refused_before_the_weights(
    address, server, convert, repositories, tmp_path
):
    shutil.copytree(repositories[NAME], tmp_path / "other")
    (tmp_path / "other" / "bpe.model").unlink()
    server.repos["me/other"] = tmp_path / "other"
    assert "lacks what its config.yaml names: bpe.model" in _refused(convert(src="me/other"))
    (tmp_path / "other" / "config.yaml").unlink()
    assert "has no config.yaml" in _refused(convert(src="me/other"))
    assert [path for path, _ in server.gets] == ["me/other/config.yaml"]


@pytest.mark.slow
def test_the_emotion_model_can_be_left_out(address, server, convert, tmp_path):
    assert convert("--no-emotion-text")[0] == 0
    assert not any("qwen" in path for path, _ in server.gets)


def test_a_full_disk_is_told_before(address, convert, server, monkeypatch):
    monkeypatch.setattr(hub, "free_bytes", lambda path: 1000)
    assert "no room in" in _refused(convert())
    assert server.gets == []


@pytest.mark.slow
def test_a_checkpoint_by_name_is_fetched_once(address, server, tmp_path, capsys):
    argv = ["synthesize", "--checkpoint", f"hf:{NAME}", "--voice", str(tmp_path / "none.wav")]
    argv += ["--text", "Hello.", "--out", str(tmp_path / "o.wav")]
    assert main([*argv, "--yes"]) == 2
    *_, wrote, notice, error = capsys.readouterr().err.splitlines()
    folder = f"IndexTeam--IndexTTS-2@{server.commit(NAME)}"
    path = tmp_path / "cache" / "indextts2_jax" / "checkpoints" / folder
    assert wrote == f"wrote {path}" and "licence" in notice
    assert "none.wav" in error  # the checkpoint was opened
    server.gets.clear()
    server.repos.clear()  # nobody is asked any more
    assert main(argv) == 2
    assert "none.wav" in capsys.readouterr().err
    assert server.gets == []


def test_names_are_told_from_paths(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert hub.parse("org/name") == ("org/name", None)
    assert hub.parse("hf:org/name@v1.0") == ("org/name", "v1.0")
    assert hub.parse(tmp_path) is None
    assert hub.parse("checkpoints") is None
    assert hub.parse("../release") is None
    with pytest.raises(InputError, match="hf:name is no name of a model"):
        by_name.checkpoint(pathlib.Path("hf:name"), agreed=True)


def test_the_pinned_table_is_whole():
    assert len({s.repo for s in hub.PINNED}) == 5
    for source in hub.PINNED:
        assert len(source.revision) == 40
        for file in source.files:
            assert file.size > 0
            assert len(file.sha256) == (64 if file.is_weights and file.size > 1e6 else 0)
    assert sum(f.size for s in hub.PINNED for f in s.files) == 8_872_329_544


@pytest.mark.slow
def test_the_variables_of_the_hub_are_heeded(address, tmp_path):
    """HF_ENDPOINT and HF_HOME, in a process of its own; of a model that is not pinned."""
    command = [sys.executable, "-m", "indextts2_jax.cli", "convert", "--src", "me/none",
               "--out", str(tmp_path / "out"), "--yes"]  # fmt: skip
    env = {**os.environ, "HF_ENDPOINT": address, "HF_HOME": str(tmp_path / "home")}
    done = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert f"and {address} has no model me/none" in done.stderr
