"""What the rules of `chinese` make of a match: the readings that need more than a pattern.

Numbers that name something (rooms, codes, years) are read digit by digit, those that count as
cardinals; 1 is 幺 in numbers that are called or travelled with.
"""

import re
import unicodedata
from decimal import Decimal

from indextts2_jax.text import chinese_terms as terms
from indextts2_jax.text.numbers_zh import cardinal, count, digits, number
from indextts2_jax.text.numbers_zh import roman as roman_value

N = r"(?:[0-9]{1,3}(?:,[0-9]{3}){1,5}(?![0-9])(?:\.[0-9]+)?|[0-9]++(?:\.[0-9]+)?)"
UNIT_END = r"(?![A-Za-z²³])"
COUNTED = (  # what shows that the number before it counts
    rf"(?:\s?(?:[0-9]|[.,][0-9]|[多余来几]|[%‰]|[-+/×*÷=<>^~～–]\s?[0-9]|{terms.UNIT}{UNIT_END}|"
    rf"{terms.MEASURE}|美|港))"
)
_SCORES = re.compile(
    "比分|战胜|击败|获胜|取胜|[大完险小]胜|力克|领先|落后|扳平|[战逼]平|逆转|淘汰|横扫|不敌|总分|告负|落败|"
    "拿下|[惜惨]败|双杀|平局|战绩|[主客]场|[胜负赢输]了?(?!率|责)"
)
_RATIOS = re.compile("比例|配比|比为|之比|稀释|比尺|混合|兑水|赔率|性别比|模型")
_DURATIONS = re.compile("用时|成绩|耗时|时长|跑出|跑进|纪录|完赛|历时")
_SINCE = (
    "前(?!后)|以前|之前|来(?!到)|以来|(?:的?(?:历史|文明|文化))|间|之久|不遇|一遇|以上|后(?!的)"
)
_STOP = re.compile("[。！？；;!?\n]")


def around(match: re.Match, before: int = 24, after: int = 10) -> tuple[str, str]:
    """Finds what stands before and behind a match in its sentence, a few characters of it."""
    start, end = match.span()
    left = _STOP.split(match.string[max(0, start - before) : start])[-1]
    return left, _STOP.split(match.string[end : end + after])[0]


def near(words: re.Pattern, match: re.Match) -> bool:
    """Tells whether one of the words stands near a match, in its sentence."""
    return any(map(words.search, around(match)))


def yao(match: re.Match) -> str:
    """Reads each digit, 1 as 幺."""
    return digits(match[0], yao=True)


def one_by_one(match: re.Match) -> str:
    """Reads each digit."""
    return digits(match[0])


def named(match: re.Match) -> str:
    """Reads a word and its digits; a hyphen between two numbers is 杠."""
    read = [number(part) if len(part) < 3 else digits(part) for part in match["id"].split("-")]
    return (
        match["before"] + "杠".join(read)
        if "-" in match["id"]
        else (match["before"] + digits(match["id"]))
    )


def called(match: re.Match) -> str:
    """Reads a word and the number behind it: digits, 1 as 幺."""
    return match["before"] + digits(match["id"], yao=True)


def sign_value(match: re.Match) -> str:
    """Reads one sign that is a number: Ⅲ, ①."""
    return cardinal(int(unicodedata.numeric(match[0])))


def half_width(match: re.Match) -> str:
    """Writes full-width and squared signs as plain ones: ％ is %, ㎏ is kg."""
    return unicodedata.normalize("NFKC", match[0])


# Dates and times.


def date(match: re.Match) -> str:
    """Reads 2024-03-05, and 到 where a second date follows."""
    year, month, day = re.findall("[0-9]+", match[0])
    if not (1 <= int(month) <= 12 and 1 <= int(day) <= 31):
        return match[0]
    to = "到" if match["to"] else ""
    return f"{digits(year)}年{cardinal(int(month))}月{cardinal(int(day))}日{to}"


def month_day(match: re.Match) -> str:
    """Reads 3.5 or 3/5 as a day."""
    month, day = int(match["m"]), int(match["d"])
    if not (1 <= month <= 12 and 1 <= day <= 31):
        return match[0]
    return f"{cardinal(month)}月{cardinal(day)}日"


def two_dates(match: re.Match) -> str:
    """Reads 5/1-5/7."""
    a, b, c, d = map(int, re.findall("[0-9]+", match[0]))
    fractions = a < b <= 10 and c < d <= 10
    if fractions or max(a, c) > 12 or not (0 < b <= 31 and 0 < d <= 31) or (a, b) >= (c, d):
        return match[0]
    return f"{cardinal(a)}月{cardinal(b)}日到{cardinal(c)}月{cardinal(d)}日"


