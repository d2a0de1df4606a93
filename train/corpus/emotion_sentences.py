"""Sentences of the seven emotions from templates and word lists, with soft labels; no teacher.

    description   "Tonight" + "she feels" + "a little" + "furious" (Anger .9) + "about the {t}"
    utterance     "Don't you dare take the {t}!" (Anger), alone or after "Damn it,"; and that
                  before something neutral

A label is the share of the emotion itself (by the word, less after "a little"), of its neighbour
(a furious person is a little disgusted), and a rest for all others.

Splits hold out forms, not sentences. Of every list of templates, and of every list of words, some
are never in training: `valid` has new templates around known words, `test` new templates around
new words. A model from scratch can learn the first; the second asks what it knew before.
"""

import hashlib
import itertools
import random
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from indextts2_jax.emotion.text_to_emotion import EmotionSet
from train.emotion_data import CHOICES, MAX_CHARACTERS, folded

TEACHER = "templates"
KINDS = CHOICES["type"]
KEYS = EmotionSet.paper().keys
NEUTRAL = "Neutral"
# What a person in this emotion feels most of besides.
NEIGHBOURS = {
    "Anger": "Disgust", "Happiness": "Surprise", "Fear": "Sadness", "Disgust": "Anger",
    "Sadness": "Fear", "Surprise": "Happiness", "Neutral": "Happiness",
}  # fmt: skip
NEIGHBOUR_SHARE = 0.5  # of what the emotion itself leaves
UTTERED = 0.8  # share of the emotion in an utterance,
EXCLAIMED = 0.9  # ... and behind one of its exclamations,
HINTED = 0.7  # ... and where the exclamation alone says it
SHARES = {"train": 0.8, "valid": 0.1, "test": 0.1}
HELD_OUT = 6  # one of so many templates is for `valid`, another one for `test`
DRAWS = 3000  # descriptions of a cell to choose from
NEW_WORDS = 5  # one of so many words is for `test`

SUBJECTS = {
    "en": (
        "You are", "You feel", "She is", "She feels", "He is", "He feels", "They are", "We are",
        "I am", "I feel", "The boy is", "The nurse is", "Our guest feels", "My sister is",
    ),
    "zh": ("你", "她", "他", "我", "他们", "我们", "老师", "那个孩子", "我姐姐", "客人"),
}  # fmt: skip
_THINGS = {
    "en": (
        "lamp letter car house garden phone dinner ticket bag jacket window bridge cake camera "
        "party table story box river dog picture shop train boat hotel blanket kitchen radio "
        "necklace mirror"
    ),
    "zh": (
        "灯 信 车 房子 花园 电话 晚饭 票 包 外套 窗户 桥 蛋糕 相机 桌子 故事 箱子 狗 照片 商店 "
        "火车 船 毯子 厨房 镜子"
    ),
}
THINGS = {lang: words.split() for lang, words in _THINGS.items()}

