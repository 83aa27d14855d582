"""The API judges against a server of faults, against crimson-score's own request, and against a real server."""

import asyncio
import contextlib
import email.utils
import json
import logging
import os
import signal
import socket
import subprocess
import sys
import threading
import time
import traceback
from importlib.metadata import version

import pytest
from fault_server import Answer, FaultServer, completion, error

from crimson_core.errors import InputError, JudgeError
from crimson_core.judges import Judge, load_judge
from crimson_core.judges.engines.openai import AzureJudge, OpenAIJudge
from crimson_core.protocol.pair import ReportPair, parse_context
from crimson_core.protocol.prompt import Prompt
from crimson_core.run.scorer import CrimsonScorer

KEY = "sk-test-8f2e6b1c9d"
SECRET_REPORT = "Zebrafish-shaped opacity over the left hilum."
ANSWER = {
    "reference_findings": [
        {"id": "R1", "finding": "right pleural effusion", "clinical_significance": "actionable_not_urgent"}
    ],
    "predicted_findings": [
        {"id": "P1", "finding": "right pleural effusion", "clinical_significance": "actionable_not_urgent"}
    ],
    "matched_findings": [{"ref_id": "R1", "pred_id": "P1"}],
    "errors": {"false_findings": [], "missing_findings": [], "attribute_errors": []},
}
GOOD = completion(json.dumps(ANSWER))
# R1 is matched and missing at once, P9 exists nowhere: the matches win, the score is that of ANSWER.
INCONSISTENT = ANSWER | {"errors": {"false_findings": ["P9"], "missing_findings": ["R1"], "attribute_errors": []}}
RUN_LOGGERS = ("openai", "httpx", "httpx2", "httpcore", "httpcore2")


