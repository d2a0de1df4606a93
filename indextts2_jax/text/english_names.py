"""How English reads addresses, names, abbreviations and numbers that name something."""

import re

from indextts2_jax.text import english_terms as terms
from indextts2_jax.text.english_context import (
    begins_sentence,
    stop_before_capital,
    stop_before_starter,
    text_after,
    text_before,
)
from indextts2_jax.text.english_numbers import cardinal, digits, ordinal, paired, roman

_LABELLED = f"(?:{terms.LABELLED}|{terms.HEADINGS}|{terms.LETTERED})s?"


def web(match: re.Match) -> str:
    """Reads an address, a domain, a file name: every sign and run of digits."""
    words = []
    for part in re.findall(r"\d+|[^\W\d_]+|[^\s\w]|_", match[0]):
        if part.isdecimal():
            words.append(digits(part) if len(part) > 2 or part[0] == "0" else cardinal(int(part)))
        else:
            words.append(terms.WEB_SIGNS.get(part, part))
    return " ".join(words)


def telephone(match: re.Match) -> str:
    """Reads "+1 (212) 555-0123" digit by digit."""
    return ("plus " if "+" in match[0] else "") + digits(match[0])


def vanity_number(match: re.Match) -> str:
    """Reads 1-800-FLOWERS as "one eight hundred FLOWERS"."""
    area = match["area"]
    read = f"{cardinal(int(area[0]))} hundred" if area.endswith("00") else digits(area)
    return f"one {read} {match['word'].replace('-', ' ')}"


def spelled_behind(match: re.Match) -> str:
    """Reads the digits behind "call", "code" and the like one by one."""
    plus = "plus " if match["digits"].startswith("+") else ""
    return match["before"] + plus + digits(match["digits"])


def another_telephone(match: re.Match) -> str:
    """Reads the second number of "dial 112 or 999"."""
    called = re.search(rf"\b(?:{terms.CALLS})\b", text_before(match), re.I)
    return spelled_behind(match) if called else match[0]


def in_pairs(match: re.Match) -> str:
    """Reads Boeing 747, A380 and F-150 with pairs of digits."""
    before = match["before"].strip()
    return f"{before}{'' if before.endswith('-') else ' '}{paired(match['digits'])}"


def dotted_numbers(match: re.Match) -> str:
    """Reads IP addresses digit by digit, versions part by part."""
    parts = match[0].split(".")
    if len(parts) == 4:
        return " dot ".join(map(digits, parts))
    return " point ".join(cardinal(int(part)) for part in parts)


def before_number(match: re.Match) -> str:
    """Reads the No. of No. 5 in the case of its first letter."""
    words = terms.BEFORE_NUMBERS[match["word"].lower()]
    return f"{words.capitalize() if match['word'][0].isupper() else words} "


def short(match: re.Match) -> str:
    """Reads e.g., etc., Ph.D."""
    ends_lists = match[0].lower().startswith(("etc", "et "))
    stop = stop_before_capital(match) if ends_lists else stop_before_starter(match)
    return terms.SHORT[" ".join(match[0].lower().split())] + stop


def title(match: re.Match) -> str:
    """Reads Dr. before a name."""
    return f"{terms.TITLES[match['title']]} "


def street(match: re.Match) -> str:
    """Reads Main St.; the saint in "Mount St. Helens" is left to the titles."""
    after = text_after(match)
    if re.match(rf"\s(?:{terms.SAINTS})\b", after) and match["word"] == "St":
        return match[0]
    if match["word"] == "Dr" and re.match(r"\s[A-Z]", after) and not begins_sentence(after):
        return match[0]
    return match["before"] + terms.STREETS[match["word"]] + stop_before_starter(match)


def behind_name(match: re.Match) -> str:
    """Reads Jr., Inc."""
    return terms.BEHIND_NAMES[match["word"]] + stop_before_starter(match)


def letters(match: re.Match) -> str:
    """Reads M.I.T., U.S., D.C. without their stops, but for the one that ends the sentence."""
    spelled = match[0].replace(".", "")
    if spelled.lower() in ("us", "it", "is", "as", "am", "an", "at", "in", "on", "or", "so", "me"):
        spelled = " ".join(spelled)
    return spelled + stop_before_starter(match)


def initial(match: re.Match) -> str:
    """Reads the J. of J. Smith; a label like that of "vitamin C. Then" keeps its stop."""
    word = re.search(r"([\w']+)\s$", text_before(match))
    labelled = word and re.fullmatch(_LABELLED, word[1], re.I)
    return match[0] if labelled or begins_sentence(text_after(match)) else match["letter"]


def slashed(match: re.Match) -> str:
    """Reads w/o, 24/7."""
    return terms.SLASHED[match[0].lower().strip()]


def or_words(match: re.Match) -> str:
    """Reads he/she with an or between; and/or has its own."""
    return f"{match[1]} {'' if match[2].lower() == 'or' else 'or '}{match[2]}"


def greek(match: re.Match) -> str:
    """Reads a Greek letter that stands alone or at a digit."""
    return f" {terms.GREEK[match[0]]} "


def roman_cardinal(match: re.Match) -> str:
    """Reads Chapter IV."""
    value = roman(match["roman"].upper())
    return f"{match['before']}{cardinal(value)}" if value else match[0]


def roman_ordinal(match: re.Match) -> str:
    """Reads Henry VIII."""
    value = roman(match["roman"])
    return f"{match['before']}the {ordinal(value)}" if value else match[0]


def roman_century(match: re.Match) -> str:
    """Reads the XIX century."""
    value = roman(match["roman"])
    return ordinal(value) if value else match[0]


def roman_cardinals(match: re.Match) -> str:
    """Reads Parts I and II."""
    numerals = re.sub(r"\s?[-–]\s?", " to ", match["romans"])
    return match["before"] + re.sub("[IVXLC]+", _cardinal_of_roman, numerals)


def _cardinal_of_roman(numeral: re.Match) -> str:
    value = roman(numeral[0])
    return cardinal(value) if value else numeral[0]