# Share of the emotion -> words that say it.
WORDS = {
    "en": {
        "Anger": {
            0.9: "furious enraged livid raging seething incensed infuriated",
            0.8: "angry mad outraged irate wrathful hostile",
            0.65: "annoyed irritated cross resentful bitter exasperated indignant",
        },
        "Happiness": {
            0.9: "overjoyed ecstatic jubilant elated delighted blissful joyful",
            0.8: "happy cheerful glad merry joyous thrilled",
            0.65: "pleased amused content hopeful proud playful satisfied",
        },
        "Fear": {
            0.9: "terrified petrified panicked horrified fearful panic-stricken",
            0.8: "scared afraid frightened alarmed threatened spooked",
            0.65: "worried nervous anxious uneasy timid tense insecure",
        },
        "Disgust": {
            0.9: "disgusted revolted repulsed nauseated sickened repelled",
            0.8: "grossed-out queasy nauseous appalled put-off squeamish",
            0.65: "averse scornful contemptuous disdainful loathing fed-up-with-filth",
        },
        "Sadness": {
            0.9: "heartbroken grief-stricken devastated miserable sorrowful mournful",
            0.8: "sad depressed tearful unhappy dejected grieving",
            0.65: "gloomy lonely disappointed downcast homesick wistful forlorn",
        },
        "Surprise": {
            0.9: "astonished amazed astounded stunned flabbergasted dumbfounded",
            0.8: "surprised startled shocked speechless thunderstruck",
            0.65: "puzzled perplexed incredulous bewildered baffled taken-aback",
        },
        "Neutral": {
            0.9: "calm composed neutral collected level-headed",
            0.8: "relaxed steady even-tempered unmoved matter-of-fact detached",
            0.65: "quiet sober patient serious indifferent reserved practical",
        },
    },
    "zh": {
        "Anger": {
            0.9: "愤怒 暴怒 怒火中烧",
            0.8: "生气 恼火 气愤",
            0.65: "恼怒 不满 烦躁 愤愤不平",
        },
        "Happiness": {
            0.9: "狂喜 欣喜若狂 喜悦",
            0.8: "高兴 快乐 开心",
            0.65: "愉快 欢喜 满足 欣慰",
        },
        "Fear": {0.9: "恐惧 惊恐 毛骨悚然", 0.8: "害怕 恐慌 畏惧", 0.65: "担心 紧张 不安 胆怯"},
        "Disgust": {0.9: "恶心 作呕 反胃", 0.8: "厌恶 嫌恶 反感", 0.65: "嫌弃 鄙视 讨厌 憎恶"},
        "Sadness": {0.9: "悲痛 心碎 悲伤", 0.8: "难过 伤心 哀伤", 0.65: "失落 孤单 沮丧 失望"},
        "Surprise": {0.9: "震惊 惊愕 目瞪口呆", 0.8: "惊讶 吃惊 诧异", 0.65: "意外 疑惑 惊奇 错愕"},
        "Neutral": {0.9: "平静 冷静 镇定", 0.8: "平和 沉着 淡定", 0.65: "淡然 从容 安静 理智"},
    },
}

# A description: an opening, a subject, a degree, a word, an ending.
OPENINGS = {
    "en": (
        "", "", "Look:", "Right now", "All day long", "Once more", "When the {t} came up,",
        "I think", "It is plain that", "Since Monday", "Tonight", "With the {t} here,",
        "Everyone can see:", "No doubt,", "In this scene", "At last", "After lunch",
        "You can hear that", "Before the {t} arrived,", "On the way home", "For a moment",
        "Near the {t}", "Believe me,", "As I was told,", "By now", "In this call",
        "Without the {t}", "Every morning", "Somehow", "These days", "Of course", "In the end",
    ),
    "zh": (
        "", "", "今天", "现在", "说到{t},", "看到{t},", "一整天", "据说", "昨晚", "听说",
        "在{t}旁边,", "其实", "显然,", "最后", "从周一起,", "我觉得", "毫无疑问,", "回家的路上",
        "{t}来之前,", "有一刻,", "每天早上", "电话里", "不知为何,", "当然,", "没有{t},",
        "这几天", "午饭以后", "说真的,",
    ),
}  # fmt: skip
ENDINGS = {
    "en": (
        "", "", "about the {t}", "because of the {t}", "today", "again", "after the news",
        "this morning", "at the sight of the {t}", "and says so", "in front of the {t}",
        "as before", "next to the {t}", "while the {t} waits", "these days",
        "as anyone can hear", "since the {t} left", "at the door", "and cannot hide it",
        "before the game", "over the {t}", "in the hall", "when the {t} is near",
        "for no reason", "on the way to work", "and it shows", "with the {t}", "at the moment",
        "as ever", "in the morning light", "behind the {t}", "for once",
    ),
    "zh": (
        "", "", ",因为{t}", ",说不出话", ",大家都看得出来", ",就在{t}旁边", ",和以前一样",
        ",全写在脸上", ",听声音就知道", ",都是{t}的缘故", ",谁也没想到", ",直到{t}来了",
        ",在门口站着", ",没有理由", ",藏也藏不住", ",跟{t}有关", ",在去上班的路上", ",比赛以前",
        ",当着{t}的面", ",从早到晚", ",只有我知道", ",自从{t}走了", ",像往常一样", ",在院子里",
        ",她自己说的", ",看那{t}",
    ),
}  # fmt: skip
# Which part of the word's share they leave it.
DEGREES = {
    "en": {
        "": 1.0, "so": 1.05, "very": 1.05, "utterly": 1.1, "truly": 1.05, "a little": 0.75,
        "somewhat": 0.75, "slightly": 0.75, "quite": 0.95, "still": 1.0, "clearly": 1.0,
    },
    "zh": {
        "很": 1.0, "非常": 1.1, "有点": 0.75, "十分": 1.05, "越来越": 1.0, "感到": 1.0, "觉得": 1.0,
        "特别": 1.05, "略微": 0.75,
    },
}  # fmt: skip