@pytest.fixture(autouse=True)
def environment(monkeypatch):
    for name in ("OPENAI_API_KEY", "OPENAI_BASE_URL", "AZURE_OPENAI_API_KEY", "AZURE_OPENAI_ENDPOINT"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.delenv("OPENAI_API_VERSION", raising=False)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")


def pair(case="a", **more):
    return ReportPair("Small right pleural effusion.", f"Right pleural effusion. Case {case}.", **more)


def judge_at(server, **options):
    return OpenAIJudge("some-model", **({"base_url": server.url, "api_key": KEY, "max_retries": 2} | options))


def judge_one(script, **options):
    """What becomes of one pair, the judge and the requests that it took."""
    with FaultServer(script) as server:
        judge = judge_at(server, **options)
        ((index, judgement),) = judge.judge([pair()])
    assert index == 0
    return judgement, judge, server.requests


def first(*answers):
    """A script: these answers to a prompt's first requests, good ones afterwards."""
    return lambda request: answers[request.attempt] if request.attempt < len(answers) else GOOD


def threads():
    return [thread for thread in threading.enumerate() if thread.name == "crimson-openai"]


# What goes well


def test_an_answer_becomes_an_evaluation_with_usage_and_raw_output():
    judgement, judge, (request,) = judge_one(first())
    assert judgement.evaluation.model_dump() == ANSWER
    assert judgement.raw_output == json.dumps(ANSWER)
    assert judgement.usage == {"prompt_tokens": 11, "completion_tokens": 7}
    assert judgement.failure is None and judgement.repairs == []
    assert request.path == "/v1/chat/completions" and request.headers["authorization"] == f"Bearer {KEY}"
    assert isinstance(judge, Judge)
    assert judge.signature() | {"openai": "-"} == {
        "judge": "openai",
        "model": "some-model",
        "revision": "served-model-2026-01-01",
        "host": "127.0.0.1",
        "prompt": f"reference,crimson-score-{version('crimson-score')}",
        "output": "json_schema",
        "temperature": "0",
        "seed": "42",
        "openai": "-",
    }


@pytest.mark.parametrize(
    ("told", "cost"), [(0.0125, 0.0125), (0, 0.0), ("0.1", None), ({"total": 1}, None), (None, None)]
)
def test_a_server_may_tell_the_cost(told, cost):
    answer = completion(json.dumps(ANSWER))
    answer.body["usage"]["cost"] = told
    judgement, _, _ = judge_one(first(answer))
    assert judgement.cost == cost
    assert judgement.usage == {"prompt_tokens": 11, "completion_tokens": 7}


def test_judgements_are_kept_under_what_is_asked_and_with_what_was_answered(tmp_path):
    with FaultServer(refusing(temperature=False)) as server:
        fresh, path = judge_at(server), tmp_path / "s"
        asked = fresh.signature()
        scorer = CrimsonScorer(fresh, store=path)
        assert scorer.score([pair("a")])[0].score
        told = scorer.signature
        assert "revision:served-model-2026-01-01" in told and "temperature:default" in told
        assert fresh.asked_signature() == asked != fresh.signature()
        requests = len(server.requests)
        for judge in (fresh, judge_at(server)):  # the second knows nothing of the answers
            again = CrimsonScorer(judge, store=path)
            assert again.score([pair("a")])[0].from_store
            assert again.signature == told
        assert len(server.requests) == requests


def test_structured_output_is_strict_and_unbounded():
    _, _, (request,) = judge_one(first())
    form = request.body["response_format"]
    assert form["type"] == "json_schema" and form["json_schema"]["strict"] is True
    text = json.dumps(form["json_schema"]["schema"])
    assert "maxItems" not in text and "maxLength" not in text
    assert "max_tokens" not in request.body


@pytest.mark.parametrize("guidelines", [True, False])
@pytest.mark.parametrize("context", [None, {"age": "65", "sex": "F", "indication": "cough"}, {"Indication": "fever"}])
def test_request_equals_the_reference_implementations(context, guidelines):
    from CRIMSON import CRIMSONScore

    class Sent(Exception):
        pass

    class StandIn:
        @property
        def chat(self):
            return self

        completions = chat

        def create(self, **request):
            raise Sent(request)

    theirs = object.__new__(CRIMSONScore)
    theirs.api, theirs.model_name, theirs.client = "openai", "some-model", StandIn()
    ours = pair(context=parse_context(context, "context"))
    prompt = theirs._build_evaluation_prompt(ours.reference, ours.candidate, context, include_guidelines=guidelines)
    with pytest.raises(Sent) as sent:
        theirs._chat_completion(prompt)
    (expected,) = sent.value.args

    with FaultServer(first()) as server:
        list(judge_at(server, guidelines=guidelines).judge([ours]))
    (request,) = server.requests
    assert expected.pop("response_format") == {"type": "json_object"}
    assert {key: value for key, value in request.body.items() if key != "response_format"} == expected


# What is sent again


@pytest.mark.parametrize(
    "fault",
    [
        error(408),
        error(409),
        error(429),
        error(500),
        error(503),
        Answer(drop="before"),
        completion(json.dumps(ANSWER), drop="in the middle"),
        completion(json.dumps(ANSWER), delay=3.0),
    ],
    ids=["408", "409", "429", "500", "503", "dropped", "dropped in the middle", "slow"],
)
def test_a_passing_fault_is_tried_again(fault):
    judgement, _, requests = judge_one(first(fault), timeout=0.7)
    assert judgement.evaluation is not None and len(requests) == 2


def test_backoff_grows():
    _, _, requests = judge_one(first(error(500), error(500), error(500)), max_retries=3)
    gaps = [later.time - earlier.time for earlier, later in zip(requests, requests[1:], strict=False)]
    assert 0.3 < gaps[0] < gaps[1] < gaps[2]


@pytest.mark.parametrize("form", ["seconds", "date"])
def test_retry_after_is_honoured(form):
    # two seconds are beyond the first backoff of half a second; a date is in whole seconds
    value = "2" if form == "seconds" else email.utils.formatdate(time.time() + 4, usegmt=True)
    judgement, _, (refused, accepted) = judge_one(first(error(429, "rate_limit_exceeded", retry_after=value)))
    assert judgement.evaluation is not None
    assert accepted.time - refused.time >= 2.0


def test_a_retry_after_beyond_all_patience_is_not_cut_short():
    judgement, _, requests = judge_one(first(error(429, "rate_limit_exceeded", retry_after="3600")))
    assert judgement.failure == "the server answered HTTP 429, rate_limit_exceeded" and len(requests) == 1


@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        (error(500, "server_error"), "the server answered HTTP 500, server_error"),
        (Answer(502, "<html>bad gateway</html>"), "the server answered HTTP 502"),
        (Answer(drop="before"), "the connection broke, asked 2 times"),
        (completion("{}", delay=3.0), "no answer within 0.5 s, asked 2 times"),
    ],
)
def test_a_lasting_fault_is_a_failure(fault, reason):
    judgement, _, requests = judge_one(lambda request: fault, max_retries=1, timeout=0.5)
    assert judgement.failure == reason and judgement.evaluation is None
    assert len(requests) == 2


