"""Evaluations as a data set of the Hub: what is pushed, to whom it shows, and what a refusal says."""

import json

import pytest
from datasets import Dataset
from huggingface_hub import HfApi
from typer.testing import CliRunner

from crimson_core import CrimsonError, InputError
from crimson_core.cli.app import app

ROWS = ("reference,a,b", "Small left pleural effusion.,Small left pleural effusion.,Clear lungs.", "Mass.,Mass.,Mass.")


@pytest.fixture
def compare(tmp_path):
    file = tmp_path / "systems.csv"
    file.write_text("\n".join(ROWS))
    command = [
        "compare",
        str(file),
        "-j",
        "offline",
        "--no-store",
        "--prediction-column",
        "a",
        "--prediction-column",
        "b",
    ]
    return lambda *options: CliRunner().invoke(app, [*command, *options])


@pytest.fixture
def hub(monkeypatch):
    """What the Hub has got; nothing leaves this machine."""
    got = {}
    monkeypatch.setattr(
        Dataset, "push_to_hub", lambda rows, name, private: got.update({name: rows, "private": private})
    )
    monkeypatch.setattr(HfApi, "upload_file", lambda _, **file: got.update({file["path_in_repo"]: file}))
    return got


def test_a_push_brings_every_evaluation_and_the_leaderboard_without_reports(compare, hub):
    assert compare("--push-to-hub", "owner/rows").exit_code == 0
    rows = hub["owner/rows"]
    assert sorted(zip(rows["system"], rows["crimson_score"], strict=True)) == [("a", 1), ("a", 1), ("b", 0), ("b", 1)]
    assert "pleural effusion" in rows[0]["evaluation"]
    for name in ("leaderboard.md", "leaderboard.json"):
        assert (hub[name]["repo_id"], hub[name]["repo_type"]) == ("owner/rows", "dataset")
        assert b"pleural" not in hub[name]["path_or_fileobj"]
    assert json.loads(hub["leaderboard.json"]["path_or_fileobj"])["sections"][0]["systems"].keys() == {"a", "b"}


def test_a_new_data_set_is_private_unless_it_is_to_be_public(compare, hub):
    compare("--push-to-hub", "owner/rows")
    assert hub["private"] is True
    compare("--push-to-hub", "owner/rows", "--public")
    assert hub["private"] is False
    assert isinstance(compare("--public").exception, InputError)


def test_a_refusal_is_one_line_without_what_the_library_says_and_the_tables_are_printed(compare, hub, monkeypatch):
    def refuse(*_, **__):
        raise OSError("Left pleural effusion in cell 1")

    monkeypatch.setattr(Dataset, "push_to_hub", refuse)
    done = compare("--push-to-hub", "owner/rows")
    assert type(done.exception) is CrimsonError
    assert str(done.exception).startswith("owner/rows could not be pushed (OSError). Log in with `hf auth login`")
    assert "pleural" not in str(done.exception)
    assert "Mean scores" in done.stdout