EXCLAMATIONS = {
    "en": {
        "Anger": "Damn it,|Enough!|How dare you!|Shut up!|You idiot!|I hate this!|Get out!|Curses!",
        "Happiness": "Hooray!|Yay!|Wonderful!|I'm so happy!|Great news!|So lovely!|Hurrah!|Oh joy!",
        "Fear": "Help!|Oh no,|I'm scared!|Please, no!|Watch out!|I'm afraid!|Run!|Hide!",
        "Disgust": "Ugh,|Yuck!|Eww,|Gross!|Disgusting!|How vile!|Bah,|That's foul!",
        "Sadness": "Alas,|I could cry.|Poor me.|It hurts.|I'm sad.|Sigh,|What loss.|Woe is me.",
        "Surprise": "Wow!|What?|Oh!|No way!|Really?|Whoa!|Good heavens!|Unbelievable!",
        "Neutral": "By the way,|Well,|Note:|As planned,|For the record,|So,|Next,|In short,",
    },
    "zh": {
        "Anger": "可恶!|够了!|滚开!|闭嘴!|气死我了!",
        "Happiness": "太好了!|真棒!|哈哈,|好开心!|万岁!",
        "Fear": "救命!|不要啊!|我好怕!|快跑!|小心!",
        "Disgust": "呸!|真恶心!|恶,|太脏了!|真难闻!",
        "Sadness": "唉,|好难过。|我想哭。|真可怜。|呜呜,",
        "Surprise": "哇!|什么?|天哪!|真的吗?|不会吧!",
        "Neutral": "另外,|那么,|好的,|总之,|顺便说,",
    },
}  # fmt: skip
# Said by themselves.
UTTERANCES = {
    "en": {
        "Anger": (
            "How dare you touch my {t}!", "I've had enough of your {t}!", "Who broke my {t} again?",
            "Don't you dare take the {t}!", "You ruined the {t}, you fool!",
            "I hate you and your {t}!",
            "Stop lying about the {t}!", "Give back my {t} this instant!",
            "I'll make you pay for the {t}!",
            "Get your hands off my {t}!", "Your damn {t} is in my way!",
            "Not the {t} again, you liar!",
        ),
        "Happiness": (
            "I love the {t}!", "What a wonderful {t}!", "The {t} makes me so happy!",
            "This is the best {t} ever!", "Thank you for the lovely {t}!", "We won the {t}!",
            "I can't stop smiling at the {t}!", "The {t} turned out perfect!",
            "How I enjoy the {t}!",
            "What luck, the {t} is ours!", "I adore this beautiful {t}!",
            "Let's celebrate the {t}!",
        ),
        "Fear": (
            "Something is moving behind the {t}!", "Don't go near the {t}, please.",
            "I'm scared of the {t}.", "Someone is hiding in the {t}.", "The {t} is on fire, help!",
            "I hear steps near the {t}.", "My hands shake at the {t}.",
            "Please keep the {t} away from me.",
            "What if the {t} kills us?", "I'm afraid of what is in the {t}.",
            "A shadow passed by the {t}.", "The {t} is coming for us!",
        ),
        "Disgust": (
            "This {t} stinks.", "The {t} makes me sick.", "Something rots in the {t}.",
            "Take the filthy {t} away.", "I won't touch that slimy {t}.",
            "The {t} smells of vomit.",
            "There is mold all over the {t}.", "What a revolting {t}.",
            "The dirty {t} turns my stomach.",
            "Who spat on the {t}?", "Rats have been in the {t}.", "That {t} is foul and sticky.",
        ),
        "Sadness": (
            "I miss the old {t} so much.", "I cried over the {t} all night.",
            "She died before the {t} came.",
            "Without you the {t} is empty.", "Nothing is left but the {t}.",
            "It hurts to see the {t}.",
            "The {t} reminds me of her grave.", "We lost the {t} forever.",
            "Nobody comes to the {t} anymore.",
            "My tears fell on the {t}.", "The {t} is gone, like my son.",
            "I sit alone with the {t}.",
        ),
        "Surprise": (
            "Where did the {t} come from?", "I never expected a {t}!", "Is that {t} real?",
            "Since when do you have a {t}?", "I can't believe the {t}!", "The {t} moved by itself?",
            "Look at that huge {t}!", "You got me a {t}, for nothing?",
            "How did the {t} get in here?",
            "The {t} vanished in a second!", "A {t} fell from the sky!",
            "You mean the {t} can talk?",
        ),
        "Neutral": (
            "The {t} is over there.", "We meet at the {t} at ten.", "The {t} costs ten euros.",
            "I will bring the {t} tomorrow.", "The {t} has two parts.",
            "There is a {t} on the list.",
            "The {t} was made in May.", "He looks at the {t} at noon.",
            "The {t} is next to the door.",
            "Please sign for the {t}.", "The {t} belongs to the office.",
            "We use the {t} on Mondays.",
        ),
    },
    "zh": {
        "Anger": (
            "谁动了我的{t}?", "不许碰我的{t}!", "你毁了我的{t}!", "我恨你的{t}!", "把{t}还给我!",
            "你又弄坏了{t}!",
        ),
        "Happiness": (
            "我好喜欢这{t}!", "这{t}太美了!", "我们终于有{t}了!",
            "谢谢你送的{t}!", "这是最好的{t}!",
            "{t}让我笑个不停!",
        ),
        "Fear": (
            "{t}后面有东西在动!", "别靠近那{t}!", "我怕那{t}。", "{t}着火了!", "有人躲在{t}旁边。",
            "那{t}朝我们来了!",
        ),
        "Disgust": (
            "这{t}臭死了。", "{t}上全是霉。", "快把脏{t}拿走。",
            "谁往{t}上吐口水?", "这{t}让我想吐。",
            "{t}上爬满了蟑螂。",
        ),
        "Sadness": (
            "我再也见不到{t}了。", "看到{t}我就流泪。", "没有你,{t}是空的。", "我们失去了{t}。",
            "只剩下{t}陪我。", "{t}让我想起去世的妈妈。",
        ),
        "Surprise": (
            "这{t}从哪来的?", "{t}怎么不见了?", "你居然有{t}?", "这{t}是真的?", "没想到会有{t}!",
            "{t}自己动了?",
        ),
        "Neutral": (
            "{t}在那边。", "{t}要十块钱。", "我明天带{t}来。", "{t}有两部分。", "请在{t}旁边等。",
            "{t}是五月做的。",
        ),
    },
}  # fmt: skip


