"""The API judges: whole runs, secrets, and the set-up."""

import asyncio
import json
import logging
import os
import signal
import sys
import threading
import time
import traceback

import pytest
from api import ANSWER, GOOD, INCONSISTENT, KEY, SECRET_REPORT, first, judge_at, judge_one, pair, refusing, threads
from fault_server import Answer, FaultServer, completion, error

from crimson_core.errors import InputError, JudgeError
from crimson_core.judges import load_judge
from crimson_core.judges.engines.openai import azure_judge, openai_judge
from crimson_core.protocol.pair import ReportPair
from crimson_core.protocol.prompt import Prompt
from crimson_core.run.scorer import CrimsonScorer

RUN_LOGGERS = ("openai", "httpx", "httpx2", "httpcore", "httpcore2")

# A whole run


def test_a_mixed_run_scores_what_can_be_scored():
    slow = completion(json.dumps(ANSWER), delay=5.0)
    scripts = {
        "good": first(),
        "limited": first(error(429, retry_after="1")),
        "crashed": first(error(500)),
        "dropped": first(Answer(drop="before")),
        "slow": first(slow),
        "inconsistent": first(completion(json.dumps(INCONSISTENT))),
        "fenced": first(completion(f"Here it is:\n```json\n{json.dumps(ANSWER)}\n```")),
        "broken": first(completion("The reports agree.")),
        "cut": first(completion(json.dumps(ANSWER), finish_reason="length")),
        "refused": first(completion(None, refusal="No.")),
        "too long": first(error(400, "context_length_exceeded")),
        "dead": lambda request: error(503),
    }
    cases = list(scripts) * 2
    with FaultServer(lambda r: next(s for case, s in scripts.items() if f"Case {case} " in r.prompt)(r)) as server:
        judge = judge_at(server, timeout=2.0, concurrency=4)
        pairs = [pair(f"{case} {n}", id=f"{case}-{n}") for n, case in enumerate(cases)]
        results = CrimsonScorer(judge).score(pairs)

    assert [result.index for result in results] == list(range(len(cases)))
    assert [result.id for result in results] == [pair.id for pair in pairs]
    scored = {"good", "limited", "crashed", "dropped", "slow", "inconsistent", "fenced"}
    for case, result in zip(cases, results, strict=True):
        assert (result.score is not None) == (case in scored), case
        assert (result.failure is None) == (case in scored), case
        if case in scored:
            assert result.crimson_score == 1.0
            assert len(result.repairs) == (2 if case == "inconsistent" else 0)
            assert result.usage == {"prompt_tokens": 11, "completion_tokens": 7}
        else:
            assert result.crimson_score != result.crimson_score
    attempts = {case: sum(f"Case {case} " in r.prompt for r in server.requests) for case in scripts}
    assert attempts == {
        **dict.fromkeys(scripts, 2),
        **dict.fromkeys(("limited", "crashed", "dropped", "slow"), 4),
        "dead": 6,
    }


def test_no_more_requests_in_flight_than_asked_for():
    with FaultServer(lambda request: completion(json.dumps(ANSWER), delay=0.05)) as server:
        judgements = dict(judge_at(server, concurrency=5).judge([pair(str(n)) for n in range(40)]))
    assert len(judgements) == 40 and server.most_at_once == 5


def test_closing_early_cancels_what_is_in_flight(monkeypatch):
    made, messages = [], Prompt.messages
    with FaultServer(lambda r: GOOD if "Case 0." in r.prompt else completion("{}", delay=30)) as server:
        judge = judge_at(server, concurrency=4)
        monkeypatch.setattr(Prompt, "messages", lambda prompt, pair: made.append(pair) or messages(prompt, pair))
        results = judge.judge([pair(str(n)) for n in range(1000)])
        assert next(results)[0] == 0
        assert len(threads()) == 1
        began = time.monotonic()
        results.close()
        assert time.monotonic() - began < 10 and not threads()
    assert 0 < len(made) <= 5 and len(server.requests) <= 5


def test_ctrl_c_ends_the_run():
    # a test run in the background ignores Ctrl-C
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    with FaultServer(lambda request: completion("{}", delay=30)) as server:
        timer = threading.Timer(0.5, os.kill, (os.getpid(), signal.SIGINT))
        timer.start()
        with pytest.raises(KeyboardInterrupt):
            CrimsonScorer(judge_at(server)).score([pair("a"), pair("b")])
        timer.join()
    signal.signal(signal.SIGINT, before)
    assert not threads()


