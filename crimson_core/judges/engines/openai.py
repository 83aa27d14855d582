"""The API judges: models behind OpenAI's chat completions, on Azure, or on any OpenAI-compatible server.

The request is the reference implementation's (same messages, seed 42, temperature 0), with structured output where the
server has it; see `crimson_core.judges.engines.client` for what becomes of a request.
"""

from collections.abc import Generator, Sequence
from typing import Any

from crimson_core.judges.engines.batch import Batching
from crimson_core.judges.engines.client import Chat, Form
from crimson_core.judges.engines.servers import Server, azure_server, openai_server
from crimson_core.judges.model import SEED, Answer, ModelJudge, Question
from crimson_core.protocol.evaluation import evaluation_schema
from crimson_core.protocol.prompt import prompt_for


def openai_judge(
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
) -> ModelJudge:
    """A judge that asks a model of OpenAI, or of any OpenAI-compatible server.

    What `crimson_core.judges.engines.client.Chat` says of questions holds for report pairs: a passing fault is tried
    again, a lasting one is a failed judgement, and what will not work for any pair stops the run.

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

    Raises:
        InputError: An argument is out of range.
        JudgeError: The `openai` package, the prompt's package or the key is missing.
    """
    return _judge(
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


def azure_judge(
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
) -> ModelJudge:
    """A judge that asks a deployment on Azure OpenAI; everything else is as with `openai_judge`.

    Args:
        model: The deployment's name.
        endpoint: For example https://my-resource.openai.azure.com; by default AZURE_OPENAI_ENDPOINT.
        api_key: By default AZURE_OPENAI_API_KEY.
        api_version: For example 2024-10-21; by default OPENAI_API_VERSION.
        concurrency: As with `openai_judge`.
        max_retries: As with `openai_judge`.
        timeout: As with `openai_judge`.
        guidelines: As with `openai_judge`.
        max_output_tokens: As with `openai_judge`.
        request: As with `openai_judge`.
        batch: As with `openai_judge`.

    Raises:
        InputError: An argument is out of range.
        JudgeError: The `openai` package, the prompt's package, the key, the endpoint or the version is missing.
    """
    return _judge(
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


def _judge(model: str, server: Server, guidelines: bool | None, **options: Any) -> ModelJudge:
    return ModelJudge(OpenAIEngine(Chat(model, server, **options)), prompt_for(model, guidelines))


class OpenAIEngine:
    """A model on a server, asked for evaluations."""

    def __init__(self, chat: Chat) -> None:
        self._chat = chat

    def write(self, questions: Sequence[Question]) -> Generator[tuple[int, Answer], None, None]:
        """Yield (position in `questions`, answer) as answers come in."""
        return self._chat.ask(questions, Form("evaluation", evaluation_schema()))

    def signature(self) -> dict[str, str]:
        """Judge, seed, and what `crimson_core.judges.engines.client.Chat` says of the model and its decoding."""
        return self._signature(self._chat.signature())

    def asked_signature(self) -> dict[str, str]:
        """The signature as it is before any answer."""
        return self._signature(self._chat.asked_signature())

    def _signature(self, chat: dict[str, str]) -> dict[str, str]:
        return {"judge": self._chat.server.name} | chat | ({"seed": str(SEED)} if chat["seed"] == "sent" else {})