def sentences(count: int, langs: Sequence[str], seed: int) -> list[dict[str, Any]]:
    """Draws sentences, equally many of each emotion, type and language.

    Args:
      count: of all, about; fewer where the templates do not give so many.
      langs: "en", "zh" or both.
      seed: of the draws, and of what is held out.

    Returns:
      Lines for `train.emotion_data`.
    """
    cells = [(emotion, kind, lang) for emotion in KEYS for kind in KINDS for lang in langs]
    out: dict[str, dict[str, Any]] = {}  # by folded text
    for split, share in SHARES.items():
        wanted = max(1, round(share * count / len(cells)))
        for emotion, kind, lang in cells:
            candidates = dict(_candidates(emotion, kind, lang, split, seed))
            texts = sorted(text for text in candidates if len(text) <= MAX_CHARACTERS)
            random.Random(f"{seed} {emotion} {kind} {lang} {split}").shuffle(texts)
            for text in texts[:wanted]:
                values = make_line(
                    kind,
                    lang,
                    text,
                    emotion,
                    distribution=candidates[text],
                    teacher=TEACHER,
                    split=split,
                )
                out.setdefault(folded(text), values)
    return list(out.values())


def make_line(
    kind: str,
    lang: str,
    text: str,
    emotion: str,
    *,
    distribution: Mapping[str, float],
    teacher: str,
    split: str,
) -> dict[str, Any]:
    """Makes a line for `train.emotion_data`; its id follows from the text."""
    digest = hashlib.sha256(text.encode()).hexdigest()[:12]
    return {
        "id": f"{lang}-{emotion.lower()}-{digest}",
        "type": kind,
        "lang": lang,
        "text": text,
        "emotion": emotion,
        "distribution": dict(distribution),
        "teacher": teacher,
        "split": split,
    }


