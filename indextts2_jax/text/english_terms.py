"""What English writes in short: months, currencies, units, titles, abbreviations, names.

Data alone: `english` builds its patterns from these tables, the modules beside look terms up.
"""

from typing import NamedTuple

MONTHS = (
    "January", "February", "March", "April", "May", "June", "July", "August", "September",
    "October", "November", "December"
)  # fmt: skip
DAYS = (
    "Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday"
)  # fmt: skip

# Words that begin a sentence: behind an abbreviation, its stop ends one where they follow.
STARTERS = (
    "A|After|All|Also|Although|An|And|Another|Any|As|At|Because|Before|Both|But|By|Can|Could|"
    "Did|Do|Does|Each|Even|Every|Everybody|Everyone|Everything|Few|Finally|First|For|From|Go|"
    "Had|Has|Have|He|Her|Here|His|How|However|I|If|In|Is|It|Its|Last|Later|Let|Life|Look|Many|"
    "Maybe|Meanwhile|Most|Much|My|Never|Next|No|Nobody|None|Not|Nothing|Now|Of|On|Once|One|Only|"
    "Or|Other|Others|Our|Outside|People|Perhaps|Please|Several|She|Since|So|Some|Somebody|"
    "Someone|Something|Soon|Still|Suddenly|Take|Tell|That|The|Their|Then|There|These|They|This|"
    "Those|Though|Three|Through|Thus|To|Today|Tomorrow|Tonight|Try|Two|Under|Until|Was|Wait|We|"
    "Well|Were|What|When|Where|Which|While|Who|Why|Will|With|Would|Yes|Yesterday|Yet|You|Your|"
    "Alice|Amy|Anna|Ben|Bob|Chris|Dan|Emily|Emma|Jack|Jane|Jim|Joe|Kate|Linda|Lisa|Lucy|Mark|"
    "Mike|Nick|Sam|Sarah|Steve|Sue|Susan|Tim|Tom"
)


class Currency(NamedTuple):
    """How one, many, a hundredth and many hundredths of a currency are called."""

    one: str
    many: str
    hundredth: str = ""
    hundredths: str = ""


def _dollars(country: str) -> Currency:
    return Currency(f"{country} dollar", f"{country} dollars", "cent", "cents")


_US, _YUAN = _dollars("US"), Currency("yuan", "yuan")
_POUND = Currency("pound", "pounds", "penny", "pence")
_EURO, _RUPEE = Currency("euro", "euros", "cent", "cents"), Currency("rupee", "rupees")
CURRENCIES = {
    "$": Currency("dollar", "dollars", "cent", "cents"),
    "US$": _US, "USD": _US,
    "HK$": _dollars("Hong Kong"), "HKD": _dollars("Hong Kong"),
    "NT$": _dollars("New Taiwan"), "TWD": _dollars("New Taiwan"),
    "C$": _dollars("Canadian"), "CA$": _dollars("Canadian"), "CAD": _dollars("Canadian"),
    "A$": _dollars("Australian"), "AU$": _dollars("Australian"), "AUD": _dollars("Australian"),
    "NZ$": _dollars("New Zealand"), "NZD": _dollars("New Zealand"),
    "S$": _dollars("Singapore"), "SGD": _dollars("Singapore"),
    "R$": Currency("real", "reais"), "BRL": Currency("real", "reais"),
    "MX$": Currency("Mexican peso", "Mexican pesos"), "₱": Currency("peso", "pesos"),
    "£": _POUND, "GBP": _POUND, "€": _EURO, "EUR": _EURO,
    "¥": Currency("yen", "yen"), "JPY": Currency("yen", "yen"),
    "￥": _YUAN, "CN¥": _YUAN, "CNY": _YUAN, "RMB": _YUAN,
    "₹": _RUPEE, "Rs.": _RUPEE, "Rs": _RUPEE, "INR": _RUPEE,
    "₩": Currency("won", "won"), "KRW": Currency("won", "won"),
    "₽": Currency("ruble", "rubles"), "RUB": Currency("ruble", "rubles"),
    "₺": Currency("lira", "lira"), "₪": Currency("shekel", "shekels"),
    "₫": Currency("dong", "dong"), "฿": Currency("baht", "baht"), "₦": Currency("naira", "naira"),
    "₿": Currency("bitcoin", "bitcoin"), "BTC": Currency("bitcoin", "bitcoin"),
    "CHF": Currency("Swiss franc", "Swiss francs"),
}  # fmt: skip

