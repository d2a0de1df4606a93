"""Planning and loading of training batches."""

import dataclasses
import pathlib
import time

import grain
import numpy as np
import orbax.checkpoint as ocp
import pytest

from indextts2_jax.errors import InputError
from train.data import shards
from train.data.batch_plan import BatchPlan, Selection
from train.data.batches import Batches, LoadBatch, ValidationBatches, open_plan
from train.data.config import DataConfig
from train.run import config
from train.run.feed import check_mixes

T2S = ("text", "codes", "features", "prompt_features", "speaker")
S2M = ("codes", "mel", "prompt_codes", "prompt_features", "prompt_mel", "prompt_style")
FRAMES_PER_CODE = 1.72


def utterance(number: int, speaker: str, rng: np.random.Generator) -> shards.Utterance:
    """Its arrays tell the utterance, the take and the time."""

    def take(place: int, speed: float) -> shards.Take:
        length = round(T / speed)
        features = np.zeros((length, 4), np.float16)
        features[:] = [[number, place + 1, time, 1] for time in range(length)]
        codes = np.full(length, 10 * number + place, np.int32)
        return shards.Take(speed, codes, features)

    T = int(rng.integers(5, 60))
    M = round(T * FRAMES_PER_CODE)
    mel = np.ones((M, 80), np.float16)
    mel[:, 0], mel[:, 1] = number, np.arange(M)
    return shards.Utterance(
        id=str(number),
        speaker=speaker,
        text="",
        text_ids=np.full(int(rng.integers(2, 20)), number, np.int32),
        takes=(take(0, 1.0), take(1, 0.8), take(2, 1.25)),
        mel=mel,
        style=np.full(192, number, np.float32),
        word_vectors=np.full((3, 5), number, np.float16),
        word_frames=np.array([M - 2, 1, 1], np.int32),
    )


def write_data(path: pathlib.Path, speakers: list[str], first: int, made_with: dict[str, str]):
    """A data directory of two shards; utterances are numbered from `first`."""
    path.mkdir()
    rng = np.random.default_rng(first)
    all_ = [utterance(first + i, name, rng) for i, name in enumerate(speakers)]
    half = len(all_) // 2
    rows = [
        shards.write_shard(shards.shard_path(path, number), part)
        for number, part in enumerate((all_[:half], all_[half:]))
    ]
    shards.Index.build(path, made_with, rows, 0.0116).save()


@pytest.fixture(scope="module")
def paths(tmp_path_factory) -> tuple[str, ...]:
    """Two data directories: 40 utterances of 4 speakers and one alone; 20 of 2."""
    root = tmp_path_factory.mktemp("data")
    write_data(root / "a", [f"s{i % 4}" for i in range(40)] + ["alone"], 1, {"codec": "x"})
    write_data(root / "b", [f"s{i % 2}" for i in range(20)], 42, {"codec": "x"})
    return str(root / "a"), str(root / "b")


def t2s(paths, **changes) -> DataConfig:
    settings = {
        "paths": paths, "fields": T2S, "measure": "codes", "budget": 300, "rows_multiple": 2,
        "prompt_codes": 20,
    }  # fmt: skip
    return DataConfig(**(settings | changes))


def s2m(paths, **changes) -> DataConfig:
    settings = {
        "fields": S2M, "measure": "frames", "budget": 900, "rows_multiple": 1,
        "speed_probability": 0.0,
    }  # fmt: skip
    return t2s(paths, **(settings | changes))


def synthetic(count: int, num_speakers: int, seed: int = 0) -> shards.Index:
    """An index without data."""
    rng = np.random.default_rng(seed)
    codes = np.clip(rng.lognormal(5.7, 0.6, count), 20, 1500).astype(np.int32)
    table = {
        "speaker": rng.integers(0, num_speakers, count).astype(np.int32),
        "codes": codes,
        "varied_codes": (codes * rng.uniform(0.75, 1.33, count)).astype(np.int32),
        "frames": (codes * FRAMES_PER_CODE).astype(np.int32),
        "text": (codes * rng.normal(0.2, 0.04, count)).clip(1).astype(np.int32),
        "words": np.zeros(count, np.int32),
    }
    names = tuple(f"s{i}" for i in range(num_speakers))
    return shards.Index(
        path=pathlib.Path("none"),
        fingerprints={},
        speakers=names,
        languages=("",),
        emotions=("",),
        shards=(count,),
        hours=1.0,
        table=table,
    )


