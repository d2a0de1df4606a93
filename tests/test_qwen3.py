"""Qwen3 against transformers, its cache and padding, and the decode loop."""

import dataclasses
import functools
import json
import re
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from indextts2_jax.audio.mel import MelConfig
from indextts2_jax.checkpoint.parts import Settings
from indextts2_jax.convert import ConversionError, to_jax, to_torch
from indextts2_jax.emotion import qwen3
from indextts2_jax.emotion.qwen3 import KVCache, Qwen3, Qwen3Config, Sampling, generate
from indextts2_jax.emotion.text_to_emotion import EmotionSet
from indextts2_jax.errors import InputError
from indextts2_jax.nn.pytree import abstract, fill, params, shapes
from indextts2_jax.release.convert import convert_release
from indextts2_jax.release.export import export_release
from indextts2_jax.release.files import write_weights
from indextts2_jax.release.texts import FILES, release_texts
from tests.common import SHARED, load_golden, needs_shared, relative_error, weights_of
from tests.release_factory import small_configs

RELEASE = SHARED / "golden" / "pipeline" / "release" / "qwen0.6bemo4-merge"
LABELS = ("Anger", "Happiness", "Fear", "Disgust", "Sadness", "Surprise", "Neutral")
CLASSIFIER = dataclasses.replace(Qwen3Config.tiny(), labels=LABELS)
forward = jax.jit(lambda model, tokens, cache: model(tokens, cache))


def load(cfg, weights):
    model = abstract(lambda rngs: Qwen3(cfg, rngs=rngs))
    unused = qwen3.torch_unused(cfg)
    return fill(model, to_jax(weights, qwen3.TORCH_RULES, shapes(model), unused))


@functools.cache
def golden_model(tied):
    cfg = dataclasses.replace(Qwen3Config.tiny(), tied_head=tied)
    return load(cfg, weights_of(load_golden("qwen3")))


def classifier_weights():
    golden = load_golden("qwen3")
    weights = {**weights_of(golden), "score.weight": golden["score"]}
    del weights["lm_head.weight"]
    return weights


CONFIG_JSON = {
    "model_type": "qwen3",
    "num_hidden_layers": 2,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 16,
    "vocab_size": 61,
    "tie_word_embeddings": True,
    "rms_norm_eps": 1e-6,
    "rope_theta": 1_000_000,
    "rope_scaling": None,
    "sliding_window": 4096,
    "use_sliding_window": False,
    "attention_bias": False,
}


@pytest.mark.parametrize("tied", [True, False], ids=["tied", "free"])
def test_prefill_and_cached_steps_give_the_logits_of_transformers(tied):
    golden, model = load_golden("qwen3"), golden_model(tied)
    tokens = golden["tokens"].astype(np.int32)
    cache = KVCache.empty(model.cfg, jnp.zeros(2, jnp.int32), 16)
    logits, cache = forward(model, tokens[:, :7], cache)
    steps = [logits]
    for t in range(7, tokens.shape[1]):
        logits, cache = forward(model, tokens[:, t : t + 1], cache)
        steps.append(logits)
    want = golden["logits_tied" if tied else "logits_free"]
    assert relative_error(jnp.concatenate(steps, axis=1), want) < 1e-5
    assert relative_error(forward(model, tokens, None)[0], want) < 1e-5


@pytest.mark.parametrize("tied", [True, False], ids=["tied", "free"])
def test_greedy_tokens_of_a_padded_batch_are_those_of_transformers_alone(tied):
    golden, model = load_golden("qwen3"), golden_model(tied)
    prompts = [golden["prompt_0"], golden["prompt_1"]]  # 5 and 40 tokens, bucket 64
    got = generate(model, prompts, max_new_tokens=12, eos_ids=())
    for i, tokens in enumerate(got):
        want = golden[f"greedy_{'tied' if tied else 'free'}_{i}"]
        np.testing.assert_array_equal(tokens, want)


