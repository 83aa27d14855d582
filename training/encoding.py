"""Records as token ids: the prompt that the judge sends, then the answer, which alone has a loss."""

import json
import os
from array import array
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch.utils.data import Dataset
from transformers.tokenization_utils_base import PreTrainedTokenizerBase

from crimson_core.errors import InputError
from crimson_core.judges.engines.local.encoding import ChatEncoder
from crimson_core.protocol.prompt import Prompt
from training.records import AnswerStyle, Record, answer_of

IGNORED = -100  # a label that counts in no loss
_TENSORS = ("tokens", "ends", "answers", "errors", "places")
_AFTER_FINDINGS = '"matched_findings":'  # cannot be in a finding, where quotes are escaped


class RecordEncoder:
    """Turns records into token ids.

    Attributes:
        end: The token that ends an answer.

    Raises:
        JudgeError: The tokenizer cannot be used.
        InputError: Its chat template does not end answers with a control token.
    """

    def __init__(
        self, tokenizer: PreTrainedTokenizerBase, name: str, prompt: Prompt, style: AnswerStyle = "compact"
    ) -> None:
        self._prompt, self._style = prompt, style
        self._chat = ChatEncoder(tokenizer, name)
        self.end = _end_of_answer(tokenizer, name)

    def encode(self, record: Record) -> tuple[list[int], list[int], int]:
        """Token ids of the prompt and of the answer with its end, and the number of last tokens with matches and errors.

        Raises:
            ValueError: The label is not an evaluation that can be learnt, or the reports form control tokens.
        """
        prompt = self._chat.encode(self._prompt.messages(record.pair))
        # A report may contain "<end_of_turn>", and so may a finding that quotes it: it is plain text.
        answer = answer_of(record.raw_evaluation, self._style)
        tokens = [*self._chat.encode_text(answer), self.end]
        findings = self._chat.encode_text(answer[: answer.index(_AFTER_FINDINGS)].rstrip(" ,"))
        return prompt, tokens, len(tokens) - len(findings)


class Examples(Dataset):
    """Encoded records, in a few tensors that processes can share as a file.

    Attributes:
        places: Positions of these records among those that were to be encoded; long ones are left out.
        left_out: Number of records that were too long.
        longest_answer: Tokens of the longest answer.
        regimes: Number of records per regime.
        sources: Number of records per label source.
    """

    def __init__(self, tensors: dict[str, torch.Tensor], counts: dict[str, Any]) -> None:
        self._tensors, self._counts = tensors, counts
        self.places: list[int] = tensors["places"].tolist()
        self.left_out: int = counts["left_out"]
        self.regimes: dict[int, int] = {int(regime): count for regime, count in counts["regimes"].items()}
        self.sources: dict[str, int] = counts["sources"]
        self.longest_answer = int(tensors["answers"].max()) if len(self) else 0

    def __len__(self) -> int:
        return len(self.places)

    @property
    def words(self) -> set[int]:
        """The tokens that occur in the records."""
        return set(self._tensors["tokens"].unique().tolist())

    @property
    def lengths(self) -> list[int]:
        """Tokens of each record."""
        return self._tensors["ends"].diff(prepend=torch.zeros(1, dtype=torch.int64)).tolist()

    @property
    def answer_tokens(self) -> int:
        """Number of tokens in all answers."""
        return int(self._tensors["answers"].sum())

    def __getitem__(self, index: int) -> dict[str, Any]:
        start = int(self._tensors["ends"][index - 1]) if index else 0
        tokens = self._tensors["tokens"][start : int(self._tensors["ends"][index])]
        answer, errors = int(self._tensors["answers"][index]), int(self._tensors["errors"][index])
        return {"input_ids": tokens.tolist(), "answer_tokens": answer, "error_tokens": errors}

    def save(self, path: Path) -> None:
        """Write the file completely or not at all.

        Raises:
            InputError: It cannot be written.
        """
        partial = path.with_name(path.name + ".partial")
        try:
            save_file(self._tensors, partial, {"told": json.dumps(self._counts)})
            os.replace(partial, path)
        except (OSError, SafetensorError) as error:
            partial.unlink(missing_ok=True)
            raise InputError(f"{path} cannot be written: {getattr(error, 'strerror', None) or error}.") from None

    @classmethod
    def load(cls, path: Path) -> "Examples":
        """The records of a file; processes that load the same file share its memory."""
        with safe_open(path, "pt") as file:
            counts = json.loads(file.metadata()["told"])
        return cls(load_file(path), counts)


