import jax
import numpy as np
import pytest

from indextts2_jax.nn.attention import attention
from tests.common import relative_error


@pytest.mark.parametrize("length", [5, 300, 513])
def test_blocks_of_queries_equal_plain_attention(length):
    q, k, v = np.random.default_rng(0).normal(size=(3, 2, length, 2, 4)).astype(np.float32)
    mask = np.arange(length) < np.array([[length], [length - 2]])

    def plain(q, k, v):
        return jax.nn.dot_product_attention(q, k, v, mask=mask[:, None, None])

    def ours(q, k, v):
        return attention(q, k, v, mask)

    for f in (lambda f: f, lambda f: jax.grad(lambda *qkv: (f(*qkv) ** 2).sum(), (0, 1, 2))):
        got, want = jax.jit(f(ours))(q, k, v), jax.jit(f(plain))(q, k, v)
        assert relative_error(np.asarray(got), np.asarray(want)) < 1e-5