# What is not sent again


@pytest.mark.parametrize(
    ("answer", "reason", "raw"),
    [
        (error(400, "context_length_exceeded"), "the server answered HTTP 400, context_length_exceeded", None),
        (Answer(422, {"detail": "no"}), "the server answered HTTP 422", None),
        (completion("{", finish_reason="stop"), "the output ends before its JSON does", "{"),
        (completion("[1, 2"), "the output holds no JSON object", "[1, 2"),
        (completion(json.dumps({"matched_findings": []})), "the output lacks reference_findings", None),
        (completion(json.dumps(ANSWER | {"errors": 3})), "the output does not fit the format at errors", None),
        (completion(json.dumps(ANSWER)[:-40], finish_reason="length"), "the output was cut", None),
        # A whole evaluation, and yet cut: nobody knows what would have come.
        (completion(json.dumps(ANSWER), finish_reason="length"), "the output was cut", json.dumps(ANSWER)),
        (completion(json.dumps(ANSWER), finish_reason="content_filter"), "the output was not finished", None),
        (completion(json.dumps(ANSWER)[:-40], finish_reason=None), "the output ends before its JSON does", None),
        (completion(json.dumps(ANSWER).replace("}]", "},]"), finish_reason=None), "the output is no valid JSON", None),
        (completion(None), "the output is empty", None),
        (completion(" \n"), "the output is empty", None),
        (completion(None, refusal="I cannot."), "the model refused to answer", "I cannot."),
        (Answer(200, "<html>welcome</html>"), "the server's answer is no chat completion", None),
        (Answer(200, {"choices": []}), "the server's answer is no chat completion", None),
        (Answer(200, {"choices": None}), "the server's answer is no chat completion", None),
        (Answer(200, "null"), "the server's answer is no chat completion", None),
    ],
)
def test_what_is_no_evaluation_is_a_failure_at_once(answer, reason, raw):
    judgement, _, requests = judge_one(lambda request: answer)
    assert judgement.evaluation is None and judgement.failure.startswith(reason)
    assert raw is None or judgement.raw_output == raw
    assert len(requests) == 1


def test_cut_output_keeps_its_text_and_usage():
    judgement, _, _ = judge_one(first(completion('{"reference_findings": [', finish_reason="length")))
    assert judgement.raw_output == '{"reference_findings": ['
    assert judgement.usage == {"prompt_tokens": 11, "completion_tokens": 7}


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        (error(401, "invalid_api_key"), ["OPENAI_API_KEY", "HTTP 401, invalid_api_key"]),
        (error(403), ["OPENAI_API_KEY", "'some-model'", "HTTP 403"]),
        (error(404, "model_not_found"), ["'some-model'", "base_url", "HTTP 404, model_not_found"]),
    ],
)
def test_a_wrong_set_up_stops_the_run(fault, words):
    with FaultServer(lambda request: fault if "Case b." in request.prompt else GOOD) as server:
        results, kept = judge_at(server, concurrency=1).judge([pair("a"), pair("b"), pair("c")]), []
        with pytest.raises(JudgeError) as caught:
            for result in results:
                kept.append(result)
    assert [index for index, _ in kept] == [0]
    assert all(word in str(caught.value) for word in words)
    assert len(server.requests) == 2 and not threads()


