"""An API judge at a server of faults, and what the server says."""

import json
import threading

from fault_server import FaultServer, completion, error

from crimson_core.judges.engines.openai import openai_judge
from crimson_core.protocol.pair import ReportPair

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


def pair(case="a", **more):
    return ReportPair("Small right pleural effusion.", f"Right pleural effusion. Case {case}.", **more)


def judge_at(server, **options):
    return openai_judge("some-model", **({"base_url": server.url, "api_key": KEY, "max_retries": 2} | options))


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
