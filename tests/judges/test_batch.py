"""Questions in batches: what is asked, what a stop at any point leaves, and what fails."""

import json

import pytest
from batch_server import BatchServer
from fault_server import completion

from crimson_core.errors import JudgeError
from crimson_core.judges import load_judge
from crimson_core.judges.engines.batch import BatchesPending, Batching
from crimson_core.judges.engines.client import Form, Question, load_chat
from crimson_core.protocol.pair import ReportPair

FORM = Form("answer", {"type": "object"})


@pytest.fixture(autouse=True)
def _key(monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "sk-x")


def echo(body):
    """Answers with the question."""
    return {"body": completion(body["messages"][-1]["content"]).body}


def question(text):
    return Question([{"role": "user", "content": text}], seed=1)


def chat(server, folder, *, wait=True, spec="openai:m", **options):
    if spec.startswith("openai"):
        options |= {"base_url": server.url}
    return load_chat(spec, max_retries=0, batch=Batching(folder, wait, every=0.01), **options)


def texts(answers):
    return {index: answer.text for index, answer in answers}


def failures(answers):
    return {index: answer.failure for index, answer in answers}


@pytest.mark.parametrize("spec", ["openai:m", "azure:m"])
def test_answers_belong_to_their_questions(tmp_path, spec):
    with BatchServer(echo) as server:
        options = {"endpoint": server.host, "api_version": "1", "api_key": "k"} if spec == "azure:m" else {}
        one = chat(server, tmp_path, spec=spec, **options)
        assert texts(one.ask(map(question, "abca"), FORM)) == {0: "a", 1: "b", 2: "c", 3: "a"}
        assert len(server.batches) == 1 and len(server.asked) == 3  # the same question is bought once
        assert server.asked[0]["model"] == "m" and server.asked[0]["response_format"]["type"] == "json_schema"
        assert one.signature()["revision"] == "served-model-2026-01-01"


def test_many_questions_are_several_batches(tmp_path, monkeypatch):
    monkeypatch.setattr("crimson_core.judges.engines.batch._MOST_REQUESTS", 2)
    with BatchServer(echo) as server:
        assert texts(chat(server, tmp_path).ask(map(question, "abcde"), FORM)) == dict(enumerate("abcde"))
        assert len(server.batches) == 3
        monkeypatch.setattr("crimson_core.judges.engines.batch._MOST_BYTES", 1)
        assert texts(chat(server, tmp_path).ask(map(question, "fg"), FORM)) == dict(enumerate("fg"))
        assert len(server.batches) == 5


def test_who_does_not_wait_collects_later(tmp_path):
    with BatchServer(echo, looks=2) as server:
        with pytest.raises(BatchesPending, match="2 requests are waiting in batches at 127.0.0.1"):
            list(chat(server, tmp_path, wait=False).ask(map(question, "ab"), FORM))
        answers = chat(server, tmp_path).ask(map(question, "abc"), FORM)  # one more than before
        assert texts(answers) == dict(enumerate("abc"))
        assert [body["messages"][0]["content"] for body in server.asked] == ["a", "b", "c"]


def test_what_was_not_kept_comes_again_and_is_not_bought_again(tmp_path):
    with BatchServer(echo) as server:
        answers = chat(server, tmp_path).ask(map(question, "abc"), FORM)
        first, _ = next(answers)
        second, _ = next(answers)  # the first is kept by now, the second may not be
        answers.close()
        left = [index for index in range(3) if index != first]
        again = texts(chat(server, tmp_path).ask([question("abc"[index]) for index in left], FORM))
        assert sorted(again.values()) == sorted("abc"[index] for index in left) and len(server.asked) == 3
        assert second in left


def test_follow_ups_are_further_batches_and_survive_a_stop(tmp_path):
    def follow_up(index, answer):
        return question(answer.text + "!") if len(answer.text) < 3 else None

    with BatchServer(echo, looks=1) as server:
        pending = 0
        while True:
            try:
                answers = texts(chat(server, tmp_path, wait=False).ask(map(question, "ab"), FORM, follow_up))
                break
            except BatchesPending:
                pending += 1
        assert answers == {0: "a!!", 1: "b!!"} and pending >= 0
        assert len(server.asked) == 6 and len(server.batches) == 3


