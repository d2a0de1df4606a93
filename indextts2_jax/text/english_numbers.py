"""English number words: cardinals, ordinals, years, digits, fractions.

Written here, in forty lines, rather than taken from num2words (LGPL) or inflect (0.5 s to import).
"""

_ONES = (
    "zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven",
    "twelve", "thirteen", "fourteen", "fifteen", "sixteen", "seventeen", "eighteen", "nineteen",
)  # fmt: skip
_TENS = ("", "", "twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety")
_SCALES = ["", "thousand", "million", "billion", "trillion", "quadrillion"]
_ORDINALS = {
    "one": "first",
    "two": "second",
    "three": "third",
    "five": "fifth",
    "eight": "eighth",
    "nine": "ninth",
    "twelve": "twelfth",
}


def cardinal(number: int) -> str:
    """Reads 1234 as "one thousand two hundred and thirty four"; over 10^18, digit by digit."""
    if number >= 1000 ** len(_SCALES):
        return digits(str(number))
    if number < 100:
        return _below_hundred(number)
    words = []
    for power in range(len(_SCALES) - 1, -1, -1):
        part = number // 1000**power % 1000
        if not part:
            continue
        if part >= 100:
            words += [_ONES[part // 100], "hundred"]
        if part % 100:
            if part >= 100 or (power == 0 and words):
                words.append("and")
            words.append(_below_hundred(part % 100))
        words.append(_SCALES[power])
    return " ".join(words).strip()


def _below_hundred(number: int) -> str:
    if number < 20:
        return _ONES[number]
    return _TENS[number // 10] + (f" {_ONES[number % 10]}" if number % 10 else "")


def ordinal(number: int) -> str:
    """Reads 21 as "twenty first"."""
    *first, last = cardinal(number).split(" ")
    if last in _ORDINALS:
        last = _ORDINALS[last]
    elif last.endswith("y"):
        last = f"{last[:-1]}ieth"
    else:
        last += "th"
    return " ".join([*first, last])


def year(number: int) -> str:
    """Reads 1984 as "nineteen eighty four", 1905 as "nineteen oh five"."""
    century, rest = divmod(number, 100)
    if not 10 < century < 100 or (century % 10 == 0 and rest < 10):
        return cardinal(number)
    if rest == 0:
        return f"{cardinal(century)} hundred"
    return f"{cardinal(century)} {'oh ' if rest < 10 else ''}{cardinal(rest)}"


def paired(number: str) -> str:
    """Reads "747" as "seven forty seven", "101" as "one oh one", "2490" as "twenty four ninety"."""
    if len(number) not in (3, 4):
        return cardinal(int(number)) if len(number) < 3 else digits(number)
    first, last = number[:-2], number[-2:]
    if first.startswith("0"):
        return digits(number)
    if last == "00":
        return cardinal(int(number)) if first.endswith("0") else f"{cardinal(int(first))} hundred"
    return f"{cardinal(int(first))} {'oh ' if last[0] == '0' else ''}{cardinal(int(last))}"


def digits(text: str) -> str:
    """Reads the digits of a text one by one."""
    return " ".join(_ONES[int(digit)] for digit in text if digit.isdecimal())


def number(text: str) -> str:
    """Reads 1,234.5 as "one thousand two hundred and thirty four point five"."""
    whole, _, decimals = text.replace(",", "").partition(".")
    words = digits(whole) if len(whole) > 1 and whole.startswith("0") else cardinal(int(whole or 0))
    if not decimals:
        return words
    return f"{words} point {'oh' if decimals == '0' else digits(decimals)}"


def plural(words: str) -> str:
    """Reads "ninety" as "nineties"."""
    if words.endswith("y"):
        return f"{words[:-1]}ies"
    return words + ("es" if words.endswith("x") else "s")


def fraction(top: int, bottom: int) -> str:
    """Reads 1, 2 as "one half" and 3, 4 as "three quarters"."""
    name = {2: "half", 4: "quarter"}.get(bottom) or ordinal(bottom)
    if top != 1:
        name = "halves" if bottom == 2 else f"{name}s"
    return f"{cardinal(top)} {name}"


def roman(numeral: str) -> int:
    """Returns the value of a Roman numeral, 0 if it is none: IV is 4, IIII is 0."""
    values = {"I": 1, "V": 5, "X": 10, "L": 50, "C": 100, "D": 500, "M": 1000}
    total = 0
    for this, following in zip(numeral, [*numeral[1:], ""], strict=True):
        value = values[this]
        total += -value if values.get(following, 0) > value else value
    return total if _as_roman(total) == numeral else 0


def _as_roman(value: int) -> str:
    text = ""
    for amount, letters in zip(
        (1000, 900, 500, 400, 100, 90, 50, 40, 10, 9, 5, 4, 1),
        ["M", "CM", "D", "CD", "C", "XC", "L", "XL", "X", "IX", "V", "IV", "I"],
        strict=True,
    ):
        count, value = divmod(value, amount)
        text += letters * count
    return text