SCALES = {
    "k": "thousand", "K": "thousand", "m": "million", "mn": "million", "mm": "million",
    "M": "million", "MM": "million", "b": "billion", "B": "billion", "bn": "billion",
    "Bn": "billion", "t": "trillion", "T": "trillion", "tn": "trillion", "trn": "trillion",
}  # fmt: skip

CALLS = (  # a number behind them is a telephone's
    "call(?:s|ed|ing)?|dial(?:s|l?ed|l?ing)?|phone[ds]?|ring|rang|text(?:ed)?(?: [A-Z]{2,})?|tel|"
    "telephone|fax|hotline|helpline|whatsapp|mobile|cell|reach (?:me|us|him|her|them)|"
    "(?:my|your|his|her|our|their|contact|emergency) number is"
)

# What "5m" counts by the million, and "20k" by the thousand.
COUNTED = (
    "dollars|euros|pounds|yen|yuan|rupees|people|men|women|children|users|subscribers|followers|"
    "views|viewers|likes|downloads|copies|jobs|homes|households|customers|members|visitors|votes|"
    "voters|workers|students|tons|tonnes|units|cars|records|rows|parameters|tokens|budget|deal|"
    "contract|loan|salary|investment|fund"
)

UNITS = {  # one; `english_amounts.plural_unit` knows the plurals
    "km": "kilometer", "m": "meter", "cm": "centimeter", "mm": "millimeter", "µm": "micrometer",
    "nm": "nanometer", "ft": "foot", "yd": "yard", "yds": "yard", "mi": "mile",
    "nmi": "nautical mile", "KM": "kilometer", "CM": "centimeter", "MM": "millimeter",
    "kg": "kilogram", "kgs": "kilogram", "KG": "kilogram", "g": "gram", "mg": "milligram",
    "µg": "microgram", "mcg": "microgram", "lb": "pound", "lbs": "pound", "t": "ton", "oz": "ounce",
    "st": "stone", "L": "liter", "l": "liter", "ml": "milliliter", "mL": "milliliter",
    "cl": "centiliter", "dl": "deciliter", "dL": "deciliter", "µl": "microliter",
    "µL": "microliter", "gal": "gallon", "qt": "quart", "fl oz": "fluid ounce",
    "fl. oz": "fluid ounce", "tbsp": "tablespoon", "tsp": "teaspoon", "cc": "cubic centimeter",
    "h": "hour", "hr": "hour", "hrs": "hour", "min": "minute", "mins": "minute", "s": "second",
    "sec": "second", "secs": "second", "ms": "millisecond", "µs": "microsecond",
    "ns": "nanosecond", "yr": "year", "yrs": "year", "wk": "week", "wks": "week", "mo": "month",
    "mos": "month", "Hz": "hertz", "kHz": "kilohertz", "KHz": "kilohertz", "MHz": "megahertz",
    "GHz": "gigahertz", "THz": "terahertz", "KB": "kilobyte", "kB": "kilobyte", "MB": "megabyte",
    "GB": "gigabyte", "TB": "terabyte", "PB": "petabyte", "KiB": "kibibyte", "MiB": "mebibyte",
    "GiB": "gibibyte", "TiB": "tebibyte", "Kb": "kilobit", "Mb": "megabit", "Gb": "gigabit",
    "kbps": "kilobit per second", "Kbps": "kilobit per second", "Mbps": "megabit per second",
    "Gbps": "gigabit per second", "W": "watt", "kW": "kilowatt", "MW": "megawatt",
    "GW": "gigawatt", "mW": "milliwatt", "Wh": "watt hour", "kWh": "kilowatt hour",
    "MWh": "megawatt hour", "GWh": "gigawatt hour", "V": "volt", "kV": "kilovolt",
    "mV": "millivolt", "mA": "milliamp", "mAh": "milliamp hour", "Ah": "amp hour", "Ω": "ohm",
    "kΩ": "kilo-ohm", "MΩ": "mega-ohm", "µF": "microfarad", "nF": "nanofarad", "Pa": "pascal",
    "hPa": "hectopascal", "kPa": "kilopascal", "MPa": "megapascal", "GPa": "gigapascal",
    "mmHg": "millimeter of mercury", "psi": "PSI", "atm": "atmosphere", "dB": "decibel",
    "J": "joule", "kJ": "kilojoule", "MJ": "megajoule", "kN": "kilonewton", "Nm": "newton meter",
    "eV": "electron volt", "keV": "kilo-electron volt", "MeV": "mega-electron volt",
    "GeV": "giga-electron volt", "cal": "calorie", "kcal": "kilocalorie", "mol": "mole",
    "mmol": "millimole", "hp": "horsepower", "rpm": "RPM", "RPM": "RPM", "bpm": "BPM",
    "BPM": "BPM", "fps": "frame per second", "FPS": "frame per second", "dpi": "DPI",
    "ppm": "part per million", "ppb": "part per billion", "px": "pixel", "MP": "megapixel",
    "mph": "mile per hour", "MPH": "mile per hour", "kph": "kilometer per hour",
    "kmh": "kilometer per hour", "kmph": "kilometer per hour", "mpg": "mile per gallon",
    "ha": "hectare", "°C": "degree Celsius", "°F": "degree Fahrenheit", "° C": "degree Celsius",
    "° F": "degree Fahrenheit", "℃": "degree Celsius", "℉": "degree Fahrenheit",
    "ºC": "degree Celsius", "ºF": "degree Fahrenheit",
    "°N": "degree north", "°S": "degree south", "°E": "degree east", "°W": "degree west",
    "° N": "degree north", "° S": "degree south", "° E": "degree east", "° W": "degree west",
    "°": "degree", "º": "degree", "‰": "per mille", "sq ft": "square foot", "sqft": "square foot",
    "sq. ft": "square foot", "sq m": "square meter", "sqm": "square meter",
    "sq km": "square kilometer", "sq mi": "square mile", "sq. mi": "square mile",
    "cu ft": "cubic foot", "cu. ft": "cubic foot", "cu m": "cubic meter", "cu. m": "cubic meter",
    "㎡": "square meter", "㎏": "kilogram", "㎝": "centimeter",
    "㎞": "kilometer", "㎜": "millimeter",
}  # fmt: skip
UNITS |= {
    length + power: f"{name} {UNITS[length]}"
    for length in ("km", "m", "cm", "mm", "ft", "mi")
    for power, name in (("²", "square"), ("2", "square"), ("³", "cubic"), ("3", "cubic"))
}
SAME_IN_PLURAL = ("hertz", "RPM", "BPM", "PSI", "DPI", "mille", "horsepower", "stone")  # ends
# Behind a blank these may be other things.
ONLY_JOINED = frozenset({"st", "l", "J", "MM", "MP", "Ah"})
PER = {
    "s": "second", "sec": "second", "second": "second", "min": "minute", "minute": "minute",
    "h": "hour", "H": "hour", "hr": "hour", "hour": "hour", "d": "day", "day": "day", "wk": "week",
    "week": "week", "mo": "month", "month": "month", "yr": "year", "year": "year",
    "kg": "kilogram", "g": "gram", "mg": "milligram", "lb": "pound", "oz": "ounce", "L": "liter",
    "l": "liter", "ml": "milliliter", "mL": "milliliter", "dl": "deciliter", "dL": "deciliter",
    "gal": "gallon", "gallon": "gallon", "m": "meter", "cm": "centimeter", "km": "kilometer",
    "mile": "mile", "m²": "square meter", "m2": "square meter", "cm²": "square centimeter",
    "km²": "square kilometer", "m³": "cubic meter", "m3": "cubic meter",
    "cm³": "cubic centimeter", "s²": "second squared", "s2": "second squared", "ha": "hectare",
    "kWh": "kilowatt hour", "MWh": "megawatt hour", "GB": "gigabyte", "MB": "megabyte",
    "person": "person", "night": "night", "unit": "unit", "user": "user", "piece": "piece",
    "acre": "acre", "share": "share", "barrel": "barrel", "ton": "ton", "mol": "mole",
}  # fmt: skip

