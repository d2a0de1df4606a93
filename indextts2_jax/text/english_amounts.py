"""How English reads money, measures, fractions and mathematics: functions from a match to words."""

import re

from indextts2_jax.text import english_terms as terms
from indextts2_jax.text.english_context import (
    is_before_noun,
    stands_before_noun,
    text_after,
    text_before,
)
from indextts2_jax.text.english_numbers import (
    cardinal,
    digits,
    fraction,
    number,
    ordinal,
    paired,
    year,
)

_PLURAL_NOUN = re.compile(
    r"\s(?:(?:more|other|new|different|of|young|old|square)\s)?"
    r"(?:people|men|women|children|percent|million"
    r"|(?!(?:was|is|has|does|as|its|this|goes|seems|was|always|perhaps)\b)[a-z]{2,}(?<![su])s)\b"
)
_DATED = re.compile(
    r"(?:\b(?:in|since|year|until|till|during|circa|summer|winter|spring|autumn|fall|by|early|late"
    rf"|mid)|\b(?:{'|'.join(terms.MONTHS)}))[\s-]$",
    re.I,
)
_SUPERSCRIPTS = str.maketrans("⁰¹²³⁴⁵⁶⁷⁸⁹⁻⁺", "0123456789-+")


def money(match: re.Match) -> str:
    """Reads $12.50, $5-10, $20K, $1.5 million, 5€."""
    currency = terms.CURRENCIES[match["currency"]]
    value, low = match["value"], match["low"]
    scale, low_scale = (
        terms.SCALES.get(written, written)
        for written in ((match[name] or "").strip() for name in ("scale", "low_scale"))
    )
    singular = (value == "1" and not scale and not low) or stands_before_noun(match)
    name = currency.one if singular else currency.many
    if re.match(rf"\s{currency.many}\b", text_after(match)):
        name = ""  # "$5 dollars"
    span = " ".join(filter(None, [number(low), low_scale, "to "])) if low else ""
    cents = value.partition(".")[2]
    if scale or low or len(cents) != 2 or not currency.hundredth:
        return f"{span}{number(value)} {scale + ' ' if scale else ''}{name}".rstrip()
    return _units_and_hundredths(currency, value)


def _units_and_hundredths(currency: terms.Currency, value: str) -> str:
    units, hundredths = (int(part or 0) for part in value.replace(",", "").split("."))
    whole = f"{cardinal(units)} {currency.one if units == 1 else currency.many}"
    part = currency.hundredth if hundredths == 1 else currency.hundredths
    if not hundredths:
        return whole
    if not units:
        return f"{cardinal(hundredths)} {part}"
    if hundredths < 10:
        return f"{whole} and {cardinal(hundredths)} {part}"
    return f"{whole} {cardinal(hundredths)}"


def cents(match: re.Match) -> str:
    """Reads 99¢ and 50p."""
    one, many = ("cent", "cents") if match["sign"] == "¢" else ("penny", "pence")
    return f"{number(match['value'])} {one if match['value'] == '1' else many}"


def lone_currency(match: re.Match) -> str:
    """Reads a sign of currency that stands at no number."""
    currency = terms.CURRENCIES[match[0].strip()]
    named = re.match(r"[A-Za-z]", text_after(match))
    return f" {currency.one} " if named else f" {currency.many} "


def plural_unit(unit: str) -> str:
    """Returns the plural of a unit: square feet, miles per hour."""
    if unit.endswith(terms.SAME_IN_PLURAL):
        return unit
    head, per, rest = unit.partition(" per ")
    head, of, what = head.partition(" of ")
    if head.startswith("degree "):
        head = head.replace("degree", "degrees")
    elif head.endswith("foot"):
        head = head.removesuffix("foot") + "feet"
    else:
        head += "s"
    return head + of + what + per + rest


def measure(match: re.Match) -> str:
    """Reads 5 kg, 100m, 10 km/h, the minutes of 2h 31m."""
    value, unit = match["value"], match["unit"]
    if match["blank"] and unit in terms.ONLY_JOINED:
        return match[0]
    before = text_before(match)
    if unit == "m" and re.search(r"(?:\bhours?|\d\s?hr?s?)[\s,]*(?:and\s)?$", before):
        unit = "min"
    if unit == "m" and re.search(
        r"\b(?:last(?:s|ed)?|took|takes?|waits?|waited) (?:\w+ )?$", before
    ):
        unit = "min"
    if unit == "m" and match["blank"] == "" and re.match(r"\s?\d+s\b", text_after(match)):
        unit = "min"
    if unit in ("s", "m", "min", "h") and value.startswith("0") and value.isdecimal():
        value = value.lstrip("0") or "0"
    singular = value in ("1", "1.0") or stands_before_noun(match)
    name = terms.UNITS[unit] if singular else plural_unit(terms.UNITS[unit])
    per = f" per {terms.PER[match['per']]}" if match["per"] else ""
    return f"{number(value)} {name}{per}"


def unit_alone(match: re.Match) -> str:
    """Reads km/h without a number."""
    return f"{plural_unit(terms.UNITS[match['unit']])} per {terms.PER[match['per']]}"


def rate(match: re.Match) -> str:
    """Reads the /day of 5 dollars/day."""
    return f" per {terms.PER[match['per']]}"


