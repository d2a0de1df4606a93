import pytest

from indextts2_jax.errors import InputError
from indextts2_jax.text import Tokenizer

CORPUS = ["HELLO WORLD, HELLO THERE.", "你 好 世 界 , 你 好 .", "XVAN4 THE WORLD SAYS HELLO!"] * 4


@pytest.fixture(scope="module")
def model_path(tmp_path_factory):
    import sentencepiece

    prefix = tmp_path_factory.mktemp("bpe") / "tiny"
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(CORPUS),
        model_prefix=str(prefix),
        model_type="bpe",
        vocab_size=70,
        bos_id=0,
        eos_id=1,
        unk_id=2,
        user_defined_symbols=["XVAN4"],
        hard_vocab_limit=False,
        minloglevel=2,
    )
    return prefix.with_suffix(".model")


@pytest.fixture(scope="module")
def tokenizer(model_path):
    return Tokenizer(model_path)


def test_text_is_upper_case_before_it_is_cut(tokenizer):
    assert tokenizer.encode("Hello world") == tokenizer.encode("HELLO WORLD")
    assert not tokenizer.unknown(tokenizer.encode("hello"))


def test_cjk_characters_stand_alone(tokenizer):
    pieces = tokenizer.encode("你好hello世界")
    words = "".join(pieces).split("▁")[1:]
    assert words == ["你", "好", "HELLO", "世", "界"]


def test_pinyin_is_one_piece(tokenizer):
    assert "XVAN4" in tokenizer.encode("晕XVAN4了")


def test_ids_and_pieces_correspond(tokenizer):
    pieces = tokenizer.encode("Hello 世界.")
    ids = tokenizer.ids(pieces)
    assert len(ids) == len(pieces)
    assert all(0 <= i < tokenizer.vocab_size for i in ids)
    assert tokenizer.ids([]) == []


def test_decode_undoes_encode_but_for_case_and_blanks_near_cjk(tokenizer):
    text = "HELLO WORLD, 你好 THE WORLD."
    assert tokenizer.decode(tokenizer.ids(tokenizer.encode(text))) == "HELLO WORLD,你好THE WORLD."


def test_unknown_lists_what_will_not_be_spoken(tokenizer):
    assert tokenizer.unknown(tokenizer.encode("你龘好")) == ["龘"]
    assert tokenizer.unknown(tokenizer.encode("hello 你好.")) == []


def test_one_character_is_as_any_text_unless_compat(model_path):
    assert Tokenizer(model_path).unknown(Tokenizer(model_path).encode("h")) == []
    compat = Tokenizer(model_path, compat=True)
    assert compat.encode("h") == ["▁", "h"]
    assert compat.unknown(compat.encode("h")) == ["h"]


def test_a_missing_model_is_named(tmp_path):
    with pytest.raises(InputError, match=r"no\.model"):
        Tokenizer(tmp_path / "no.model")
