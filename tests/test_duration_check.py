import dataclasses
import json
import os
import shutil
import types

import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from indextts2_jax.checkpoint.parts import Settings
from indextts2_jax.cli import main
from indextts2_jax.commands import duration_check
from indextts2_jax.commands.duration_check import FACTORS, check_duration, speed_rows, write_reading
from indextts2_jax.errors import InputError
from indextts2_jax.request.duration import SLOT_READINGS, Duration
from indextts2_jax.request.options import Options, Request
from indextts2_jax.t2s.gpt import T2S, T2SConfig


def test_slots_that_the_checkpoint_has_no_room_for_are_refused():
    two = SLOT_READINGS["first"]
    assert Options().slots(two) == two
    assert Options(duration_slots="halves").slots(two) == ("pos(T//2)", "pos(T)")
    with pytest.raises(InputError, match="'paper' are 1, the checkpoint has 2"):
        Options(duration_slots="paper").slots(two)
    assert Options(duration_slots="second").slots(two) == ("speed0", "pos(T)")
    with pytest.raises(InputError, match="want paper or first or second or halves"):
        Options(duration_slots="third")


@pytest.mark.slow
def test_every_reading_is_measured_without_forcing_anything(tts, voice):
    options = Options(greedy=True, max_codes=40)
    speaker = tts.speaker(voice)
    found = check_duration(tts, speaker, ["hello", "good day"], options=options)
    assert list(found["readings"]) == ["first", "second", "halves"]
    for name, factors in found["readings"].items():
        rows = list(factors.values())
        off = sum(abs(a - b) for r in rows for a, b in zip(r["codes"], r["targets"], strict=True))
        total = sum(sum(row["targets"]) for row in rows)
        assert found["errors"][name] == pytest.approx(100 * off / total, abs=1e-3)
        assert list(factors) == [str(factor) for factor in FACTORS]
        for row in factors.values():
            off = sum(abs(a - b) for a, b in zip(row["codes"], row["targets"], strict=True))
            assert row["error"] == pytest.approx(100 * off / sum(row["targets"]), abs=1e-3)
    # The numbers are those of speech that is really made.
    row = found["readings"]["halves"]["1.25"]
    request = Request(
        "hello", speaker, options=dataclasses.replace(options, duration_slots="halves")
    )
    request = dataclasses.replace(request, duration=Duration(row["targets"][0], mode="natural"))
    assert len(tts.synthesize_batch([request])[0].segments[0].codes) == row["codes"][0]


class _Talker:
    """Stands in for a checkpoint; `hears` is the only reading that it heeds, by `share`."""

    def __init__(self, hears, share=1.0, free=(40, 80)):
        self.hears, self.share, self.free = hears, share, free
        self.settings = types.SimpleNamespace(duration_slots=SLOT_READINGS["first"])

    def count_codes(self, requests):
        out = []
        for free, request in zip(self.free, requests, strict=True):
            target = request.duration.tokens
            heard = target is not None and request.options.duration_slots == self.hears
            out.append(round(free + self.share * (target - free)) if heard else free)
        return out


@pytest.mark.parametrize("reading", ["first", "second", "halves"])
def test_the_reading_that_is_heeded_is_the_best(reading):
    found = check_duration(_Talker(reading, share=0.9), None, ["a", "b"])
    assert found["best"] == reading
    # |factor - 1| of the codes is off where nothing is heeded: 2 * (1/4 + 1/8) of 5.
    assert found["unheard"] == pytest.approx(15)
    others = {name: e for name, e in found["errors"].items() if name != reading}
    assert all(error == found["unheard"] for error in others.values())
    assert found["errors"][reading] < 2.5


def test_where_nothing_is_heeded_there_is_no_best_and_nothing_is_written():
    found = check_duration(_Talker("none"), None, ["a", "b"])
    assert found["best"] is None
    with pytest.raises(InputError, match="no reading is heeded"):
        write_reading(_Talker("none"), found["best"])


@pytest.mark.parametrize(
    "trained, suggests",
    [
        ((0, 1), ["first", "second", "halves"]),
        ((0,), ["first", "second"]),
        ((1,), ["halves"]),
        ((), ["halves"]),
    ],
)
def test_rows_that_were_never_trained_tell_the_reading(trained, suggests):
    model = T2S(T2SConfig.tiny(), rngs=nnx.Rngs(0))
    assert model.speed_embed is not None
    assert speed_rows(model)["norms"] == [0, 0]  # as they are initialised
    table = np.zeros(model.speed_embed.embedding.shape, np.float32)
    table[list(trained), :4] = 0.5
    model.speed_embed.embedding[...] = jnp.asarray(table)
    rows = speed_rows(model)
    assert rows["norms"] == [1.0 if row in trained else 0.0 for row in (0, 1)]
    assert rows["suggests"] == suggests
    positions = np.linalg.norm(np.asarray(model.code_position.embedding), axis=1)
    assert rows["position_norm"] == pytest.approx(positions.mean(), rel=1e-5)


def test_a_model_without_a_speed_table_has_nothing_to_read_off():
    cfg = dataclasses.replace(T2SConfig.tiny(), num_speed_embeddings=0, free_slots=("zero",))
    assert speed_rows(T2S(cfg, rngs=nnx.Rngs(0))) == {}


@pytest.fixture
def measured(monkeypatch):
    """The command does not decode; it finds what a model would that heeds the reading "second"."""

    def fake(tts, speaker, texts, **settings):
        return check_duration(_Talker("second"), speaker, ["a", "b"])

    monkeypatch.setattr(duration_check, "check_duration", fake)


@pytest.mark.slow
def test_the_best_reading_is_written_and_comes_back_from_a_release(
    converted, measured, voice, tmp_path, capsys
):
    linked = tmp_path / "linked"
    shutil.copytree(converted, linked, copy_function=os.link)
    argv = ["check-duration", "--checkpoint", str(linked), "--voice", str(voice)]
    assert main([*argv, "--write"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("norms: speed0 ") and "; positions " in lines[0]
    assert lines[-1] == "best: second"
    assert Settings.load(linked).duration_slots == ("speed0", "pos(T)")
    assert Settings.load(converted).duration_slots == ("pos(T)", "speed0")
    assert sorted(p.name for p in linked.iterdir()) == sorted(p.name for p in converted.iterdir())
    assert main(["convert", "--reverse", str(linked), "--out", str(tmp_path / "release")]) == 0
    again = tmp_path / "again"
    assert main(["convert", "--src", str(tmp_path / "release"), "--out", str(again)]) == 0
    assert Settings.load(again) == Settings.load(linked)
    capsys.readouterr()
    assert main([*argv, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["speed_rows"]["suggests"]


def test_writing_needs_a_checkpoint(capsys):
    assert main(["check-duration", "--write"]) == 2
    assert "--write needs --checkpoint" in capsys.readouterr().err
