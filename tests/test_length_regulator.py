import jax
import jax.numpy as jnp
import numpy as np
import pytest

from indextts2_jax.s2m.length_regulator import nearest_index
from tests.common import load_golden, needs_shared, relative_error
from tests.s2m_common import SHARED_S2M, golden_model, lengthened, load_shared, shared_model

nearest = jax.jit(nearest_index, static_argnums=2)
regulate = jax.jit(lambda model, *args: model(*args), static_argnums=4)


def run(model, s, code_lengths, frame_lengths, num_frames):
    lengths = np.asarray(code_lengths, np.int32), np.asarray(frame_lengths, np.int32)
    return regulate(model.length_regulator, s, *lengths, num_frames)


def test_matches_the_formulas():
    golden = load_golden("s2m")
    got = run(golden_model(), *(golden[k] for k in ("s", "code_lengths", "frame_lengths")), 12)
    assert relative_error(got, golden["out_regulated"]) < 1e-5


def test_padded_batch_equals_singles():
    s = load_golden("s2m")["s"]
    batch = run(golden_model(), lengthened(s, 11), [7, 5], [12, 9], 20)
    for b, (codes, frames) in enumerate(((7, 12), (5, 9))):
        single = run(golden_model(), s[b : b + 1, :codes], [codes], [frames], frames)
        np.testing.assert_allclose(batch[b, :frames], single[0], atol=1e-6)
        assert not np.any(batch[b, frames:])


def test_nearest_index_is_that_of_torch():
    torch = pytest.importorskip("torch")
    rng = np.random.default_rng(0)
    codes = rng.integers(1, 1900, 3000)
    frames = np.where(rng.random(3000) < 0.5, codes * 172 // 100, rng.integers(15, 1500, 3000))
    frames = np.maximum(frames, 1)
    table = np.asarray(nearest(codes.astype(np.int32), frames.astype(np.int32), 3300))
    ramp = torch.arange(1900, dtype=torch.float32)[None, None]
    for n, t, got in zip(codes, frames, table, strict=True):
        want = torch.nn.functional.interpolate(ramp[..., :n], size=int(t), mode="nearest")
        np.testing.assert_array_equal(got[:t], want[0, 0].numpy())
        assert got.max() < n


def test_nearest_index_where_exact_arithmetic_would_differ():
    got = nearest(jnp.array([26]), jnp.array([44]), 44)[0]
    assert got[22] == 12 and 22 * 26 // 44 == 13


@needs_shared
def test_matches_the_original():
    golden, model = load_shared("length_regulator"), shared_model()
    s = golden["in_s"]
    assert relative_error(run(model, s[:1], [23], [39], 50)[:, :39], golden["out_up39"]) < 1e-5
    assert relative_error(run(model, s[:1], [23], [17], 17), golden["out_down17"]) < 1e-5


@needs_shared
def test_nearest_index_matches_the_original():
    with np.load(SHARED_S2M / "nearest_index.npz") as golden:
        for name, want in golden.items():
            n, t = map(int, name.split("_")[1:])
            np.testing.assert_array_equal(nearest(jnp.array([n]), jnp.array([t]), t)[0], want)
