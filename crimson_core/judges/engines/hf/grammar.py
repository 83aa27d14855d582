"""Follows outputs through a grammar, and tells which tokens may come next."""

from collections.abc import Sequence
from functools import cached_property, lru_cache
from itertools import chain
from types import ModuleType
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor
from transformers.tokenization_utils_base import PreTrainedTokenizerBase

_FEW = 2048  # up to so many tokens, logits of these alone are cheaper than all logits
_COMPILED = 4  # compiled grammars that are kept
_REMEMBERED = 256  # sets of allowed tokens that are kept; inside a text it is mostly the same one


def compile_grammar(
    xgrammar: ModuleType, grammar: str, tokenizer: PreTrainedTokenizerBase, vocab_size: int, ends: Sequence[int]
) -> Any:
    """Compile a grammar for a tokenizer's vocabulary, padded to `vocab_size`; outputs end with one of `ends`.

    This takes seconds, so judges with the same tokenizer share the result.
    """
    return _compiled(xgrammar, grammar, tokenizer, vocab_size, tuple(ends))


@lru_cache(_COMPILED)
def _compiled(
    xgrammar: ModuleType, grammar: str, tokenizer: PreTrainedTokenizerBase, vocab_size: int, ends: tuple[int, ...]
) -> Any:
    info = xgrammar.TokenizerInfo.from_huggingface(tokenizer, vocab_size=vocab_size, stop_token_ids=list(ends))
    return xgrammar.GrammarCompiler(info).compile_grammar(grammar)


class Allowed:
    """The tokens that may follow; here, all.

    Attributes:
        few: Their ids in ascending order if they are few, else None.
        only: The only token that may follow, if there is just one.
    """

    few: Tensor | None = None
    only: int | None = None

    def __contains__(self, token: int) -> bool:
        return True

    def best(self, logits: Tensor) -> int:
        """The likeliest of them, from logits over the vocabulary."""
        return int(logits.argmax())


class _AllowedByGrammar(Allowed):
    def __init__(self, words: bytes, vocabulary: int, device: torch.device) -> None:
        self._words, self._vocabulary, self._device = np.frombuffer(words, dtype=np.int32), vocabulary, device
        if np.bitwise_count(self._words.view(np.uint32)).sum() <= _FEW:
            self.few = torch.from_numpy(np.flatnonzero(self._bits())).to(device)
            if len(self.few) == 1:
                self.only = int(self.few)

    def __contains__(self, token: int) -> bool:
        return bool(self._words[token // 32] >> (token % 32) & 1)

    def best(self, logits: Tensor) -> int:
        # NaN or infinite logits must not let in a token that is not allowed.
        finite = logits.float().nan_to_num(nan=torch.finfo(torch.float32).min)
        return int(finite.masked_fill(self._others, -torch.inf).argmax())

    @cached_property
    def _others(self) -> Tensor:
        return torch.from_numpy(self._bits() == 0).to(self._device)

    def _bits(self) -> np.ndarray:
        return np.unpackbits(self._words.view(np.uint8), count=self._vocabulary, bitorder="little")


class Matcher(Protocol):
    """The state of an output in a grammar: the part of `xgrammar.GrammarMatcher` that is used."""

    def accept_token(self, token: int) -> bool:
        """Advance by a token; False if the grammar does not allow it."""
        ...

    def rollback(self, tokens: int) -> None:
        """Go back by so many tokens."""
        ...


class Grammar:
    """A grammar from `compile_grammar`, for logits on a device."""

    def __init__(self, xgrammar: ModuleType, compiled: Any, device: torch.device) -> None:
        self._xgrammar, self._compiled = xgrammar, compiled
        vocabulary = compiled.tokenizer_info.vocab_size
        self._bitmask = xgrammar.allocate_token_bitmask(1, vocabulary)
        self._read = lru_cache(_REMEMBERED)(lambda words: _AllowedByGrammar(words, vocabulary, device))

    def start(self) -> Any:
        """The state before the first token, a `Matcher`."""
        return self._xgrammar.GrammarMatcher(self._compiled)

    def allowed(self, matcher: Any) -> Allowed:
        """The tokens that may follow; the output must not have ended."""
        matcher.fill_next_token_bitmask(self._bitmask)
        return self._read(self._bitmask.numpy().tobytes())

    def follow(self, matchers: Sequence[Any], texts: Sequence[Sequence[int]]) -> list[int]:
        """Advance each matcher by the tokens of its text, up to the first that it refuses; return how many it took.

        This is one call, during which other threads run. Token by token, the interpreter lock would change hands each time.
        """
        each = [matcher for matcher, text in zip(matchers, texts, strict=True) for _ in text]
        accepted = self._xgrammar.BatchGrammarMatcher.batch_accept_token(each, [*chain.from_iterable(texts)])
        counts, place = [], 0
        for matcher, text in zip(matchers, texts, strict=True):
            taken = accepted[place : place + len(text)]
            count = taken.index(False) if False in taken else len(taken)
            if behind := sum(taken[count:]):  # after a refused token, a matcher takes the tokens behind it
                matcher.rollback(behind)
            counts.append(count)
            place += len(text)
        return counts

    def go_back(self, matchers: Sequence[Any], tokens: Sequence[int]) -> None:
        """Take each matcher back by so many tokens."""
        self._xgrammar.BatchGrammarMatcher.batch_rollback(list(matchers), list(tokens))


class NoGrammar:
    """Instead of a `Grammar`: every token may follow."""

    _anything = Allowed()

    def start(self) -> Matcher:
        """The only state, which accepts every token."""
        return self

    def allowed(self, matcher: Matcher) -> Allowed:
        """All tokens."""
        return self._anything

    def follow(self, matchers: Sequence[Matcher], texts: Sequence[Sequence[int]]) -> list[int]:
        """The lengths of the texts."""
        return [*map(len, texts)]

    def go_back(self, matchers: Sequence[Matcher], tokens: Sequence[int]) -> None:
        """Nothing to do."""

    def accept_token(self, token: int) -> bool:
        """Accept every token."""
        return True

    def rollback(self, tokens: int) -> None:
        """Nothing to do."""