def counted(match: re.Match) -> str:
    """Reads 5m people, 20k views."""
    return f"{number(match['value'])} {terms.SCALES[match['scale']]}"


def feet_and_inches(match: re.Match) -> str:
    """Reads 5'11" as "five foot eleven"."""
    return f"{number(match['feet'])} foot {number(match['inches'])}"


def feet(match: re.Match) -> str:
    """Reads 6', "a 10' pole"."""
    singular = match[1] == "1" or stands_before_noun(match)
    return f"{number(match[1])} {'foot' if singular else 'feet'}"


def inches(match: re.Match) -> str:
    """Reads 6" where no quote is open that the mark would close."""
    before = re.sub(r"\d[\"”]", "", text_before(match))
    if match["mark"] == '"' and before.count('"') % 2:
        return match[0]
    if match["mark"] == "”" and before.count("“") > before.count("”"):
        return match[0]
    singular = match["value"] == "1" or is_before_noun(match)
    return f"{number(match['value'])} inch{'' if singular else 'es'}"


def inches_in_letters(match: re.Match) -> str:
    """Reads 5 in. where something says that it is a length."""
    singular = match["value"] == "1" or stands_before_noun(match)
    return f"{match['before']}{number(match['value'])} inch{'' if singular else 'es'}"


def percent(match: re.Match) -> str:
    """Reads 5%."""
    return f"{number(match['value'])} percent"


def decimal_comma(match: re.Match) -> str:
    """Writes 1.234,56 € and €3,50 with a decimal point."""
    whole, decimals = match[1] or match[3], match[2] or match[4]
    return f"{whole.replace('.', ',')}.{decimals}"


def unit_of_fraction(match: re.Match) -> str:
    """Reads the unit of 2½ tbsp and 3/4 tsp."""
    unit = terms.UNITS[match["unit"]]
    return f"{match['value']} {plural_unit(unit) if match['whole'] else unit}"


def mixed_number(match: re.Match) -> str:
    """Reads 2 1/2 and 2½."""
    top, bottom = _parts_of_fraction(match)
    half = (top, bottom) == (1, 2)
    part = fraction(top, bottom)
    if not match["whole"]:
        return f" {part} "
    return f"{number(match['whole'])} and {'a half' if half else part} "


def _parts_of_fraction(match: re.Match) -> tuple[int, int]:
    if "sign" in match.groupdict():
        return terms.VULGAR_FRACTIONS[match["sign"]]
    return int(match["top"]), int(match["bottom"])


def slash(match: re.Match) -> str:
    """Reads 3/4 as a fraction, 8/10 and 4.5/5 as a rating."""
    top, bottom = match["top"], match["bottom"]
    before, after = text_before(match)[-40:], text_after(match)
    if "." not in top + bottom and int(top) + int(bottom) == 100 and int(bottom) >= 10:
        return f"{number(top)} {number(bottom)}"
    rated = re.search(r"\b(?:rat(?:ed|ing|e)|scor(?:ed?|ing)|gave|give|got|grade)\b[^.]*$", before)
    rated = rated or re.match(r"\s(?:stars?|score|rating|points|on)\b", after)
    rated = rated or top == bottom or "." in top + bottom or len(top) > 3
    rated = rated or int(bottom) < 2 or (int(top) > 20 and int(top) > int(bottom))
    rated = rated or (bottom in ("10", "100") and top != "1" and not after.startswith(" of "))
    return f"{number(top)} out of {number(bottom)}" if rated else fraction(int(top), int(bottom))


def power(match: re.Match) -> str:
    """Reads 10^6, x², 10⁻³."""
    exponent = (match["power"] or match["signs"]).translate(_SUPERSCRIPTS)
    base = match["base"]
    if exponent in ("2", "3"):
        return f"{base} {'squared' if exponent == '2' else 'cubed'}"
    return f"{base} to the power of {exponent if exponent.isalpha() else _signed(exponent)}"


def scientific(match: re.Match) -> str:
    """Reads 1.5e-3."""
    return f"{number(match['value'])} times ten to the {_signed(match['power'])}"


def _signed(written: str) -> str:
    return ("minus " if written.startswith("-") else "") + number(written.lstrip("+-"))


def chain(match: re.Match) -> str:
    """Reads 3-201-5 part by part, 978-3-16-148410-0 digit by digit."""
    if len(match[0].replace("-", "")) >= 9:
        return digits(match[0])
    return " ".join(
        digits(part) if len(part) > 3 or part[0] == "0" else cardinal(int(part))
        for part in match[0].split("-")
    )


def ordinal_number(match: re.Match) -> str:
    """Reads 21st."""
    return ordinal(int(match[1].replace(",", "")))


def plain_number(match: re.Match) -> str:
    """Reads a number that nothing explains; four digits are a year unless they count something."""
    written = match[0]
    dated = _DATED.search(text_before(match))
    counts = _PLURAL_NOUN.match(text_after(match)) and not dated
    if re.fullmatch("1[1-9][0-9]{2}|2[01][0-9]{2}", written) and not counts:
        return year(int(written))
    if dated and re.fullmatch("10[1-9][0-9]", written):
        return paired(written)
    if written.isdecimal() and len(written) >= 10:
        return digits(written)
    return number(written)
