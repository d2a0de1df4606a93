"""Eight CPU devices, so that sharding is tested without an accelerator; fixtures of many tests.

Compiling takes most of the tests' time. So compiled programs are kept between runs, and shared by
the workers and child processes of a run; `pytest --cache-clear` starts afresh.
"""

import gc
import os
import pathlib

os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ.setdefault("JAX_NUM_CPU_DEVICES", "8")
os.environ.setdefault(
    "JAX_COMPILATION_CACHE_DIR", str(pathlib.Path(__file__).parents[1] / ".pytest_cache/d/xla")
)
os.environ.setdefault("JAX_COMPILATION_CACHE_MAX_SIZE", str(2**30))
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0.2")

import pytest

_MOST = 3 * 2**30  # bytes of a worker


@pytest.fixture(scope="session", autouse=True)
def _user_cache(tmp_path_factory):
    """Keeps the user's cache folder out of the tests (and the tests out of it)."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="module", autouse=True)
def _bounded_memory():
    """Forgets compiled programs behind a module once they fill gigabytes; the disk has them."""
    yield
    statm = pathlib.Path("/proc/self/statm")  # Linux alone tells without another package
    if statm.exists() and int(statm.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") > _MOST:
        import jax

        jax.clear_caches()
        gc.collect()


@pytest.fixture(scope="session")
def release(tmp_path_factory):
    """A tiny PyTorch release with random weights."""
    from tests.release_factory import write_release

    path = tmp_path_factory.mktemp("release")
    write_release(path)
    return path


@pytest.fixture(scope="session")
def converted(release, tmp_path_factory):
    """That release, converted."""
    from indextts2_jax.release.convert import convert_release

    path = tmp_path_factory.mktemp("converted") / "checkpoint"
    convert_release(release, path)
    return path


@pytest.fixture(scope="session")
def tts(converted):
    """That checkpoint, opened."""
    from indextts2_jax.pipeline import IndexTTS2

    return IndexTTS2(converted)


@pytest.fixture(scope="session")
def voice(tmp_path_factory):
    """A second and a half of something like a vowel, as a 24 kHz wav."""
    import numpy as np

    from indextts2_jax.audio import wav

    rate = 24000
    t = np.arange(int(1.5 * rate)) / rate
    rng = np.random.default_rng(0)
    pitch = 2 * np.pi * np.cumsum(120 + 20 * np.sin(5 * t)) / rate
    tone = sum(np.sin(k * pitch) / k for k in range(1, 20))
    samples = 0.2 * tone * (1 + 0.5 * np.sin(8 * t)) + 0.01 * rng.standard_normal(len(t))
    path = tmp_path_factory.mktemp("voice") / "voice.wav"
    wav.save(path, samples, rate)
    return path
