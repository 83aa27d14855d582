"""Questions to token ids, and token ids to answers, for every engine that runs a checkpoint on this machine."""

from collections.abc import Sequence
from dataclasses import dataclass

from transformers import GenerationConfig
from transformers.tokenization_utils_base import PreTrainedTokenizerBase

from crimson_core.errors import JudgeError, check_whole
from crimson_core.judges.engines.local.encoding import ChatEncoder
from crimson_core.judges.engines.local.grammar import evaluation_grammar
from crimson_core.judges.model import Answer
from crimson_core.protocol.evaluation import evaluation_schema
from crimson_core.protocol.pair import ReportPair
from crimson_core.protocol.prompt import Message, Prompt

DEFAULT_NEW_TOKENS = 8192  # the reference implementation's, for a checkpoint without a limit
MAX_FINDINGS, MAX_TEXT = 40, 400


@dataclass(frozen=True)
class Limits:
    """Limits of outputs.

    Raises:
        InputError: A value is impossible.
    """

    constrained: bool = True  # keep outputs inside the evaluation's JSON schema
    max_new_tokens: int | None = None  # maximum tokens of an output; None uses the checkpoint's own limit, else 8192
    max_findings: int = MAX_FINDINGS  # maximum entries of a list in a constrained output
    max_text: int = MAX_TEXT  # maximum characters of a text in a constrained output

    def __post_init__(self) -> None:
        if self.max_new_tokens is not None:
            check_whole("max_new_tokens", self.max_new_tokens)
        check_whole("max_findings", self.max_findings)
        check_whole("max_text", self.max_text)

    def grammar(self) -> str | None:
        """The grammar of outputs; None if they are unconstrained."""
        return evaluation_grammar(evaluation_schema(self.max_findings, self.max_text)) if self.constrained else None

    def __str__(self) -> str:
        """The limits as in a signature."""
        return f"xgrammar,findings{self.max_findings},text{self.max_text}" if self.constrained else "unconstrained"


class Codec:
    """A checkpoint's way from messages to token ids and back.

    Attributes:
        encoder: The chat encoder of its tokenizer.
        tokenizer: Its tokenizer.
        name: Its name.
        max_new_tokens: Maximum tokens of an output, by default the generation config's limit, else 8192.
        context: The model's context length in tokens; None if unknown.
        ends: The end-of-output tokens.
        pad: The padding token.

    Raises:
        JudgeError: Neither the generation config nor the tokenizer names an end token.
    """

    def __init__(
        self, encoder: ChatEncoder, config: GenerationConfig, max_new_tokens: int | None, context: int | None = None
    ) -> None:
        self.encoder, self.tokenizer, self.name = encoder, encoder.tokenizer, encoder.name
        ends = config.eos_token_id if config.eos_token_id is not None else self.tokenizer.eos_token_id
        if ends is None or ends == []:
            raise JudgeError(f"{self.name} names no end token. Write eos_token_id into its generation_config.json.")
        self.ends = [ends] if isinstance(ends, int) else list(ends)
        self.pad = next(i for i in (config.pad_token_id, self.tokenizer.pad_token_id, self.ends[0]) if i is not None)
        self.max_new_tokens = max_new_tokens or config.max_new_tokens or DEFAULT_NEW_TOKENS
        self.context = context

    def encode(self, messages: Sequence[Message]) -> list[int]:
        """Token ids of a question's messages.

        Raises:
            ValueError: The model cannot take the prompt; the message says why, without report text.
        """
        ids = self.encoder.encode(messages)
        if self.context is not None and len(ids) >= self.context:
            raise ValueError(f"the prompt has {len(ids)} tokens, and the model's context holds {self.context}")
        return ids

    def limit(self, prompt_tokens: int) -> int:
        """How many tokens may follow a prompt."""
        return self.max_new_tokens if self.context is None else min(self.max_new_tokens, self.context - prompt_tokens)

    def answer(self, prompt_tokens: int, output: Sequence[int], limit: int) -> Answer:
        """Decode an output; one that did not end within `limit` tokens is a failure."""
        end = next((place for place, token in enumerate(output) if token in self.ends), None)
        output = list(output if end is None else output[: end + 1])
        text = str(self.tokenizer.decode(output, skip_special_tokens=True))
        usage = {"prompt_tokens": prompt_tokens, "completion_tokens": len(output)}
        if end is None:
            return Answer(text, f"the output did not end within {limit} tokens", "length", usage)
        return Answer(text, finish_reason="stop", usage=usage)


def chat_encoder(tokenizer: PreTrainedTokenizerBase, name: str, prompt: Prompt) -> ChatEncoder:
    """An encoder whose chat template has been checked with the prompt's roles.

    Raises:
        JudgeError: The template refuses them, or the tokenizer cannot be guarded against forged control tokens.
    """
    encoder = ChatEncoder(tokenizer, name)
    encoder.prepare([message["role"] for message in prompt.messages(ReportPair("", ""))])
    return encoder