def test_left_padding_changes_nothing():
    model = golden_model(True)
    tokens = load_golden("qwen3")["tokens"].astype(np.int32)
    want = forward(model, tokens, None)[0]
    padded = np.zeros((2, 16), np.int32)
    padded[0, 5:], padded[1, 1:12] = tokens
    cache = KVCache.empty(model.cfg, jnp.array([5, 1]), 16)
    logits, _ = forward(model, padded, cache)
    assert relative_error(jnp.stack([logits[0, 5:], logits[1, 1:12]]), want) < 1e-5


def test_right_padding_changes_nothing():
    model = golden_model(True)
    tokens = load_golden("qwen3")["tokens"].astype(np.int32)
    got = forward(model, np.pad(tokens, ((0, 0), (0, 5))), None)[0]
    assert relative_error(got[:, :11], forward(model, tokens, None)[0]) < 1e-5


def test_label_logits_of_a_padded_batch_are_those_of_transformers_alone():
    golden, model = load_golden("qwen3"), load(CLASSIFIER, classifier_weights())
    prompts = [golden["prompt_0"], golden["prompt_1"]]
    padded = np.random.default_rng(0).integers(61, size=(2, 47))
    for row, prompt in zip(padded, prompts, strict=True):
        row[: len(prompt)] = prompt
    lengths = np.array([len(prompt) for prompt in prompts])
    got = jax.jit(Qwen3.label_logits)(model, padded, lengths)
    assert relative_error(got, golden["label_logits"]) < 1e-5


def test_label_logits_need_labels():
    with pytest.raises(ValueError, match="no classification head"):
        golden_model(True).label_logits(np.zeros((1, 1), np.int32), np.ones(1, np.int32))


def test_an_end_token_ends_each_item_on_its_own():
    golden, model = load_golden("qwen3"), golden_model(False)
    prompts = [golden["prompt_0"], golden["prompt_1"]]
    free = generate(model, prompts, max_new_tokens=12, eos_ids=())
    ends = (int(free[0][3]), 60)
    got = generate(model, prompts, max_new_tokens=12, eos_ids=ends)
    for tokens, unlimited in zip(got, free, strict=True):
        hits = np.flatnonzero(np.isin(unlimited, ends))
        np.testing.assert_array_equal(tokens, unlimited[: hits[0] + 1] if len(hits) else unlimited)
    assert len(got[0]) <= 4


def test_draws_need_a_key_and_repeat_under_the_same_key():
    golden, model = load_golden("qwen3"), golden_model(True)
    prompts = [golden["prompt_0"], golden["prompt_1"]]
    run = functools.partial(generate, model, prompts, max_new_tokens=12, eos_ids=())
    sampling, key = Sampling(temperature=3.0), jax.random.key(1)
    greedy, drawn = run(), run(sampling=sampling, key=key)
    np.testing.assert_array_equal(run(sampling=sampling), greedy)
    np.testing.assert_array_equal(run(key=key), greedy)
    np.testing.assert_array_equal(run(sampling=sampling, key=key), drawn)
    assert not np.array_equal(drawn, greedy)


def test_top_k_and_top_p_bound_what_can_be_drawn():
    logits = jnp.tile(jnp.log(jnp.array([0.1, 0.4, 0.2, 0.3])), (300, 1))

    def drawn(sampling):
        return set(np.asarray(sampling.draw(jax.random.key(0), logits)).tolist())

    assert drawn(Sampling(top_k=0)) == {0, 1, 2, 3}
    assert drawn(Sampling(top_k=3)) == {1, 2, 3}
    assert drawn(Sampling(top_k=0, top_p=0.6)) == {1, 3}
    assert drawn(Sampling(top_k=0, top_p=0.01)) == {1}


def test_generation_config_decides_whether_to_draw():
    assert Sampling.from_release({"temperature": 0.6}) is None
    given = {"do_sample": True, "temperature": 0.6, "top_k": 20, "top_p": 0.95}
    assert Sampling.from_release(given) == Sampling(0.6, 20, 0.95)
    assert Sampling.from_release({"do_sample": True, "top_p": None}) == Sampling(1.0, 50, 1.0)


