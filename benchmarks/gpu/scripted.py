"""Outputs that are known beforehand, at full cost: the model computes everything, then its choice is replaced.

A model with random weights writes noise, which says nothing about speed on evaluations. Here every pair has a target, an
evaluation in which a given share of the tokens are words that no draft can guess, and whatever decodes it gets the target's
next token as its likeliest one, after the layers and the output layer have done their work.
"""

import json
import random
from collections.abc import Sequence
from functools import cache
from typing import Any

import numpy as np
import torch
from torch import Tensor
from transformers import LogitsProcessor

from benchmarks.exactness import made_up_pair
from crimson_core.judges.rules.judge import evaluate_pair
from crimson_core.protocol.pair import ReportPair

_SURE = 1e4  # a logit above all others
_DIGIT = 128  # whole numbers below it are exact in bfloat16
_FINDINGS, _WORDS = (2, 5), (60, 130)  # of a report: with the reference prompt some 1,900 to 2,100 tokens


def typical_pairs(n: int) -> list[ReportPair]:
    """Report pairs of usual length with two to five findings, most of them in both reports."""
    rng = random.Random(0)
    return [made_up_pair(rng, rng.randint(*_FINDINGS), rng.randint(*_WORDS)) for _ in range(n)]


def target(encoder: Any, tokenizer: Any, end: int, pair: ReportPair, surprises: float, seed: int) -> list[int]:
    """Token ids of an evaluation of a pair, in which about the share `surprises` are words that occur in no other text."""
    evaluation = evaluate_pair(pair).model_dump()
    for side in ("reference_findings", "predicted_findings"):
        evaluation[side] = [
            {key: f[key] for key in ("id", "finding", "clinical_significance")} for f in evaluation[side]
        ]
    ids = encoder.encode_text(json.dumps(evaluation, ensure_ascii=False))
    rng = random.Random(seed)
    places = _places_of_words(tokenizer, ids)
    words = _words(tokenizer)
    replaced = rng.sample(places, min(len(places), round(surprises * len(ids))))
    for i in replaced:
        ids[i] = rng.choice(words)
    # A short evaluation has too few words: more of them make its findings longer.
    more = max(0, round((surprises * len(ids) - len(replaced)) / (1 - surprises)))
    for i in sorted((rng.choice(places) for _ in range(more)), reverse=True) if places else ():
        ids.insert(i + 1, rng.choice(words))
    return [*ids, end]


def _places_of_words(tokenizer: Any, ids: Sequence[int]) -> list[int]:
    """The places of whole words in the texts of findings and explanations, except for the first word."""
    places, before = [], ""
    for place, token in enumerate(tokenizer.convert_ids_to_tokens(ids)):
        inside = before.count('"') % 2 and before.rpartition('"')[0].endswith(('"finding":▁', '"explanation":▁'))
        if inside and _is_word(token):
            places.append(place)
        before += token
    return places


def _is_word(token: str) -> bool:
    return token.startswith("▁") and token[1:].isascii() and token[1:].isalpha()


@cache
def _words(tokenizer: Any) -> list[int]:
    ids = random.Random(0).sample(range(len(tokenizer)), 30_000)
    tokens = tokenizer.convert_ids_to_tokens(ids)
    return [i for i, token in zip(ids, tokens, strict=True) if _is_word(token) and len(token) < 10]


class ScriptedProcessor(LogitsProcessor):
    """Makes the next token of each row's target the likeliest in `generate`; a row is recognised by its prompt."""

    def __init__(self, targets: dict[tuple[int, ...], list[int]], pad: int) -> None:
        self._targets, self._pad = targets, pad
        self._rows: Tensor | None = None
        self._width = 0

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        """The scores with the target's token as the likeliest."""
        if self._rows is None or input_ids.shape[1] <= self._width:
            self._width = input_ids.shape[1]
            found = []
            for ids in input_ids.tolist():
                start = next(i for i, token in enumerate(ids) if token != self._pad)
                found.append(self._targets[tuple(ids[start:])])
            most = max(map(len, found))
            self._rows = torch.tensor([ids + [ids[-1]] * (most - len(ids)) for ids in found]).to(input_ids.device)
        at = min(input_ids.shape[1] - self._width, self._rows.shape[1] - 1)
        return scores.scatter(1, self._rows[:, at : at + 1], _SURE)


def tagged(hidden: Tensor, tokens: np.ndarray) -> Tensor:
    """Hidden states, one or more per token, whose first three numbers encode the next token."""
    digits = torch.from_numpy(np.stack([tokens % _DIGIT, tokens // _DIGIT % _DIGIT, tokens // _DIGIT**2], 1))
    if hidden.device.type == "cuda":
        digits = digits.pin_memory()  # so that the copy does not wait for the device
    hidden = hidden.clone()
    hidden[: len(tokens), :3] = digits.to(hidden.device, non_blocking=True).to(hidden.dtype)
    return hidden


def replaced(hidden: Tensor, logits: Tensor, only: Tensor | None = None) -> Tensor:
    """Logits in which the encoded token is the likeliest; only the logits of `only`, if it is given."""
    a, b, c = hidden[:, :3].float().round().long().unbind(1)
    tokens = (a + _DIGIT * b + _DIGIT**2 * c)[:, None]
    if only is None:
        return logits.scatter_(1, tokens, _SURE)
    return torch.where(only[None] == tokens, _SURE, logits)


def next_tokens(prompt: int, output: np.ndarray, start: int, n: int) -> np.ndarray:
    """The token after each of `n` positions from `start` on, in a row with a prompt of length `prompt` and this output."""
    first = start + 1 - prompt
    if first >= 0 and first + n <= len(output):  # most of the time, and the fast way
        return output[first : first + n]
    places = np.arange(first, first + n)
    return np.where(places >= 0, output[places.clip(0, len(output) - 1)], 0)
