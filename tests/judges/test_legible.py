"""Texts that were copied out of PDF files and pages."""

import pytest

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