def test_works_where_an_event_loop_runs_already():
    async def cell():
        with FaultServer(first(error(500))) as server:
            return dict(judge_at(server).judge([pair("a"), pair("b")]))

    judgements = asyncio.run(cell())
    assert all(judgement.evaluation is not None for judgement in judgements.values())


def test_a_judge_can_be_used_again():
    with FaultServer(refusing(formats=["json_object"])) as server:
        judge = judge_at(server)
        for _ in range(3):
            ((_, judgement),) = judge.judge([pair()])
            assert judgement.evaluation is not None
    assert len(server.requests) == 4  # the refusal is remembered


# Keys and reports stay inside


@pytest.mark.parametrize("status", [400, 401, 403, 404, 500])
def test_key_and_reports_appear_nowhere(status, caplog):
    for name in [*RUN_LOGGERS, "openai._base_client", "httpcore2.http11", "httpcore2.connection"]:
        caplog.set_level(logging.DEBUG, logger=name)
    caplog.set_level(logging.DEBUG)
    echo = f"{KEY} {SECRET_REPORT}"
    answer = Answer(status, {"error": {"message": echo, "type": SECRET_REPORT, "code": KEY, "param": echo}})
    with FaultServer(lambda request: answer) as server:
        judge = judge_at(server, base_url=server.url.replace("127", "user:pa55@127") + "?token=t0k", max_retries=1)
        shown = [repr(judge), str(judge), str(judge.signature())]
        try:
            ((_, judgement),) = judge.judge([ReportPair(SECRET_REPORT, SECRET_REPORT)])
            shown.append(judgement.failure)
        except JudgeError as caught:
            assert caught.__cause__ is None and caught.__context__ is None
            shown += [str(caught), repr(caught), "".join(traceback.format_exception(caught))]
            frames = traceback.TracebackException.from_exception(caught, capture_locals=True).stack
            ours = [frame for frame in frames if frame.filename.endswith(("/model.py", "/client.py"))]
            shown_locals = [str(frame.locals) for frame in ours]
            assert shown_locals and KEY not in "".join(shown_locals)
        shown.append(str(judge.signature()))
    shown += [record.getMessage() for record in caplog.records] + [caplog.text]
    for secret in (KEY, SECRET_REPORT, "Zebrafish", "pa55", "t0k"):
        assert not any(secret in text for text in shown), secret


def test_a_servers_words_are_shown_only_if_they_are_known():
    said = Answer(400, {"error": {"message": "", "type": "Zebrafish", "code": "pneumothorax"}})
    for answer in (said, completion(json.dumps(ANSWER), finish_reason="pneumothorax")):
        judgement, _, _ = judge_one(first(answer))
        assert "pneumothorax" not in judgement.failure and "Zebrafish" not in judgement.failure
    judgement, _, _ = judge_one(first(completion(json.dumps(ANSWER), finish_reason="content_filter")))
    assert "content_filter" in judgement.failure


def test_debug_logging_shows_no_request(caplog):
    caplog.set_level(logging.DEBUG)
    for name in RUN_LOGGERS:
        caplog.set_level(logging.DEBUG, logger=name)
    judge_one(first(error(500)))
    assert [r for r in caplog.records if r.name.split(".")[0] in RUN_LOGGERS] == []
    logging.getLogger("openai").debug("the caller's own use")
    assert "the caller's own use" in caplog.text


def test_the_served_model_is_shown_only_if_it_is_a_name():
    for name in ("x" * 200, f"model {SECRET_REPORT}", KEY, f"m-{KEY}"):
        body = GOOD.body | {"model": name}
        _, judge, _ = judge_one(lambda request, body=body: Answer(body=body))
        assert "revision" not in judge.signature()


# Set-up


def test_a_missing_key_is_named(monkeypatch):
    with pytest.raises(JudgeError, match="OPENAI_API_KEY"):
        openai_judge("gpt-5.2")
    with pytest.raises(JudgeError, match="OPENAI_API_KEY"):
        openai_judge("gpt-5.2", base_url="https://api.openai.com/v1")
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    assert load_judge("openai:gpt-5.2").signature()["host"] == "api.openai.com"