def rounds_of(plan: BatchPlan, count: int) -> list[list[Selection]]:
    """All batches of the first rounds."""
    plan[0]
    out = []
    for _ in range(count):
        start = sum(map(len, out))
        plan[start]
        number = len(out)
        out.append([plan[i] for i in range(start, plan._ends[number + 1])])
    return out


def assert_equal(got, want):
    assert got.keys() == want.keys()
    for name in want:
        np.testing.assert_array_equal(got[name], want[name], err_msg=name)


# Planning


def test_step_is_a_function_of_the_configuration(paths):
    one, other = open_plan(t2s(paths)), open_plan(t2s(paths))
    for step in (7, 0, 31, 3):
        for field in dataclasses.fields(Selection):
            np.testing.assert_array_equal(
                getattr(one[step], field.name), getattr(other[step], field.name)
            )
    seeded = open_plan(t2s(paths, seed=1))
    first, changed = (np.concatenate([p[i].rows for i in range(5)]) for p in (one, seeded))
    assert not np.array_equal(first, changed)


def test_every_utterance_comes_once_an_epoch(paths):
    """The epoch is the round here; only what fills up its last batch comes again."""
    plan = open_plan(t2s(paths, rows_multiple=4))
    for batches in rounds_of(plan, 4):
        count = np.bincount(np.concatenate([b.rows for b in batches]), minlength=61)
        assert count[40] == 0  # who speaks alone
        assert np.delete(count, 40).min() == 1
        assert count.sum() - 60 < max(len(b.rows) for b in batches)
        assert all((b.weight == 1).all() for b in batches)


def test_rounds_that_are_no_epochs_still_draw_evenly():
    plan = BatchPlan(
        t2s(("x",), budget=4000, round_size=700, speed_probability=0.0), [synthetic(1000, 50)]
    )
    drawn = np.concatenate([plan._draw(number).rows for number in range(10)])
    np.testing.assert_array_equal(np.bincount(drawn, minlength=1000), 7)


def test_rounds_are_shuffled():
    """Epochs begin with other utterances; batches hold both data sets and come in any order."""
    cfg = t2s(("x", "y"), budget=16000, round_size=1000, max_rows=500)
    rounds = rounds_of(BatchPlan(cfg, [synthetic(1000, 50, 0), synthetic(1000, 50, 1)]), 3)
    drawn = [np.concatenate([b.rows for b in r]) for r in rounds]
    assert 200 < len(set(drawn[0]) & set(drawn[2])) < 800
    assert all(0.1 < np.mean(b.rows < 1000) < 0.9 for b in rounds[0])
    levels = [b.bucket for b in rounds[0]]
    assert levels != sorted(levels)


def test_lengths_grow_from_bucket_to_bucket():
    index = synthetic(400, 9)
    index.table["text"][:] = np.random.default_rng(0).integers(1, 300, 400)
    plan = BatchPlan(t2s(("x",), budget=1500), [index])
    texts = [bucket.lengths["text"] for bucket in plan.buckets]
    assert len(texts) > 5
    assert texts == sorted(texts)


def test_last_batch_is_filled_with_different_utterances():
    plan = BatchPlan(t2s(("x",), budget=10**6, max_rows=64), [synthetic(32, 4)])
    assert len(plan.buckets) == len(rounds_of(plan, 1)[0]) == 1
    count = np.bincount(plan[0].rows)
    assert count.min() == 1
    assert count.max() < 8


