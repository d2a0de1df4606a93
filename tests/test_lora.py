"""LoRA: adapters change nothing at first, merge exactly, learn alone, shard with kernels."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

from indextts2_jax import sharding
from indextts2_jax.checkpoint import store
from indextts2_jax.emotion import qwen3
from indextts2_jax.errors import InputError
from indextts2_jax.nn import pytree
from indextts2_jax.s2m import model as s2m
from indextts2_jax.t2s import gpt
from train.run import lora
from train.run.lora import QWEN3_TARGETS, S2M_TARGETS, T2S_TARGETS, LoraConfig

NETWORKS = {
    "t2s": lambda rngs: gpt.T2S(gpt.T2SConfig.tiny(), rngs=rngs),
    "s2m": lambda rngs: s2m.S2M(s2m.S2MConfig.tiny(), rngs=rngs),
    "qwen3": lambda rngs: qwen3.Qwen3(qwen3.Qwen3Config.tiny(), rngs=rngs),
}
TARGETS = {"t2s": T2S_TARGETS, "s2m": S2M_TARGETS, "qwen3": QWEN3_TARGETS}
TINY = LoraConfig(rank=2, alpha=3.0, targets=(r"w\.kernel",))


@pytest.fixture(scope="module")
def networks():
    return {name: pytree.abstract(build) for name, build in NETWORKS.items()}


def random_adapter(rng, fan_in: int, fan_out: int, cfg: LoraConfig) -> dict[str, np.ndarray]:
    """A kernel `w.kernel` and an adapter that is not zero."""
    shapes = {"": (fan_in, fan_out), ".lora_a": (fan_in, cfg.rank), ".lora_b": (cfg.rank, fan_out)}
    return {f"w.kernel{k}": rng.standard_normal(v).astype(np.float32) for k, v in shapes.items()}


def test_merged_kernel_is_the_layer_of_peft():
    rng = np.random.default_rng(0)
    arrays = random_adapter(rng, 6, 5, TINY)
    x = rng.standard_normal((4, 6)).astype(np.float32)
    merged = lora.merge({**arrays, "w.bias": np.ones(5, np.float32)}, TINY)
    assert merged.keys() == {"w.kernel", "w.bias"}
    # Linear(x) + lora_B(lora_A(x)) * scaling, with torch's [out, in] matrices
    weight, lora_A, lora_B = (arrays[f"w.kernel{k}"].T for k in ("", ".lora_a", ".lora_b"))
    want = x @ weight.T + (x @ lora_A.T) @ lora_B.T * (3.0 / 2)
    np.testing.assert_allclose(x @ np.asarray(merged["w.kernel"]), want, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(("name", "targets"), TARGETS.items())
def test_new_adapters_leave_a_network_as_it_is(name, targets):
    cfg = LoraConfig(4, 8.0, targets)
    arrays = pytree.random_arrays(NETWORKS[name], seed=1)
    shapes = {k: v.shape for k, v in arrays.items()}
    adapters = lora.init(jax.random.key(0), shapes, cfg)
    assert {k: v.shape for k, v in adapters.items()} == lora.adapter_shapes(shapes, cfg)
    merged = lora.merge({**arrays, **adapters}, cfg)
    assert merged.keys() == arrays.keys()
    assert all(np.array_equal(merged[k], arrays[k]) for k in arrays)
    a = np.concatenate([np.ravel(v) * len(v) ** 0.5 for k, v in adapters.items() if "_a" in k])
    assert -1 <= a.min() < -0.99 and 0.99 < a.max() <= 1 and abs(a.std() - 3**-0.5) < 0.02


def test_targets_are_the_matrices_of_all_blocks(networks):
    for name, matrices in (("t2s", 2 * 4), ("s2m", 5 * 5), ("qwen3", 2 * 7)):
        shapes, cfg = pytree.shapes(networks[name]), LoraConfig(1, 1.0, TARGETS[name])
        adapters = lora.adapter_shapes(shapes, cfg)
        assert len(adapters) == 2 * matrices  # A and B
        inside = lora.adapter_shapes({f"{name}.{n}": shape for n, shape in shapes.items()}, cfg)
        assert inside == {f"{name}.{n}": shape for n, shape in adapters.items()}


@pytest.mark.parametrize("name", NETWORKS)
def test_exactly_the_kernels_of_plain_linear_layers_are_taken(networks, name):
    network, taken = networks[name], set()
    shapes = pytree.shapes(network)
    for parameter in shapes:
        try:
            lora.adapter_shapes(shapes, LoraConfig(1, 1.0, (parameter.replace(".", r"\."),)))
            taken.add(parameter)
        except InputError as error:
            assert parameter in str(error)
    linear = {
        f"{'.'.join(map(str, path))}.kernel"
        for path, module in nnx.iter_modules(network)
        if isinstance(module, nnx.Linear)
    }
    assert taken == linear


def test_only_adapters_get_gradients_and_those_of_the_kernel():
    rng = np.random.default_rng(1)
    arrays = random_adapter(rng, 6, 5, TINY)
    _, names = lora.split_names(arrays)
    adapters = {name: arrays.pop(name) for name in names}
    x, goal = rng.standard_normal((4, 6)), rng.standard_normal((4, 5))

    def loss(kernel):
        return jnp.mean((x @ kernel - goal) ** 2)

    @jax.jit
    def gradients(adapters, arrays):
        return jax.grad(lambda a: loss(lora.merge({**arrays, **a}, TINY)["w.kernel"]))(adapters)

    got = gradients(adapters, arrays)
    assert got.keys() == adapters.keys()
    whole = jax.grad(loss)(lora.merge({**arrays, **adapters}, TINY)["w.kernel"])
    a, b = adapters["w.kernel.lora_a"], adapters["w.kernel.lora_b"]
    np.testing.assert_allclose(got["w.kernel.lora_a"], 1.5 * whole @ b.T, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(got["w.kernel.lora_b"], 1.5 * a.T @ whole, rtol=1e-4, atol=1e-5)


def test_a_bfloat16_kernel_stays_one_and_is_rounded_once():
    arrays = random_adapter(np.random.default_rng(2), 6, 5, TINY)
    arrays["w.kernel"] = arrays["w.kernel"].astype(jnp.bfloat16)
    merged = lora.merge(arrays, TINY)["w.kernel"]
    want = arrays["w.kernel"].astype(np.float32)
    want = want + 1.5 * arrays["w.kernel.lora_a"] @ arrays["w.kernel.lora_b"]
    assert merged.dtype == jnp.bfloat16
    np.testing.assert_allclose(merged.astype(np.float32), want, rtol=2**-8)


def test_sharded_adapters_merge_without_communication():
    rules = ((r"v\.kernel|w\.kernel", P("fsdp", "tensor")), (r"w.*", P(None, None, "fsdp")))
    rules = (*lora.sharding_rules(rules), *rules)
    mesh = sharding.make_mesh(fsdp=4, tensor=2)
    arrays = random_adapter(np.random.default_rng(3), 8, 6, TINY)
    places = sharding.shardings(arrays, rules, mesh)
    assert {name: place.spec for name, place in places.items()} == {
        "w.kernel": P("fsdp", "tensor"),
        "w.kernel.lora_a": P("fsdp", None),
        "w.kernel.lora_b": P(None, "tensor"),
    }
    sharded = jax.device_put(arrays, places)
    merge = jax.jit(lambda x: lora.merge(x, TINY)["w.kernel"], out_shardings=places["w.kernel"])
    program = merge.lower(sharded).compile()
    code = program.as_text() or ""
    assert "HloModule" in code and "all-" not in code and "collective" not in code
    want = lora.merge(arrays, TINY)["w.kernel"]
    np.testing.assert_allclose(program(sharded), want, rtol=1e-6)
    assert isinstance(program(sharded).sharding, NamedSharding)


@pytest.mark.parametrize(("name", "network"), {"t2s": gpt, "s2m": s2m, "qwen3": qwen3}.items())
def test_adapters_lie_as_the_kernels_of_their_networks(networks, name, network):
    mesh = sharding.make_mesh(fsdp=2, tensor=2)
    shapes = pytree.shapes(networks[name])
    adapters = lora.adapter_shapes(shapes, LoraConfig(3, 1.0, TARGETS[name]))
    arrays = {n: jax.ShapeDtypeStruct(s, jnp.float32) for n, s in (shapes | adapters).items()}
    rules = network.SHARDING_RULES
    places = sharding.shardings(arrays, (*lora.sharding_rules(rules), *rules), mesh)
    assert all(places[n] == sharding.shardings(arrays, rules, mesh)[n] for n in shapes)
    for adapter in adapters:
        kernel, _, half = adapter.rpartition(".")
        rows, columns = places[kernel].spec
        assert places[adapter].spec == (P(rows, None) if half == "lora_a" else P(None, columns))


def test_adapters_and_their_settings_survive_a_checkpoint(tmp_path):
    arrays = random_adapter(np.random.default_rng(4), 6, 5, TINY)
    mark = store.save_arrays(tmp_path / "w", arrays)
    read = dict(store.read_arrays(tmp_path / "w", mark))
    assert read.keys() == arrays.keys()
    assert all(np.array_equal(read[name], arrays[name]) for name in arrays)
    settings = store.to_dict(TINY) | {"targets": list(TINY.targets)}  # as JSON has it
    assert store.from_dict(LoraConfig, settings) == TINY


@pytest.mark.parametrize(
    "target, message",
    [
        (r"w\.kernel2", r"'w\\\\.kernel2' matches no parameter"),
        (r"embed\..*", r"not embed\.embedding \(7, 6\)"),
        (r"(c|d)\..*", r"not c\.kernel \(3, 6, 5\), d\.depthwise\.kernel \(3, 6\)"),
        (r"n\..*", r"not n\.kernel \(6, 5\), n\.gain \(5,\)"),
    ],
)
def test_what_lora_cannot_adapt_is_named(target, message):
    shapes = {
        "embed.embedding": (7, 6),
        "c.kernel": (3, 6, 5),
        "d.depthwise.kernel": (3, 6),
        "n.kernel": (6, 5),
        "n.gain": (5,),
        "w.kernel": (6, 5),
    }
    with pytest.raises(InputError, match=message):
        lora.adapter_shapes(shapes, LoraConfig(2, 1.0, (r"w\.kernel", target)))


def test_adapters_that_do_not_fit_are_refused():
    arrays = random_adapter(np.random.default_rng(5), 6, 5, TINY)
    with pytest.raises(InputError, match=r"w\.kernel \(6, 5\): .* is not of rank 3"):
        lora.merge(arrays, LoraConfig(3, 1.0, TINY.targets))
    del arrays["w.kernel.lora_a"]
    with pytest.raises(InputError, match=r"w\.kernel: .* missing"):
        lora.merge(arrays, TINY)
    with pytest.raises(InputError, match="rank is 0"):
        LoraConfig(0, 1.0, ())
