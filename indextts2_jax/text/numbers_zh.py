"""Chinese number words: cardinals, decimals, digits one by one."""

import re

_DIGITS = "零一二三四五六七八九"
_PLACES = ("", "十", "百", "千")
_SCALES = ("", "万", "亿", "万亿", "亿亿")
_ONE_BY_ONE = str.maketrans("0123456789", _DIGITS)


def digits(written: str, *, yao: bool = False) -> str:
    """Reads the digits of 302 as 三零二 and drops all else.

    Args:
        written: digits, with any signs between them.
        yao: read 1 as 幺, as in telephone numbers.
    """
    read = re.sub("[^0-9]", "", written).translate(_ONE_BY_ONE)
    return read.replace("一", "幺") if yao else read


def cardinal(value: int) -> str:
    """Reads 1234 as 一千二百三十四, 200 as 两百; from 10^17 on, digit by digit."""
    if value == 0:
        return "零"
    if value >= 10**17:
        return digits(str(value))
    groups = []  # of four digits, the lowest first
    while value:
        value, group = divmod(value, 10000)
        groups.append(group)
    words = ""
    gap = False
    for power in range(len(groups) - 1, -1, -1):
        group = groups[power]
        if not group:
            gap = bool(words)
            continue
        if words and (gap or group < 1000):
            words += "零"
        scale = _scale(power, groups)
        if group == 2 and scale:
            words += "两" + scale
        else:
            words += _below_ten_thousand(group, leads=not words) + scale
        gap = False
    return words


def _scale(power: int, groups: list[int]) -> str:
    """Reads 万亿, which is 万 where 亿 follows of its own: 一万二千亿."""
    return "万" if power == 3 and groups[2] else _SCALES[power]


def _below_ten_thousand(value: int, *, leads: bool) -> str:
    words = ""
    gap = False
    for place in range(3, -1, -1):
        digit = value // 10**place % 10
        if not digit:
            gap = bool(words)
            continue
        if gap:
            words += "零"
            gap = False
        if digit == 2 and (place == 3 or (place == 2 and leads and not words)):
            words += "两"
        elif not (digit == 1 and place == 1 and leads and not words):
            words += _DIGITS[digit]
        words += _PLACES[place]
    return words


def number(written: str) -> str:
    """Reads 1,234.50 as 一千二百三十四点五零, .5 as 零点五, 007 as 零零七."""
    whole, point, rest = written.replace(",", "").partition(".")
    leads_with_zero = len(whole) > 1 and whole.startswith("0")
    read = digits(whole) if leads_with_zero else cardinal(int(whole or 0))
    return f"{read}点{digits(rest)}" if point else read


def count(written: str) -> str:
    """Reads a number before a measure word: 2 is 两."""
    return "两" if written == "2" else number(written)


def roman(written: str) -> int | None:
    """Returns the value of a Roman numeral up to 39, None if it is none."""
    match = re.fullmatch("(X{0,3})(IX|IV|V?I{0,3})", written)
    if not match or not written:
        return None
    units = {"IX": 9, "IV": 4}.get(match[2])
    if units is None:
        units = 5 * match[2].count("V") + match[2].count("I")
    return 10 * len(match[1]) + units
