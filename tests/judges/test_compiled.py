"""The compiled lexicon: what the files say, however it is had."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
CODE = """
import marshal, sys
from crimson_core.judges.rules import lexicon
found = lexicon.lexicon(), lexicon.rules()
print("yaml" in sys.modules)
files = lexicon._files.__wrapped__.__wrapped__()
for tree in (found[0].phrases, found[0].statements):
    tree.update({word: marshal.loads(packed) for word, packed in tree.items()})
assert found == (lexicon._build(), files["rules.yaml"])
"""


@pytest.fixture
def loaded(tmp_path):
    """Whether a fresh Python has to read the files, which takes YAML; what it keeps is in `tmp_path`."""

    def load(**environment):
        kept = {"PYTHONPYCACHEPREFIX": str(tmp_path), "PYTHONPATH": str(ROOT), "PYTHONDONTWRITEBYTECODE": ""}
        done = subprocess.run(
            [sys.executable, "-c", CODE], env=os.environ | kept | environment, capture_output=True, text=True
        )
        assert done.returncode == 0, done.stderr
        return done.stdout.strip() == "True"

    return load


def kept(folder):
    return sorted(file for file in folder.rglob("lexicon.*") if file.suffix != ".pyc")


def test_the_files_are_read_once(loaded, tmp_path):
    assert loaded()
    assert [file.suffix for file in kept(tmp_path)] == [".built", ".files"]
    assert not loaded()


def test_what_is_damaged_or_of_other_files_is_made_anew(loaded, tmp_path):
    loaded()
    before = [file.read_bytes() for file in kept(tmp_path)]
    for damage in (b"", before[0][:-100], before[0].replace(before[0][7:15], b"00000000", 1), b"\xff" * 50):
        for file in kept(tmp_path):
            file.write_bytes(damage)
        assert loaded()
        assert not loaded()


def test_nothing_is_kept_where_python_keeps_nothing(loaded, tmp_path):
    assert loaded(PYTHONDONTWRITEBYTECODE="1")
    assert kept(tmp_path) == []
    tmp_path.joinpath("file").touch()
    assert loaded(PYTHONPYCACHEPREFIX=str(tmp_path / "file")), "a folder that cannot be made"
