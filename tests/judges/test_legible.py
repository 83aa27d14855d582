"""Texts that were copied out of PDF files and pages, or in which somebody hides a word."""

import pytest

from crimson_core import CrimsonScorer, ReportPair
from crimson_core.judges.rules.legible import legible


@pytest.mark.parametrize(
    ("report", "expected"),
    [
        ("Large effusion.\nNo edema.", "Large effusion.\nNo edema."),
        ("pneumo\u00adthorax", "pneumothorax"),
        ("\ufeffef\u200bfusion", "effusion"),
        ("e\ufb00usion", "effusion"),
        ("\uff11\uff10 mm nodule", "10 mm nodule"),
        ("right\u2011sided", "right-sided"),
        ("pneumo-\nthorax", "pneumothorax"),
        ("right-\r\n  sided", "right-sided"),
        ("Nodule of 2,1 cm, mass 1,2 x 0,8 cm", "Nodule of 2.1 cm, mass 1.2 x 0.8 cm"),
        ("Ribs 2,3 and 4", "Ribs 2,3 and 4"),
        ("Effusion -\nsmall", "Effusion -\nsmall"),
        ("Large\u200beffusion", "Large effusion"),
        ("Effusion\nedema", "Effusion\nedema"),
        ("right_pleural_effusion", "right_pleural_effusion"),
        (
            "**Effusion** *small* | \u00bd of it, 5 \u00b5m, \u00f8 edema",
            "**Effusion** *small* | \u00bd of it, 5 \u00b5m, \u00f8 edema",
        ),
        ("\x005 mm", "5 mm"),
        ("p\nn\ne\nu\nm\no\nthorax\nright", "pneumothorax\nright"),
    ],
)
def test_what_only_a_computer_sees_is_gone(report, expected):
    text, places = legible(report)
    assert text == expected
    if text == report:
        assert places is None
    else:
        assert places is not None and len(places) == len(text) + 1 and places[-1] == len(report)
        assert all(
            report[place] == sign
            for sign, place in zip(text, places, strict=False)
            if sign.isalpha() and sign in report
        )


@pytest.mark.parametrize(
    ("report", "expected"),
    [
        ("Large right \u202exarohtomuenp\u202c.", "Large right pneumothorax."),
        ("\u202e.xarohtomuenp thgir egraL", "Large right pneumothorax."),
        ("\u202exarohtomuenp thgir \u202dLarge\u202c\u202c. Clear.", "Large right pneumothorax. Clear."),
        ("\u202exaroh\u2066Large pneumot\u2069", "Large pneumothorax"),
        ("Large \u202ethgir\npneumothorax", "Large right\npneumothorax"),
        ("\u2067Large \u2066right\u2069 pneumo\u2069thorax", "Large right pneumothorax"),
        ("\u202dLarge\u202c \u2068right\u2069 pneumo\u202athorax", "Large right pneumothorax"),
        ("\u202emm 21( )\u202c", "( )12 mm"),
        ("\u2069\u202cnodule \u202e\u2069\u202c", "nodule "),
    ],
    ids=ascii,
)
def test_text_is_read_in_the_order_in_which_it_is_seen(report, expected):
    text, places = legible(report)
    assert text == expected
    assert places is not None and len(places) == len(text) + 1 and places[-1] == len(report)


def test_a_finding_that_is_written_backwards_is_found_where_it_stands():
    report = "Lungs clear. \u202exarohtomuenp thgiR\u202c."
    evaluation = CrimsonScorer("offline").score([ReportPair("Normal.", report)])[0].evaluation
    (finding,) = evaluation["predicted_findings"]
    assert finding["finding"] == report[slice(*finding["span"])] == "xarohtomuenp thgiR"


def test_a_report_that_nobody_can_read_is_not_normal():
    evaluation = (
        CrimsonScorer("offline").score([ReportPair("Normal.", "\u202eLarge right pneumothorax.")])[0].evaluation
    )
    assert evaluation["unrecognised"] == ["candidate"]


WORD = "pneumothorax"


def each(form):
    return "".join(map(form, WORD))


def alphabet(first):
    return each(lambda letter: chr(ord(first) + ord(letter) - ord("a")))


DISGUISES = {
    **{
        f"{sign!a} inside": f"pneumo{sign}thorax"
        for sign in "\0\b\x1b\x1f\x7f\x85*_~`^|\u034f\u200d\u200e\u2028\ufe0f\U000e0061"
    },
    **{f"{sign!a} everywhere": sign.join(WORD) for sign in "\0\n*\u00ad\u200b\u2060\ufe0e"},
    **{f"{sign!a} on each letter": each(lambda letter, sign=sign: letter + sign) for sign in "\u0301\u0489\u20dd"},
    **{f"{sign} around a half": f"pneumo{sign}thorax{sign}" for sign in ("**", "~~", "\\_")},
    "tags": "pneumo<b>thorax</b>",
    "entity": "pneumo&shy;thorax",
    "two lines": "pneumo\nthorax",
    "three lines": "pneu\nmo\nthorax",
    "indented": "pneumo\n   thorax",
    "CR LF": "pneumo\r\nthorax",
    "capitals": "PNEUMO-\nTHORAX",
    "several": "pneu\u200b**mo\nthorax**",
    "Cyrillic": WORD.translate(str.maketrans("aeopxytmk", "аеорхутмк")),
    "Cyrillic capitals": "РNЕUМОТНОRАХ",
    "Greek": WORD.translate(str.maketrans("eoax", "εοαχ")),
    "Armenian": WORD.replace("o", "օ"),
    "strokes": "pneumøŧħørax",
    "mathematical": alphabet("\U0001d41a"),
    "script": alphabet("\U0001d4ea"),
    "circled": alphabet("\u24d0"),
    "white on black": alphabet("\U0001f150"),
    "flags": alphabet("\U0001f1e6"),
    "full width": alphabet("\uff41"),
    "small capitals": "ᴘɴᴇᴜᴍᴏᴛʜᴏʀᴀx",
}


@pytest.mark.parametrize("name", DISGUISES)
def test_a_disguised_word_is_read_and_found_where_it_stands(name):
    candidate = f"Heart is normal. Large right {DISGUISES[name]} and scoliosis. No effusion."
    (result,) = CrimsonScorer("offline", workers=1).score([ReportPair("Lungs are clear.", candidate)])
    assert result.crimson_score <= 0
    found, _ = result.evaluation["predicted_findings"]
    start, end = found["span"]
    assert candidate[start:end].startswith("Large right ")
    assert candidate[end:].lstrip("*~_\\</b>" + "\u0301\u0489\u20dd\ufe0e\ufe0f") == " and scoliosis. No effusion."