def test_config_json_of_transformers_4_and_5():
    five = {k: v for k, v in CONFIG_JSON.items() if not k.startswith("rope")}
    five["rope_parameters"] = {"rope_theta": 1_000_000, "rope_type": "default"}
    assert Qwen3Config.from_release(CONFIG_JSON) == Qwen3Config.tiny()
    assert Qwen3Config.from_release(five) == Qwen3Config.tiny()


def test_labels_of_a_classifier_come_from_its_config_json_in_their_order():
    names = {str(i): label for i, label in reversed([*enumerate(LABELS)])}
    given = {**CONFIG_JSON, "architectures": [qwen3.CLASSIFIER], "id2label": names}
    assert Qwen3Config.from_release(given) == CLASSIFIER
    assert Qwen3Config.from_release({**given, "tie_word_embeddings": False}) == CLASSIFIER
    generator = {**given, "architectures": ["Qwen3ForCausalLM"]}
    assert Qwen3Config.from_release(generator) == Qwen3Config.tiny()
    with pytest.raises(KeyError):
        Qwen3Config.from_release({**given, "id2label": {"1": "Anger"}})


@pytest.mark.parametrize("cfg", [Qwen3Config.tiny(), CLASSIFIER], ids=["generator", "classifier"])
def test_config_json_survives_the_round_trip(cfg):
    texts = release_texts({**small_configs(), "qwen3": cfg}, (), MelConfig())
    written = texts[FILES["qwen3"].replace("model.safetensors", "config.json")]
    assert Qwen3Config.from_release(json.loads(written)) == cfg


@pytest.mark.parametrize(
    "change",
    [
        {"model_type": "qwen2"},
        {"attention_bias": True},
        {"use_sliding_window": True},
        {"rope_scaling": {"type": "yarn", "factor": 4.0}},
        {"rope_parameters": {"rope_type": "yarn", "rope_theta": 1e6}},
        {"hidden_act": "gelu"},
    ],
    ids=lambda change: next(iter(change)),
)
def test_config_json_that_asks_for_more_is_refused(change):
    with pytest.raises(InputError, match=next(iter(change))):
        Qwen3Config.from_release({**CONFIG_JSON, **change})


@pytest.mark.parametrize("tied", [True, False], ids=["tied", "free"])
def test_weights_convert_back_bit_by_bit(tied):
    weights = weights_of(load_golden("qwen3"))
    if tied:
        weights.pop("lm_head.weight")
    back = to_torch(params(golden_model(tied)), qwen3.TORCH_RULES)
    assert back.keys() == weights.keys()
    for name, weight in weights.items():
        np.testing.assert_array_equal(back[name], weight)


def test_weights_of_a_classifier_convert_back_bit_by_bit():
    weights = classifier_weights()
    back = to_torch(params(load(CLASSIFIER, weights)), qwen3.TORCH_RULES)
    assert back.keys() == weights.keys()
    for name, weight in weights.items():
        np.testing.assert_array_equal(back[name], weight)


def test_classification_heads_are_neither_lost_nor_made_up():
    weights = classifier_weights()
    with pytest.raises(ConversionError, match=r"score\.weight: unexpected tensor"):
        load(Qwen3Config.tiny(), weights)
    with pytest.raises(ConversionError, match=r"score\.weight: shape \(7, 32\) does not fit"):
        load(dataclasses.replace(CLASSIFIER, labels=LABELS[:6]), weights)
    del weights["score.weight"]
    with pytest.raises(ConversionError, match=r"score\.weight: missing tensor"):
        load(CLASSIFIER, weights)