def encode(records: Iterable[Record], encoder: RecordEncoder, max_length: int) -> Examples:
    """Encode the records that have at most `max_length` tokens of prompt and answer.

    Raises:
        InputError: A record cannot be learnt.
    """
    tokens, ends, answers, errors, places = array("i"), array("q"), array("i"), array("i"), array("q")
    regimes: Counter[int] = Counter()
    sources: Counter[str] = Counter()
    place = -1
    for place, record in enumerate(records):
        try:
            prompt, answer, about_errors = encoder.encode(record)
        except ValueError as error:
            raise InputError(f"Record {record.id} cannot be learnt: {error}.") from None
        if len(prompt) + len(answer) > max_length:
            continue
        tokens.extend(prompt)
        tokens.extend(answer)
        ends.append(len(tokens))
        answers.append(len(answer))
        errors.append(about_errors)
        places.append(place)
        regimes[record.regime] += 1
        sources[record.label_source] += 1
    tensors = {
        name: torch.tensor(values, dtype=torch.int64 if values.typecode == "q" else torch.int32)
        for name, values in zip(_TENSORS, (tokens, ends, answers, errors, places), strict=True)
    }
    counts = {"left_out": place + 1 - len(places), "regimes": regimes, "sources": dict(sources.most_common())}
    return Examples(tensors, counts)


def collate(examples: Sequence[dict[str, Any]], pad: int, errors_weight: float = 1.0) -> dict[str, Any]:
    """A batch, padded on the left, so that all answers end in the last column.

    Args:
        examples: Items of `Examples`: `input_ids`, which end with the answer; `answer_tokens`, the length of the answer; and
            `error_tokens`, the length of its end with matches and errors.
        pad: The token for padding.
        errors_weight: The weight of a token of matches and errors; all others weigh 1.

    Returns:
        input_ids, attention_mask, position_ids, labels and weights of shape (batch, tokens), and `logits_to_keep`, the number
        of last columns that need logits: the output layer is the most expensive part of a small model.
    """
    width = max(len(example["input_ids"]) for example in examples)
    ids = torch.full((len(examples), width), pad)
    labels = torch.full((len(examples), width), IGNORED)
    mask = torch.zeros((len(examples), width), dtype=torch.long)
    weights = torch.ones((len(examples), width))
    for row, example in enumerate(examples):
        tokens, answer = torch.tensor(example["input_ids"]), example["answer_tokens"]
        ids[row, width - len(tokens) :] = tokens
        mask[row, width - len(tokens) :] = 1
        labels[row, width - answer :] = tokens[-answer:]
        weights[row, width - example["error_tokens"] :] = errors_weight
    return {
        "input_ids": ids,
        "attention_mask": mask,
        "position_ids": (mask.cumsum(1) - 1).clamp(min=0),
        "labels": labels,
        "weights": weights,
        "logits_to_keep": max(example["answer_tokens"] for example in examples) + 1,
    }


def answer_loss(
    outputs: Any,
    labels: torch.Tensor,
    num_items_in_batch: torch.Tensor | int | None = None,
    weights: torch.Tensor | None = None,
    places: torch.Tensor | None = None,
) -> torch.Tensor:
    """Weighted sum of the tokens' cross entropy, divided by the number of answer tokens in all batches of the step.

    Args:
        outputs: Outputs of the model, with logits of the last columns.
        labels: As `collate` gives them; shape (batch, tokens).
        num_items_in_batch: Answer tokens of the whole step; None counts those of this batch.
        weights: Weights of the tokens, in the shape of `labels`; None weighs all alike.
        places: The column of each token in the logits of a `SampledHead` in training mode.
    """
    logits = outputs.logits[:, :-1]
    labels = labels[:, -logits.shape[1] :].to(logits.device)
    if places is not None and logits.shape[-1] != len(places):
        labels = torch.where(labels == IGNORED, labels, places[labels.clamp(min=0)])
    # Not logits[labels != IGNORED]: the gradient of that runs on one core, and takes longer than the model.
    losses = torch.nn.functional.cross_entropy(
        logits.flatten(0, 1).float(), labels.flatten(), ignore_index=IGNORED, reduction="none"
    )
    if weights is not None:
        losses = losses * weights[:, -logits.shape[1] :].to(logits.device).flatten()
    return losses.sum() / ((labels != IGNORED).sum() if num_items_in_batch is None else num_items_in_batch)


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
