"""The API judges against a real server: `transformers serve` with real weights."""

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time

import pytest
from api import pair

from crimson_core.errors import JudgeError
from crimson_core.judges.engines.openai import openai_judge
from crimson_core.protocol.pair import parse_context
from crimson_core.protocol.prompt import Prompt
from crimson_core.run.scorer import CrimsonScorer

# That base model was never trained on the task, so its answers are no evaluations; what must hold is that requests,
# usage and texts go through.

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
    judge = openai_judge(str(gemma_folder), base_url=real_server, max_output_tokens=MOST_TOKENS, concurrency=2)
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
    judge = openai_judge(str(tmp_path / "nothing"), base_url=real_server, max_retries=0)
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