# Roman numerals behind these names are ordinals.
RULERS = (
    "Abdullah|Adrian|Albert|Alexander|Alexandra|Alfonso|Amenhotep|Anne|Baldwin|Benedict|"
    "Boniface|Carl|Carlos|Catherine|Charles|Christian|Clement|Cleopatra|Constantine|Darius|"
    "David|Edward|Elizabeth|Emmanuel|Eric|Felipe|Ferdinand|Francis|Franz|Frederick|Friedrich|"
    "George|Gregory|Gustav|Haakon|Harald|Hassan|Henri|Henry|Hussein|Innocent|Isabella|Ivan|"
    "James|Joao|John|Joseph|Juan|Julius|Justinian|Karl|Kenneth|Leo|Leopold|Louis|Ludwig|"
    "Margrethe|Maria|Mary|Maximilian|Mehmed|Mohammed|Murad|Napoleon|Nicholas|Olaf|Oscar|Otto|"
    "Paul|Pedro|Peter|Philip|Pius|Ptolemy|Rama|Ramesses|Ramses|Richard|Robert|Rudolf|Sixtus|"
    "Stephen|Suleiman|Theodosius|Thutmose|Umberto|Urban|Victor|Victoria|Vittorio|Wilhelm|"
    "William|Xerxes"
)
MONARCHS = "King|Queen|Pope|Emperor|Empress|Tsar|Czar|Kaiser|Sultan|Prince|Pharaoh"
# Roman numerals behind these words are cardinals: those of two signs or more behind any of them,
# V, X (and I, where it can be no pronoun) behind the first.
HEADINGS = (
    "chapter|part|volume|vol|book|act|scene|section|phase|stage|episode|season|lesson|canto|"
    "article|amendment|mark|round|division|symphony|bowl|war"
)
LETTERED = (
    "appendix|class|exhibit|factor|figure|grade|level|number|psalm|schedule|sonnet|step|table|"
    "tier|title|type|unit|annex|category|group|world"
)
# Names that V and X number, though no title stands there.
SERIES = "Rocky|Auto|Fantasy|Quest|Civilization|Ultima|Scrolls|Saturn|Titan|Fallout|Kombat"
# No names, though they begin a sentence with a capital: "Start IV fluids", "My XX chromosome".
NOT_NAMES = (
    "A|An|And|Any|As|At|By|For|From|Give|Got|His|Her|If|In|Insert|Is|It|Its|My|No|Of|On|Or|Our|"
    "Some|Start|That|The|Their|Then|This|To|Use|Using|Via|We|With|Your"
)
MEDICAL = "access|antibiotics?|bags?|catheter|dose|drips?|drugs?|fluids?|infusion|injections?|"
MEDICAL += "iron|lines?|medications?|needles?|nutrition|pole|push|site|therapy|treatments?|tubes?"
# A letter behind these words is a label, and no initial: "vitamin C. Then".
LABELLED = (
    "vitamin|hepatitis|plan|type|grade|class|section|group|team|part|appendix|option|letter|"
    "model|figure|exhibit|gate|platform|terminal|block|building|row|level|category|series|"
    "product|point|answer|question|vehicle|phase|zone"
)

