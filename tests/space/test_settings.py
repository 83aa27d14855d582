"""The Space's settings, what it says about itself, and its folder for the Hub."""

import contextlib
import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import pytest

from crimson_core import InputError
from space.about_tab import about_text
from space.parts import limits_text
from space.settings import settings_from

ROOT = Path(__file__).resolve().parents[2]
SETTINGS = settings_from({})


def test_settings_and_their_defaults():
    assert (SETTINGS.judge, SETTINGS.judges) == ("offline", ("offline",))
    made = settings_from(
        {
            "CRIMSON_JUDGE": "hf:a/b",
            "CRIMSON_JUDGES": "offline, hf:a/b,base=c/d ,hf:a/b",
            "CRIMSON_MAX_ROWS": "7",
            "CRIMSON_MAX_MB": "2",
            "CRIMSON_MAX_CHARACTERS": "300",
        }
    )
    assert made.judges == ("offline", "hf:a/b,base=c/d", "hf:a/b")
    assert (made.judge, made.max_rows, made.max_megabytes, made.max_characters) == ("hf:a/b", 7, 2, 300)
    for limit in ("7 rows", "2 MB", "300 characters"):
        assert limit in limits_text(made)


@pytest.mark.parametrize(
    ("environment", "said"),
    [
        ({"CRIMSON_JUDGE": "default", "CRIMSON_JUDGES": "offline"}, "CRIMSON_JUDGES"),
        ({"CRIMSON_JUDGES": "nope"}, "CRIMSON_JUDGE"),
        ({"CRIMSON_JUDGE": "nope"}, "'nope' is unknown"),
        ({"CRIMSON_MAX_ROWS": "many"}, "CRIMSON_MAX_ROWS"),
        ({"CRIMSON_MAX_MB": "0"}, "CRIMSON_MAX_MB"),
    ],
)
def test_settings_that_cannot_be_are_refused(environment, said):
    with pytest.raises(InputError, match=said):
        settings_from(environment)


@pytest.mark.parametrize("page", ["docs/space.md", "space/README.md"])
def test_the_docs_name_every_setting(page):
    source = (ROOT / "space" / "settings.py").read_text()
    names = {
        word.strip('"') for word in source.replace("(", " ").replace(",", " ").split() if word.startswith('"CRIMSON_')
    }
    assert len(names) == 5
    told = (ROOT / page).read_text()
    assert all(f"`{name}`" in told for name in names)


def test_where_reports_go_is_said():
    assert "in this process" in limits_text(SETTINGS)
    served = settings_from({"CRIMSON_JUDGE": "openai:m"})
    assert "sent to the service" in limits_text(served)
    both = settings_from({"CRIMSON_JUDGES": "offline,openai:m"})
    assert "With the judge openai:m" in limits_text(both)


# About


def test_about_has_the_weights_and_the_readmes_citation():
    text = about_text(SETTINGS)
    assert "urgent 1; actionable, not urgent 0.5; not actionable, not urgent 0.25; benign or expected 0" in text
    citation = text.split("```bibtex\n")[1].split("```")[0]
    assert citation.startswith("@article{baharoon2026crimson,")
    assert citation in (ROOT / "README.md").read_text()
    assert "Research use only" in text


# The folder of the Hub Space


def test_the_space_folder_starts(tmp_path):
    checkout = tmp_path / "checkout"
    ignore = shutil.ignore_patterns(".*", "dist", "checkpoints", "training", "tests", "__pycache__", "*.egg-info")
    shutil.copytree(ROOT, checkout, ignore=ignore)
    subprocess.run(["make", "space"], cwd=checkout, check=True, capture_output=True)
    folder = checkout / "dist" / "space" / "crimson"
    requirements = (folder / "requirements.txt").read_text()
    assert "gradio==" in requirements
    assert "torch" not in requirements
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    environment = os.environ | {"GRADIO_SERVER_PORT": str(port), "TMPDIR": str(tmp_path), "CRIMSON_MAX_ROWS": "77"}
    server = subprocess.Popen(
        [sys.executable, "app.py"],
        cwd=folder,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    try:
        for _ in range(600):
            assert server.poll() is None, server.stdout.read()
            with contextlib.suppress(OSError):
                page = urllib.request.urlopen(f"http://127.0.0.1:{port}/config", timeout=60).read().decode()
                break
            time.sleep(0.2)
        assert "**77 rows**" in page
        for outside in ("fonts.googleapis", "cdn."):
            assert outside not in page
    finally:
        server.terminate()
        server.wait(60)
    assert not list(tmp_path.glob("crimson-space-*"))  # uploads are gone with the process


def test_a_setting_of_the_space_that_is_no_number_is_one_line(tmp_path):
    app = Path(__file__).resolve().parents[2] / "app.py"
    done = subprocess.run(
        [sys.executable, app], env=os.environ | {"CRIMSON_MAX_ROWS": "abc"}, capture_output=True, text=True
    )
    assert done.returncode and done.stderr == "crimson: CRIMSON_MAX_ROWS is 'abc'. Give a whole number above 0.\n"
