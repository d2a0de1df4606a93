"""How Chinese writes numbers, dates, amounts, units and the like: one table, read from the top.

Each rule is (name, pattern, reading). What a rule has read is hanzi, so that no later rule reads it
again; some rules only put 到 or 负 for a sign and leave the digits to those below. The last rules
read whatever digits are left.
"""

import re
import unicodedata
from collections.abc import Callable

from indextts2_jax.text import chinese_readings as read
from indextts2_jax.text import chinese_terms as terms
from indextts2_jax.text.chinese_readings import COUNTED, UNIT_END, N
from indextts2_jax.text.numbers_zh import cardinal, count, digits, number

Reading = str | Callable[[re.Match], str]
Rule = tuple[str, re.Pattern, Reading]

_HAN = "[\u4e00-\u9fff]"
_START = r"(?<![0-9])(?<![0-9]\.)"  # no number goes on here
_END = r"(?![0-9]|\.[0-9])"
_SIGN = "[-–—―~～‐‑‒]"
_TO = rf"\s?(?:{_SIGN}{{1,2}}|[至到])\s?"
_SCALE = "(?:万亿|[十百千]?[万亿]|[百千](?![分米克瓦])|)"
_YEAR = "(?:1[0-9]{3}|20[0-9]{2})"
_MEASURE, _UNIT = terms.MEASURE, terms.UNIT
_NUMERAL = "一二三四五六七八九十零百千万"
_NAMES = rf"(?!{COUNTED})"  # behind a number that counts nothing
_CODES = (
    "(?:密码|编号|学号|工号|卡号|账号|帐号|账户|尾号|验证码|校验码|邮编|邮政编码|QQ群?|群号?|微信|订单|单号|"
    "流水号|序列号|案号|代码|取件码|提取码|邀请码|口令|会员号?|准考证|护照|票号|编码|条码|批号|识别码|激活码|"
    "兑换码|PIN码?|ID|座位号|错误码?|错误代码|端口|房号|门牌|房间号|楼号)(?:号码|号)?"
)
_PHONES = (
    "(?:电话|手机|座机|热线|客服|拨打|拨通|致电|来电|传真|号码|分机|[Tt]el|TEL)(?:号码?|热线|电话)?"
)
_SAYS = r"[\s是为：:叫=（(.]{0,3}(?:改成|改为|设为|设成|输入|就是)?"
_EMERGENCY = terms.alternatives(terms.EMERGENCY)
_CLOCK = r"(?:[01]?[0-9]|2[0-4]):[0-5][0-9]"
_LOW = rf"(?:(?P<low>{N})(?P<low_scale>{_SCALE}){_TO})?"
_PER = rf"(?:\s?/\s?(?P<per>(?:100?)?{terms.PER_UNIT})(?![A-Za-z]))?"
_RANGED = (  # what may stand between a number and the sign of its range
    rf"(?:{_SCALE}(?:[年月日号点时分秒岁元块个人米斤里度天周位名次级层楼章节页题期届吨克升倍折成路段]|"
    rf"公里|公斤|小时|分钟|千克|{_UNIT})?|[%‰])"
)


def _rule(name: str, pattern: str, reading: Reading, flags: int = 0) -> Rule:
    return name, re.compile(pattern, flags), reading