def soft_label(emotion: str, share: float, factor: float = 1.0) -> dict[str, float]:
    """Returns the distribution of an expression of `emotion`, in hundredths whose sum is 1.

    Args:
      emotion: a key of the paper's set.
      share: its probability, by the word that says it.
      factor: which part of that the rest of the sentence leaves it; more than 1 takes from the
        others, less than 1 gives to Neutral.
    """
    own = min(95, round(100 * share * max(factor, 1.0)))
    neighbour = round(NEIGHBOUR_SHARE * (100 - own))
    others = [key for key in KEYS if key not in (emotion, NEIGHBOURS[emotion])]
    hundredths = dict.fromkeys(others, (100 - own - neighbour) // len(others))
    hundredths[NEIGHBOURS[emotion]] = neighbour
    hundredths[emotion] = 100 - sum(hundredths.values())
    if factor < 1:
        given = round((1 - factor) * hundredths[emotion])
        hundredths[emotion] -= given
        hundredths[NEUTRAL] += given
    return {key: hundredths[key] / 100 for key in KEYS}


def _candidates(
    emotion: str, kind: str, lang: str, split: str, seed: int
) -> Iterator[tuple[str, dict[str, float]]]:
    """Yields texts of a cell, of any length, and their distributions."""
    things = _words(THINGS[lang], split, f"{seed} {lang}")
    if kind == "descriptive":
        shares = {w: share for share, ws in WORDS[lang][emotion].items() for w in ws.split()}
        words = _words(shares, split, f"{seed} {lang} {emotion}")
        rng = random.Random(f"{seed} {emotion} {lang} {split} draws")
        openings = _templates(OPENINGS[lang], split, f"{seed} {lang} openings")
        endings = _templates(ENDINGS[lang], split, f"{seed} {lang} endings")
        for _ in range(DRAWS):
            parts = map(rng.choice, (openings, SUBJECTS[lang], [*DEGREES[lang]], words, endings))
            opening, subject, degree, word, ending = parts
            subject = _lower(subject) if opening else subject
            said = (opening, subject, degree, word.replace("-", " "), ending)
            text = (" " if lang == "en" else "").join(filter(None, said))
            text = text.format(t=rng.choice(things)) + ("." if lang == "en" else "。")
            yield text, soft_label(emotion, shares[word], DEGREES[lang][degree])
        return
    cries = _words(EXCLAMATIONS[lang][emotion].split("|"), split, f"{seed} {lang} {emotion}")
    templates = _templates(UTTERANCES[lang][emotion], split, f"{seed} {lang} {emotion}")
    for template, t in itertools.product(templates, things):
        text = template.format(t=t)
        yield text, soft_label(emotion, UTTERED)
        for cry in cries:
            yield _after(cry, text, lang), soft_label(emotion, EXCLAIMED)
    # What is said by itself is neutral; the exclamation alone tells.
    plain = _templates(UTTERANCES[lang][NEUTRAL], split, f"{seed} {lang} {NEUTRAL}")
    for template, t, cry in itertools.product(plain, things, cries):
        yield _after(cry, template.format(t=t), lang), soft_label(emotion, HINTED)


def _after(cry: str, text: str, lang: str) -> str:
    return cry + " " * (lang == "en") + (_lower(text) if cry.endswith(",") else text)


def _lower(text: str) -> str:
    """Makes a beginning fit the middle of a sentence."""
    return text if re.match("I[ ']", text) else text[0].lower() + text[1:]


def _templates(templates: Sequence[str], split: str, salt: str) -> list[str]:
    """Returns the templates of a split; only training goes without."""
    found = sorted(filter(None, templates))
    random.Random(f"{salt} templates").shuffle(found)
    share = max(1, len(found) // HELD_OUT)
    known = found[2 * share :] + ["" for template in templates if not template]
    return {"valid": found[:share], "test": found[share : 2 * share], "train": known}[split]


def _words(words: Iterable[str], split: str, salt: str) -> list[str]:
    """Returns the words of a split: known ones, or those that only the test has."""
    found = sorted(words)
    random.Random(f"{salt} words").shuffle(found)
    share = max(1, len(found) // NEW_WORDS)
    return found[:share] if split == "test" else found[share:]
