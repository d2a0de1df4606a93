"""How English writes numbers, dates, amounts, units and the like: one table, read from the top.

A rule is (what it reads, pattern, reading). What a rule has read is letters, so that no later rule
reads it again; the last rules read whatever digits are left. The grammars of wetext are not used:
they take "No." for number, "sun" for Sunday and "m" for minutes, swallow full stops and give
nothing back for some sentences.
"""

import re
import unicodedata
from collections.abc import Callable, Iterable

from indextts2_jax.text import english_amounts as amounts
from indextts2_jax.text import english_dates as dates
from indextts2_jax.text import english_names as names
from indextts2_jax.text import english_numbers as numbers
from indextts2_jax.text import english_terms as terms

Reading = str | Callable[[re.Match], str]  # a template, or a function


def _any(words: Iterable[str]) -> str:
    """Returns a pattern of any of the words, the longest first."""
    return "|".join(re.escape(word) for word in sorted(words, key=len, reverse=True))


# Numbers.
_NUMBER = r"(?:\d{1,3}(?:,\d{3})+(?![\d,]*\d)(?:\.\d+)?|\d+(?:\.\d+)?|\.\d+)"
_START = r"(?<![\w.,])"  # no number stands before
_END = r"(?!\d|[.,:]\d)"  # and none goes on
_DASH = r"(?:\s?[–~]\s?|[-—]|\s-\s)"
_VALUE = rf"{_START}(?P<value>{_NUMBER})"
# Dates.
_MONTH = "|".join([*terms.MONTHS, *(rf"{name[:3]}\b\.?" for name in terms.MONTHS), r"Sept\b\.?"])
_DAY = r"(?:Mon|Tues?|Wed|Thu(?:rs?)?|Fri|Sat|Sun)\b"
_YEAR = r"(?:,?\s+(?:of\s+)?(?P<year>[12]\d{3})(?![\d%:]|[.,]\d))"
_OF_MONTH = r"(?P<day>[0-3]?\d)(?:st|nd|rd|th)?"
_CLOCK = r"(?::(?P<minute>[0-5]\d)(?::(?P<second>[0-5]\d))?)"
# Money and units.
_CURRENCY = _any(terms.CURRENCIES)
_SYMBOL = _any(sign for sign in terms.CURRENCIES if not sign[-1].isalpha() and sign != "Rs.")
_SCALE = (
    r"(?:\s?(?:thousand|million|billion|trillion|lakh|crore)\b"
    rf"|(?:{_any(terms.SCALES)})(?!\w)|\s(?:bn|mn|tn|[MB])(?!\w))"
)
_UNIT = _any(terms.UNITS)
_LENGTH = r"(?:long|wide|tall|high|deep|thick|across|apart|in diameter|of (?:rain|snow|water))\b"
# Numbers that name something.
_GROUPS = r"\d{3,}(?:[ -]\d{2,})*(?![\d,.:]*\d|%)"
_CALL = (
    rf"(?i:\b(?:{terms.CALLS})\b"
    r"(?:[.:]|\s(?:me|us|him|her|them|it|is|at|on|number|the|to|for help|now|or|line|no|police))*"
    r"(?:\snumber|[.:])?\s?)"
)
_CODE = (
    r"(?i:\b(?:codes?|pin|password|passcode|zip|postcode|extension|ext|error|passport|account|id|"
    r"combination|otp|(?:order|tracking|serial|reference|card|case|model|phone|license)"
    r"(?=\s(?:number|no)\b))(?:\s(?:code|number|no)\b)?(?:\.|:|\sis|\swas|\snumber|\s?=)?\s?)"
)
_NO_COUNT = (  # what is counted would follow
    r"(?!\s(?!(?:now|or|and|for|if|in|to|immediately|today|at|on|from|with|when|again|before|after|"
    r"as|right|please|is|was|but)\b)[a-z]{2})"
)
# Roman numerals.
_SIGNS = "[IVXLC]{1,7}"
_AND = r"(?:,\s?(?:and\s|or\s)?|\s(?:and|or|to|&)\s|\s?[-–]\s?)"
_ROMANS = r"(?P<roman>[IVXLCDM]{2,9}|[ivx]{2,5})(?!\w)"
_RULER = rf"(?:{terms.MONARCHS})\s[A-Z][a-z]+|{terms.RULERS}"
_HEADING = rf"(?i:{terms.HEADINGS})"
_ANY_HEADING = rf"(?i:{terms.HEADINGS}|{terms.LETTERED})"
_CAPITAL_HEADING = f"{terms.HEADINGS.title()}|Type|Class"
_ENDS = (
    r"(?=\s*$|[.,:;!?)\]\"”\n–—-]"
    r"|\s(?:[A-Z]|(?:is|was|of|in|to|and|begins?|began|ends?|ended|followed|ruled|died)\b))"
)