RULES: tuple[Rule, ...] = (
    # One way to write each sign.
    _rule("hidden", "<(n_[a-z]+|pinyin_[a-z]+)>", "\ue000\\1\ue001"),
    _rule("hidden hyphen", "<H>", "\ue002"),
    _rule("digits", r"[^\D0-9]", lambda m: str(unicodedata.decimal(m[0]))),
    _rule("keycap", "(?<=[0-9#*])\ufe0f?\u20e3", ""),
    _rule(
        "full width", "[＃-＇＊＋－-／＜-＞＠-｝￡￦\u3000\u3300-\u33ff℃℉№µΩK₀-₉]", read.half_width
    ),
    _rule("degrees", "°C|˚C|ºC", "℃"),
    _rule("minus", r"(?<=[0-9])\s?−\s?(?=[0-9.])", "减"),
    _rule("minus", "−", "-"),
    _rule("ratio sign", "(?<=[0-9])\\s?[：∶]\\s?(?=[0-9])", ":"),
    _rule("fraction slash", "(?<=[0-9])⁄(?=[0-9])", "/"),
    _rule(
        "unit power",
        r"(?<![A-Za-z])((?:[kcdhmμn]?m|s))([²³])(?![⁰-⁹])",
        lambda m: m[1] + {"²": "2", "³": "3"}[m[2]],
    ),
    _rule("roman sign", "[Ⅰ-ⅿ]", read.sign_value),
    _rule("circled", "[①-⒛⓪⓵-⓾❶-➓㈠-㈩㉑-㉟㊀-㊉㊱-㊿]", read.sign_value),
    _rule("very long", r"(?<![0-9])[0-9]{20,}+", read.yao),
    _rule("blank", rf"(?<=[0-9])[ \t]+(?={_HAN})|(?<={_HAN})[ \t]+(?=[0-9])", ""),
    _rule("zero", "〇", "零"),
    # Numbers that are called.
    _rule(
        "extension", r"(?<=[0-9])转([0-9]{1,5})(?![0-9])", lambda m: "转" + digits(m[1], yao=True)
    ),
    _rule(
        "country code",
        r"(?<![0-9A-Za-z])\+[0-9]{1,3}[- ]?(?:\(?[0-9]{2,5}\)?[- ]?){2,4}[0-9]{2,5}"
        r"(?![0-9.])",
        lambda m: "加" + read.yao(m),
    ),
    _rule("country code", r"(?<![0-9])(?:00)?86[- ](?=1[3-9][0-9])", read.yao),
    _rule("mobile", r"(?<![0-9.])1[3-9][0-9]([ -]?)[0-9]{4}\1[0-9]{4}(?![0-9]|万|亿|元)", read.yao),
    _rule(
        "masked",
        r"(?<![0-9])([0-9]{3,6})(\*{2,})([0-9]{2,4})(?![0-9])",
        lambda m: digits(m[1], yao=True) + m[2] + digits(m[3], yao=True),
    ),
    _rule(
        "area code",
        r"(?<![0-9.])\(?0[0-9]{2,3}\)?[- ]?[0-9]{7,8}(?:-[0-9]{1,5})?(?![0-9])",
        read.yao,
    ),
    _rule(
        "400",
        r"(?<![0-9.])[48]00(?:[- ][0-9]{3}[- ]?[0-9]{4}|[- ][0-9]{4}[- ]?[0-9]{3}|"
        r"[0-9]{7})(?![0-9])",
        read.yao,
    ),
    _rule(
        "identity card",
        r"(?<![0-9.])[1-9][0-9]{16}[0-9Xx](?![0-9A-Za-z])",
        lambda m: read.yao(m) + ("X" if m[0][-1] in "Xx" else ""),
    ),
    _rule("bank card", r"(?<![0-9])[0-9]{4}(?: [0-9]{4}){2,4}(?: [0-9]{1,3})?(?![0-9])", read.yao),
    _rule(
        "address",
        r"(?<![0-9.])[0-9]{1,3}(?:\.[0-9]{1,3}){3}(?![0-9]|\.[0-9])(?::([0-9]+))?",
        lambda m: (
            "点".join(map(digits, m[0].partition(":")[0].split(".")))
            + (f"冒号{digits(m[1])}" if m[1] else "")
        ),
    ),
    _rule(
        "telephone",
        rf"(?P<before>{_PHONES}{_SAYS})(?P<id>[0-9]{{3,}}(?:[- ][0-9]{{2,}})*+){_NAMES}",
        read.called,
    ),
    _rule(
        "code",
        rf"(?P<before>{_CODES}{_SAYS}[A-Za-z]{{0,4}})"
        rf"(?P<id>[0-9]{{3,}}+(?:[- ][0-9]{{2,}})*+|0[0-9]+|[0-9]++(?:-[0-9]++)+){_NAMES}",
        read.named,
    ),
    _rule(
        "services",
        rf"{_START}(?<![-:/=×+第￥$约.]){terms.alternatives(terms.CALLED)}{_NAMES}",
        read.yao,
    ),
    _rule(
        "emergencies",
        rf"{_START}{_EMERGENCY}(?:(?:[、，,和或及与]|或者|以及){_EMERGENCY})+{_NAMES}",
        lambda m: re.sub("[0-9]+", read.yao, m[0]),
    ),
    _rule("emergency", rf"(?:(?<=[打拨报叫呼])|(?<=打了)){_EMERGENCY}{_NAMES}", read.yao),
    _rule(
        "emergency",
        rf"{_START}{_EMERGENCY}(?=报警|急救|火警|救护|热线|指挥|接警|出警|平台|电话|"
        "调度|专线|台$)",
        read.yao,
    ),
    _rule(
        "plate",
        rf"(?P<before>[{terms.PROVINCES}][A-Z])[·•・ ]?(?P<id>[A-Z0-9]{{5,6}})(?![A-Z0-9])",
        read.plate,
    ),
    _rule(
        "domain",
        r"(?<![A-Za-z0-9.])([0-9]+)\.(?=(?:com|cn|net|org)(?![A-Za-z]))",
        lambda m: digits(m[1], yao=True) + "点",
    ),
    # Dates.
    _rule(
        "date",
        rf"{_START}[12][0-9]{{3}}([-/.])[0-9]{{1,2}}\1[0-9]{{1,2}}(?![0-9]|[-/][0-9])"
        rf"(?P<to>{_TO}(?=[0-9]{{1,4}}[-/.月]))?",
        read.date,
    ),
    _rule(
        "second date", r"(?<=日到)(?P<m>[0-9]{1,2})[-/.](?P<d>[0-9]{1,2})(?![0-9])", read.month_day
    ),
    _rule(
        "year and month",
        rf"{_START}({_YEAR})[-/](0[1-9]|1[0-2])(?![-0-9/]|[年赛学财])",
        lambda m: f"{digits(m[1])}年{cardinal(int(m[2]))}月",
    ),
    _rule(
        "years",
        rf"{_START}(?P<a>[0-9]{{4}})(?P<year>年)?(?P<sign>{_TO}|/)(?P<b>[0-9]{{4}}|[0-9]{{2}})"
        "(?=年|赛季|学年|财年|年度|届|级|跨年)",
        read.years,
    ),
    _rule(
        "years", rf"{_START}(?P<a>{_YEAR}){_TO}(?P<b>{_YEAR}){_END}(?!{_MEASURE}|%)", read.two_years
    ),
    _rule(
        "era", r"(?<=公元前)[0-9]{1,4}(?=年|[-~至到—])|(?<=公元)[0-9]{1,4}(?=年)", read.one_by_one
    ),
    _rule("year", rf"{_START}(?P<year>[0-9]{{4}})(?=年(?!级))", read.year),
    _rule(
        "short year",
        rf"{_START}(?:[0-9]{{2}}(?=年[0-9]{{1,2}}月)|0[0-9](?=年)|[4-9][0-9](?=年(?:出生|生"
        "人?|毕业|入学|结婚|初|底|末|夏|冬|春|秋|世界杯|奥运|版|那年|款))|(?<=[于在自从是我他她])[5-9][0-9](?=年(?![前后之间来内]))|[0-9]{2}(?=[届级](?!别|台)))(?<!第..)",
        read.one_by_one,
    ),
    _rule(
        "season",
        rf"{_START}{_YEAR}(?=[届级款版]|赛季|学年|财年|年度|世界杯|奥运|亚运|全运|欧洲杯|春|夏|秋|冬|"
        "国庆|新年|跨年|上半|下半|第[一二三四1-4]季|[QH][1-4])",
        read.one_by_one,
    ),
    _rule(
        "decade",
        rf"{_START}((?:1[0-9]|20)[0-9]0)(?:年代|['’]?s(?![A-Za-z]))",
        lambda m: digits(m[1]) + "年代",
    ),
    _rule(
        "short decade",
        rf"{_START}(?<![A-Za-z])([0-9]0)(?:年代|['’]?s(?![A-Za-z]))",
        lambda m: ("零零" if m[1] == "00" else number(m[1])) + "年代",
    ),
    _rule(
        "born in",
        rf"{_START}[0-9][05](?=后(?!退|面|来|卫)|[、和]?(?:[0-9][05][、和])*[0-9][05]后(?!退))",
        read.one_by_one,
    ),
    _rule(
        "months",
        rf"(?<![0-9])(?<![0-9][.:/])([0-9]{{1,2}})\s?{_SIGN}\s?(?=[0-9]{{1,2}}[月日号])",
        lambda m: f"{number(str(int(m[1])))}到",
    ),
    _rule(
        "month and day",
        r"(?<![0-9])(?<!第)0?([1-9]|1[0-2])月(?:0?([1-9]|[12][0-9]|3[01])(?![0-9.:点]))?",
        lambda m: f"{cardinal(int(m[1]))}月" + (cardinal(int(m[2])) if m[2] else ""),
    ),
    _rule("days", rf"(?<=[日号月])\s?(?:{_SIGN}{{1,2}}|至)\s?(?=[0-9]{{1,2}}[日号月])", "到"),
    _rule(
        "days",
        rf"(?<=月)({_HAN}{{1,3}})\s?{_SIGN}\s?([0-9]{{1,2}})(?=[日号])",
        lambda m: f"{m[1]}到{number(m[2])}",
    ),
    _rule("day", r"(?<![0-9])(?<![0-9]\.)0([1-9])(?=[日月])", lambda m: cardinal(int(m[1]))),
    _rule("dotted day", rf"{_START}(?P<m>[0-9]{{1,2}})\.(?P<d>[0-9]{{1,2}})[日号]", read.month_day),
    _rule(
        "slashed days",
        rf"{_START}[0-9]{{1,2}}/[0-9]{{1,2}}{_TO}[0-9]{{1,2}}/[0-9]{{1,2}}(?![0-9/])",
        read.two_dates,
    ),
    _rule(
        "festival",
        rf"{_START}(?P<m>[1-9]|1[0-2])(?:[·•・](?P<day>[0-9]{{1,2}})(?![0-9])|[./](?P<d>[0-9]{{1,2}})(?=[\"”’」]?(?:劳动|"
        "国庆|青年节|妇女节|儿童节|建军|教师节|晚会|大促|购物|大?地震|事变|事件|运动|惨案|空难|特大|消费者|恐怖|袭击|"
        "狂欢|促销)))",
        read.festival,
    ),
    _rule(
        "event",
        rf"{_START}[0-9]{{2,4}}(?=[\"”’」]?(?:事件|事变|惨案|晚会|大促|购物节|空难|起义|讲话|袭击|"
        "恐怖袭击|高校|院校))",
        read.event,
    ),
    # Times, ratios, scores.
    _rule("two clocks", rf"(?<=:[0-5][0-9])\s?{_SIGN}{{1,2}}\s?(?={_CLOCK})", "到"),
    _rule(
        "clock",
        rf"{_START}(?P<h>[01]?[0-9]|2[0-4]):(?P<m>[0-5][0-9])(?::(?P<s>[0-5][0-9]))?(?![0-9:])"
        r"(?:分(?!钟|之)|(?P<half>\s?[APap]\.?[Mm](?![A-Za-z])\.?))?",
        read.clock,
    ),
    _rule(
        "degrees",
        r"(?P<a>[0-9]+)°(?P<b>[0-9]+)['′’](?:(?P<c>[0-9.]+)(?:[\"″”]|''))?",
        lambda m: (
            f"{number(m['a'])}度{number(m['b'])}分" + (f"{number(m['c'])}秒" if m["c"] else "")
        ),
    ),
    _rule(
        "minutes and seconds",
        rf"{_START}(?P<a>[0-9]+)['′’](?P<b>[0-9]{{1,2}}(?:\.[0-9]+)?)"
        r"(?:[\"″”]|''|’’|′′)(?:(?P<c>[0-9]+))?",
        lambda m: read.minutes_seconds(m) + (digits(m["c"]) if m["c"] else ""),
    ),
    _rule(
        "inches",
        rf"{_START}({N})[\"″”](?=显示|屏|电视|的?笔记本|轮)",
        lambda m: number(m[1]) + "英寸",
    ),
    _rule("ratio", rf"{_START}{N}(?:\s?:\s?{N}){{1,4}}(?![:0-9])", read.ratio),
    _rule("figure", r"(?<=[图表式例])([0-9]{1,2})-([0-9]{1,2})(?![-0-9.])", r"\1杠\2"),
    _rule(
        "scores",
        rf"{_START}(?<![第:/A-Za-z.])(?P<a>[0-9]{{1,3}})\s?(?P<sign>[-–—])\s?(?P<b>[0-9]{{1,3}})"
        rf"(?![0-9]|\.[0-9]|\s?[-–—][0-9]|{_UNIT}{UNIT_END})",
        read.score,
    ),
    _rule(
        "chain",
        rf"{_START}(?<![-A-Za-z])[0-9]{{1,4}}(?:-[0-9]{{1,4}}){{2,}}(?![-0-9=]|\.[0-9])",
        read.chain,
    ),
    _rule("room", rf"{_START}(?<![-A-Za-z])[0-9]{{1,3}}-[0-9]{{1,4}}(?=室|号房|房间)", read.chain),
    # Ranges, minus and plus.
    _rule(
        "subtraction",
        r"(?<=[0-9)])\s?[-–]\s?(?=[0-9.]+(?:\s?[-+×÷*/]\s?[0-9.]+){0,8}\s?(?:=|等于))",
        "减",
    ),
    _rule(
        "range",
        rf"(?<=[0-9])({_RANGED})\s?(?:——|~~|{_SIGN})\s?(?=(?:第|约|零下)?[-+￥¥$€£]?[0-9])",
        r"\1到",
    ),
    _rule(
        "minus",
        r"(?<![0-9A-Za-z\u4e00-\u9fff)\]\ue002-])[-–]\s?(?=\.?[0-9])|(?<=到)-(?=[0-9])",
        "负",
    ),
    _rule("hyphen", rf"(?<={_HAN})\s?[-–]\s?(?=\.?[0-9])", read.hyphen),
    # Signs of arithmetic.
    _rule(
        "resolution",
        rf"{_START}(1920|1280|1366|1440|1600|2048|2560|3440|3840|640|800|1024)\s?[xX×*]\s?"
        rf"([0-9]{{3,4}}){_END}(?!{_UNIT}{UNIT_END}|米|厘米|毫米)",
        lambda m: f"{digits(m[1])}乘{digits(m[2])}",
    ),
    _rule("times", r"(?<=[0-9)])\s?[*xX×✕]\s?(?=[0-9(])|\s?[×✕]\s?(?=[0-9])", "乘"),
    _rule(
        "power",
        r"(?P<base>(?<![0-9.])[0-9]+(?:\.[0-9]+)?|[A-Za-zα-ω]|\))"
        r"(?P<caret>\^)?(?P<power>(?(caret)-?[0-9]+|[⁻⁰¹²³⁴⁵⁶⁷⁸⁹]+))",
        read.power,
    ),
    _rule("fold", r"(?<=[0-9])×", "倍"),
    _rule("divided", r"\s?÷\s?", "除以"),
    _rule("plus or minus", r"\s?(?:±|\+/-)\s?(?=[0-9])", "正负"),
    _rule("plus", r"(?<![0-9A-Za-z\u4e00-\u9fff)])\+\s?(?=[0-9])", "正"),
    _rule(
        "plus",
        r"(?<=[0-9A-Za-z)\u4e00-\u9fff])\s?(?<!\+)\+(?!\+)\s?(?=[0-9A-Za-z(\u4e00-\u9fff])|(?<=[0-9])\+",
        "加",
    ),
    _rule("at most", r"\s?(?:≤|≦|<=)\s?", "小于等于"),
    _rule("at least", r"\s?(?:≥|≧|>=)\s?", "大于等于"),
    _rule("unequal", r"\s?(?:≠|!=)\s?", "不等于"),
    _rule("about", r"\s?≈\s?", "约等于"),
    _rule("about", r"[~～](?=[￥¥$€£]?[0-9])", "约"),
    _rule("less", r"\s?<\s?(?=负?[0-9])|(?<=[0-9])\s?<\s?", "小于"),
    _rule("more", r"\s?(?<![-=])>\s?(?=负?[0-9])|(?<=[0-9])\s?>\s?", "大于"),
    _rule(
        "equals",
        r"(?<=[0-9)\u4e00-\u9fff])\s?=\s?|\s?=\s?(?=负?[0-9])|"
        r"(?<![A-Za-z][A-Za-z])(?<=[A-Za-zα-ω])\s?=\s?(?=[A-Za-z0-9α-ω√(])",
        "等于",
    ),
    _rule("root", "√(?=[0-9A-Za-z])", "根号"),
    _rule("infinity", "∞", "无穷大"),
    _rule("arrow", "(?<=[0-9])\\s?→\\s?(?=[0-9])", "到"),
    _rule("and", rf"(?<={_HAN})\s?&\s?(?={_HAN})", "和"),
    # Amounts.
    _rule(
        "amount",
        rf"(?P<minus>-?)(?<![A-Za-z])(?P<sign>{terms.CURRENCY})\s?{_LOW}(?:{terms.CURRENCY})?"
        rf"(?P<value>{N})\s?(?P<scale>万亿|[十百千]?[万亿]|[百千]|(?:mn|bn|[kKmMbB])(?![A-Za-z/])|)"
        rf"(?P<name>{terms.MONEY})?{_PER}",
        read.amount,
    ),
    _rule(
        "amount",
        rf"(?P<minus>(?<![0-9])-?){_START}{_LOW}(?P<value>{N})\s?(?P<scale>{_SCALE})(?P<name>)"
        rf"\s?(?P<sign>{terms.CURRENCY})(?![A-Za-z0-9]){_PER}",
        read.amount,
    ),
    _rule(
        "percent",
        rf"(?P<minus>负?){_START}(?:(?P<low>{N})\s?(?P<low_sign>[%‰])?{_TO}(?P<second_minus>负?))?"
        rf"(?P<value>{N})\s?(?P<sign>[%‰‱])",
        read.percent,
    ),
    _rule(
        "blood pressure",
        rf"(?<=血压)([为是:：]?)([0-9]{{2,3}})/([0-9]{{2,3}})(?![0-9])|{_START}(?P<a>[0-9]{{2,3}})/(?P<b>[0-9]{{2,3}})(?=\s?mmHg)",
        lambda m: f"{m[1] or ''}{number(m[2] or m['a'])}、{m[3] or m['b']}",
    ),
    _rule("percent sign", "%", lambda m: "百分号"),
    _rule(
        "fraction sign",
        rf"(?P<whole>[0-9]+)?\s?(?P<sign>[{''.join(terms.FRACTIONS)}])",
        read.fraction_sign,
    ),
    _rule("always", rf"{_START}24/7{_END}(?!/)", "二十四七"),
    _rule(
        "mixed number",
        rf"{_START}([0-9]+)\s([1-9])/([2-9])(?![0-9/])",
        lambda m: f"{number(m[1])}又{number(m[3])}分之{number(m[2])}",
    ),
    _rule("acceleration", rf"{_START}({N})m/s2(?![0-9])", lambda m: number(m[1]) + "米每二次方秒"),
    _rule(
        "measure",
        rf"{_START}(?<!/)(?<![A-Za-z][ ])(?:(?<![A-Za-z])|(?<=[0-9][hms])|(?<=[0-9]min))"
        rf"{_LOW}(?P<value>{N})"
        rf"(?P<scale>{_SCALE})[ ]?(?P<unit>{_UNIT}){_PER}{UNIT_END}",
        read.measure,
    ),
    _rule(
        "rate",
        rf"{_START}{_LOW}(?P<value>{N})(?P<scale>{_SCALE})"
        rf"(?P<unit>(?!年|月|日){_HAN}{{1,4}}|[A-Z]B)/(?P<per>(?:100?)?{terms.PER_UNIT})(?![A-Za-z])",
        read.measure,
    ),
    _rule(
        "unit",
        r"(?<![A-Za-z0-9])(m2|m3|km2|cm2|℃|℉)(?![A-Za-z0-9])",
        lambda m: terms.UNITS[m[1]],
    ),
    _rule("slash", rf"{_START}(?<!/)(?P<top>{N})/(?P<bottom>{N})(?![0-9/])", read.slash),
    _rule(
        "unit of a fraction",
        rf"(?<=分之[{_NUMERAL}])({_UNIT}){UNIT_END}",
        lambda m: terms.UNITS[m[1]],
    ),
    _rule(
        "per", rf"(?<=[米里元克吨升次个人转度斤])/(?={terms.alternatives(terms.PER_WORDS)})", "每"
    ),
    _rule("greek", f"[{''.join(terms.GREEK)}]", lambda m: terms.GREEK[m[0]]),
    # Numbers that name something.
    _rule("number one", r"(?<![A-Za-z])[Nn][Oo]\.?\s?1(?![0-9.])", "第一"),
    _rule(
        "ranking",
        r"(?<=[名榜国球界量洲列居])(?<![A-Za-z])[Nn][Oo]\.\s?([0-9]+)",
        lambda m: "第" + number(m[1]),
    ),
    _rule(
        "number",
        r"(?<![A-Za-z])[Nn][Oo]\.\s?([0-9]{1,3})(?![0-9.])",
        lambda m: number(m[1]) + "号",
    ),
    _rule("number", r"(?<![A-Za-z])[Nn][Oo]\.\s?([0-9]+)", lambda m: "编号" + digits(m[1])),
    _rule(
        "number sign",
        r"#\s?([0-9]+)(?![0-9.])|(?<![0-9A-Za-z])([0-9]+)#",
        lambda m: number(m[1] or m[2]) + "号",
    ),
    _rule(
        "train",
        r"(?<![A-Za-z])(?P<before>[GDCZTKYSL])(?P<id>[0-9]{3,4}|[0-9]{1,2}(?=次))(?![0-9A-Za-z.])"
        rf"(?!{_MEASURE}(?<!次)|级)",
        read.flight,
    ),
    _rule(
        "flight",
        r"(?<![A-Za-z0-9])(?P<before>[A-Z]{2}|[0-9][A-Z]|[A-Z][0-9])(?P<id>[0-9]{3,4})(?![0-9A-Za-z.])"
        r"(?=(?:次?航班|客机|号?航班)|(?<=(?:MU|CA|CZ|HU|MF|ZH|FM|KN|SC|BA|MH|AA|UA|NH|JL|SQ|CX|KE|AF|LH).{3})(?!元|型)|"
        r"(?<=(?:MU|CA|CZ|HU|MF|ZH|FM|KN|SC|BA|MH|AA|UA|NH|JL|SQ|CX|KE|AF|LH).{4})(?!元|型))",
        read.flight,
    ),
    _rule(
        "motorway",
        r"(?<![A-Za-z])(?P<before>[GS])(?P<id>[0-9]{1,4})(?=[一-龥]{0,4}?(?:高速|国道|省道|公路))",
        read.called,
    ),
    _rule(
        "route",
        rf"{_START}[0-9]{{3,4}}(?=路(?![程人边口费过灯径面])|[国省县]道|次?(?:列车|航班|高铁|动车|特快)|"
        "专线)",
        read.yao,
    ),
    _rule(
        "room",
        rf"{_START}[0-9]{{3,4}}(?=号?房间?(?![子屋产价源客租东贷])|室(?![内外温])|号?(?:教室|病房|宿舍|寝室|"
        "包厢|包间|会议室|办公室|实验室|机房|诊室|展厅|牢房|考场)|医院|错误|页面|胶水|部队|大厦)",
        read.one_by_one,
    ),
    _rule(
        "room",
        rf"(?<=[楼栋幢座])[0-9]{{3,4}}(?![0-9.]){_NAMES}|(?<=单元)[0-9]{{3,4}}(?![0-9.]){_NAMES}|"
        rf"(?<=住)[0-9]{{3,4}}(?![0-9.]){_NAMES}|(?<=住在)[0-9]{{3,4}}(?![0-9.]){_NAMES}",
        read.one_by_one,
    ),
    _rule(
        "well-known",
        rf"{_START}(?<![A-Za-z第￥$=]){terms.alternatives(terms.WELL_KNOWN)}{_NAMES}",
        read.one_by_one,
    ),
    _rule(
        "screen",
        rf"{_START}(?:1080|720|480|360|1440|2160)(?=[PpIi](?![A-Za-z0-9]))",
        read.one_by_one,
    ),
    _rule(
        "model",
        r"(?P<before>波音|空客|歼|骁龙|麒麟|酷睿|标致|宝马|奥迪|天玑|锐龙)(?P<id>[0-9]{3,4})"
        r"(?![0-9.])",
        read.letters_and_digits,
    ),
    _rule("to", r"(?<![A-Za-z0-9])([BCOPG])2([BCOPGM])(?![A-Za-z0-9])", r"\1 to \2"),
    _rule(
        "model",
        rf"(?P<before>(?<![A-Za-z])(?!v|V|Top|TOP)[A-Za-z]+[\ue002 -]?)"
        rf"(?P<id>[0-9]{{3,4}})(?![0-9.,]){_NAMES}",
        read.letters_and_digits,
    ),
    _rule("model", r"(?<![A-Za-z])(K?N|AK\ue002?)(95|47)(?![0-9.])", lambda m: m[1] + digits(m[2])),
    _rule("name", "(?<=_)[0-9]+|(?<![0-9.])[0-9]+(?=_)", read.one_by_one),
    _rule("hyphen of a model", "(?<=[A-Za-z])-(?=[0-9])", ""),
    _rule(
        "versions",
        rf"{_START}[0-9]+(?:\.[0-9]+){{2,}}",
        lambda m: "点".join(number(part) for part in m[0].split(".")),
    ),
    # Roman numerals.
    _rule(
        "roman",
        r"(?<![A-Za-z])(?P<roman>[IVX]{2,})(?![A-Za-z])(?=\s?(?:型|期|级|类|度|代|世|章|节|卷|部|阶段|号|区|等|"
        r"组|线|相|册|段))|(?<=第)(?P<one>[IVX]+)(?![A-Za-z])|(?<![A-Za-z])I(?=型|期|级|类|度)",
        lambda m: read.roman(m),
    ),
    _rule(
        "ruler",
        rf"(?<={_HAN})(?P<roman>(?!XX)[IVX]{{2,}})(?![A-Za-z]|设计|系统|{_HAN}{{0,2}}手册)",
        read.roman,
    ),
    # What counts.
    _rule(
        "height",
        rf"{_START}([0-9])(?:米|m)([0-9]{{1,2}})(?![0-9.]){_NAMES}",
        lambda m: f"{count(m[1])}米{digits(m[2])}",
    ),
    _rule(
        "two",
        rf"(?<![第初周期A-Za-z0-9])(?<![0-9]\.)2(?=(?:到[0-9.]+)?(?:{_MEASURE}|{_SCALE[:-2]})))(?!(?<=[在于到]2)层)",
        "两",
    ),
    _rule(
        "bare years",
        rf"{_START}(?<![A-Za-z第=+])(?:19|20)[0-9]{{2}}(?<!00){_END}{_NAMES}(?![年号])",
        read.one_by_one,
    ),
    # Whatever is left.
    _rule("long number", rf"{_START}[0-9]{{9,}}+{_END}(?!{_MEASURE}|{_UNIT}{UNIT_END})", read.long),
    _rule("point", r"(?<![0-9.])\.[0-9]+", lambda m: number(m[0])),
    _rule("number", N, lambda m: number(m[0])),
    _rule("hidden", "\ue000", "<"),
    _rule("hidden", "\ue001", ">"),
    _rule("hidden hyphen", "\ue002", "<H>"),
)