def test_an_empty_account_stops_the_run():
    with FaultServer(lambda _: error(429, "insufficient_quota")) as server:
        with pytest.raises(JudgeError, match=r"OPENAI_API_KEY.*no credit left \(HTTP 429, insufficient_quota\)"):
            list(judge_at(server, concurrency=1, max_retries=0).judge([pair("a"), pair("b")]))
        assert len(server.requests) == 1
    assert not threads()


def test_a_server_that_cannot_be_reached_stops_the_run():
    with socket.socket() as unused:  # bound, never listening
        unused.bind(("127.0.0.1", 0))
        judge = OpenAIJudge(
            "m", base_url=f"http://127.0.0.1:{unused.getsockname()[1]}/v1", max_retries=1, concurrency=2
        )
        kept = []
        with pytest.raises(JudgeError, match="127.0.0.1 cannot be reached.*base_url"):
            kept.extend(judge.judge([pair(str(n)) for n in range(50)]))
    assert not threads()


def test_a_server_that_goes_away_later_fails_pairs():
    server = FaultServer(first())
    with server:
        results = judge_at(server, concurrency=1, max_retries=0).judge([pair(str(n)) for n in range(4)])
        assert next(results)[1].evaluation is not None
    later = [judgement.failure for _, judgement in results]
    assert len(later) == 3 and later[-1] == "127.0.0.1 cannot be reached, tried 1 times"


# What a server refuses of the request


def refusing(**taken):
    """A server that answers 400 for what `taken` tells of the request, in OpenAI's words."""

    def script(request):
        body = request.body
        for name in ("temperature", "seed", "max_tokens"):
            if name in taken and name in body:
                return error(400, "unsupported_value", param=name, message=f"Unsupported value: '{name}'.")
        kind = body.get("response_format", {}).get("type")
        if kind and kind not in taken.get("formats", (kind,)):
            return error(400, param="response_format", message=f"'{kind}' is not supported with this model.")
        if taken.get("pattern") is False and "'pattern'" in str(body.get("response_format")):
            return error(400, param="response_format", message="Invalid schema: 'pattern' is not permitted.")
        return GOOD

    return script


@pytest.mark.parametrize(
    ("taken", "signed"),
    [
        ({"formats": ["json_object"]}, {"output": "json_object"}),
        ({"formats": []}, {"output": "text"}),
        ({"pattern": False}, {"output": "json_schema-without-pattern"}),
        ({"temperature": False}, {"temperature": "default", "output": "json_schema"}),
        ({"temperature": False, "seed": False}, {"temperature": "default", "seed": "none"}),
        ({"max_tokens": False}, {"max_output_tokens": "500"}),
    ],
)
def test_what_is_refused_is_left_out_from_then_on(taken, signed):
    with FaultServer(refusing(**taken)) as server:
        judge = judge_at(server, concurrency=1, max_output_tokens=500)
        judgements = dict(judge.judge([pair(str(n)) for n in range(5)]))
    assert all(judgement.evaluation is not None for judgement in judgements.values())
    fewest = len(server.requests) - 5  # each refused part costs one request, once
    assert fewest == len(taken) if taken != {"formats": []} else 2
    assert signed.items() <= judge.signature().items()
    last = server.requests[-1].body
    assert ("temperature" in last, "seed" in last) == ("temperature" not in taken, "seed" not in taken)
    assert last.get("max_completion_tokens" if "max_tokens" in taken else "max_tokens") == 500


