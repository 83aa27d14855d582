"""The Space's API, as a program in another language sees it: HTTP, and Gradio's client for Python."""

import json
import os
import re
import shutil
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
TABLE = "reference,prediction,age\nSmall left effusion.,Small left effusion.,60\nClear.,Large right pneumothorax.,\n"


@pytest.fixture(scope="module")
def url(tmp_path_factory):
    log = tmp_path_factory.mktemp("space") / "log"
    settings = {"GRADIO_SERVER_PORT": "7923", "CRIMSON_MAX_ROWS": "13", "GRADIO_SERVER_NAME": "127.0.0.1"}
    with log.open("w") as out:
        space = subprocess.Popen(
            [sys.executable, "app.py"], cwd=ROOT, env=os.environ | settings, stdout=out, stderr=subprocess.STDOUT
        )
        address = "http://127.0.0.1:7923"
        deadline = time.monotonic() + 90
        while space.poll() is None and time.monotonic() < deadline:
            try:
                urllib.request.urlopen(address, timeout=1)
                break
            except OSError:
                time.sleep(0.3)
        assert space.poll() is None, log.read_text()
        yield address
        space.terminate()
        space.wait(30)
    assert "effusion" not in log.read_text()


@pytest.fixture(scope="module")
def client(url):
    from gradio_client import Client

    return Client(url, verbose=False)


def curl(url, endpoint, *data):
    """What the lines of curl in the docs get."""
    call = f"{url}/gradio_api/call/{endpoint}"
    request = urllib.request.Request(call, json.dumps({"data": data}).encode(), {"Content-Type": "application/json"})
    event = json.load(urllib.request.urlopen(request))["event_id"]
    answer = urllib.request.urlopen(f"{call}/{event}").read().decode()
    kind, found = re.search(r"event: (\w+)\ndata: (.*)", answer).groups()
    return kind, json.loads(found)


PAIR = {"reference": "Small left effusion.", "candidate": "Small right effusion."}


def test_one_pair(url, client):
    kind, (result,) = curl(url, "score", PAIR | {"age": "65", "sex": "F", "indication": "cough"})
    assert kind == "complete"
    assert result["error_counts"]["location_errors"] == 1 and result["signature"].startswith("crimson|judge:offline|")
    assert client.predict(PAIR, api_name="/score")["crimson_score"] == result["crimson_score"]


def test_a_table(url, client):
    _, (result,) = curl(url, "score_table", {"table": TABLE, "ending": ".csv"})
    assert result["scores"] == [1.0, -0.5] and result["n_pairs"] == len(result["pairs"]) == 2
    assert client.predict({"table": TABLE}, api_name="/score_table")["scores"] == result["scores"]


@pytest.mark.parametrize(
    ("endpoint", "given", "said"),
    [
        ("score", {"reference": "effusion"}, "'candidate' is missing"),
        ("score", PAIR | {"prior": "effusion"}, "'prior' is unknown"),
        ("score", PAIR | {"age": 65}, "'age' is of type int. Give a text, or leave it out."),
        ("score", PAIR | {"judge": None}, "'judge' is of type NoneType. Give a text, or leave it out."),
        ("score", PAIR | {"candidate": ["effusion"]}, "'candidate' is of type list. Give a text."),
        ("score", PAIR | {"age": "old"}, "'age' can't be read"),
        ("score", PAIR | {"candidate": "x" * 30_000}, "at most 20,000"),
        ("score", "effusion", "object of texts"),
        ("score_table", {"table": "a,b\n1,2\n"}, "reference"),
        ("score_table", {"table": '[{"reference": "effusion"}]'}, "Give '.json' or '.jsonl' as ending"),
        ("score_table", {"table": TABLE, "ending": ".xlsx"}, "ending is '.xlsx'"),
        ("score_table", {"table": TABLE, "judge": "openai:gpt"}, "not offered here"),
        ("score_table", {"table": TABLE + "a,b,\n" * 12}, "at most 13"),
        ("score_table", {"table": TABLE + ",,\n"}, "row 3 is blank"),
    ],
)
def test_what_is_refused_says_why(url, endpoint, given, said):
    kind, found = curl(url, endpoint, given)
    assert kind == "error" and said in found["error"]


def test_a_call_without_what_is_needed_leaves_nothing_in_the_log(url):
    assert curl(url, "score")[0] == "error"
    assert curl(url, "score", PAIR, "effusion")[0] == "complete"


def test_only_the_two_are_public(client):
    assert set(client.view_api(return_format="dict", print_info=False)["named_endpoints"]) == {"/score", "/score_table"}


def documented(fence, url):
    text = (ROOT / "docs" / "space.md").read_text(encoding="utf-8")
    return re.search(rf"```{fence}\n(.*?)```", text, re.DOTALL)[1].replace("http://127.0.0.1:7860", url)


@pytest.mark.skipif(not (shutil.which("curl") and shutil.which("jq")), reason="no curl or no jq")
def test_the_lines_of_curl_in_the_docs(url):
    done = subprocess.run(["bash", "-ec", documented("sh", url)], cwd=ROOT, capture_output=True, text=True)
    pair, table = re.findall(r"event: complete\ndata: (.*)", done.stdout)
    assert json.loads(pair)[0]["crimson_score"] == 0.0
    assert json.loads(table)[0]["n_pairs"] == 13


def test_the_lines_of_python_in_the_docs(url):
    done = subprocess.run([sys.executable, "-c", documented("py", url)], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "0.0\n[1.0, 1.0, 0.0" in done.stdout