@pytest.mark.parametrize("fault", ["drop", 500])
@pytest.mark.parametrize("taken", [True, False])
def test_a_batch_of_which_nobody_knows_whether_it_was_made_is_not_made_twice(tmp_path, fault, taken):
    with BatchServer(echo) as server:
        server.taken = taken
        server.fault = lambda method, path: fault if (method, path) == ("POST", "/batches") else None
        asking = lambda: texts(chat(server, tmp_path).ask(map(question, "ab"), FORM))  # noqa: E731
        if taken:
            assert asking() == dict(enumerate("ab"))
        else:
            with pytest.raises(JudgeError, match="did not create a batch"):
                asking()
            server.fault = lambda method, path: None
            assert asking() == dict(enumerate("ab"))
        assert len(server.asked) == 2


def test_a_kill_while_a_batch_is_made(tmp_path, monkeypatch):
    from crimson_core.judges.engines import batch

    with BatchServer(echo) as server:
        monkeypatch.setattr(batch._Ledger, "sent", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            list(chat(server, tmp_path).ask(map(question, "ab"), FORM))
        monkeypatch.undo()
        monkeypatch.setenv("OPENAI_API_KEY", "sk-x")
        assert len(server.batches) == 1
        assert texts(chat(server, tmp_path).ask(map(question, "ab"), FORM)) == dict(enumerate("ab"))
        assert len(server.batches) == 1


@pytest.mark.parametrize(
    "ends, why",
    [
        ("failed", "batch batch-0 has failed, token_limit_exceeded"),
        ("expired", "batch batch-0 has expired"),
        ("cancelled", "batch batch-0 was cancelled"),
        ("completed", "batch batch-0 came back without it"),
    ],
)
def test_what_a_batch_does_not_give_back_is_named_and_can_be_asked_again(tmp_path, ends, why):
    half = lambda body: echo(body) if body["messages"][0]["content"] == "a" else None  # noqa: E731
    with BatchServer(half) as server:
        server.ends = ends
        answers = dict(chat(server, tmp_path).ask(map(question, "ab"), FORM))
        assert answers[1].failure == why and answers[1].usage == {}
        assert answers[0].text == (None if ends == "failed" else "a")
        server.ends, server._answer = "completed", echo
        assert texts(chat(server, tmp_path).ask([question("b")], FORM)) == {0: "b"}


def test_what_a_server_refuses_is_left_out_in_the_next_batch(tmp_path):
    def script(body):
        if "temperature" in body:
            error = {
                "message": "Unsupported value",
                "type": "invalid_request_error",
                "param": "temperature",
                "code": "x",
            }
            return {"status": 400, "body": {"error": error}}
        return echo(body)

    with BatchServer(script) as server:
        one = chat(server, tmp_path)
        assert texts(one.ask(map(question, "ab"), FORM)) == dict(enumerate("ab"))
        assert len(server.batches) == 2 and one.signature()["temperature"] == "default"


def test_what_is_wrong_with_one_request_is_a_failed_answer(tmp_path):
    def script(body):
        return {
            "status": {"a": 400, "b": 401, "c": 500}[body["messages"][0]["content"]],
            "body": {"error": {"code": "server_error"}},
        }

    with BatchServer(script) as server:
        told = failures(chat(server, tmp_path).ask(map(question, "abc"), FORM))
        assert [told[index] for index in range(3)] == [
            "the server answered HTTP 400, server_error",
            "the server answered HTTP 401",
            "the server answered HTTP 500, server_error",
        ]


@pytest.mark.parametrize("method, path", [("POST", "/files"), ("POST", "/batches"), ("GET", "/batches/batch-0")])
def test_a_server_without_batches_is_one_message(tmp_path, method, path):
    with BatchServer(echo) as server:
        server.fault = lambda *call: 404 if call == (method, path) else None
        with pytest.raises(JudgeError, match=r"127.0.0.1 refuses batches \(HTTP 404\)") as raised:
            list(chat(server, tmp_path).ask([question("a")], FORM))
        assert "secret" not in str(raised.value)
        server.fault = lambda *call: None
        assert texts(chat(server, tmp_path).ask([question("a")], FORM)) == {0: "a"}
        assert len(server.batches) == 1


def test_a_judge_asks_in_batches(tmp_path):
    empty = {"reference_findings": [], "predicted_findings": [], "matched_findings": []}
    errors = {"false_findings": [], "missing_findings": [], "attribute_errors": []}
    with BatchServer(lambda body: {"body": completion(json.dumps(empty | {"errors": errors})).body}) as server:
        judge = load_judge("openai:m", base_url=server.url, batch=Batching(tmp_path, every=0.01), request={"x": 1})
        judged = dict(judge.judge([ReportPair("a", "b"), ReportPair("c", "d")]))
        assert all(judged[index].evaluation for index in range(2))
        assert len(server.asked) == 2 and all(body["x"] == 1 for body in server.asked)
