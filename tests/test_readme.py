"""What the README shows as printed is what is printed."""

import contextlib
import io
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
PYTHON = re.findall(r"```python\n(.*?)```(?:\n```text\n(.*?)```)?", README, re.DOTALL)
CONSOLE = re.findall(r"```console\n\$ (.*?)\n(.*?)```", README, re.DOTALL)


def with_any_digest(text):
    """A text without the digest of the offline judge, which changes with every term of its lexicon."""
    return re.sub(r"\breading:[0-9a-f]{8}\b", "reading:", text)


def test_the_python_examples_print_what_the_readme_says(monkeypatch):
    monkeypatch.chdir(ROOT)
    names = {}
    assert len(PYTHON) >= 4
    for code, output in PYTHON:
        printed = io.StringIO()
        with contextlib.redirect_stdout(printed):
            exec(code, names)
        assert with_any_digest(printed.getvalue()) == with_any_digest(output)


def test_the_commands_print_what_the_readme_says(tmp_path):
    environment = {name: value for name, value in os.environ.items() if name not in ("CRIMSON_STORE", "XDG_CACHE_HOME")}
    for command, output in CONSOLE:  # in their order: a later one reads from the store what an earlier one has judged
        program, *arguments = shlex.split(command)
        assert program == "crimson"
        done = subprocess.run(
            [sys.executable, "-m", "crimson_core.cli", *arguments],
            cwd=ROOT,
            env=environment | {"HOME": str(tmp_path)},
            capture_output=True,
            text=True,
            check=True,
        )
        printed = with_any_digest(done.stdout)
        assert [line.rstrip() for line in printed.splitlines()] == with_any_digest(output).splitlines()


def test_nothing_is_left_to_fill_in():
    assert not re.search(r"[A-Z]{3,}_[A-Z]+$", README, re.MULTILINE)
    assert "TODO" not in README


def test_the_front_matter_is_that_of_a_metric_space():
    import yaml

    front = yaml.safe_load(README.split("---")[1])
    assert front["sdk"] == "gradio"
    assert {"evaluate", "metric"} <= set(front["tags"])
    assert front["title"]
    assert front["app_file"] == "app.py"
    assert f"gradio=={front['sdk_version']}\n" in (ROOT / "requirements.txt").read_text()