def test_weights_are_shares_of_what_is_drawn():
    indexes = [synthetic(3000, 50, 0), synthetic(500, 9, 1), synthetic(100, 5, 2)]
    cfg = t2s(("x", "y", "z"), weights=(1.0, 3.0, 0.0), budget=4000, round_size=1000)
    plan = BatchPlan(cfg, indexes)
    rows = np.concatenate([b.rows for r in rounds_of(plan, 8) for b in r])
    assert rows.max() < 3500
    assert np.mean(rows >= 3000) == pytest.approx(0.75, abs=0.01)
    each = np.bincount(rows[rows >= 3000] - 3000)  # 12 epochs, but for what fills up
    assert each.min() >= 12
    assert each.max() <= 14


def test_every_round_holds_the_stated_shares():
    indexes = [synthetic(900, 9, 0), synthetic(300, 50, 1)]
    cfg = t2s(("bulk", "many"), weights=(1.0, 3.0), budget=4000, round_size=400)
    plan = BatchPlan(cfg, indexes)
    for batches in rounds_of(plan, 6):
        rows = np.concatenate([batch.rows for batch in batches])
        assert np.mean(rows >= 900) == pytest.approx(0.75, abs=0.02)  # but for what fills up


def test_a_resumed_stage_sees_the_batches_that_its_mix_gives(paths):
    whole = Batches(open_plan(t2s(paths, weights=(1.0, 4.0))))
    given = [next(whole) for _ in range(12)]
    numbers = np.concatenate([batch["text"][:, 0] for batch in given])
    assert np.mean(numbers >= 42) == pytest.approx(0.8, abs=0.1)
    resumed = Batches(open_plan(t2s(paths, weights=(1.0, 4.0))), 7)
    for want in given[7:]:
        assert_equal(next(resumed), want)


@pytest.mark.parametrize("mix", [(1.0,), (1.0, 2.0, 3.0), (1.0, -1.0), (0.0, 0), ("a", 1.0), ()])
def test_a_mix_that_does_not_fit_the_data_sets_is_said_before_anything_trains(mix):
    stages = tuple(config.ConfigDict({"mix": x}) for x in ((0.5, 1), mix))
    run = config.ConfigDict({"data": {"paths": ("bulk", "many")}, "stages": stages})
    with pytest.raises(InputError, match=r"stages\.1\.mix is .* of data\.paths \(bulk, many\)"):
        check_mixes(run)
    run.stages[1].mix = (0, 1.0)
    check_mixes(run)


def test_batches_fit_their_buckets_and_the_budget():
    index = synthetic(20000, 50)
    cfg = t2s(("x",), budget=6000, rows_multiple=4, max_rows=64)
    plan = BatchPlan(cfg, [index])
    assert 4 <= len(plan.buckets) <= 25

    for batch in rounds_of(plan, 1)[0]:
        bucket = plan.buckets[batch.bucket]
        assert len(batch.rows) == bucket.rows
        assert bucket.rows % 4 == 0
        assert bucket.rows <= 64
        assert bucket.rows * bucket.lengths["codes"] <= 6000 or bucket.rows == 4
        other = batch.draws[0] < cfg.speed_probability
        recorded, varied = (index.table[c][batch.rows] for c in ("codes", "varied_codes"))
        codes = np.where(other, varied, recorded)
        assert codes.max() <= bucket.lengths["codes"]
        assert index.table["text"][batch.rows].max() <= bucket.lengths["text"]
    summary = plan.summary()
    assert summary["padding_efficiency"] > 0.8
    assert summary["round"]["repeated"] < 64
    assert sum(b["batches"] for b in summary["buckets"]) == summary["round"]["batches"]


def test_budget_of_frames_counts_the_prompt(paths):
    plan = open_plan(s2m(paths))
    prompt = plan.prompt_lengths["prompt_mel"]
    assert 20 * FRAMES_PER_CODE <= prompt <= 20 * FRAMES_PER_CODE + 10
    for bucket in plan.buckets:
        assert bucket.rows * (bucket.lengths["frames"] + prompt) <= 900