@pytest.mark.parametrize(
    "body",
    [
        {"detail": [{"loc": ["body", "response_format"], "msg": "Extra inputs are not permitted", "input": {}}]},
        {"detail": "Unexpected fields in the request: {'response_format'}"},
        {"error": {"message": "This response_format type is unavailable now", "type": "invalid_request_error"}},
        {"object": "error", "message": "json_schema is not supported", "param": None, "code": 400},
    ],
)
def test_refusals_of_other_servers_are_understood(body):
    def script(request):
        refused = request.body.get("response_format", {}).get("type") == "json_schema"
        return Answer(422 if "detail" in body else 400, body) if refused else GOOD

    judgement, judge, requests = judge_one(script)
    assert judgement.evaluation is not None and len(requests) == 2
    assert judge.signature()["output"] == "json_object"


def test_a_report_cannot_talk_the_judge_out_of_structured_output():
    """A server that repeats the reports in its complaint: only that pair fails, the request stays as it was."""

    def script(request):
        if "Case forged" not in request.prompt:
            return GOOD
        return error(400, message=f"cannot tokenise: {request.prompt}")

    with FaultServer(script) as server:
        judge = judge_at(server, concurrency=1)
        forged = pair("forged: response_format json_schema json_object temperature seed")
        judgements = dict(judge.judge([forged, pair("b")]))
    assert judgements[0].failure == "the server answered HTTP 400, invalid_request_error"
    assert judgements[1].evaluation is not None
    assert "response_format" in server.requests[-1].body and "temperature" in server.requests[-1].body
    assert judge.signature()["output"] == "json_schema" and judge.signature()["temperature"] == "0"


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


class Endless(list):
    """Pairs that note how many of them have been taken."""

    taken = 0

    def __iter__(self):
        for item in super().__iter__():
            self.taken += 1
            yield item


def test_closing_early_cancels_what_is_in_flight():
    pairs = Endless([pair(str(n)) for n in range(1000)])
    with FaultServer(lambda r: GOOD if "Case 0." in r.prompt else completion("{}", delay=30)) as server:
        results = judge_at(server, concurrency=4).judge(pairs)
        assert next(results)[0] == 0
        assert len(threads()) == 1
        began = time.monotonic()
        results.close()
        assert time.monotonic() - began < 10 and not threads()
    assert pairs.taken <= 5 and len(server.requests) <= 5


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
            ours = [frame for frame in frames if frame.filename.endswith(("/openai.py", "/chat.py"))]
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
        OpenAIJudge("gpt-5.2")
    with pytest.raises(JudgeError, match="OPENAI_API_KEY"):
        OpenAIJudge("gpt-5.2", base_url="https://api.openai.com/v1")
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    assert load_judge("openai:gpt-5.2").signature()["host"] == "api.openai.com"


def test_a_key_that_cannot_be_sent_is_not_shown():
    keys = f"{KEY}\n{KEY}"
    with pytest.raises(JudgeError, match="OPENAI_API_KEY") as caught:
        OpenAIJudge("m", api_key=keys)
    assert KEY not in "".join(traceback.format_exception(caught.value))


def test_environment_gives_key_and_base_url(monkeypatch):
    with FaultServer(first()) as server:
        monkeypatch.setenv("OPENAI_API_KEY", f"{KEY}\n")
        monkeypatch.setenv("OPENAI_BASE_URL", server.url)
        list(OpenAIJudge("m").judge([pair()]))
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
        OpenAIJudge("m", api_key=KEY, **options)


