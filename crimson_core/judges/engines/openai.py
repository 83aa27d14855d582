"""The API judges: models behind OpenAI's chat completions API, on Azure, or on any OpenAI-compatible server.

The request is the reference implementation's (seed 42, temperature 0, and but for the tags around the reports the same messages),
with structured output where the server supports it. `crimson_core.judges.engines.client` sends it.
"""

from collections.abc import Generator, Sequence
from typing import Unpack

from crimson_core.judges.engines.client import Chat, ChatOptions, Form
from crimson_core.judges.engines.servers import azure_server, openai_server
from crimson_core.judges.model import SEED, Answer, ModelJudge, Question
from crimson_core.protocol.evaluation import evaluation_schema
from crimson_core.protocol.prompt import prompt_for


def openai_judge(
    model: str,
    *,
    base_url: str | None = None,
    api_key: str | None = None,
    guidelines: bool | None = None,
    delimited: bool = True,
    **options: Unpack[ChatOptions],
) -> ModelJudge:
    """A judge that asks a model of OpenAI or of any OpenAI-compatible server.

    Args:
        model: The model's name on the server.
        base_url: The API's URL, usually ending in /v1; defaults to OPENAI_BASE_URL, then to OpenAI's own.
        api_key: Defaults to OPENAI_API_KEY. Servers other than OpenAI's may need none.
        guidelines: Whether the prompt contains the guidelines; None uses the default for this model.
        delimited: Whether the reports stand between tags that they cannot close. The published model never gets any.
        **options: `concurrency`, `max_retries`, `timeout`, `max_output_tokens`, `request` and `batch`, see
            `crimson_core.judges.engines.client.Chat`.

    Raises:
        InputError: An argument is out of range.
        JudgeError: The `openai` package, the `crimson-score` package or the key is missing.
    """
    chat = Chat(model, openai_server(base_url, api_key), **options)
    return ModelJudge(OpenAIEngine(chat), prompt_for(model, guidelines, delimited=delimited))


def azure_judge(
    model: str,
    *,
    endpoint: str | None = None,
    api_key: str | None = None,
    api_version: str | None = None,
    guidelines: bool | None = None,
    delimited: bool = True,
    **options: Unpack[ChatOptions],
) -> ModelJudge:
    """A judge that asks a deployment on Azure OpenAI.

    Args:
        model: The deployment's name.
        endpoint: For example https://my-resource.openai.azure.com; defaults to AZURE_OPENAI_ENDPOINT.
        api_key: Defaults to AZURE_OPENAI_API_KEY.
        api_version: For example 2024-10-21; defaults to OPENAI_API_VERSION.
        guidelines: Whether the prompt contains the guidelines; None uses the default for this model.
        delimited: The same as for `openai_judge`.
        **options: The same as for `openai_judge`.

    Raises:
        InputError: An argument is out of range.
        JudgeError: The `openai` package, the `crimson-score` package, the key, the endpoint or the version is missing.
    """
    chat = Chat(model, azure_server(endpoint, api_key, api_version), **options)
    return ModelJudge(OpenAIEngine(chat), prompt_for(model, guidelines, delimited=delimited))


class OpenAIEngine:
    """A model on a server, asked for evaluations."""

    def __init__(self, chat: Chat) -> None:
        self._chat = chat

    def write(self, questions: Sequence[Question]) -> Generator[tuple[int, Answer], None, None]:
        """Yield (position in `questions`, answer) as answers arrive."""
        return self._chat.ask(questions, Form("evaluation", evaluation_schema()))

    def signature(self) -> dict[str, str]:
        """The judge's name, the seed, and the signature of the `Chat`."""
        return self._signature(self._chat.signature())

    def asked_signature(self) -> dict[str, str]:
        """The signature before any answer."""
        return self._signature(self._chat.asked_signature())

    def _signature(self, chat: dict[str, str]) -> dict[str, str]:
        return {"judge": self._chat.server.name} | chat | ({"seed": str(SEED)} if chat["seed"] == "sent" else {})
