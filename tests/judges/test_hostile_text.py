"""Texts that somebody made to keep the offline judge busy: its time grows with their length, and not faster."""

import gc
import time

import pytest

from crimson_core import ReportPair
from crimson_core.judges.rules.judge import evaluate_pair

REFERENCE = "Large right pneumothorax."
SHAPES = [
    *(
        ".",
        "!",
        "?",
        ",",
        ";",
        ":",
        "(",
        "[",
        "{",
        ")",
        "((a)",
        '"',
        "'",
        "`",
        "-",
        "/",
        "%",
        "*",
        "_",
        "|",
        "\n",
        "\t",
        " ",
        "\0",
    ),
    *("\u202e", "\u202ea", "\u202ea\u202c", "\u2066\u202e", "\u202eeffusion \u202c"),
    *("7", "1.", "1 . ", "3 mm ", "3 x ", "1,5 cm ", "01/02/2020 ", "\u200b", "e\u0301", "\u0430", "<b>", "a\n", "a*"),
    *(
        "x",
        "pneumothorax",
        "pneumo\n",
        "no ",
        "and/or ",
        "and ",
        "or ",
        "left ",
        "right and left ",
        "mild ",
        "severe ",
        "not ",
    ),
    *(
        "effusion ",
        "effusion, ",
        "effusion. ",
        "no effusion or ",
        "Effusion\n",
        "effusion with ",
        "vs. ",
        "e.g. ",
        "Dr. ",
        "a) ",
    ),
    *(
        "FINDINGS: ",
        "History: ",
        "HISTORY:\n",
        "HISTORY: large effusion. ",
        "HISTORY: large effusion. IMPRESSION: no change. ",
        "HISTORY: large effusion. no edema. no mass. ",
        "Heart: ",
        "Heart:\n",
        "| heart | normal |\n",
        "- [ ] effusion\n",
        "this ",
        "x: y\n",
    ),
    *(
        "Name Name\n",
        "Effusion ",
        "?effusion ",
        "effusion? ",
        "of the ",
        "rib 1, ",
        "- ",
        "\r\n",
        "upper lobe ",
        "more than ",
    ),
]
SHORT, LONG = 12_500, 50_000  # characters


def seconds(shape, length):
    text = shape * (length // len(shape)) + "y"
    gc.disable()  # a collection takes as long as all that other tests have left behind
    try:
        started = time.process_time()
        evaluate_pair(ReportPair(REFERENCE, text))
        return time.process_time() - started
    finally:
        gc.enable()


@pytest.mark.parametrize("shape", SHAPES, ids=ascii)
def test_time_grows_with_the_length_and_not_faster(shape):
    seconds(shape, 1_000)
    long = seconds(shape, LONG)
    assert long < 2
    # 4 times as long; 16 times the time would be quadratic, and short times are noise
    assert long < 6 * seconds(shape, SHORT) + 0.3
