"""Messages where there were tracebacks, and no report text in them."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from crimson_core import InputError
from crimson_core.compare.leaderboard.config import load_config
from crimson_core.protocol.evaluation import check_evaluation

ROOT = Path(__file__).parents[2]
EXAMPLE = ROOT / "examples" / "reports.csv"


def crimson(*arguments, cwd=ROOT, **environment):
    return subprocess.run(
        [sys.executable, "-m", "crimson_core.cli", *map(str, arguments)],
        cwd=cwd,
        env=os.environ | {"PYTHONPATH": str(ROOT), "CRIMSON_STORE": "off"} | environment,
        capture_output=True,
        check=False,
    )


def test_a_terminal_without_utf_8_gets_what_it_can_show(tmp_path):
    path = tmp_path / "p.jsonl"
    path.write_text('{"id": "ключ …", "reference": "Edema.", "prediction": "Edema."}\n', encoding="utf-8")
    done = crimson("score", path, "-j", "offline", PYTHONIOENCODING="ascii", PYTHONUTF8="0")
    assert done.returncode == 0, done.stderr
    assert b"Traceback" not in done.stderr
    assert b"Signature" in done.stdout


def test_a_working_folder_that_is_gone_is_told(tmp_path):
    gone = tmp_path / "gone"
    gone.mkdir()
    command = (
        f"cd {gone} && rmdir {gone} && {sys.executable} -m crimson_core.cli compare reports.csv other.csv -j offline"
    )
    done = subprocess.run(
        ["sh", "-c", command], env=os.environ | {"PYTHONPATH": str(ROOT)}, capture_output=True, text=True, check=False
    )
    assert done.returncode == 2, done.stderr
    assert "Traceback" not in done.stderr
    assert "standard output" not in done.stderr


@pytest.mark.parametrize(
    ("redirection", "status", "said"),
    [
        (">&-", 2, "standard output cannot be written"),
        ("2>&-", 0, ""),
        ("<&-", 0, ""),
        (">&- 2>&- <&-", 2, ""),
    ],
)
def test_a_closed_stream_is_not_the_next_file_that_is_opened(tmp_path, redirection, status, said):
    store = tmp_path / "store.sqlite"
    command = f"{sys.executable} -m crimson_core.cli score {EXAMPLE} -j offline --store {store} {redirection}"
    done = subprocess.run(
        ["sh", "-c", command], env=os.environ | {"PYTHONPATH": str(ROOT)}, capture_output=True, text=True, check=False
    )
    assert done.returncode == status, done.stderr
    assert said in done.stderr
    assert "Traceback" not in done.stdout + done.stderr
    assert store.read_bytes().startswith(b"SQLite format 3")
    again = crimson("store", "verify", "--store", store)
    assert again.returncode == 0, again.stderr


@pytest.mark.skipif(sys.platform == "win32", reason="links need a right there")
@pytest.mark.parametrize(
    "arguments",
    [
        ("score", "loop.csv", "-j", "offline"),
        ("compare", "loop.csv", EXAMPLE, "-j", "offline"),
        ("leaderboard", "loop.csv"),
        ("score", EXAMPLE, "-j", "offline", "-o", "loop.csv"),
        ("compare", EXAMPLE, "-j", "offline", "--prediction-column", "id", "--prediction-column", "prediction", "-o", "loop.csv"),
        ("score", EXAMPLE, "-j", "offline", "--store", "loop.csv"),
    ],
)  # fmt: skip
def test_a_link_to_itself_is_a_message(tmp_path, arguments):
    loop = tmp_path / "loop.csv"
    loop.symlink_to(loop)
    done = crimson(*arguments, cwd=tmp_path)
    assert done.returncode == 2, done.stderr
    assert b"loop.csv" in done.stderr
    assert b"Traceback" not in done.stderr
    assert loop.is_symlink()


@pytest.mark.parametrize(
    "text",
    ["title: 2026-13-45", "title: !!int x", "seed: 0x", "title: !!binary 'ä'", "? {a: b}\n: c", "a: 1:99:", "title: !!timestamp x"],
)  # fmt: skip
def test_odd_yaml_is_a_message(tmp_path, text):
    path = tmp_path / "c.yaml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(InputError, match=r"c\.yaml"):
        load_config(path)


def test_yaml_that_is_nested_too_deeply_is_told_so(tmp_path):
    path = tmp_path / "c.yaml"
    path.write_text("a: " + "[" * 5_000, encoding="utf-8")
    with pytest.raises(InputError, match="nested too deeply"):
        load_config(path)


def test_an_evaluation_shows_no_report_text():
    finding = {"finding": "SECRET", "clinical_significance": "SECRET", "note": "SECRET"}
    said = {
        "reference_findings": [finding | {"id": "R1"}, finding | {"id": "SECRET"}],
        "predicted_findings": [finding | {"id": "P1"}],
        "matched_findings": [{"ref_id": "SECRET", "pred_id": "P1"}],
        "errors": {
            "false_findings": ["SECRET"],
            "attribute_errors": [{"ref_id": "R1", "pred_id": "P1", "explanation": "SECRET", "severity": "SECRET"}],
        },
        "extra": "SECRET",
    }
    evaluation = check_evaluation(said)
    parts = [evaluation, *evaluation.reference_findings, *evaluation.matched_findings, evaluation.errors]
    for part in (*parts, *evaluation.errors.attribute_errors):
        assert "SECRET" not in repr(part) + str(part)
    assert "R1" in repr(evaluation.reference_findings[0])
    assert evaluation.model_dump()["extra"] == "SECRET"


def test_an_export_touches_no_other_file(tmp_path):
    store = tmp_path / "store.sqlite"
    assert crimson("score", EXAMPLE, "-j", "offline", "--store", store).returncode == 0
    partial = tmp_path / "out.jsonl.partial"
    partial.write_text("the only copy of what was judged")
    for options, status in (([], 0), (["--failures"], 2)):
        done = crimson("store", "export", tmp_path / "out.jsonl", "--store", store, *options)
        assert done.returncode == status, done.stderr
        assert partial.read_text() == "the only copy of what was judged"
    assert (tmp_path / "out.jsonl").stat().st_mode & 0o777 == 0o600
    assert b'"suspicions": []' in (tmp_path / "out.jsonl").read_bytes()


def test_scratch_names_of_a_user_are_left_alone(tmp_path):
    from crimson_core.cli.results import Output
    from crimson_core.run.files import json_line
    from crimson_core.run.scorer import PairResult

    output = tmp_path / "out.jsonl"
    for name in ("out.jsonl.ordered", "out.jsonl.rows"):
        (tmp_path / name).write_text("mine")
    results = [PairResult(1, failure="x"), PairResult(0, failure="x")]
    with Output(output, EXAMPLE, stored=False) as out:
        for result in results:
            out.write(json_line(result.as_dict()).encode())
        out.finish(results[::-1], "s")
    assert [line[:11] for line in output.read_text().splitlines()] == ['{"index": 0', '{"index": 1']
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out.jsonl", "out.jsonl.ordered", "out.jsonl.rows"]
    assert (tmp_path / "out.jsonl.ordered").read_text() == "mine"


@pytest.mark.parametrize("module", ["typer", "crimson_core.cli.score", "crimson_core.judges.rules.lexicon"])
def test_ctrl_c_is_one_line_from_the_first_import_on(module, tmp_path):
    interrupted = f"""
