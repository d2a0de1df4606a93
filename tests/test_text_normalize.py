import subprocess
import sys

import pytest

from indextts2_jax.text import Normalizer, load_glossary, pinyin, wetext_engine
from indextts2_jax.text.language import language_spans
from tests.common import ROOT


def unchanged(language, text):
    return text


def read(text, **options):
    return Normalizer(unchanged, **options)(text)


def test_importing_the_text_front_end_loads_no_grammar_and_no_jax():
    code = (
        "import sys, indextts2_jax.text; print({'wetext', 'sentencepiece', 'jax'} & {*sys.modules})"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.stdout.strip() == "set()", done.stderr


@pytest.mark.parametrize("compat", [False, True])
@pytest.mark.parametrize("text", ["", " ", "\n\t "])
def test_blank_text_is_empty_and_reaches_no_engine(text, compat):
    def engine(language, text):
        raise AssertionError

    assert Normalizer(engine, compat=compat)(text) == ""


@pytest.mark.parametrize("compat", [False, True])
def test_a_failing_engine_keeps_the_text_and_warns(compat):
    def engine(language, text):
        raise RuntimeError("no grammar")

    with pytest.warns(UserWarning, match="no grammar"):
        assert Normalizer(engine, compat=compat)("买3个") == "买3个"


def test_a_failing_engine_is_asked_for_smaller_parts():
    def engine(language, text):
        if "bad" in text:
            raise RuntimeError("no grammar")
        return text.replace("3", "three")

    with pytest.warns(UserWarning, match="left as it is: 'bad3 '"):
        got = Normalizer(engine)("I saw 3 and 3. Then, at 3, all bad3 of 3 of them left. 3!")
    assert got == "I saw three and three. Then, at three, all bad3 of three of them left. three!"


@pytest.mark.parametrize(
    "sentence",
    [
        "On May 1, 2024, she paid $12.50. ",
        "他2024年花了12.5元。",
        "中文没有标点",
        "words without any mark ",
        "1, 2, 3, ",
    ],
)
def test_the_engine_sees_a_few_sentences_of_a_long_text_at_a_time(sentence):
    seen = []

    def engine(language, text):
        seen.append(len(text))
        return text

    text = sentence * (60_000 // len(sentence))
    assert len(Normalizer(engine)(text)) > 55_000
    assert max(seen) <= 800


@pytest.mark.parametrize(
    ("text", "want"),
    [
        (
            "Chapter One\n\nThe Title\n\nOnce upon a time",
            "Chapter One. The Title. Once upon a time",
        ),
        ("Chapter 1\nIt was dark", "Chapter 1. It was dark"),
        ("第三章 山中\n从前有座山\n山里有座庙", "第三章 山中.从前有座山 山里有座庙"),
        ("# A title\nText", "A title. Text"),
        ("Dear all,\r\n\r\nwe left", "Dear all. we left"),
        ("“好。”\n\n“走！”\n \n他说", "'好.' '走!' 他说"),
        ("Part of\nthe same\nline", "Part of the same line"),
    ],
)
def test_blank_lines_and_headings_end_a_sentence(text, want):
    assert read(text) == want
    assert "." not in read("一\n\n二", compat=True)


@pytest.mark.parametrize("answer", ["", "  ", "读作"])
def test_an_engine_that_loses_text_or_hidden_parts_is_not_believed(answer):
    with pytest.warns(UserWarning, match="left as it is"):
        assert Normalizer(lambda language, text: answer)("晕xuan4") == "晕XVAN4"


# Marks


@pytest.mark.parametrize(
    ("text", "want"),
    [
        ("好：的；吗，呢、", "好,的,吗,呢,"),
        ("好。的！吗？", "好.的!吗?"),
        ("一\n二", "一 二"),
        ("啊——真～的·", "啊--真-的-"),
        ("“一”‘二’（三）《四》【五】「六」", "'一''二''三''四''五''六'"),
        ("『一』〈二〉＂三＂{四}", "'一''二''三''四'"),
        ("a–b", "a-b"),
        ("等……等...等…等", "等…等…等…等"),
        ("好，，，好。。。", "好…好…"),
    ],
)
def test_marks_become_the_few_that_the_vocabulary_has(text, want):
    assert read(text) == want


def test_compat_keeps_the_originals_marks():
    assert read("，，，。。。『』", compat=True) == ",,,...『』"
    assert read("5$和$5", compat=True) == "5.和.5"


def test_dollars_that_are_no_amount_are_words():
    assert read("用$支付") == "用美元支付"
    assert Normalizer()("一共$5") == "一共五美元"
    assert Normalizer()("5$一个") == "五美元一个"


def test_full_width_marks_part_english_words():
    assert read("好。The end，OK“yes”no") == "好. The end, OK 'yes' no"


# Contractions, names, tech terms, annotations


@pytest.mark.parametrize("compat", [False, True])
def test_contracted_is_is_written_out_but_possessives_stay(compat):
    assert read("It's John's; what's up", compat=compat) == "It is John's, what is up"
    assert read("他说what's up", compat=compat) == "他说what is up"
    assert read("the exhibit's end", compat=compat) == "the exhibit's end"


@pytest.mark.parametrize(
    ("text", "want"),
    [
        ("It's been a long day.", "It has been a long day."),
        ("he's never seen it", "he has never seen it"),
        ("What's happened? Who's been here?", "What has happened? Who has been here?"),
        ("it's done, it's made of wood", "it is done, it is made of wood"),
        ("she's a gone case", "she is a gone case"),
    ],
)
def test_contracted_has_is_told_by_the_participle(text, want):
    assert read(text) == want


def test_what_is_not_seen_vanishes():
    assert (
        read("in\u00adter\u00adnational \u202bRTL\u202c te\u200bxt\ufeff")
        == "international RTL text"
    )


def test_numbers_alone_are_read_in_the_language_asked_for():
    def spans(text, **asked):
        return Normalizer(lambda language, part: f"{language}({part})", **asked)(text)

    assert spans("1984") == "en'1984'"
    assert spans("24/7", language="zh") == "zh'24/7'"
    assert spans("page 7", language="zh") == "en'page 7'"
    assert spans("第7页", language="en") == "zh'第7页'"
    assert spans("5。", language="en").startswith("zh")


def test_curly_apostrophes_are_apostrophes():
    assert read("It’s John’s") == "It is John's"


@pytest.mark.parametrize("compat", [False, True])
def test_names_and_hyphens_of_tech_terms_are_hidden_from_the_engine(compat):
    seen = []

    def engine(language, text):
        seen.append(text)
        return text.replace("-", "减").replace("5", "五")

    normalizer = Normalizer(engine, compat=compat)
    assert normalizer("蒂姆·库克用GPT-5") == "蒂姆-库克用GPT-五"
    assert not {"·", "-"} & set(seen[0])


@pytest.mark.parametrize("compat", [False, True])
def test_annotated_words_stay_as_they_are_written(compat):
    assert read("不<行|HANG2>，好", compat=compat) == "不<行|HANG2>,好"


# Pinyin


@pytest.mark.parametrize(
    ("syllable", "want"),
    [
        ("lü3", "LV3"),
        ("lv3", "LV3"),
        ("nü3", "NV3"),
        ("lüe4", "LVE4"),
        ("lue4", "LVE4"),
        ("ju4", "JV4"),
        ("que1", "QVE1"),
        ("xün2", "XVN2"),
        ("xuan4", "XVAN4"),
        ("jiu3", "JIU3"),
        ("yuan2", "YUAN2"),
        ("yü2", "YU2"),
        ("lu4", "LU4"),
        ("nuo4", "NUO4"),
    ],
)
def test_pinyin_is_spelled_as_in_the_vocabulary(syllable, want):
    assert pinyin.spell(syllable) == want
    assert read(f"读{syllable}音") == f"读{want}音"
    assert read(f"读{syllable.upper()}音") == f"读{want}音"


def test_every_syllable_is_spelled_alike_however_it_is_written():
    for syllable in pinyin.SYLLABLES:
        spelled = pinyin.spell(syllable + "1")
        assert pinyin.spell(spelled) == spelled
        assert pinyin.RUN.fullmatch(spelled.lower())


def test_pinyin_is_told_from_words_that_end_alike():
    fives = Normalizer(lambda language, text: text.replace("1", "一"))
    assert fives("beta1用a1测试ba1") == "beta一用A1测试BA1"
    assert Normalizer(fives.engine, compat=True)("beta1用a1测试") == "beta1用a1测试"


@pytest.mark.parametrize("text", ["A4纸", "1e10个", "航班BA2490", "版本v2", "编号BV1xx"])
def test_codes_are_no_pinyin(text):
    assert not pinyin.RUN.search(text)


def test_syllables_without_a_blank_between_are_pinyin():
    assert read("念ni3hao3吧") == "念NI3HAO3吧"


def test_compat_leaves_the_spelling_of_other_syllables():
    assert read("lü3和xuan4和liao3", compat=True) == "lü3和XVAN4和liao3"


# Languages


@pytest.mark.parametrize(
    ("text", "want"),
    [
        ("只有3个", "zh(只有3个)"),
        ("only 3 left", "en(only 3 left)"),
        ("42", "en(42)"),
        ("5kg, 10km", "en(5kg, 10km)"),
        ("我用Python3写了3行", "zh(我用Python3写了3行)"),
        ("他说 I have 3 apples，你呢3", "zh(他说) en(I have 3 apples)zh(,你呢3)"),
        ("买3送1 buy 3 get 1 free！好", "zh(买3送1) en(buy 3 get 1 free)zh(!好)"),
        ("在 New York 2024年", "zh(在) en(New York) zh(2024年)"),
        ("我说 5 people came，3个", "zh(我说) en(5 people came,)zh(3个)"),
        ("花了100 US dollars。", "zh(花了100) en(US dollars.)"),
        ("第3章 Chapter 3 The End", "zh(第3章) en(Chapter 3 The End)"),
        ("请写 me@a.com 吧", "zh(请写) en(me@a.com) zh(吧)"),
        ("No.1、No.2", "en(No.1, No.2)"),
        ("重5kg 高3km 的", "zh(重5kg 高3km 的)"),
    ],
)
def test_each_span_is_read_in_its_language(text, want):
    got = Normalizer(lambda language, part: f"{language}({part})")(text)
    assert got == want.replace("(", "'").replace(")", "'")


def test_compat_reads_a_text_in_one_language():
    seen = []

    def engine(language, text):
        seen.append((language, text))
        return text

    Normalizer(engine, compat=True)("他说 I have 3 apples")
    assert seen == [("zh", "他说 I have 3 apples")]


def test_spans_concatenate_to_the_text():
    for text in ["a b你c d3，e f", "3 ab cd 4 你 5 ef gh", "你，ab cd、ef gh，5 ij kl"]:
        assert "".join(part for _, part in language_spans(text)) == text


# Glossary


GLOSSARY = {
    "C++": {"zh": "C 加加", "en": "C plus plus"},
    "PCIe": "P C I E",
    "PCIe 5.0": "PCIE five",
}


def test_glossary_reads_terms_in_the_language_around_them_and_any_case():
    assert read("我用c++", glossary=GLOSSARY) == "我用C 加加"
    assert read("I use C++.", glossary=GLOSSARY) == "I use C plus plus."


def test_longest_term_wins_and_readings_are_final():
    assert read("a pcie 5.0 and pcie slot", glossary=GLOSSARY) == "a PCIE five and P C I E slot"


def test_terms_are_whole_words():
    assert read("AI said", glossary={"ai": "A I"}) == "A I said"
    assert read("AI said", glossary={"ai": "A I"}, compat=True) == "A I sA Id"


def test_load_glossary_reads_both_forms(tmp_path):
    path = tmp_path / "glossary.yaml"
    path.write_text("NVMe: N-V-M-E\nC++: {zh: C 加加, en: C plus plus}\n", encoding="utf-8")
    assert load_glossary(path) == {
        "NVMe": "N-V-M-E",
        "C++": {"zh": "C 加加", "en": "C plus plus"},
    }
    path.write_text("")
    assert load_glossary(path) == {}


@pytest.mark.parametrize(
    "content", ["- a\n- b", "a: [1]", "a: {fr: x}", "a: ''", "a: {}", "5: five", "a: {b", "a: 3"]
)
def test_bad_glossaries_are_one_line_errors(tmp_path, content):
    path = tmp_path / "glossary.yaml"
    path.write_text(content)
    with pytest.raises(ValueError, match=r"glossary\.yaml") as error:
        load_glossary(path)
    assert "\n" not in str(error.value)


# The default engine; its English is in test_english.py


@pytest.mark.parametrize(
    ("text", "want"),
    [
        ("Only 3 of 20.", "Only three of twenty."),
        ("It costs $12.50.", "It costs twelve point five dollars."),
        ("Meet me at 3:30 PM", "Meet me at three thirty PM"),
        (
            "On July 4, 2024 we left",
            "On the fourth of july, twenty twenty four we left",
        ),
        ("2.5% off", "two point five percent off"),
        # What wetext alone gets wrong.
        ("two  blanks, 3", "two blanks, three"),
        ('He said: "Stop 3!"', 'He said: "Stop three!"'),
        (
            "over 1,000 people, $1,234",
            "over one thousand people, one thousand two hundred and thirty four dollars",
        ),
        ("in the 1990s", "in the nineteen nineties"),
        ("M.2 and v2.0", "M point two and v two point oh"),
        ("Python 3.11.2", "Python three point eleven point two"),
        ("see [3] and #1", "see (three) and number one"),
        ("a ≈5", "a ≈five"),
        ("it costs 5$ now", "it costs five dollars now"),
    ],
)
def test_wetext_reads_english(text, want):
    assert wetext_engine("en", text) == want


@pytest.mark.parametrize(
    ("text", "want"),
    [
        ("共465篇，约315万字", "共四百六十五篇,约三百一十五万字"),
        ("2024年3月15日", "二零二四年三月十五日"),
        ("现在3:30", "现在三点三十分"),
        ("售价¥12.5，涨了5%", "售价十二点五元,涨了百分之五"),
        ("气温-5℃", "气温负五摄氏度"),
        ("花儿，嗯，3朵", "花儿,嗯,三朵"),
        ("繁體字", "繁体字"),
        # What wetext alone gets wrong.
        ("美元$1,234.56", "美元一千二百三十四点五六美元"),
        ("他说“3个”", "他说'三个'"),
        ("138 0013 8000", "幺三八零零幺三八零零零"),
        ("3月2日，第2天", "三月二日,第二天"),
        ("3000+人，9-10点", "三千加人,九到十点"),
        ("0.5小时=30分钟，3*4", "零点五小时等于三十分钟,三乘四"),
    ],
)
def test_chinese_is_read(text, want):
    assert Normalizer(language="zh")(text) == want


def test_mixed_text_is_read_in_both_languages():
    assert Normalizer()("买3送1 buy 3 get 1 free！") == "买三送一 buy three get one free!"


def test_placeholders_survive_the_engine():
    text = "约瑟夫·高登说xuan4 and GPT-5 has 3 layers"
    assert Normalizer()(text) == "约瑟夫-高登说XVAN4 and GPT-five has three layers"


def test_engine_keeps_the_signs_of_what_its_grammar_refuses():
    assert wetext_engine("en", "a ≈5 b 6") == "a ≈five b six"