def test_few_utterances_make_few_shapes():
    plan = BatchPlan(t2s(("x",), budget=20000), [synthetic(6, 2)])
    assert len(plan.buckets) == 1
    assert set(plan[0].rows) == set(range(6))


def test_prompts_are_others_of_the_same_speaker():
    index = synthetic(500, 100)
    plan = BatchPlan(t2s(("x",), budget=20000, round_size=5000, validation=50), [index])
    count = np.bincount(index.table["speaker"], minlength=100)
    held_out = np.concatenate([b.rows for b in plan.validation])
    seen: dict[int, set[int]] = {}
    for batch in [b for r in rounds_of(plan, 20) for b in r] + plan.validation:
        assert (batch.prompts != batch.rows).all()
        for which in (batch.rows, batch.prompts):
            np.testing.assert_array_equal(index.table["speaker"][which], batch.speakers)
        assert not set(batch.prompts) & set(held_out)
        for row, prompt in zip(batch.rows.tolist(), batch.prompts.tolist(), strict=True):
            seen.setdefault(row, set()).add(prompt)
    held_of = np.bincount(index.table["speaker"][np.unique(held_out)], minlength=100)
    for row, prompts in seen.items():
        speaker = index.table["speaker"][row]
        if row not in held_out and count[speaker] < 5:
            assert len(prompts) == count[speaker] - held_of[speaker] - 1


def test_who_speaks_once_or_too_long_is_left_out_and_counted(paths):
    plan = open_plan(t2s(paths))
    assert plan.summary()["left_out"] == {"too_long": 0, "alone_of_their_speaker": 1}
    assert plan.speakers[0] == f"{paths[0]}/alone"
    assert plan.speakers[-1] == f"{paths[1]}/s1"
    index = synthetic(2000, 20)
    limited = BatchPlan(t2s(("x",), budget=9000, max_codes=400, max_text=90), [index])
    codes = np.maximum(index.table["codes"], index.table["varied_codes"])
    long = (codes > 400) | (index.table["text"] > 90)
    assert limited.summary()["left_out"]["too_long"] == long.sum()
    assert limited.buckets[-1].lengths["codes"] <= 400
    assert not long[np.concatenate([b.rows for b in rounds_of(limited, 1)[0]])].any()


def test_planning_is_fast():
    index = synthetic(200_000, 3000)
    start = time.process_time()
    plan = BatchPlan(t2s(("x",), budget=20000, round_size=200_000, validation=100), [index])
    plan[0]
    assert time.process_time() - start < 2


# Validation


def test_validation_is_disjoint_and_the_same_in_every_run(paths):
    plan = open_plan(t2s(paths, validation=5))
    rows, weight = (
        np.concatenate([getattr(b, name) for b in plan.validation]) for name in ("rows", "weight")
    )
    once = rows[weight == 1]
    assert sorted(once) == sorted(set(rows))
    assert len(once) == plan.summary()["validation"] == 10
    assert sum(once < 41) == 5
    drawn = np.concatenate([b.rows for r in rounds_of(plan, 3) for b in r])
    assert not set(drawn) & set(once)
    assert len(set(drawn)) == 50

    other = open_plan(t2s(paths, validation=5, seed=3, weights=(0.0, 1.0)))
    assert {r for b in other.validation for r in b.rows} == set(once[once >= 41])


def test_validation_keeps_the_recorded_speed_and_repeats_itself(paths):
    plan = open_plan(t2s(paths, validation=5, speed_probability=1.0))
    batches = ValidationBatches(plan)
    assert len(batches) == len(plan.validation)
    total = 0.0
    for batch, again in zip(batches, batches, strict=True):
        assert_equal(batch, again)
        assert (batch["features"][:, 0, 1] == 1).all()
        assert (batch["prompt_features"][:, 0, 1] == 1).all()
        total += batch["weight"].sum()
    assert total == 10


def test_validation_that_would_leave_too_little_is_refused(paths):
    with pytest.raises(InputError, match=r"data.validation is 33, but .*a can spare 32 utterances"):
        open_plan(t2s(paths, validation=33))