_RANGE_OF_WORDS = re.compile(  # a name that is hyphenated has more than one character on each side
    rf"(?:(?<=[年月日号点时分岁级天午晚晨]){_SIGN}{{1,2}}(?=(?:次日|当日|当天|今|明|昨|上午|中午|下午|晚|凌晨|早|周|"
    rf"星期|礼拜)|[{_NUMERAL}]{{1,5}}[年月日号点时分岁级天])|(?<=周[{_NUMERAL}日天末]){_SIGN}{{1,2}}(?=周)|"
    rf"(?<=期[{_NUMERAL}日天]){_SIGN}{{1,2}}(?=星期)|(?<=拜[{_NUMERAL}日天]){_SIGN}{{1,2}}(?=礼拜)|"
    rf"(?<![\u4e00-\u9fff].)(?<=[{_NUMERAL}]){_SIGN}{{1,2}}(?=[{_NUMERAL}]+[年月日号点时岁级个人天周]))"
)


def join_ranges(text: str) -> str:
    """Writes 到 for the sign between two numbers or times in hanzi: 周一-周五, 9点-下午5点."""
    return _RANGE_OF_WORDS.sub("到", text)


def spoken(text: str) -> str:
    """Writes the numbers, dates, amounts, units and signs of a text as hanzi.

    Args:
        text: any Chinese text, in simplified characters.

    Returns:
        The text without digits.
    """
    for _, pattern, reading in RULES:
        text = pattern.sub(reading, text)
    return text
