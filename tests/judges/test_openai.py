"""The API judges against a server of faults, and against crimson-score's own request."""

import email.utils
import json
import socket
import time
from importlib.metadata import version

import pytest
from api import ANSWER, GOOD, KEY, first, judge_at, judge_one, pair, refusing, threads
from fault_server import Answer, FaultServer, completion, error

from crimson_core.errors import JudgeError
from crimson_core.judges import Judge
from crimson_core.judges.engines.openai import openai_judge
from crimson_core.protocol.pair import parse_context
from crimson_core.run.scorer import CrimsonScorer

# What goes well


def test_an_answer_becomes_an_evaluation_with_usage_and_raw_output():
    judgement, judge, (request,) = judge_one(first())
    assert judgement.evaluation.model_dump() == ANSWER
    assert judgement.raw_output == json.dumps(ANSWER)
    assert judgement.usage == {"prompt_tokens": 11, "completion_tokens": 7}
    assert judgement.failure is None and judgement.repairs == []
    assert request.path == "/v1/chat/completions" and request.headers["authorization"] == f"Bearer {KEY}"
    assert isinstance(judge, Judge)
    assert judge.signature() | {"openai": "-", "url": "-"} == {
        "judge": "openai",
        "model": "some-model",
        "revision": "served-model-2026-01-01",
        "host": "127.0.0.1",
        "prompt": f"reference-delimited,crimson-score-{version('crimson-score')}",
        "output": "json_schema",
        "temperature": "0",
        "seed": "42",
        "openai": "-",
        "url": "-",
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
        list(judge_at(server, guidelines=guidelines, delimited=False).judge([ours]))
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
        (Answer(200, "<html>welcome</html>"), "the server's answer is not a chat completion", None),
        (Answer(200, {"choices": []}), "the server's answer is not a chat completion", None),
        (Answer(200, {"choices": None}), "the server's answer is not a chat completion", None),
        (Answer(200, "null"), "the server's answer is not a chat completion", None),
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
        judge = openai_judge(
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
        judgements = dict(judge.judge([forged, pair("b" * 100)]))  # the longer one comes last
    assert judgements[0].failure == "the server answered HTTP 400, invalid_request_error"
    assert judgements[1].evaluation is not None
    assert "response_format" in server.requests[-1].body and "temperature" in server.requests[-1].body
    assert judge.signature()["output"] == "json_schema" and judge.signature()["temperature"] == "0"
