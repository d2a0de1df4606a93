"""How English reads dates and times: functions from a match to words."""

import re

from indextts2_jax.text import english_terms as terms
from indextts2_jax.text.english_context import (
    stop_before_capital,
    stop_before_starter,
    text_after,
    text_before,
)
from indextts2_jax.text.english_numbers import cardinal, ordinal, plural, year


def _month(written: str) -> str:
    """Returns the name of the month that is written in full or as three or four letters."""
    return next(name for name in terms.MONTHS if name[:3].lower() == written[:3].lower())


def _day(written: str) -> str:
    """Returns the name of the day that is written as three or more letters."""
    return next(name for name in terms.DAYS if name[:3] == written[:3])


def _date(name: str, number_of_day: int, written_year: str | None) -> str:
    return f"{name} {ordinal(number_of_day)}" + (_year(written_year) if written_year else "")


def _year(written: str) -> str:
    if len(written) == 2:
        written = f"{19 if int(written) >= 50 else 20}{written}"
    return f", {year(int(written))}"


def _year_of(groups: dict[str, str | None]) -> str:
    return _year(written) if (written := groups.get("year")) else ""


def numeric_date(match: re.Match) -> str:
    """Reads 2024-03-15, 3/15/2024 and, where that is no month, 15/3/2024."""
    parts = re.findall(r"\d+", match[0])
    if len(parts[0]) == 4:
        parts = [*parts[1:], parts[0]]
    first, second = int(parts[0]), int(parts[1])
    if first > 12:
        first, second = second, first
    if not (1 <= first <= 12 and 1 <= second <= 31):
        return match[0]
    return _date(terms.MONTHS[first - 1], second, parts[2])


def month_and_day(match: re.Match) -> str:
    """Reads May 1, 2024; May 1-3."""
    number_of_day = int(match["day"])
    if not 1 <= number_of_day <= 31:
        return match[0]
    name = _month(match["month"])
    groups = match.groupdict()
    if until := groups.get("until"):
        until = ordinal(int(until))
        return f"{name} {ordinal(number_of_day)} to {until}" + _year_of(groups)
    return f"{name} {ordinal(number_of_day)}" + _year_of(groups)


def slashed_date(match: re.Match) -> str:
    """Reads the 5/31 of "on 5/31" and of "by 5/31"; "by 2/3" is a fraction."""
    before, first, second = match["before"], int(match["month"]), int(match["day"])
    if (first, second) == (9, 11):
        return f"{before}nine eleven"
    is_fraction = first < second and (second <= 12 or second == 16)
    if not (1 <= first <= 12 and 1 <= second <= 31) or (is_fraction and before.lower() != "on "):
        return match[0]
    return f"{before}{_date(terms.MONTHS[first - 1], second, None)}"


def day_and_month(match: re.Match) -> str:
    """Reads 5 March 2021 as "the fifth of March, twenty twenty one"."""
    number_of_day = int(match["day"])
    if not 1 <= number_of_day <= 31:
        return match[0]
    words = f"{ordinal(number_of_day)} of {_month(match['month'])}" + _year_of(match.groupdict())
    if until := match["until"]:
        words = f"{ordinal(int(until))} to the {words}" if int(until) else words
    return words if re.search(r"\bthe\s$", text_before(match), re.I) else f"the {words}"


def month_and_year(match: re.Match) -> str:
    """Reads Jan. 1929."""
    return f"{_month(match['month'])} {year(int(match['year']))}"


def range_of_days(match: re.Match) -> str:
    """Reads Mon-Fri."""
    return f"{_day(match['first'])} to {_day(match['last'])}"


def range_of_months(match: re.Match) -> str:
    """Reads Jan-Mar."""
    return f"{_month(match['first'])} to {_month(match['last'])}"


def lone_month(match: re.Match) -> str:
    """Reads Sept., which may end a sentence."""
    return match["before"] + _month(match["month"]) + stop_before_starter(match)


def lone_day(match: re.Match) -> str:
    """Reads Wed., which may end a sentence."""
    return match["before"] + _day(match["day"]) + stop_before_starter(match)


def time(match: re.Match) -> str:
    """Reads 3 p.m., 3:05pm, 14:30, 23:59:59."""
    hour, minute = int(match["hour"]), int(match["minute"] or 0)
    half = (match["half"] or "").replace(".", "").upper()
    words = cardinal(hour)
    if minute:
        words += f" {'oh ' if minute < 10 else ''}{cardinal(minute)}"
    elif match["minute"] and not half:
        words += " o'clock" if 0 < hour <= 12 else " hundred" if hour else " hundred hours"
        if re.match(r"\s(?:o.?clock|hours|to\s[a-z ]{2,25}[AP]M)", text_after(match)):
            words = words.removesuffix(" o'clock").removesuffix(" hours")
    if match["second"]:
        seconds = int(match["second"])
        words += f" and {cardinal(seconds)} second{'' if seconds == 1 else 's'}"
    return f"{words} {half}{stop_before_capital(match)}" if half else words


def half_of_day(match: re.Match) -> str:
    """Reads a.m. behind what is no number."""
    return match["half"].upper() + "M" + stop_before_capital(match)


def decade(match: re.Match) -> str:
    """Reads 1990s, '90s, 1900s."""
    written = match["decade"]
    before = match.groupdict().get("before") or ""
    if len(written) == 2:
        return before + plural(cardinal(int(written)))
    century, rest = divmod(int(written), 100)
    if rest:
        return f"{cardinal(century)} {plural(cardinal(rest))}"
    return f"{cardinal(century)} hundreds" if century % 10 else f"{cardinal(int(written))}s"


def short_year(match: re.Match) -> str:
    """Reads '98 and '05."""
    return ("oh " if match[1][0] == "0" else "") + cardinal(int(match[1]))


def year_of_era(match: re.Match) -> str:
    """Reads the years of 44 BC and AD 79."""
    return f"{year(int(match[1]))} " if match[1] else year(int(match[2]))


def season(match: re.Match) -> str:
    """Reads 2023/24."""
    first, last = match["first"], match["last"]
    if (int(first) + 1) % 100 != int(last):
        return match[0]
    return f"{year(int(first))} {'oh ' if last[0] == '0' else ''}{cardinal(int(last))}"
