"""Files appear whole or not at all, and never in place of an input or a device."""

import errno
import multiprocessing
import os

import pytest

import indextts2_jax
from indextts2_jax import outputs
from indextts2_jax.errors import InputError


def write(path, text):
    with outputs.replacing(path) as temporary:
        temporary.write_text(text)


def test_a_file_appears_whole_in_a_new_folder_and_is_replaced(tmp_path):
    path = tmp_path / "new" / "folder" / "x.txt"
    for text in ("one", "two"):
        write(path, text)
        assert path.read_text() == text
    assert os.listdir(path.parent) == ["x.txt"]


@pytest.mark.parametrize("error", [RuntimeError("x"), OSError(errno.ENOSPC, "No space left")])
def test_a_failed_write_leaves_the_old_file_alone(tmp_path, error):
    write(tmp_path / "x.txt", "old")

    def fail():
        with outputs.replacing(tmp_path / "x.txt") as temporary:
            temporary.write_text("half")
            raise error

    wanted = InputError if isinstance(error, OSError) else RuntimeError
    with pytest.raises(wanted, match=r"x\.txt: No space left$" if wanted is InputError else "x"):
        fail()
    assert os.listdir(tmp_path) == ["x.txt"] and (tmp_path / "x.txt").read_text() == "old"


def test_links_are_followed(tmp_path):
    (tmp_path / "link").symlink_to(tmp_path / "folder" / "x.txt")
    write(tmp_path / "link", "text")
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "folder" / "x.txt").read_text() == "text"


def test_a_name_of_the_greatest_length_is_written(tmp_path):
    write(tmp_path / ("x" * 251 + ".txt"), "text")


def test_what_cannot_be_written_is_known_before(tmp_path):
    (tmp_path / "file").write_text("")
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    for name, reason in [
        (".", "is a directory"),
        ("fifo", "is no regular file"),
        ("/dev/null", "is no regular file"),
        ("file/x", "file is not a writable directory"),
        ("file/x/y", "file is not a writable directory"),
        ("x" * 256, "File name too long"),
        ("new/" + "x" * 256, "File name too long"),
        ("new/" + "x" * 256 + "/y", "File name too long"),
        ("loop", "symbolic links"),
        ("nul\0", "null"),
    ]:
        for check in (outputs.check_writable, lambda path: write(path, "")):
            with pytest.raises(InputError, match=reason) as error:
                check(tmp_path / name)
            assert "\n" not in str(error.value) and "\0" not in str(error.value)
    assert sorted(os.listdir(tmp_path)) == ["fifo", "file", "loop"]


def test_an_output_is_no_input_by_any_name(tmp_path):
    voice, folder = tmp_path / "voice.wav", tmp_path / "checkpoint"
    voice.write_text("voice")
    folder.mkdir()
    (tmp_path / "soft.wav").symlink_to(voice)
    (tmp_path / "hard.wav").hardlink_to(voice)
    (tmp_path / "here").symlink_to(tmp_path)
    for name in (
        "voice.wav",
        "soft.wav",
        "hard.wav",
        "here/voice.wav",
        "checkpoint/../voice.wav",
        "checkpoint/x.wav",
        "checkpoint/new/x.wav",
        "later.wav",
    ):
        with pytest.raises(InputError, match="which is needed"):
            outputs.Outputs([voice, folder, tmp_path / "later.wav"]).add(tmp_path / name)


def test_outputs_do_not_replace_each_other(tmp_path):
    taken = outputs.Outputs([])
    for name in ("a.wav", "new/b.wav"):
        taken.add(tmp_path / name)
    for name in ("a.wav", "new/../a.wav", "a.wav/c.wav", "new"):
        with pytest.raises(InputError, match="the output"):
            taken.add(tmp_path / name)
    taken.add(tmp_path / "new" / "c.wav")


def _hold(path, held, done):
    with outputs.locked(path):
        held.set()
        done.wait(30)


def test_a_second_process_is_refused_and_a_dead_one_holds_nothing(tmp_path):
    path = tmp_path / "new" / "report"
    context = multiprocessing.get_context("spawn")
    held, done = context.Event(), context.Event()
    process = context.Process(target=_hold, args=(path, held, done))
    process.start()
    assert held.wait(30)
    with pytest.raises(InputError, match="another process writes to"), outputs.locked(path):
        pass
    process.kill()
    process.join()
    for text in (b"one", b"two"):
        with outputs.locked(path) as file:
            file.write(text)
    assert path.read_bytes() == b"onetwo"


def test_the_package_gives_its_names():
    for name in indextts2_jax.__all__:
        assert getattr(indextts2_jax, name).__name__ == name