TITLES = {  # before a name
    "Dr": "Doctor", "Mr": "Mister", "Mrs": "Misses", "Ms": "Miss", "Prof": "Professor",
    "Gen": "General", "Col": "Colonel", "Capt": "Captain", "Lt": "Lieutenant", "Sgt": "Sergeant",
    "Cpl": "Corporal", "Pvt": "Private", "Maj": "Major", "Adm": "Admiral", "Sen": "Senator",
    "Rep": "Representative", "Gov": "Governor", "Rev": "Reverend", "Hon": "Honorable",
    "Pres": "President", "Fr": "Father", "Mt": "Mount", "Ft": "Fort", "St": "Saint",
}  # fmt: skip
SAINTS = (
    "Albans|Andrew|Andrews|Anthony|Augustine|Barts|Bernard|Clair|Clare|Croix|Francis|George|"
    "Helena|Helens|James|John|Johns|Joseph|Kitts|Louis|Lucia|Mary|Martin|Michael|Moritz|"
    "Nicholas|Patrick|Paul|Peter|Petersburg|Pierre|Stephen|Thomas|Tropez|Vincent"
)
STREETS = {
    "St": "Street", "Dr": "Drive", "Ave": "Avenue", "Blvd": "Boulevard", "Rd": "Road",
    "Hwy": "Highway", "Ln": "Lane", "Pkwy": "Parkway", "Sq": "Square",
}  # fmt: skip
BEHIND_NAMES = {
    "Jr": "Junior", "Sr": "Senior", "Inc": "Incorporated", "Ltd": "Limited", "Co": "Company",
    "Corp": "Corporation", "Bros": "Brothers", "Esq": "Esquire", "Dept": "Department",
    "Univ": "University", "Assn": "Association", "Govt": "Government",
}  # fmt: skip
SHORT = {  # their stop may end a sentence
    "e.g.": "for example", "i.e.": "that is", "approx.": "approximately",
    "a.k.a.": "also known as", "w.r.t.": "with respect to", "cf.": "compare",
    "misc.": "miscellaneous", "dept.": "department", "govt.": "government", "etc.": "et cetera",
    "et al.": "et al", "incl.": "including", "excl.": "excluding", "vs.": "versus",
    "ph.d.": "PhD", "ph. d.": "PhD", "b.sc.": "BSc", "m.sc.": "MSc", "m.phil.": "MPhil",
}  # fmt: skip
SLASHED = {
    "s/he": "he or she", "w/o": "without", "w/": "with ", "b/c": "because", "c/o": "care of",
    "n/a": "N A", "24/7": "twenty four seven", "24/7/365": "twenty four seven three sixty five",
    "9/11": "nine eleven", "7/11": "seven eleven",
    "50/50": "fifty fifty", "50-50": "fifty fifty", "a/k/a": "also known as",
    "20/20": "twenty twenty",
}  # fmt: skip
BEFORE_NUMBERS = {
    "no": "number", "nos": "numbers", "p": "page", "pp": "pages", "pg": "page", "fig": "figure",
    "figs": "figures", "vol": "volume", "vols": "volumes", "ch": "chapter", "chap": "chapter",
    "sec": "section", "sect": "section", "eq": "equation", "ver": "version", "art": "article",
    "apt": "apartment", "ext": "extension", "max": "maximum", "min": "minimum", "ca": "circa",
    "c": "circa", "op": "opus", "ep": "episode", "pt": "part", "tel": "telephone",
    "est": "established", "rm": "room", "ste": "suite", "bldg": "building", "hwy": "highway",
    "rte": "route", "ref": "reference", "para": "paragraph", "ln": "line", "ed": "edition",
}  # fmt: skip