def year(match: re.Match) -> str:
    """Reads a number before 年: 1998年 is a year; 2000年前 and 5000年历史 count years."""
    year = match["year"]
    before, after = around(match)
    since = re.match(rf"年(?:{_SINCE})", after) and not re.search("[在到于至自从]$", before)
    since = since or year == "1000" or re.search("[第近达过了有共历]$", before)
    counts = year.endswith("00") and (since or year > "2200") and "公元" not in before
    return cardinal(int(year)) if counts else digits(year)


def festival(match: re.Match) -> str:
    """Reads 3·15晚会, 5.1劳动节."""
    month, day = match["m"], match["d"] or match["day"]
    known = {"9.11": "九幺幺", "10.1": "十一", "11.11": "双十一", "12.12": "双十二"}
    return known.get(f"{month}.{day}") or digits(month + day)


def event(match: re.Match) -> str:
    """Reads the number of 918事变."""
    return digits(match[0], yao=match[0] == "911") if match[0][-2:] != "00" else number(match[0])


def clock(match: re.Match) -> str:
    """Reads 8:05 as a time, a score or a duration."""
    hour, minute, second = match["h"], match["m"], match["s"]
    if near(_SCORES, match) or near(_RATIOS, match):
        return "比".join(number(part) for part in (hour, minute, second) if part)
    if _DURATIONS.search(re.split("[，,、]", around(match)[0])[-1]):
        names = ("小时", "分", "秒") if second else ("分", "秒")
        parts = [count(str(int(part))) for part in (hour, minute, second) if part]
        return "".join(part + name for part, name in zip(parts, names, strict=True))
    half = (match["half"] or "").strip().lower().replace(".", "")
    read = {"am": "上午", "pm": "下午", "": ""}[half] + count(str(int(hour))) + "点"
    if int(minute) or int(second or 0):
        read += number(minute) + "分"
    if int(second or 0):
        read += number(second) + "秒"
    return read


def ratio(match: re.Match) -> str:
    """Reads 3:2:1."""
    return "比".join(number(part) for part in re.findall(N, match[0]))


def minutes_seconds(match: re.Match) -> str:
    """Reads 3'20" as minutes and seconds, or as a height."""
    first, second = match["a"], match["b"]
    if re.search("身高|英尺", around(match)[0]):
        return f"{count(first)}英尺{number(second)}英寸"
    return f"{count(first)}分{number(second)}秒"


# Scores, ranges, signs.


def score(match: re.Match) -> str:
    """Reads 3-2 as a score or a subtraction; ranges are left as they are."""
    first, second = int(match["a"]), int(match["b"])
    after = match.string[match.end() : match.end() + 4]
    if re.match(r"\s?=|等于", after):
        return f"{number(match['a'])}减{match['b']}"
    counted = re.match(rf"{COUNTED}(?![局球节盘])|[年月日号点时]", after)
    if not counted and (near(_SCORES, match) or (second <= first <= 9)):
        return f"{number(match['a'])}比{number(match['b'])}"
    if first > second and first > 9 and not counted and match["sign"] == "-":
        return f"{number(match['a'])}减{number(match['b'])}"
    return match[0]


def chain(match: re.Match) -> str:
    """Reads 4-3-3, 3-2-501."""
    parts = match[0].split("-")
    if all(len(part) == 1 for part in parts):
        return digits(match[0])
    return "杠".join(number(part) if len(part) < 3 else digits(part) for part in parts)


def years(match: re.Match) -> str:
    """Reads 2020-2024年, 2023/24赛季."""
    if "/" in match["sign"]:
        return digits(match["a"]) + digits(match["b"])
    return f"{digits(match['a'])}{match['year'] or ''}到{digits(match['b'])}"


def two_years(match: re.Match) -> str:
    """Reads 1912-1949."""
    to = f"{digits(match['a'])}到{digits(match['b'])}"
    return to if match["a"] < match["b"] else match[0]


def hyphen(match: re.Match) -> str:
    """Reads a hyphen between a word and a number: a minus, or a part of a name."""
    after = match.string[match.end() : match.end() + 16]
    before = match.string[max(0, match.start() - 3) : match.start()]
    if re.search(f"(?:{terms.alternatives(terms.DESIGNATIONS)})$", before):
        return ""
    measured = re.match(r"[0-9.]+\s?(?:[%‰℃°度分元层楼倍万亿点米]|到|\.[0-9])|[0-9]+\.[0-9]", after)
    explained = re.search(
        "[为是到至温达约从在得了于值报跌降涨幅长速率和与低高下加减乘的收负数]$", before
    )
    return "负" if measured or explained else ""


# Amounts.


def lower_end(match: re.Match, *, before_measure: bool = True) -> str:
    """Reads the lower end of a range, with 到."""
    if not match["low"]:
        return ""
    scale = match["low_scale"] or ""
    return (count if before_measure else number)(match["low"]) + scale + "到"