@pytest.mark.slow
def test_a_release_with_a_classifier_has_the_papers_emotions_and_fits_transformers(
    release, tmp_path, caplog
):
    transformers = pytest.importorskip("transformers")
    source = shutil.copytree(release, tmp_path / "release")
    configs, groups = {**small_configs(), "qwen3": CLASSIFIER}, (1, 2, 1, 1, 1, 2, 2)
    for place, text in release_texts(configs, groups, MelConfig()).items():
        (source / place).write_text(text)
    weights = classifier_weights()
    write_weights(source / FILES["qwen3"], weights, {"format": "pt"})
    convert_release(source, tmp_path / "checkpoint")
    settings = Settings.load(tmp_path / "checkpoint")
    assert settings.emotions == EmotionSet.paper()
    assert settings.configs["qwen3"] == CLASSIFIER

    export_release(tmp_path / "checkpoint", tmp_path / "as it was")
    assert (tmp_path / "as it was" / FILES["qwen3"]).read_bytes() == (
        (source / FILES["qwen3"]).read_bytes()
    )
    (tmp_path / "checkpoint" / "provenance.json").unlink()  # now as if it had been trained here
    caplog.clear()
    export_release(tmp_path / "checkpoint", tmp_path / "trained")
    assert not [message for message in caplog.messages if "emotion" in message]
    peer, info = transformers.Qwen3ForSequenceClassification.from_pretrained(
        (tmp_path / "trained" / FILES["qwen3"]).parent, output_loading_info=True
    )
    assert not any(info.values())
    assert peer.config.id2label == dict(enumerate(LABELS))
    for name, tensor in peer.state_dict().items():
        np.testing.assert_array_equal(tensor, weights[name])


@pytest.mark.parametrize(
    ("cfg", "count"),
    [(Qwen3Config.qwen3_0_6b(), 596_049_920), (Qwen3Config.qwen3_1_7b(), 1_720_574_976)],
    ids=["0.6B", "1.7B"],
)
def test_presets_have_the_parameter_count_of_the_public_models(cfg, count):
    model = abstract(lambda rngs: Qwen3(cfg, rngs=rngs))
    assert sum(np.prod(shape) for shape in shapes(model).values()) == count


def test_every_matrix_is_sharded_over_both_axes():
    cfg = dataclasses.replace(CLASSIFIER, tied_head=False)
    for name, shape in shapes(abstract(lambda rngs: Qwen3(cfg, rngs=rngs))).items():
        spec = next(s for pattern, s in qwen3.SHARDING_RULES if re.fullmatch(pattern, name))
        assert set(spec) == ({"fsdp", "tensor"} if len(shape) == 2 else set()), name


def in_bfloat16(model):
    graphdef, state = nnx.split(model)
    return nnx.merge(graphdef, jax.tree.map(lambda w: jnp.asarray(w, jnp.bfloat16), state))


def test_bfloat16_weights_compute_in_bfloat16():
    model = golden_model(True)
    half = in_bfloat16(model)
    tokens = load_golden("qwen3")["tokens"].astype(np.int32)
    assert jax.eval_shape(half.hidden, tokens)[0].dtype == jnp.bfloat16
    classifier = in_bfloat16(load(CLASSIFIER, classifier_weights()))
    assert jax.eval_shape(classifier.label_logits, tokens, np.full(2, 11)).dtype == jnp.float32
    logits = forward(half, tokens, None)[0]
    assert logits.dtype == jnp.float32
    assert relative_error(logits, forward(model, tokens, None)[0]) < 0.05


@needs_shared
def test_released_layout_writes_the_recorded_tokens():
    torch_file = pytest.importorskip("safetensors.torch")
    cfg = Qwen3Config.from_release(json.loads((RELEASE / "config.json").read_text()))
    tensors = torch_file.load_file(RELEASE / "model.safetensors")
    model = load(cfg, {name: w.float().numpy() for name, w in tensors.items()})
    dump = json.loads((RELEASE.parents[1] / "dumps" / "d_emo_text.json").read_text())
    got = generate(model, [dump["qwen_input_ids"]], max_new_tokens=128, eos_ids=(632, 633))
    assert got[0].tolist() == dump["qwen_output_ids"]