# Numbers behind these words are named in pairs of digits: Boeing seven forty seven.
NAMED_IN_PAIRS = (
    "Boeing|Airbus|Flight|flight|Route|Highway|Interstate|Room|room|Suite|suite|Channel|Bus|bus|"
    "Apartment|apartment|Unit|Highway|Studio|Engine"
)
BIBLE = (
    "Genesis|Exodus|Leviticus|Numbers|Deuteronomy|Joshua|Judges|Ruth|Samuel|Kings|Chronicles|"
    "Ezra|Nehemiah|Esther|Job|Psalms?|Proverbs|Ecclesiastes|Isaiah|Jeremiah|Ezekiel|Daniel|"
    "Hosea|Joel|Amos|Jonah|Micah|Matthew|Mark|Luke|John|Acts|Romans|Corinthians|Galatians|"
    "Ephesians|Philippians|Colossians|Thessalonians|Timothy|Titus|Hebrews|James|Peter|Jude|"
    "Revelation"
)

DOMAINS = (
    "com|org|net|gov|edu|mil|info|io|ai|app|dev|co|uk|cn|de|fr|jp|eu|me|tv|us|ca|au|biz|xyz|ru|"
    "ch|nl|it|es|se|no|in|br|kr|tw|hk|sg|nz|tech|online|site|store|cloud"
)
FILES = (
    "pdf|html|htm|txt|csv|json|xml|yaml|yml|py|js|ts|css|md|exe|zip|docx|doc|xlsx|pptx|png|jpg|"
    "jpeg|gif|svg|mp3|mp4|wav|flac|dll|php|cpp|sh|log"
)
WEB_SIGNS = {
    "@": "at", ".": "dot", "/": "slash", "-": "dash", "_": "underscore", ":": "colon",
    "?": "question mark", "=": "equals", "&": "and", "#": "hash", "+": "plus", "%": "percent",
    "~": "tilde", ",": "comma",
}  # fmt: skip

VULGAR_FRACTIONS = {
    "½": (1, 2), "⅓": (1, 3), "⅔": (2, 3), "¼": (1, 4), "¾": (3, 4), "⅕": (1, 5), "⅖": (2, 5),
    "⅗": (3, 5), "⅘": (4, 5), "⅙": (1, 6), "⅚": (5, 6), "⅛": (1, 8), "⅜": (3, 8), "⅝": (5, 8),
    "⅞": (7, 8), "⅒": (1, 10),
}  # fmt: skip
GREEK = {
    "α": "alpha", "β": "beta", "γ": "gamma", "δ": "delta", "ε": "epsilon", "ζ": "zeta", "η":
    "eta", "θ": "theta", "ι": "iota", "κ": "kappa", "λ": "lambda", "μ": "mu", "ν": "nu", "ξ":
    "xi", "ο": "omicron", "π": "pi", "ρ": "rho", "σ": "sigma", "τ": "tau", "υ": "upsilon", "φ":
    "phi", "χ": "chi", "ψ": "psi", "ω": "omega", "Γ": "gamma", "Δ": "delta", "Θ": "theta", "Λ":
    "lambda", "Ξ": "xi", "Π": "pi", "Σ": "sigma", "Φ": "phi", "Ψ": "psi", "Ω": "omega"
}  # fmt: skip
SIGNS = {  # what no other rule has read
    "%": " percent ", "°": " degrees ", "©": "copyright ", "∞": " infinity",
    "≠": " is not equal to ",
    "≈": " is approximately ", "√": "the square root of ", "→": " to ", "÷": " divided by ",
    "×": " times ", "±": " plus or minus ", "≤": " is at most ", "≥": " is at least ",
    "&": " and ", "@": " at ",
}  # fmt: skip