def test_a_missing_package_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "openai", None)
    with pytest.raises(JudgeError, match=r"crimson-metric\[openai\] @ git"):
        OpenAIJudge("m", api_key=KEY)


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
        judge = AzureJudge(
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
            judge = AzureJudge("d", endpoint=url, api_key=KEY, api_version="2024-10-21")
            with pytest.raises(JudgeError, match=words):
                list(judge.judge([pair()]))


# A real server: `transformers serve` with real weights. That base model was never trained on the task, so its answers are
# no evaluations; what must hold is that requests, usage and texts go through.

MOST_TOKENS = 16


@pytest.fixture(scope="session")
def real_server(gemma_folder, tmp_path_factory):
    """Base URL of an OpenAI-compatible server that has the checkpoint's folder as a model."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-c", "from transformers.cli.transformers import main; main()", "serve"]
    command += ["--host", "127.0.0.1", "--port", str(port), "--device", "cpu"]
    command += ["--dtype", "float32"]  # few CPUs have units for bf16
    log = tmp_path_factory.mktemp("server") / "log"
    with log.open("w") as output:
        server = subprocess.Popen(
            command, stdout=output, stderr=output, env=os.environ | {"HF_HUB_OFFLINE": "1"}, start_new_session=True
        )
    try:
        end = time.monotonic() + 90
        while True:
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
                break
            if server.poll() is not None or time.monotonic() > end:
                pytest.fail(f"transformers serve did not start:\n{log.read_text()[-2000:]}")
            time.sleep(0.2)
        yield f"http://127.0.0.1:{port}/v1"
    finally:
        os.killpg(server.pid, signal.SIGTERM)
        try:
            server.wait(10)
        except subprocess.TimeoutExpired:
            os.killpg(server.pid, signal.SIGKILL)
            server.wait()


@pytest.mark.parametrize(
    ("prompt", "cases"),
    [
        (Prompt(guidelines=False), ["a"]),
        (Prompt(style="compact"), ["a", "b", "c", "d"]),
    ],  # the long one takes 15 s each
    ids=str,
)
def test_a_real_server_answers_every_pair(real_server, gemma_folder, prompt, cases):
    context = parse_context({"age": "65", "indication": "cough"}, "context")
    pairs = [pair(case, context=context if case == "b" else None) for case in cases]
    judge = OpenAIJudge(str(gemma_folder), base_url=real_server, max_output_tokens=MOST_TOKENS, concurrency=2)
    judge.prompt = prompt
    results = CrimsonScorer(judge).score(pairs)

    assert [result.index for result in results] == list(range(len(cases)))
    expected = greedy(gemma_folder, [prompt.messages(one) for one in pairs])
    for result, (text, prompt_tokens, completion_tokens) in zip(results, expected, strict=True):
        assert result.score is None and result.failure.startswith("the output ")
        assert ("was cut" in result.failure) == (completion_tokens == MOST_TOKENS)
        assert result.usage == {"prompt_tokens": prompt_tokens, "completion_tokens": completion_tokens}
        assert result.raw_output == text
    assert judge.signature()["prompt"] == str(prompt)


def test_a_real_server_without_the_model_stops_or_fails_every_pair(real_server, tmp_path):
    judge = OpenAIJudge(str(tmp_path / "nothing"), base_url=real_server, max_retries=0)
    try:
        failures = [result.failure for result in CrimsonScorer(judge).score([pair("a"), pair("b")])]
    except JudgeError as stopped:
        failures = [str(stopped)]
    assert all("HTTP" in failure for failure in failures)


def greedy(folder, conversations):
    """Text, prompt tokens and completion tokens of plain greedy decoding, without any server."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    done = []
    for messages in conversations:
        inputs = tokenizer.apply_chat_template(
            messages, add_generation_prompt=True, return_tensors="pt", return_dict=True
        )
        length = inputs["input_ids"].shape[1]
        with torch.inference_mode():
            output = model.generate(**inputs, max_new_tokens=MOST_TOKENS, do_sample=False)
        answer = output[0, length:]
        done.append((tokenizer.decode(answer, skip_special_tokens=True), length, len(answer)))
    return done