def amount(match: re.Match) -> str:
    """Reads an amount of money, with 万 or 亿 in it and 每人 before it."""
    currency = terms.CURRENCIES[match["sign"]]
    value, scale = match["value"], match["scale"] or ""
    if scale in terms.LATIN_SCALES:
        exact = Decimal(value.replace(",", "")) * 10 ** terms.LATIN_SCALES[scale]
        words = number(f"{exact.normalize():f}")
        low = match["low"] and number(match["low"]) + "到"
    else:
        words = count(value) + scale
        low = lower_end(match)
    minus = "负" if match["minus"] else ""
    per = f"每{per_what(match['per'])}" if match["per"] else ""
    return f"{per}{minus}{low or ''}{words}{match['name'] or currency}"


def per_what(written: str) -> str:
    """Reads what stands behind a slash."""
    amount = re.match("[0-9]*", written)
    assert amount is not None
    unit = written[amount.end() :]
    return (number(amount[0]) if amount[0] else "") + terms.PER.get(unit, unit)


def measure(match: re.Match) -> str:
    """Reads 5kg, 60km/h, 3-5元/斤: what is behind the slash comes first."""
    unit = match["unit"]
    name = terms.UNITS.get(unit, unit)
    words = f"{lower_end(match)}{count(match['value'])}{match['scale']}{name}"
    return f"每{per_what(match['per'])}{words}" if match["per"] else words


def percent(match: re.Match) -> str:
    """Reads a percentage or a range of them."""
    head = {"%": "百分之", "‰": "千分之", "‱": "万分之"}[match["sign"]]
    minus = "负" if match["minus"] else ""
    low = ""
    if match["low"]:
        low = f"{minus}{number(match['low'])}到"
        if match["low_sign"]:
            low += head
        minus = "负" if match["second_minus"] else ""
    value = "百" if match["value"] == "100" and head == "百分之" else number(match["value"])
    return f"{head}{low}{minus}{value}"


def slash(match: re.Match) -> str:
    """Reads 1/2 as a fraction, 12/31 as a day."""
    top, bottom = match["top"], match["bottom"]
    before, after = around(match, 6, 4)
    if re.search("血压|视力|高压", before):
        return f"{number(top)}，{number(bottom)}"
    if re.match("=|等于", after):
        return f"{number(top)}除以{number(bottom)}"
    valid = top.isdecimal() and bottom.isdecimal() and 0 < int(top) <= 12 and 0 < int(bottom) <= 31
    dated = re.search("(?:日期|时间|截[至止]|[定将已]于)[是为:：]?$", before) or re.match(
        "[上下]午|[早晚]上|[(（]周|周", after
    )
    if valid and (dated or (int(top) >= 10 and not after.startswith("的"))):
        return f"{cardinal(int(top))}月{cardinal(int(bottom))}日"
    return f"{number(bottom)}分之{number(top)}"


def fraction_sign(match: re.Match) -> str:
    """Reads ½, 2½."""
    top, bottom = terms.FRACTIONS[match["sign"]]
    whole = f"{number(match['whole'])}又" if match["whole"] else ""
    return f"{whole}{cardinal(bottom)}分之{cardinal(top)}"


def power(match: re.Match) -> str:
    """Reads 2^10, 10⁻³, x²."""
    power = unicodedata.normalize("NFKC", match["power"]).replace("−", "-").replace("⁻", "-")
    base = number(match["base"]) + "的" if match["base"][0].isdigit() else match["base"]
    if power in ("2", "3") and not match["caret"]:
        return base + ("平方" if power == "2" else "立方")
    power = "负" + number(power[1:]) if power[0] == "-" else number(power)
    return f"{base.removesuffix('的')}的{power}次方"


def roman(match: re.Match) -> str:
    """Reads a Roman numeral; XX and XXX stand for names."""
    written = match[0].strip()
    value = roman_value(written)
    return cardinal(value) if value and written not in ("XX", "XXX") else match[0]


def letters_and_digits(match: re.Match) -> str:
    """Reads RTX 4090, 波音747 by digits; round hundreds are cardinals."""
    written = match["id"]
    if written.endswith("00") and written[0] != "0":
        return match["before"] + number(written)
    return match["before"] + digits(written)


def flight(match: re.Match) -> str:
    """Reads a train or a flight: its letters and digits, 1 as 幺."""
    return match["before"] + digits(match["id"], yao=True)


def plate(match: re.Match) -> str:
    """Reads a number plate."""
    number_ = re.sub("[0-9]", lambda digit: digits(digit[0], yao=True), match["id"])
    return match["before"] + number_


def long(match: re.Match) -> str:
    """Reads a long number that nothing explains: digits, unless it is round."""
    return number(match[0]) if match[0].endswith("0000") else digits(match[0], yao=True)
