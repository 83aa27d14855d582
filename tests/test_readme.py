"""What README and docs show as printed is what is printed; what they link to is there."""

import contextlib
import io
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


def with_any_digest(text):
    """A text without the digest of the offline judge, which changes with every term of its lexicon."""
    return re.sub(r"\breading:[0-9a-f]{8}\b", "reading:", text)


def having(pattern):
    """Those pages that have something to run, by name, with what was found."""
    found = {page: re.findall(pattern, page.read_text(encoding="utf-8"), re.DOTALL) for page in PAGES}
    return [pytest.param(snippets, id=page.stem) for page, snippets in found.items() if snippets]


@pytest.mark.parametrize("snippets", having(r"```python\n(.*?)```(?:\n```text\n(.*?)```)?"))
def test_the_python_examples_print_what_the_page_says(monkeypatch, snippets):
    monkeypatch.chdir(ROOT)
    names = {}
    for code, output in snippets:
        printed = io.StringIO()
        with contextlib.redirect_stdout(printed):
            exec(code, names)
        assert with_any_digest(printed.getvalue()) == with_any_digest(output)


@pytest.mark.parametrize("snippets", having(r"```console\n\$ (.*?)\n(.*?)```"))
def test_the_commands_print_what_the_page_says(tmp_path, snippets):
    environment = {name: value for name, value in os.environ.items() if name not in ("CRIMSON_STORE", "XDG_CACHE_HOME")}
    for command, output in snippets:  # in their order: a later one reads from the store what an earlier one has judged
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


@pytest.mark.parametrize("page", [*PAGES, *sorted(ROOT.glob("*.md"))], ids=lambda page: page.stem)
def test_what_a_page_links_to_is_there(page):
    def anchors(target):
        headings = re.findall(r"^#+ (.*)$", target.read_text(encoding="utf-8"), re.MULTILINE)
        return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}

    for link in re.findall(r"\]\(([^)\s]+)\)", page.read_text(encoding="utf-8")):
        if "://" not in link:
            path, _, anchor = link.partition("#")
            target = (page.parent / path) if path else page
            assert target.exists(), link
            assert not anchor or anchor in anchors(target), link


def test_the_readme_is_a_landing_page():
    assert len(README.splitlines()) <= 200
    for page in PAGES[1:]:
        assert f"(docs/{page.name})" in README, "every page can be reached from here"


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