# Loading


def test_arrays_are_of_the_planned_utterances_and_padded_with_zeros(paths):
    plan = open_plan(t2s(paths))
    load = LoadBatch(plan)
    for step in range(6):
        selection, batch = plan[step], load(plan[step])
        lengths = plan.buckets[selection.bucket].lengths
        B = len(selection.rows)
        assert batch["text"].shape == (B, lengths["text"])
        assert batch["codes"].shape == (B, lengths["codes"])
        assert batch["features"].shape == (B, lengths["codes"], 4)
        assert batch["prompt_features"].shape == (B, 20, 4)
        assert {n: x.dtype.name for n, x in batch.items()} == {
            "text": "int32", "codes": "int32", "features": "float16", "prompt_features": "float16",
            "text_lengths": "int32", "code_lengths": "int32", "feature_lengths": "int32",
            "prompt_feature_lengths": "int32", "speaker": "int32", "weight": "float32",
        }  # fmt: skip
        number = selection.rows + 1  # that of the utterance, in each of its arrays
        np.testing.assert_array_equal(batch["speaker"], selection.speakers)
        for name, length, value in (
            ("text", "text_lengths", number),
            ("features", "feature_lengths", number),
            ("prompt_features", "prompt_feature_lengths", selection.prompts + 1),
        ):
            x = batch[name] if name == "text" else batch[name][..., 0]
            valid = np.arange(x.shape[1]) < batch[length][:, None]
            np.testing.assert_array_equal(x, np.where(valid, np.asarray(value)[:, None], 0))
        np.testing.assert_array_equal(batch["code_lengths"], batch["feature_lengths"])
        np.testing.assert_array_equal(batch["codes"][:, 0] // 10, number)
        take = batch["codes"][:, 0] % 10
        np.testing.assert_array_equal(take + 1, batch["features"][:, 0, 1])
        np.testing.assert_array_equal(take > 0, selection.draws[0] < 0.5)


def test_speeds_of_target_and_prompt_are_drawn_apart(paths):
    plan = open_plan(t2s(paths, speed_probability=0.6, fields=("features", "prompt_features")))
    load = LoadBatch(plan)
    pairs = []
    for step in range(60):
        batch = load(plan[step])
        pairs += zip(batch["features"][:, 0, 1], batch["prompt_features"][:, 0, 1], strict=True)
    takes = np.array(pairs).astype(int)
    share = np.stack([np.mean(takes == k, axis=0) for k in (1, 2, 3)])
    np.testing.assert_allclose(share, np.array([[0.4], [0.3], [0.3]]).repeat(2, 1), atol=0.07)
    both = np.mean((takes > 1).all(axis=1))
    assert both == pytest.approx(0.36, abs=0.07)


def test_crops_of_a_prompt_agree_in_time(paths):
    plan = open_plan(s2m(paths))
    load = LoadBatch(plan)
    starts = set()
    for step in range(8):
        batch = load(plan[step])
        assert batch["mel"].dtype == batch["prompt_mel"].dtype == np.float32
        assert batch["prompt_mel"].shape[1] == plan.prompt_lengths["prompt_mel"]
        for b, prompt in enumerate(plan[step].prompts):
            T, M = batch["prompt_code_lengths"][b], batch["prompt_mel_lengths"][b]
            assert batch["prompt_feature_lengths"][b] == T
            assert (batch["prompt_codes"][b, :T] == 10 * (prompt + 1)).all()
            assert (batch["prompt_style"][b] == prompt + 1).all()
            assert (batch["prompt_mel"][b, :M, 0] == prompt + 1).all()
            time = batch["prompt_features"][b, :T, 2]
            np.testing.assert_array_equal(time, time[0] + np.arange(T))
            frames = batch["prompt_mel"][b, :M, 1]
            assert abs(frames[0] - time[0] * FRAMES_PER_CODE) < 2
            assert abs(frames[-1] + 1 - (time[-1] + 1) * FRAMES_PER_CODE) < 2
            assert not batch["prompt_mel"][b, M:].any()
            starts.add(int(time[0]))
    assert len(starts) > 5


def test_codes_of_25_hz_have_two_features_each(tmp_path):
    rng = np.random.default_rng(0)
    utterances = []
    for number in range(12):
        whole = utterance(number, f"s{number % 2}", rng)
        takes = [dataclasses.replace(x, codes=x.codes[::2].copy()) for x in whole.takes]
        for take in takes:
            take.codes[:] = np.arange(len(take.codes))
        utterances.append(dataclasses.replace(whole, takes=tuple(takes)))
    rows = shards.write_shard(shards.shard_path(tmp_path, 0), utterances)
    shards.Index.build(tmp_path, {}, [rows], 0.0116, features_per_code=2).save()
    fields = (*T2S, "prompt_codes")
    plan = open_plan(t2s((str(tmp_path),), fields=fields, prompt_codes=8, budget=100))
    load = LoadBatch(plan)
    for step in range(6):
        batch = load(plan[step])
        assert batch["features"].shape[1] == 2 * batch["codes"].shape[1]
        assert batch["prompt_features"].shape[1] == 16
        np.testing.assert_array_equal(-(-batch["feature_lengths"] // 2), batch["code_lengths"])
        first = batch["prompt_features"][:, 0, 2]  # when it is
        np.testing.assert_array_equal(first, 2 * batch["prompt_codes"][:, 0])


def test_word_vectors_come_with_their_frames(paths):
    plan = open_plan(s2m(paths, fields=("mel", "word_vectors")))
    batch = LoadBatch(plan)(plan[0])
    assert batch["word_vectors"].shape[1:] == (8, 5)
    assert batch["word_frames"].dtype == np.int32
    np.testing.assert_array_equal(batch["word_frames"].sum(axis=1), batch["mel_lengths"])
    assert set(batch) == {"weight", "mel", "mel_lengths", "word_vectors", "word_frames"}


@pytest.mark.parametrize("processes", [2, 4])
def test_processes_load_the_parts_of_one_batch(paths, processes):
    plan = open_plan(t2s(paths, rows_multiple=4))
    parts = [LoadBatch(plan, p, processes) for p in range(processes)]
    whole = LoadBatch(plan)
    for step in (0, 5):
        each = [load(plan[step]) for load in parts]
        joined = {name: np.concatenate([x[name] for x in each]) for name in each[0]}
        assert_equal(joined, whole(plan[step]))
    with pytest.raises(InputError, match="want a multiple of the 3 processes"):
        LoadBatch(plan, 0, 3)


# Going on


def test_position_is_the_state(paths):
    plan = open_plan(t2s(paths))
    batches = Batches(plan)
    given = [next(batches) for _ in range(4)]
    state = batches.get_state()
    assert state == {"step": 4}
    given += [next(batches) for _ in range(3)]
    again = Batches(open_plan(t2s(paths)))
    next(again)
    again.set_state(state)
    for want in given[4:]:
        assert_equal(next(again), want)
    assert_equal(next(Batches(plan, 2)), given[2])
    again.set_state({"step": 0})
    assert_equal(next(again), given[0])
    again.close()


def test_orbax_keeps_the_position(paths, tmp_path):
    plan = open_plan(t2s(paths))
    batches, again = Batches(plan), Batches(plan)
    for _ in range(3):
        next(batches)
    with ocp.CheckpointManager(tmp_path) as manager:
        manager.save(3, args=ocp.args.Composite(data=grain.checkpoint.CheckpointSave(batches)))
        manager.wait_until_finished()
        restore = grain.checkpoint.CheckpointRestore(again)
        restored = manager.restore(3, args=ocp.args.Composite(data=restore))["data"]
    assert_equal(next(restored), next(batches))


def test_other_number_of_processes_goes_on_with_the_same_batches(paths):
    plan = open_plan(t2s(paths))
    one = Batches(plan)
    for _ in range(5):
        next(one)
    two = [Batches(plan, process=p, processes=2) for p in range(2)]
    for batches in two:
        batches.set_state(one.get_state())
    halves = [next(batches) for batches in two]
    joined = {name: np.concatenate([x[name] for x in halves]) for name in halves[0]}
    assert_equal(joined, next(one))


@pytest.mark.slow
def test_worker_processes_make_the_same_batches(paths):
    plan = open_plan(t2s(paths))
    alone = Batches(plan)
    want = [next(alone) for _ in range(9)]
    for workers in (1, 2):
        batches = Batches(plan, workers=workers)
        for batch in want[:5]:
            assert_equal(next(batches), batch)
        state = batches.get_state()
        batches.close()
        again = Batches(plan, workers=workers + 1)
        again.set_state(state)
        for batch in want[5:]:
            assert_equal(next(again), batch)
        again.close()


# What cannot be used


def test_damaged_and_missing_shards_are_named(tmp_path):
    write_data(tmp_path / "a", ["s"] * 12, 1, {})
    plan = open_plan(t2s((str(tmp_path / "a"),), fields=("codes",)))
    path = shards.shard_path(tmp_path / "a", 1)
    content = bytearray(path.read_bytes())
    middle = content.find(np.full(5, 90, np.int32).tobytes())  # codes of the ninth: record 2
    assert middle > 0
    content[middle : middle + 4] = b"oops"
    path.write_bytes(content)
    load = LoadBatch(plan)
    with pytest.raises(shards.DataError, match=rf"{path}, record 2 cannot be read"):
        for batch in rounds_of(plan, 1)[0]:
            load(batch)
    path.unlink()
    with pytest.raises(shards.DataError, match=f"{path} is missing"):
        LoadBatch(plan)


def test_record_longer_than_the_table_says_is_named(tmp_path):
    write_data(tmp_path / "a", ["s"] * 12, 1, {})
    index = shards.Index.load(tmp_path / "a")
    short = {**index.table, "text": index.table["text"] * 0 + 1}
    plan = BatchPlan(
        t2s((str(tmp_path / "a"),), fields=("text",)), [dataclasses.replace(index, table=short)]
    )
    with pytest.raises(shards.DataError, match=r"record . cannot be read: text has length"):
        for batch in rounds_of(plan, 1)[0]:
            LoadBatch(plan)(batch)


def test_data_of_different_encoders_do_not_mix(paths, tmp_path):
    write_data(tmp_path / "c", ["s"] * 6, 1, {"codec": "y"})
    other = str(tmp_path / "c")
    with pytest.raises(InputError, match=f"{paths[0]} and {other} were made with different codec"):
        open_plan(t2s((*paths, other)))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"paths": ()}, "data.paths is"),
        ({"paths": ("a", "a")}, "want directories, each once"),
        ({"fields": ("text", "cods")}, "want some of text, codes"),
        ({"measure": "seconds"}, "data.measure is seconds; want codes or frames"),
        ({"budget": 0}, "data.budget is 0; want at least 1"),
        ({"weights": (1.0, 2.0)}, "want one a path"),
        ({"weights": (0.0,)}, "want one a path"),
        ({"speed_probability": 1.5}, "data.speed_probability is 1.5"),
        ({"fields": ("mel",)}, "want 0, since mel is of the recorded speed"),
        ({"ladder_ratio": 1.0}, "data.ladder_ratio is 1.0; want more than 1"),
        ({"seed": -1}, "data.seed is -1; want 0 or more"),
    ],
)
def test_wrong_settings_are_refused(changes, message):
    with pytest.raises(InputError, match=message):
        t2s(**({"paths": ("x",)} | changes))


def test_data_without_pairs_or_word_vectors_are_refused():
    index = synthetic(10, 10)
    index.table["speaker"][:] = np.arange(10)
    with pytest.raises(InputError, match="x has no two utterances of one speaker"):
        BatchPlan(t2s(("x",)), [index])
    with pytest.raises(InputError, match="some utterances have none"):
        BatchPlan(s2m(("x",), fields=("mel", "word_vectors")), [synthetic(10, 2)])
