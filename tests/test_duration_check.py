import dataclasses

import pytest

from indextts2_jax.commands.duration_check import FACTORS, check_duration
from indextts2_jax.errors import InputError
from indextts2_jax.request.duration import SLOT_READINGS, Duration
from indextts2_jax.request.options import Options, Request


def test_slots_that_the_checkpoint_has_no_room_for_are_refused():
    two = SLOT_READINGS["first"]
    assert Options().slots(two) == two
    assert Options(duration_slots="halves").slots(two) == ("pos(T//2)", "pos(T)")
    with pytest.raises(InputError, match="'paper' are 1, the checkpoint has 2"):
        Options(duration_slots="paper").slots(two)
    with pytest.raises(InputError, match="want paper or first or halves"):
        Options(duration_slots="second")


@pytest.mark.slow
def test_every_reading_is_measured_without_forcing_anything(tts, voice):
    options = Options(greedy=True, max_codes=40)
    speaker = tts.speaker(voice)
    found = check_duration(tts, speaker, ["hello", "good day"], options=options)
    assert list(found["readings"]) == ["first", "halves"]
    for factors in found["readings"].values():
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
