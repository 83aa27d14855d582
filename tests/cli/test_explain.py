"""What the command line tells of the offline judge: its data, what it cannot read, and how it has read a report."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

from crimson_core.judges.rules import lexicon


def crimson(*arguments, stdin=""):
    command = [sys.executable, "-m", "crimson_core.cli", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, input=stdin)


def test_a_lexicon_is_checked(tmp_path):
    done = crimson("lexicon", "check")
    assert (done.returncode, done.stdout) == (0, "No faults.\n")
    folder = shutil.copytree(Path(lexicon.__file__).parent, tmp_path / "mine")
    rules = (folder / "rules.yaml").read_text()
    (folder / "rules.yaml").write_text(rules.replace("    age_from: 65\n", "    age_form: 65\n", 1))
    done = crimson("lexicon", "check", folder)
    assert done.returncode == 2
    assert done.stdout.splitlines()[-1] == "1 fault."
    assert done.stdout.startswith("rules.yaml: significance.") and ".age_form: is no key" in done.stdout
    done = crimson("lexicon", "check", tmp_path / "none")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("crimson: folder ")


def test_a_report_that_cannot_be_read_is_counted(tmp_path):
    rows = [("Small left effusion.", "Petit épanchement pleural gauche."), ("Lungs are clear.", "Lungs are clear.")]
    records = [{"reference": reference, "prediction": prediction} for reference, prediction in rows]
    (tmp_path / "reports.json").write_text(json.dumps(records))
    for _ in range(2):  # judged, then read from the store
        done = crimson("score", tmp_path / "reports.json", "-j", "offline", "--store", tmp_path / "s", "--no-progress")
        assert done.returncode == 0, done.stderr
        assert "unrecognised: candidate" in done.stdout
        assert "Unrecognised   1 pair:" in done.stdout
    (tmp_path / "reports.json").write_text(json.dumps(records[1:]))
    done = crimson("score", tmp_path / "reports.json", "-j", "offline", "--no-store", "--no-progress")
    assert "nrecognised" not in done.stdout


def test_a_report_and_a_pair_are_explained(tmp_path):
    done = crimson("explain", "No pneumothorax. Tortuous aorta.", "--age", "80")
    assert done.returncode == 0, done.stderr
    assert "decided by “No” absent [language.yaml: assertion.negated_before]" in done.stdout
    assert "rules.yaml: degenerative and atherosclerotic change is expected at this age]" in done.stdout
    (tmp_path / "reference.txt").write_text("Left effusion.")
    done = crimson("explain", "-", "--reference", tmp_path / "reference.txt", "--json", stdin="Right effusion.")
    told = json.loads(done.stdout)
    assert told["matches"][0]["errors"][0]["rule"] == "rules.yaml: attribute_errors.location.wrong_side"
    assert crimson("explain", "").returncode == 0
    for wrong in (
        ["missing.txt"],
        [tmp_path],
        ["Clear.", "-r", tmp_path],
        ["-", "-r", "-"],
        ["Clear.", "--age", "many"],
    ):
        done = crimson("explain", *wrong)
        assert (done.returncode, done.stdout) == (2, ""), wrong
        assert done.stderr.startswith("crimson: ")
