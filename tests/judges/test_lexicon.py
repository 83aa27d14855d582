"""The data of the offline judge: their digest."""

import shutil
from pathlib import Path

from crimson_core import CrimsonScorer
from crimson_core.judges.rules import lexicon

FOLDER = Path(lexicon.__file__).parent


def test_the_signature_tells_versions_apart_and_line_endings_not(tmp_path):
    digest = lexicon.reading_digest()
    assert f"|reading:{digest}|" in CrimsonScorer("offline").signature
    windows, edited, code = (
        shutil.copytree(FOLDER, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__"))
        for name in ("windows", "edited", "code")
    )
    for file in (*windows.rglob("*.yaml"), *windows.rglob("*.py")):
        file.write_bytes(file.read_bytes().replace(b"\n", b"\r\n"))
    assert lexicon.reading_digest(windows) == digest
    for folder, name in ((edited, "concepts/bones.yaml"), (code, "matching.py")):
        with (folder / name).open("a") as file:
            file.write("\n# another version\n")
    assert len({digest, lexicon.reading_digest(edited), lexicon.reading_digest(code)}) == 3