def test_a_key_that_cannot_be_sent_is_not_shown():
    keys = f"{KEY}\n{KEY}"
    with pytest.raises(JudgeError, match="OPENAI_API_KEY") as caught:
        openai_judge("m", api_key=keys)
    assert KEY not in "".join(traceback.format_exception(caught.value))


def test_environment_gives_key_and_base_url(monkeypatch):
    with FaultServer(first()) as server:
        monkeypatch.setenv("OPENAI_API_KEY", f"{KEY}\n")
        monkeypatch.setenv("OPENAI_BASE_URL", server.url)
        list(openai_judge("m").judge([pair()]))
    assert server.requests[0].headers["authorization"] == f"Bearer {KEY}"


def test_a_server_of_ones_own_needs_no_key():
    judgement, _, _ = judge_one(first(), api_key=None)
    assert judgement.evaluation is not None


@pytest.mark.parametrize(
    "options",
    [{"concurrency": 0}, {"concurrency": 2.5}, {"max_retries": -1}, {"timeout": 0}, {"max_output_tokens": 0}]
    + [{"base_url": "localhost:8000"}, {"base_url": "http://"}, {"base_url": "http://host:x/v1"}],
)
def test_bad_arguments_are_named(options):
    with pytest.raises(InputError, match=next(iter(options))):
        openai_judge("m", api_key=KEY, **options)


def test_a_missing_package_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "openai", None)
    with pytest.raises(JudgeError, match=r"crimson-metric\[openai\] @ git"):
        openai_judge("m", api_key=KEY)


@pytest.mark.parametrize("missing", ["AZURE_OPENAI_API_KEY", "AZURE_OPENAI_ENDPOINT", "OPENAI_API_VERSION"])
def test_azure_names_what_is_missing(monkeypatch, missing):
    values = {
        "AZURE_OPENAI_API_KEY": KEY,
        "AZURE_OPENAI_ENDPOINT": "https://resource.example",
        "OPENAI_API_VERSION": "2024-10-21",
    }
    for name in values.keys() - {missing}:
        monkeypatch.setenv(name, values[name])
    with pytest.raises(JudgeError, match=missing) as caught:
        load_judge("azure:my-deployment")
    assert KEY not in str(caught.value)
    monkeypatch.setenv(missing, values[missing])
    assert load_judge("azure:my-deployment").signature()["api_version"] == "2024-10-21"


def test_azure_asks_the_deployment():
    with FaultServer(refusing(pattern=False)) as server:
        judge = azure_judge(
            "my-deployment", endpoint=f"http://127.0.0.1:{server.port}", api_key=KEY, api_version="2024-10-21"
        )
        ((_, judgement),) = judge.judge([pair()])
    request = server.requests[-1]
    assert judgement.evaluation is not None
    assert request.path == "/openai/deployments/my-deployment/chat/completions?api-version=2024-10-21"
    assert request.headers["api-key"] == KEY
    assert judge.signature()["judge"] == "azure"
    assert judge.signature()["output"] == "json_schema-without-pattern"


def test_azure_errors_name_azures_variables():
    for status, words in ((401, "AZURE_OPENAI_API_KEY"), (404, "AZURE_OPENAI_ENDPOINT")):
        with FaultServer(lambda request, status=status: error(status, "DeploymentNotFound")) as server:
            url = f"http://127.0.0.1:{server.port}"
            judge = azure_judge("d", endpoint=url, api_key=KEY, api_version="2024-10-21")
            with pytest.raises(JudgeError, match=words):
                list(judge.judge([pair()]))


def test_servers_on_one_host_are_told_apart():
    def signature(base_url):
        return openai_judge("some-model", base_url=base_url, api_key=KEY).signature()

    urls = [
        "http://localhost/v1",
        "http://localhost:8000/v1",
        "http://localhost:8001/v1",
        "http://localhost:8001/other",
    ]
    told = [signature(url).get("url") for url in urls]
    assert told[0] is None and len(set(told)) == len(urls)
    assert signature("http://me:secret@localhost:8000/v1/?token=1") == signature(urls[1]), "who asks does not matter"