_RULES: tuple[tuple[str, str, Reading], ...] = (
    # The web.
    ("address", r"(?i)\b(?:https?|ftp)://[^\s<>\"'，。]*[\w/]", names.web),
    ("e-mail", r"(?<![\w.+-])[\w+-]+(?:\.[\w+-]+)*@[\w-]+(?:\.[\w-]+)+", names.web),
    ("www", r"(?i)\bwww\.[\w-]+(?:\.[\w-]+)+(?:/[\w./?=&%#~+-]*\w)?", names.web),
    (
        "domain",
        rf"(?<![\w.@/-])(?:[A-Za-z0-9][\w-]*\.)+(?:{terms.DOMAINS})\b"
        r"(?:/[\w./?=&%#~+-]*\w)?(?!\.\w|@|')",
        names.web,
    ),
    ("file", rf"(?<![\w.@/-])[A-Za-z][\w-]*\.(?:{terms.FILES})\b(?!\.\w)", names.web),
    # Numbers that name something.
    (
        "thousands",
        r"(?<![\d.,])(?<!\d )\d{1,3}(?: \d{3})* 000(?![\d ]*\d|[.,]\d)",
        lambda m: m[0].replace(" ", ","),
    ),
    ("network", r"(\b\d+(?:\.\d+){3})/(?=\d)", r"\1 slash "),
    ("port", r"(\b\d+(?:\.\d+){3}):(?=\d)", r"\1 colon "),
    ("card", rf"{_START}\d{{4}}(?:[ -]\d{{4}}){{3}}(?![\d-])", names.telephone),
    ("telephone", r"(?<![\w+])\+\d{1,3}(?:[ .-]?\(?\d{1,5}\)?){2,6}(?![\d,.]*\d)", names.telephone),
    (
        "vanity number",
        r"\b1-(?P<area>[89]\d\d)-(?P<word>[A-Z]+(?:-[A-Z]+)*)\b",
        names.vanity_number,
    ),
    ("area code", r"(?:\b1[ -])?\(\d{2,5}\)\s?\d{3,4}[ -]?\d{3,4}(?!\d)", names.telephone),
    ("timestamp", r"(\b\d{4}-\d\d-\d\d)T(?=\d\d:\d\d)", r"\1 "),
    ("timestamp", r"(?<=\d:\d\d)Z\b", " UTC"),
    (
        "date",
        rf"{_START}(?:[12]\d{{3}}([-/.])\d{{1,2}}\1\d{{1,2}}|\d{{1,2}}([-/.])\d{{1,2}}\2[12]\d{{3}}"
        r"|\d{1,2}/\d{1,2}/\d\d)(?![\d/-]|\.\d)",
        dates.numeric_date,
    ),
    (
        "telephone",
        rf"{_START}(?:1[- .])?\d{{3,4}}([- .])\d{{3,4}}\1\d{{3,4}}(?![\d-]|[.,]\d)",
        names.telephone,
    ),
    ("telephone", rf"{_START}0\d{{2,4}}(?:[ -]\d{{3,8}}){{1,2}}(?![\d-]|[.,]\d)", names.telephone),
    ("telephone", rf"{_START}555[- ]\d{{4}}(?![\d-])", names.telephone),
    (
        "number to call",
        rf"(?P<before>{_CALL})(?P<digits>\+?{_GROUPS}){_NO_COUNT}",
        names.spelled_behind,
    ),
    (
        "number to call",
        rf"(?P<before>\b(?:or|and)\s|,\s)(?P<digits>\+?{_GROUPS}){_NO_COUNT}",
        names.another_telephone,
    ),
    (
        "code",
        rf"(?P<before>{_CODE})(?P<digits>{_GROUPS}|0\d+(?![\d.,:])){_NO_COUNT}",
        names.spelled_behind,
    ),
    ("Porsche", r"(?<=Porsche )911\b", "nine eleven"),
    ("hours", r"(?P<before>\b[Aa]t )(?P<digits>\d{4})(?= hours\b)", names.in_pairs),
    ("emergency", rf"{_START}911{_END}(?!%|\s[a-z]+s\b)", "nine one one"),
    ("agent", r"(?<![\w.,+])007(?!\w|[.,]\d)", "double oh seven"),
    (
        "flight, room, route",
        rf"(?P<before>\b(?:{terms.NAMED_IN_PAIRS})\s)(?P<digits>\d{{3,4}}){_END}(?!-\d\d(?!\d))",
        names.in_pairs,
    ),
    ("Boeing", r"(?P<before>\bBoeing [a-z ]+)-(?P<digits>\d{3})(?!\d)", names.in_pairs),
    (
        "zip code",
        r"(?P<before>\b[A-Z]{2} )(?P<digits>\d{5}(?:-\d{4})?)(?![\d,])",
        names.spelled_behind,
    ),
    (
        "verse",
        rf"(?P<before>\b(?:{terms.BIBLE}) \d{{1,3}}):(?=\d{{1,3}}\b)",
        r"\g<before> ",
    ),
    (
        "decimal comma",
        r"(?<![\d.,])(\d{1,3}(?:\.\d{3})*),(\d{1,2})(?=\s?[%€](?!\d))|(?<=€)(\d+),(\d\d)(?![\d,])",
        amounts.decimal_comma,
    ),
    # Times.
    (
        "range of times",
        r"(\b\d{1,2}(?::\d\d)?\s?(?i:[ap]\.?m\.?)?)\s?[-–—]\s?(?=\d{1,2}(?::\d|\s?(?i:[ap]\.?m\b)))",
        r"\1 to ",
    ),
    (
        "time",
        rf"{_START}(?P<hour>[01]?\d|2[0-4]){_CLOCK}?\s?(?P<half>(?i:[ap]\.m\.?|[ap]m(?!\w)))",
        dates.time,
    ),
    (
        "time",
        rf"{_START}(?P<hour>[01]?\d|2[0-4]){_CLOCK}(?P<half>)(?![\d:])",
        dates.time,
    ),
    ("half of the day", r"\b(?P<half>[apAP])\.[mM]\.", dates.half_of_day),
    ("score", r"(?<=\d):(?=\d)", " to "),
    # Dates.
    ("days", rf"\b(?P<first>{_DAY})\.?\s?[-–—]\s?(?P<last>{_DAY})\.?", dates.range_of_days),
    (
        "months",
        rf"\b(?P<first>{_MONTH})[-–](?P<last>{_MONTH})(?!\w)",
        dates.range_of_months,
    ),
    (
        "day",
        rf"(?P<before>\b)(?P<day>{_DAY})\.?(?=,?\s+(?:\d{{1,2}}(?:st|nd|rd|th)?\s+)?(?:{_MONTH})"
        r"(?!\w))",
        dates.lone_day,
    ),
    (
        "days of a month",
        rf"\b(?P<month>{_MONTH})\s+{_OF_MONTH}{_DASH}(?P<until>[0-3]?\d)(?:th)?(?![\d:]|[.,]\d)"
        rf"{_YEAR}?",
        dates.month_and_day,
    ),
    (
        "date",
        rf"\b(?P<month>{_MONTH})\s+{_OF_MONTH}(?![\d:%\w]|[.,]\d){_YEAR}?",
        dates.month_and_day,
    ),
    (
        "date",
        rf"{_START}{_OF_MONTH}(?:\s?[-–]\s?(?P<until>[0-3]?\d)(?:st|nd|rd|th)?)?"
        rf"\s+(?:of\s+)?(?P<month>{_MONTH})(?!\w){_YEAR}?",
        dates.day_and_month,
    ),
    ("month and year", rf"\b(?P<month>{_MONTH}){_YEAR}", dates.month_and_year),
    (
        "date",
        r"(?P<before>\b(?:[Oo]n|by|due|until|till|before|since|after)\s)(?P<month>\d{1,2})"
        r"/(?P<day>\d{1,2})(?![\d/])(?!\s(?:of|acre|inch|the)\b)",
        dates.slashed_date,
    ),
    ("month", r"(?P<before>\b)(?P<month>Feb|Apr|Aug|Sept?|Oct|Nov|Dec)\.", dates.lone_month),
    (
        "month",
        r"(?P<before>\b(?:in|since|until|till|last|next|this|early|late|mid|during)\s)"
        r"(?P<month>Jan|Feb|Mar|Apr|Jun|Jul|Aug|Sept?|Oct|Nov|Dec)\b(?!\s[A-Z]|')\.?",
        dates.lone_month,
    ),
    (
        "month",
        r"(?P<before>\b(?:of|by|from|to|and|or|through|between)\s)(?P<month>Jan|Mar|Jun|Jul)\.",
        dates.lone_month,
    ),
    ("day", r"(?P<before>\b)(?P<day>Mon|Tues?|Wed|Thu(?:rs?)?|Fri)\.", dates.lone_day),
    (
        "day",
        rf"(?P<before>\b(?:on|every|each|next|last|until|till)\s)(?P<day>{_DAY})(?!\s[A-Z]|')\.?",
        dates.lone_day,
    ),
    (
        "day",
        r"(?P<before>\b(?:this|by|since|from|before|after|through)\s)"
        r"(?P<day>Mon|Tues?|Wed|Thu(?:rs?)?|Fri|(?:Sat|Sun)(?=\.))\b(?!\s[A-Z]|')\.?",
        dates.lone_day,
    ),
    (
        "day",
        rf"(?P<before>[a-z]day(?:,| and| or| to|, and|, or)\s)(?P<day>{_DAY})(?!\s[A-Z]|')\.?",
        dates.lone_day,
    ),
    ("season", rf"({_START}[12]\d{{3}})[-–]0(?=\d(?![\d-]))", r"\1 to oh "),
    ("season", rf"{_START}(?P<first>1[89]\d\d|20\d\d)/(?P<last>\d\d)(?![\d/])", dates.season),
    ("decade", r"(?<![\d.,$€£'’])['’]?(?P<decade>1[1-9]\d0|20\d0)['’]?s\b", dates.decade),
    (
        "decade",
        r"(?:['’]|(?P<before>\b(?i:the|his|her|my|their|our|your|mid|early|late)[\s-])['’]?)"
        r"(?P<decade>[2-9]0)['’]?s\b",
        dates.decade,
    ),
    ("short year", r"(?<!\w)['’](\d\d)(?!\w|['’])", dates.short_year),
    (
        "era",
        r"(?<![\d.,])(\d{1,4})\s?(?=(?:BCE?|CE|AD|B\.C\.|A\.D\.)(?!\w))|(?<=\bAD )(\d{1,4})\b",
        dates.year_of_era,
    ),
    # Abbreviations.
    ("short", rf"(?i)(?<![\w.])(?:{_any(terms.SHORT)})(?!\w)", names.short),
    ("et cetera", r"\betc\b", "et cetera"),
    ("versus", r"\bv\.(?=\s[A-Z])|\bvs\b", "versus"),
    (
        "before a number",
        rf"(?i)(?<![\w.])(?<!\d )(?P<word>{_any(terms.BEFORE_NUMBERS)})\.:?\s*"
        r"(?=[#(+]?\d|(?-i:[IVX]{2,}\b))",
        names.before_number,
    ),
    (
        "street",
        r"(?P<before>\b(?:[A-Z][\w'’]*|\d+(?:st|nd|rd|th))\s)"
        rf"(?P<word>{_any(terms.STREETS)})(?:\.(?!\w)|(?=[,;!?)]|\.?$|\.\s|\s(?:in|near|at)\b))",
        names.street,
    ),
    (
        "title",
        rf"\b(?P<title>{_any(terms.TITLES)})\.\s*(?=[A-Z]|(?:and|&)\s[A-Z])",
        names.title,
    ),
    ("title", r"\b(?P<title>Dr|Mr|Mrs|Ms|Prof|Mt|St)\s+(?=[A-Z][a-z])", names.title),
    ("behind a name", rf"(?<=\w[ ,])(?P<word>{_any(terms.BEHIND_NAMES)})\.", names.behind_name),
    ("junior", r"\bJr\.(?=\s(?:high|college|varsity))", "Junior"),
    (
        "initials",
        r"(?<![\w.])(?:[A-Za-z]\.){2,}(?!\w)|(?<![\w.])(?:[A-Z]\.)+[A-Z](?!\w)"
        r"|(?<![\w.])[A-Z]\.\s(?=[A-Z]\.)",
        names.letters,
    ),
    ("initial", r"(?<![\w.'’])(?P<letter>[A-HJ-Z])\.(?=\s[A-Z][a-z])", names.initial),
    ("US, WHO", r"(?<=\b[Tt]he )(?:US|WHO)\b(?!-)", lambda m: " ".join(m[0])),
    (
        "slashed",
        rf"(?i)(?<![\w/])(?<!\d )(?:{_any(terms.SLASHED)})(?:(?<=w/)\s?|(?![\w/]))",
        names.slashed,
    ),
    # Roman numerals.
    ("World War", r"\bWW(?:(1|I)|2|II)\b", lambda m: f"World War {1 if m[1] else 2}"),
    (
        "ruler",
        rf"(?P<before>\b(?:{_RULER})\s)(?P<roman>(?!I\b)[IVXL]{{1,7}}|I(?:(?=['’]s\b)|{_ENDS}))(?!\w)",
        names.roman_ordinal,
    ),
    (
        "century",
        r"\b(?P<roman>[IVX]+)(?=(?:st|nd|rd|th)?\s(?:century|centuries|dynasty|Olympi))(?:th)?",
        names.roman_century,
    ),
    (
        "headings",
        rf"(?P<before>\b(?:{_ANY_HEADING})s\s)(?P<romans>{_SIGNS}(?:{_AND}{_SIGNS})+)(?!\w)",
        names.roman_cardinals,
    ),
    ("heading", rf"(?P<before>\b(?:{_ANY_HEADING})s?\.?\s){_ROMANS}", names.roman_cardinal),
    (
        "heading",
        rf"(?P<before>\b(?:{_HEADING}\.?|{terms.SERIES})\s)(?P<roman>[VX])(?!\w|\.\w)",
        names.roman_cardinal,
    ),
    (
        "heading",
        rf"(?P<before>\b(?:{_CAPITAL_HEADING})s?\s(?=I{_ENDS})|\b(?i:world war)\s)"
        r"(?P<roman>I)(?!['’]|\w)",
        names.roman_cardinal,
    ),
    (
        "heading",
        r"(?P<before>\b[Tt]ype\s)(?P<roman>I)(?=\s(?:diabetes|errors?|collagen|civilization))",
        names.roman_cardinal,
    ),
    (
        "name with a number",
        rf"(?P<before>\b(?!(?:{terms.NOT_NAMES})\b)[A-Z][A-Za-z]+\s)"
        rf"(?P<roman>[IVX]{{2,}})(?!\w)(?!\s(?:{terms.MEDICAL})\b)",
        names.roman_cardinal,
    ),
    # Money.
    (
        "approximately",
        rf"(?<!\w)(?<!\d\s)(?:≈|~\s?)(?={_SYMBOL}|\.?\d)",
        "approximately ",
    ),
    ("cents", r"(?<![\d.,])(?P<value>\d+)\s?(?P<sign>¢)", amounts.cents),
    ("pence", r"(?<![\w.,£])(?P<value>\d{1,2})(?P<sign>p)(?!\w|\.\w)", amounts.cents),
    ("minus", rf"(?<![\w.])-(?=\s?(?:{_SYMBOL})\s?\d)", "minus "),
    ("minus", rf"(?<!\w)(?P<sign>{_SYMBOL})-(?=\d)", r"minus \g<sign>"),
    (
        "money",
        rf"(?<![\w$])(?P<currency>{_CURRENCY})\s?"
        rf"(?:(?P<low>{_NUMBER})(?P<low_scale>{_SCALE})?{_DASH}(?:{_CURRENCY})?\s?)?"
        rf"(?P<value>{_NUMBER})(?P<scale>{_SCALE})?(?!\d)",
        amounts.money,
    ),
    (
        "money",
        rf"{_START}(?:(?P<low>{_NUMBER})(?P<low_scale>{_SCALE})?{_DASH})?"
        rf"(?P<value>{_NUMBER})(?P<scale>{_SCALE})?\s?(?P<currency>{_CURRENCY})(?![\w$])",
        amounts.money,
    ),
    # Feet and inches, fractions.
    (
        "feet and inches",
        r"(?<![\w.])(?P<feet>\d+)\s?['’′]\s?(?P<inches>\d+(?:\.\d+)?)\s?(?:[\"”″]|''|’’|(?!\w))",
        amounts.feet_and_inches,
    ),
    (
        "feet",
        r"(?<![\w.'‘])(\d+)\s?(?:′|['’](?=\s(?:tall|long|wide|high|deep|x|by)\b)|(?<=x \d\d)['’]"
        r"|(?<=[Aa]\s\d)['’](?=\s[a-z])|(?<=[Aa]\s\d\d)['’](?=\s[a-z]))",
        amounts.feet,
    ),
    ("inches", r"(?<![\w.,])(?P<value>\d+(?:\.\d+)?)\s?(?P<mark>[\"”″])(?!\w)", amounts.inches),
    (
        "inches",
        rf"(?P<before>){_VALUE}\s?in(?:\b\.?(?=\s{_LENGTH})|\.(?=[,;)])|(?<=\din)\b(?!\s(?:the|a)\b))",
        amounts.inches_in_letters,
    ),
    (
        "inches",
        rf"(?P<before>\b(?:ft|feet|foot)\.?\s)(?P<value>{_NUMBER})\s?in\b(?:\.(?=\s[a-z]|[,;)]))?",
        amounts.inches_in_letters,
    ),
    (
        "unit of a fraction",
        r"(?P<value>(?:(?P<whole>\d+)[\s-]?)?(?:(?<!\d)\d/\d{1,2}"
        rf"|[{''.join(terms.VULGAR_FRACTIONS)}]))\s?(?P<unit>{_UNIT})(?![\w/²³'’])",
        amounts.unit_of_fraction,
    ),
    (
        "fraction",
        rf"(?<![./\d])(?:(?P<whole>\d+)\s?)?(?P<sign>[{''.join(terms.VULGAR_FRACTIONS)}])",
        amounts.mixed_number,
    ),
    (
        "fraction",
        r"(?<![\w./])(?P<whole>\d+)[\s-](?P<top>[1-9])/(?P<bottom>[2-9]|1[0-6]|32|64)(?![\w/])",
        amounts.mixed_number,
    ),
    ("blood pressure", r"(?<!\d)(\d{2,3})/(?=\d{2,3}\s?mmHg)", r"\1 over "),
    ("blood pressure", r"((?:pressure|BP)(?:\sof|\sis|\swas|:)?\s\d{2,3})/(?=\d)", r"\1 over "),
    ("divided by", r"(?<=\d)\s?/\s?(?=\d+(?:\.\d+)?\s?=)", " divided by "),
    (
        "slash",
        r"(?<![\w./])(?P<top>\d+(?:\.\d+)?)\s?/\s?(?P<bottom>\d+(?:\.\d+)?)(?![\w/])",
        amounts.slash,
    ),
    # Mathematics and ranges.
    (
        "scientific",
        r"(?<![\w.])(?P<value>\d+(?:\.\d+)?)[eE](?P<power>[+-]?\d+)(?!\w)",
        amounts.scientific,
    ),
    (
        "power",
        r"(?P<base>\b(?!(?:km|cm|mm|m|ft|mi)[²³])(?:\d+(?:\.\d+)?|[A-Za-z]{1,2})|\))"
        r"(?:\^(?P<power>-?\d+|[a-z]\b)|(?P<signs>[⁻⁰¹²³⁴⁵⁶⁷⁸⁹]+))",
        amounts.power,
    ),
    ("chain", r"(?<![\w.-])\d+(?:-\d+){2,}(?![\w-])", amounts.chain),
    (
        "minus",
        r"(?<=\d)\s?[-–]\s?(?=\d+(?:\.\d+)?\s?=)|(?<==)\s?-(?=\d)|(?<=\d)\s-(?=\d)"
        r"|(?<=[\d\s(][a-z])\s-\s(?=\d)",
        " minus ",
    ),
    (
        "range",
        rf"((?<=\d)(?<![A-Za-z]\d)(?<![A-Za-z]\d\d)(?:{_UNIT})?|(?<=[%°])|(?<=°[CF])){_DASH}(?=[$€£¥₹.]?\d)",
        r"\1 to ",
    ),
    ("minus", r"(?<![\w)\].])-(?=\.?\d)", "minus "),
    ("plus", r"(?<=\w)\s?\+\s?(?=\d)|(?<=\w)\s\+\s(?=\w)", " plus "),
    ("plus", r"(?<!\w)\+(?=\d)", "plus "),
    ("plus plus", r"(?<=\w)\+\+", " plus plus"),
    ("plus", r"(?<=\w)\+(?!\w)", " plus"),
    ("grade", r"\b([A-DF])-(?=[.,;)]|\s(?:and|or|in|on|grade|average|student)\b|$)", r"\1 minus"),
    ("sharp", r"\b([A-G])#", r"\1 sharp"),
    (
        "times",
        r"(?<=\d)\s?[x×]\s?(?=\d+(?:\.\d+)?\s?=)|(?<=[\d)])\s[×*]\s?(?=[\d(])"
        r"|(?<!\d\d)(?<=\d)×(?=\d{1,2}(?!\w))",
        " times ",
    ),
    ("by", r"(?<=ches|feet|foot|inch)\sx\s", " by "),
    ("by", r"(?<=[\dtm])(?:px)?\s?[x×]\s?(?=\d)", " by "),
    (
        "times",
        r"(?<=[\d)])[*·](?=[\d(])|(?<=\d)[x×](?!\w|\s(?:[-+=]|minus|plus|equals))",
        " times ",
    ),
    ("star", r"(?<![\w*])\*(?=\d)", "star "),
    ("at most", r"\s?(?:≤|<=)\s?(?=[\w$.-])", " less than or equal to "),
    ("at least", r"\s?(?:≥|>=)\s?(?=[\w$.-])", " greater than or equal to "),
    ("less", r"(?<=[\w)])\s<\s(?=[\w$-])|(?<![\w>])<\s?(?=\d)", " less than "),
    ("greater", r"(?<=[\w)])\s>\s(?=[\w$-])|(?<![\w<])>\s?(?=\d)", " greater than "),
    ("unequal", r"(?<=[\w)])\s?!=\s?(?=[\w(-])", " is not equal to "),
    ("equals", r"(?<=[\w)%])\s?=\s?(?=[\w(-])", " equals "),
    # Signs beside words.
    ("and", r"(?<=\w)\s?&\s?(?=\w)", " and "),
    ("number", r"(?<!\w)[#№]\s?(?=\d)", "number "),
    ("hashtag", r"(?<!\w)#(?=[A-Za-z])", "hashtag "),
    ("mention", r"(?<!\S)@\s?(?=\w)", "at "),
    ("section", r"§\s?(?=\d)", "section "),
    (
        "or",
        r"(?i)\b(and|he|him|his|she|her|hers|yes|either)/(or|she|her|hers|he|him|his|no)\b",
        names.or_words,
    ),
    # Units.
    ("ordinal", r"(?<![\d.,])(\d[\d,]*)(?:st|nd|rd|th)\b", amounts.ordinal_number),
    ("percent", rf"(?P<value>{_NUMBER})\s?%", amounts.percent),
    (
        "counted",
        rf"{_VALUE}\s?(?P<scale>[kKmMB]|bn|mn)(?=\s(?:[a-z]+\s)?(?:{terms.COUNTED})\b)",
        amounts.counted,
    ),
    ("counted", rf"{_START}(?P<value>\d+\.\d+)(?P<scale>[MB]|bn|mn|k|K)(?!\w)", amounts.counted),
    (
        "measure",
        rf"{_VALUE}(?P<blank>[\s-]?)(?P<unit>{_UNIT})(?:/(?P<per>{_any(terms.PER)}))?(?![\w/²³'’])"
        r"(?:\.(?=\s+[a-z(]|[,;:)])|\.(?=\s\d+\s?(?:secs?|mins?|in|oz)\b))?",
        amounts.measure,
    ),
    (
        "unit alone",
        r"(?<![\w/])(?P<unit>km|m|cm|kg|g|mg|[kKMG][Bb])/(?P<per>h|hr|s|min|m²|m³|kg|L|dL)(?![\w/])",
        amounts.unit_alone,
    ),
    ("rate", rf"(?<=[a-z\d])/(?P<per>{_any(terms.PER)})\b", amounts.rate),
    # Whatever is left.
    ("letters", r"(?<![\w.])(\d+)([A-Z]{2,4})\b", lambda m: f"{m[1]} {' '.join(m[2])}"),
    ("screen lines", r"\b(\d{3,4})p\b", lambda m: f"{numbers.paired(m[1])} p"),
    ("thousands", r"(?<![\d.])\d{1,3}(?:\.000){2,}(?![\d.]*\d)", lambda m: m[0].replace(".", "")),
    ("versions", r"(?<=[A-Za-z])(?=\d+(?:\.\d+){2,})", " "),
    ("versions", r"(?<![\d.])\d+(?:\.\d+){2,}(?!\d)", names.dotted_numbers),
    ("point", r"(?<=[A-Za-z])\.(?=\d)", " point "),
    ("dots", r"\.{2,}(?=\d)", "... "),
    (
        "designation",
        rf"\b(?P<before>[A-Z]{{1,3}}-?)(?P<digits>\d{{3,}}){_END}(?!\w)",
        names.in_pairs,
    ),
    ("word and number", r"(?<=[A-Za-z])(?=\d)|(?<=\d)(?=[A-Za-z])", " "),
    ("leading zeros", r"(?<![\d.,])0\d+(?![.,]?\d)", lambda m: numbers.digits(m[0])),
    ("number", _NUMBER, amounts.plain_number),
    ("Greek", rf"(?<![^\W\d_])[{''.join(terms.GREEK)}](?![^\W\d_])", names.greek),
    ("currency", rf"(?<!\w)(?:{_SYMBOL})", amounts.lone_currency),
    ("sign", f"[{''.join(terms.SIGNS)}]", lambda m: terms.SIGNS[m[0]]),
    ("slash", r"(?<=[A-Za-z])/(?=[A-Za-z])", " "),
    # Blanks.
    ("blanks", r"\s+", " "),
    ("blank before a mark", r"\s(?=[,.;:!?](?:\s|$))", ""),
)
RULES = tuple((name, re.compile(pattern), reading) for name, pattern, reading in _RULES)
_ODD_DIGITS = re.compile("[₀-₉①-⑳]")


def spoken(text: str) -> str:
    """Writes the numbers, dates, amounts, units, abbreviations and signs of a text as words.

    Args:
        text: some English sentences.

    Returns:
        The text without digits and without blanks at its ends.
    """
    text = text.replace("μ", "µ").replace("\u2126", "Ω")  # two code points of one sign each
    text = _ODD_DIGITS.sub(lambda digit: unicodedata.normalize("NFKC", digit[0]), text)
    for _, pattern, reading in RULES:
        text = pattern.sub(reading, text)
    return text.strip()
