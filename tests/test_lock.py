"""The lock file names what requirements.txt pins, and all else at one version each."""

import re
from pathlib import Path

ROOT = Path(__file__).parents[1]


def pins(file):
    lines = (line.partition("#")[0].partition(";")[0].strip() for line in (ROOT / file).read_text().splitlines())
    return [tuple(line.split("==")) for line in lines if line]


def test_the_lock_holds_every_pin():
    locked = {re.sub(r"[-_.]+", "-", name).lower(): version for name, version in pins("requirements.lock")}
    assert len(locked) == len(pins("requirements.lock")) > 100
    for name, version in pins("requirements.txt"):
        if (name, version) == ("crimson-score", "0.2.2"):  # for Python 3.12 and later
            continue
        assert locked[re.sub(r"[-_.]+", "-", name).lower()].partition("+")[0] == version, name
