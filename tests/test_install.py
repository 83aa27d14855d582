"""Installing: what is built is whole, works away from the checkout, and every hint names a command that works."""

import os
import re
import shutil
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from pathlib import Path

import pytest
from test_readme import with_any_digest

from crimson_core.errors import missing
from crimson_core.install import HOMEPAGE, INSTALL_PROMPT, SOURCE, WITHOUT_PROMPT, install_command

ROOT = Path(__file__).resolve().parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
NOT_OURS = shutil.ignore_patterns(
    ".git", ".venv*", ".cache", ".pytest_cache", ".ruff_cache", ".hypothesis", "__pycache__", "*.egg-info",
    "dist", "build", "data", "runs", "checkpoints",
)  # fmt: skip


def run(*command, cwd=None, **variables):
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "CRIMSON_"))}
    done = subprocess.run(list(map(str, command)), cwd=cwd, env=environment | variables, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return done


def texts():
    for pattern in (
        "*.md",
        "docs/*.md",
        "*/README.md",
        "*/*/README.md",
        "*/*.jinja",
        "crimson_core/**/*.py",
        "crimson_metric.py",
    ):
        yield from (path for path in ROOT.glob(pattern) if not path.relative_to(ROOT).parts[0].startswith("."))


def test_there_is_one_way_to_install():
    lines = (ROOT / "crimson_metric.py").read_text().splitlines()
    assert f"import crimson_core  # From: {SOURCE}" in lines
    assert PROJECT["urls"]["Homepage"] == HOMEPAGE
    for path in texts():
        for found in re.finditer(r"crimson-metric(\[[\w,]*\])? @ (\S*?)[\"']", path.read_text(encoding="utf-8")):
            assert found[2] in (SOURCE, "{SOURCE}"), path
            assert set((found[1] or "[]")[1:-1].split(",")) <= {*PROJECT["optional-dependencies"], ""}, path
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    assert all(install_command(extra) in readme for extra in ("hf", "openai", "report"))


def test_an_api_judge_needs_no_torch():
    extras = PROJECT["optional-dependencies"]
    for extra in WITHOUT_PROMPT:
        assert not re.search(r"crimson-score|torch|transformers", " ".join(extras[extra]))
        assert f"{install_command(extra)} && {INSTALL_PROMPT}" in str(missing(ImportError(name="openai"), extra))
    assert INSTALL_PROMPT in (ROOT / "README.md").read_text(encoding="utf-8")
    alone = """
import sys
sys.modules |= dict.fromkeys(["torch", "transformers", "accelerate", "peft", "pandas", "sklearn", "sentence_transformers"])
from crimson_core import CrimsonScorer, ReportPair
from crimson_core.protocol.prompt import Prompt
print("prompt:reference-delimited,crimson-score" in CrimsonScorer("openai:some", api_key="x").signature)
print("mild edema" in str(Prompt().messages(ReportPair("mild edema", "Clear."))))
"""
    assert run(sys.executable, "-c", alone, cwd=ROOT).stdout == "True\nTrue\n"


def test_versions_and_licences_agree():
    import yaml

    from crimson_core import __version__

    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert citation["version"] == __version__
    assert f"## {__version__}" in (ROOT / "CHANGELOG.md").read_text()
    front = yaml.safe_load((ROOT / "README.md").read_text(encoding="utf-8").split("---")[1])
    assert {citation["license"], PROJECT["license"], front["license"].replace("apache", "Apache")} == {"Apache-2.0"}
    assert "Apache License" in (ROOT / "LICENSE").read_text()


@pytest.mark.parametrize(
    ("there", "taken"),
    [
        ({"python3.11": 0, "python3.13": 0, "python3.14": 1}, "python3.13 -m venv"),  # 1: a name without a Python
        ({"python3": 0}, "python3 -m venv"),
        ({"python3": 1}, None),
    ],
)
def test_make_takes_the_newest_python_or_says_what_to_install(tmp_path, there, taken):
    for name, status in there.items():
        (tmp_path / name).write_text(f"#!/bin/sh\nexit {status}\n")
        (tmp_path / name).chmod(0o755)
    done = subprocess.run(
        [shutil.which("make"), "-n", "score", f"SCORE_VENV={tmp_path}/venv"],
        cwd=ROOT, env={"PATH": str(tmp_path)}, capture_output=True, text=True,
    )  # fmt: skip
    if taken:
        assert done.stdout.startswith(taken), done.stderr
    else:
        assert "No Python from 3.11 to 3.14" in done.stderr and done.returncode


@pytest.fixture(scope="module")
def tools(tmp_path_factory):
    """A Python with build and twine."""
    folder = tmp_path_factory.mktemp("tools") / "venv"
    run(sys.executable, "-m", "venv", folder)
    python = folder / "bin" / "python"
    done = subprocess.run([python, "-m", "pip", "install", "-q", "build", "twine"], capture_output=True, text=True)
    if done.returncode:
        if os.environ.get("CRIMSON_NEED_INDEX"):
            pytest.fail(done.stderr)
        pytest.skip("no package index can be reached")
    return python


@pytest.fixture(scope="module")
def built(tools, tmp_path_factory):
    """The folder of sdist and wheel."""
    tree = tmp_path_factory.mktemp("built") / "tree"
    shutil.copytree(ROOT, tree, ignore=NOT_OURS)
    done = run(tools, "-m", "build", cwd=tree)
    assert not re.search(r"warn|deprecat", done.stdout + done.stderr, re.IGNORECASE), done.stdout + done.stderr
    return tree / "dist"


def test_what_is_built_is_whole(built, tools):
    files = sorted(built.iterdir())
    assert [path.suffix for path in files] == [".whl", ".gz"]
    assert "WARNING" not in run(tools, "-m", "twine", "check", "--strict", *files).stdout
    ours = {
        str(path.relative_to(ROOT))
        for path in (ROOT / "crimson_core").rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    } | {"crimson_metric.py"}
    with zipfile.ZipFile(files[0]) as wheel:
        held = set(wheel.namelist())
        assert {name for name in held if ".dist-info/" not in name} == ours
        assert any(name.endswith("licenses/LICENSE") for name in held)
    with tarfile.open(files[1]) as sdist:
        held = {name.partition("/")[2] for name in sdist.getnames()}
    tests = {str(path.relative_to(ROOT)) for path in (ROOT / "tests").rglob("*.py")}
    assert ours | tests | {"app.py", "LICENSE", "CITATION.cff", "Makefile", "examples/reports.csv"} <= held
    assert {"space/page.py", "space/style.css", "training/card.md.jinja", "benchmarks/mutations.yaml"} <= held
    assert not {name for name in held if "__pycache__" in name}


def test_the_wheel_works_in_an_empty_environment_from_an_empty_folder(built, tmp_path):
    (wheel,) = built.glob("*.whl")
    folder = tmp_path / "empty"
    folder.mkdir()
    run(sys.executable, "-m", "venv", tmp_path / "venv")
    programs = tmp_path / "venv" / "bin"
    run(programs / "pip", "install", "-q", "--constraint", ROOT / "requirements.txt", wheel)
    home = {"HOME": str(tmp_path), "HF_HOME": str(tmp_path / "hf"), "HF_HUB_OFFLINE": "1"}

    module = Path(run(programs / "crimson", "metric", cwd=folder, **home).stdout.strip())
    assert module.is_relative_to(tmp_path / "venv") and module.name == "crimson_metric.py"
    first = re.search(
        r"```python\n(.*?)```\n```text\n(.*?)```", (ROOT / "README.md").read_text(encoding="utf-8"), re.DOTALL
    )
    printed = run(programs / "python", "-c", first[1], cwd=folder, **home).stdout
    assert with_any_digest(printed) == with_any_digest(first[2])
    (folder / "pairs.csv").write_text("reference,prediction\nSmall left effusion.,Small left effusion.\n")
    done = run(programs / "python", "-m", "crimson_core", "score", "pairs.csv", "-j", "offline", cwd=folder, **home)
    assert "CRIMSON score  1.000" in done.stdout
    assert "crimson-metric " in run(programs / "crimson", "--version", cwd=folder, **home).stdout
