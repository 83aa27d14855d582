"""The API judges: models behind OpenAI's chat completions, on Azure, or on any OpenAI-compatible server.

The request is the reference implementation's (same messages, seed 42, temperature 0), with structured output where the
server has it; see `crimson_core.judges.engines.client` for what becomes of a request.
"""

from collections.abc import Generator, Sequence
from contextlib import closing
from dataclasses import replace
from typing import Any

from crimson_core.judges.base import Judgement
from crimson_core.judges.engines.batch import Batching
from crimson_core.judges.engines.client import Answer, Chat, Form, Question
from crimson_core.judges.engines.servers import Server, azure_server, openai_server
from crimson_core.protocol.evaluation import evaluation_schema
from crimson_core.protocol.pair import ReportPair
from crimson_core.protocol.prompt import prompt_for

_SEED = 42  # the reference implementation's


class OpenAIJudge:
    """Asks a model of OpenAI, or of any OpenAI-compatible server.

    What `crimson_core.judges.engines.client.Chat` says of questions holds for report pairs: a passing fault is tried again, a lasting one is
    a failed judgement, and what will not work for any pair stops the run.

    Args:
        model: The model's name on the server.
        base_url: Where the API is, usually ending in /v1; by default OPENAI_BASE_URL, else OpenAI's own.
        api_key: By default OPENAI_API_KEY. A server other than OpenAI's may go without one.
        concurrency: Most requests in flight at a time.
        max_retries: How often a failed request is sent again.
        timeout: Seconds to wait for an answer.
        guidelines: Whether the prompt holds the guidelines; None is the default for this model.
        max_output_tokens: Longest answer; None leaves it to the server. A longer answer is a failed judgement.
        request: Whatever else a request is to hold, such as {"reasoning_effort": "low", "service_tier": "flex"}.
        batch: Asks in batches; None asks one by one.

    Attributes:
        prompt: How report pairs are put to the model.

    Raises:
        InputError: An argument is out of range.
        JudgeError: The `openai` package, the prompt's package or the key is missing.
    """

    def __init__(
        self,
        model: str,
        *,
        base_url: str | None = None,
        api_key: str | None = None,
        concurrency: int = 8,
        max_retries: int = 6,
        timeout: float = 120.0,
        guidelines: bool | None = None,
        max_output_tokens: int | None = None,
        request: dict[str, Any] | None = None,
        batch: Batching | None = None,
    ) -> None:
        self._set_up(
            model,
            openai_server(base_url, api_key),
            guidelines,
            concurrency=concurrency,
            max_retries=max_retries,
            timeout=timeout,
            max_output_tokens=max_output_tokens,
            request=request,
            batch=batch,
        )

    def _set_up(self, model: str, server: Server, guidelines: bool | None, **options: Any) -> None:
        self._chat = Chat(model, server, **options)
        self.prompt = prompt_for(model, guidelines)
        self.prompt.messages(ReportPair("", ""))  # raises now, not in the middle of a run, if the prompt cannot be had

    def judge(self, pairs: Sequence[ReportPair]) -> Generator[tuple[int, Judgement], None, None]:
        """Yield (position in `pairs`, judgement) as answers come in; see `crimson_core.judges.Judge`."""
        questions = (Question(self.prompt.messages(pair), _SEED) for pair in pairs)
        with closing(self._chat.ask(questions, Form("evaluation", evaluation_schema()))) as answers:
            for index, answer in answers:
                yield index, _judgement(answer)

    def signature(self) -> dict[str, str]:
        """Judge, prompt, seed, and what `crimson_core.judges.engines.client.Chat` says of the model and its decoding."""
        return self._signature(self._chat.signature())

    def asked_signature(self) -> dict[str, str]:
        """The signature as it is before any answer."""
        return self._signature(self._chat.asked_signature())

    def _signature(self, chat: dict[str, str]) -> dict[str, str]:
        seed = str(_SEED) if chat["seed"] == "sent" else chat["seed"]
        known = {"judge": self._chat.server.name} | chat | {"prompt": str(self.prompt), "seed": seed}
        order = ("judge", "model", "revision", "host", "prompt")
        return {key: known[key] for key in dict.fromkeys((*order, *known)) if key in known}


class AzureJudge(OpenAIJudge):
    """Asks a deployment on Azure OpenAI; everything else is as with `OpenAIJudge`.

    Args:
        model: The deployment's name.
        endpoint: For example https://my-resource.openai.azure.com; by default AZURE_OPENAI_ENDPOINT.
        api_key: By default AZURE_OPENAI_API_KEY.
        api_version: For example 2024-10-21; by default OPENAI_API_VERSION.
        concurrency, max_retries, timeout, guidelines, max_output_tokens, request, batch: As with `OpenAIJudge`.

    Raises:
        InputError: An argument is out of range.
        JudgeError: The `openai` package, the prompt's package, the key, the endpoint or the version is missing.
    """

    def __init__(
        self,
        model: str,
        *,
        endpoint: str | None = None,
        api_key: str | None = None,
        api_version: str | None = None,
        concurrency: int = 8,
        max_retries: int = 6,
        timeout: float = 120.0,
        guidelines: bool | None = None,
        max_output_tokens: int | None = None,
        request: dict[str, Any] | None = None,
        batch: Batching | None = None,
    ) -> None:
        self._set_up(
            model,
            azure_server(endpoint, api_key, api_version),
            guidelines,
            concurrency=concurrency,
            max_retries=max_retries,
            timeout=timeout,
            max_output_tokens=max_output_tokens,
            request=request,
            batch=batch,
        )


def _judgement(answer: Answer) -> Judgement:
    if answer.failure:
        return Judgement(failure=answer.failure, raw_output=answer.text, usage=answer.usage, cost=answer.cost)
    judgement = Judgement.from_output(answer.text, answer.usage, answer.cost)
    # without a finish_reason, broken JSON may be JSON that was cut
    if answer.finish_reason is None and judgement.repairs:
        failure = "the output is no valid JSON and may be cut"
        return replace(judgement, evaluation=None, failure=failure, repairs=[])
    return judgement
