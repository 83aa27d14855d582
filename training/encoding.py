"""Records as token ids: the prompt as the judge sends it, then the answer; the loss is on the answer."""

from collections.abc import Sequence
from typing import Any

import torch
from torch.utils.data import Dataset
from transformers.tokenization_utils_base import PreTrainedTokenizerBase

from crimson_core.errors import InputError
from crimson_core.judges.engines.hf.encoding import ChatEncoder
from crimson_core.protocol.prompt import Prompt
from training.records import Record, answer_of

IGNORED = -100  # a label that counts in no loss
HEAVY = 1 << 30  # is added to a label that counts more than others
_AFTER_FINDINGS = ',"matched_findings":'  # cannot be in a finding, where quotes are escaped


class RecordEncoder:
    """Turns records into token ids.

    Args:
        tokenizer: Of the fast kind, with a chat template.
        name: Of the model, for errors.
        prompt: How a pair is put to the model.

    Attributes:
        end: The token that ends an answer.

    Raises:
        JudgeError: The tokenizer cannot be used.
        InputError: Its chat template ends an answer with no control token.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase, name: str, prompt: Prompt) -> None:
        self._prompt = prompt
        self._chat = ChatEncoder(tokenizer, name)
        self.end = _end_of_answer(tokenizer, name)

    def encode(self, record: Record) -> tuple[list[int], list[int], int]:
        """Token ids of the prompt and of the answer with its end, and how many of the last tell matches and errors.

        Raises:
            ValueError: The label is no evaluation that can be learnt, or the reports form control tokens.
        """
        prompt = self._chat.encode(self._prompt.messages(record.pair))
        # A report may hold "<end_of_turn>", and so may a finding that quotes it: as plain text.
        answer = answer_of(record.raw_evaluation)
        tokens = [*self._chat.encode_text(answer), self.end]
        findings = self._chat.encode_text(answer[: answer.index(_AFTER_FINDINGS)])
        return prompt, tokens, len(tokens) - len(findings)


class Examples(Dataset):
    """Encoded records.

    Args:
        records: To be encoded.
        encoder: Of the model to be trained.
        max_length: In tokens of prompt and answer; longer records are left out.
        heavy_errors: Whether the tokens that tell matches and errors have heavy labels.

    Attributes:
        records: Those that are not too long.
        left_out: How many were too long.
        longest_answer: Of those that are not, in tokens.
    """

    def __init__(
        self, records: Sequence[Record], encoder: RecordEncoder, max_length: int, heavy_errors: bool = False
    ) -> None:
        self.records: list[Record] = []
        self._encoded: list[tuple[torch.Tensor, int, int]] = []
        for record in records:
            try:
                prompt, answer, errors = encoder.encode(record)
            except ValueError as error:
                raise InputError(f"Record {record.id} cannot be learnt: {error}.") from None
            if len(prompt) + len(answer) <= max_length:
                self.records.append(record)
                tokens = torch.tensor([*prompt, *answer], dtype=torch.int32)
                self._encoded.append((tokens, len(answer), errors if heavy_errors else 0))
        self.left_out = len(records) - len(self.records)
        self.longest_answer = max((answer for _, answer, _ in self._encoded), default=0)

    def __len__(self) -> int:
        return len(self.records)

    @property
    def words(self) -> set[int]:
        """The tokens that occur in the records."""
        return {int(token) for tokens, _, _ in self._encoded for token in tokens.unique()}

    @property
    def lengths(self) -> list[int]:
        """Tokens of each record."""
        return [len(tokens) for tokens, _, _ in self._encoded]

    def __getitem__(self, index: int) -> dict[str, Any]:
        tokens, answer, heavy = self._encoded[index]
        return {"input_ids": tokens.tolist(), "answer_tokens": answer, "heavy_tokens": heavy}


def collate(examples: Sequence[dict[str, Any]], pad: int) -> dict[str, Any]:
    """A batch, padded on the left, so that all answers end in the last column.

    Args:
        examples: `input_ids` with the answer at their end; `answer_tokens`, how many of them are the answer; and
            `heavy_tokens`, for how many of its last ones `HEAVY` is added to the label.
        pad: Token for the empty places.

    Returns:
        input_ids, attention_mask, position_ids and labels of shape (batch, tokens), and `logits_to_keep`, how many of the
        last columns need logits: the output layer is the dearest part of a small model.
    """
    width = max(len(example["input_ids"]) for example in examples)
    ids = torch.full((len(examples), width), pad)
    labels = torch.full((len(examples), width), IGNORED)
    mask = torch.zeros((len(examples), width), dtype=torch.long)
    for row, example in enumerate(examples):
        tokens, answer = torch.tensor(example["input_ids"]), example["answer_tokens"]
        ids[row, width - len(tokens) :] = tokens
        mask[row, width - len(tokens) :] = 1
        labels[row, width - answer :] = tokens[-answer:]
        labels[row, width - example["heavy_tokens"] :] += HEAVY
    return {
        "input_ids": ids,
        "attention_mask": mask,
        "position_ids": (mask.cumsum(1) - 1).clamp(min=0),
        "labels": labels,
        "logits_to_keep": max(example["answer_tokens"] for example in examples) + 1,
    }


def answer_loss(
    outputs: Any,
    labels: torch.Tensor,
    num_items_in_batch: torch.Tensor | int | None = None,
    places: torch.Tensor | None = None,
    heavy: float = 1.0,
) -> torch.Tensor:
    """Sum of the cross entropy, each token by its weight, per answer token of all batches of a step.

    Args:
        outputs: Of the model, with logits of the last columns.
        labels: (batch, tokens), as `collate` gives them.
        num_items_in_batch: Answer tokens of the whole step; None takes those of this batch.
        places: The column of each token where the logits are those of a `SampledHead` in training mode.
        heavy: The weight of a token with a heavy label; all others weigh 1.
    """
    logits = outputs.logits[:, :-1]
    labels = labels[:, -logits.shape[1] :].to(logits.device)
    weights = torch.where(labels >= HEAVY, heavy, 1.0)
    labels = torch.where(labels >= HEAVY, labels - HEAVY, labels)
    if places is not None and logits.shape[-1] != len(places):
        labels = torch.where(labels == IGNORED, labels, places[labels.clamp(min=0)])
    # Not logits[labels != IGNORED]: the gradient of that runs on one core, and takes longer than the model.
    losses = torch.nn.functional.cross_entropy(
        logits.flatten(0, 1).float(), labels.flatten(), ignore_index=IGNORED, reduction="none"
    )
    total = (losses * weights.flatten()).sum()
    return total / ((labels != IGNORED).sum() if num_items_in_batch is None else num_items_in_batch)


def _end_of_answer(tokenizer: PreTrainedTokenizerBase, name: str) -> int:
    """The control token with which the chat template ends an answer."""
    mark = "ANSWER"
    text = tokenizer.apply_chat_template(
        [{"role": "user", "content": "-"}, {"role": "assistant", "content": mark}], tokenize=False
    )
    ids = tokenizer.encode(text.rpartition(mark)[2], add_special_tokens=False)
    control = tokenizer.backend_tokenizer.get_added_tokens_decoder()
    if not ids or ids[0] not in control:
        raise InputError(f"The chat template of {name} ends an answer with no control token. Give one that does.")
    return ids[0]