import sys
from crimson_core.cli import main
class Interrupt:
    def find_spec(self, name, *_):
        if name == {module!r}: raise KeyboardInterrupt
sys.meta_path.insert(0, Interrupt())
main()
"""
    command = [sys.executable, "-c", interrupted, "score", EXAMPLE, "-j", "offline", "--no-store"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path)
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "Interrupted.\n")


def test_what_ends_a_run_says_where_its_results_are(tmp_path):
    rows = [{"reference": "Edema.", "prediction": f"Edema {n}."} for n in range(700)]
    (tmp_path / "p.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    full = """
import resource
from crimson_core.cli import main
resource.setrlimit(resource.RLIMIT_FSIZE, (400_000, 400_000))
main()
"""
    command = [
        sys.executable,
        "-c",
        full,
        "score",
        "p.jsonl",
        "-j",
        "offline",
        "--store",
        "s.sqlite",
        "-o",
        "out.jsonl",
    ]
    done = subprocess.run(
        command, capture_output=True, text=True, cwd=tmp_path, env=os.environ | {"PYTHONPATH": str(ROOT)}
    )
    assert done.returncode == 2, done.stderr
    assert "What was judged is in the store" in done.stderr and "cannot be written" in done.stderr
    assert sorted(path.name for path in tmp_path.iterdir()) == ["p.jsonl", "s.sqlite"]


@pytest.mark.parametrize("name", ["reference, as the radiologist wrote it in 2024", "a"])
def test_a_wrong_separator_is_suggested(tmp_path, name):
    (tmp_path / "p.csv").write_text(f"{name};prediction\nEdema.;Edema.\n")
    done = crimson("score", "p.csv", "-j", "offline", "--separator", "|", cwd=tmp_path)
    assert done.returncode == 2 and b"separator" in done.stderr and b"It has:  and" not in done.stderr


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["explain", "Edema.", "--age", "many"], b"crimson: --age can't be read."),
        (["compare", "-", "p.csv", "-j", "offline"], b"crimson: Standard input (-) cannot be compared."),
        (["compare", "p.xlsx", "p.csv", "-j", "offline"], b"p.xlsx' is a spreadsheet. Save it as CSV."),
    ],
)
def test_a_message_names_what_can_be_changed(tmp_path, arguments, said):
    for name in ("p.csv", "p.xlsx"):
        (tmp_path / name).write_text("reference,prediction\nEdema.,Edema.\n")
    done = crimson(*arguments, cwd=tmp_path)
    assert (done.returncode, done.stdout) == (2, b"") and said in done.stderr


def test_a_hub_out_of_reach_is_asked_once(tmp_path):
    (tmp_path / "c.yaml").write_text(
        "title: x\njudges: [offline]\ntest_sets: {a: {data: me/reports}}\nsystems: {s: {column: a}, t: {column: b}}\n"
    )
    done = crimson("leaderboard", "c.yaml", cwd=tmp_path, HF_ENDPOINT="http://127.0.0.1:9", HF_HOME=str(tmp_path))
    assert done.returncode == 2
    assert done.stderr.count(b"\n") == 1 and b"the Hub cannot be reached, and its cache lacks it" in done.stderr
