"""Following outputs through a grammar: what may come next."""

from collections.abc import Sequence
from functools import cached_property, lru_cache
from itertools import chain
from types import ModuleType
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor
from transformers.tokenization_utils_base import PreTrainedTokenizerBase

_FEW = 2048  # tokens: so few are cheaper to ask the output layer about than all
_COMPILED = 4  # grammars that are kept
_REMEMBERED = 256  # sets of allowed tokens; inside a text it is the same one most of the time


def compile_grammar(
    xgrammar: ModuleType, grammar: str, tokenizer: PreTrainedTokenizerBase, vocab_size: int, ends: Sequence[int]
) -> Any:
    """A grammar against a tokenizer's vocabulary, which may be padded to `vocab_size`; it ends with one of `ends`.

    It takes seconds, so judges that share a tokenizer share it.
    """
    return _compiled(xgrammar, grammar, tokenizer, vocab_size, tuple(ends))


@lru_cache(_COMPILED)
def _compiled(
    xgrammar: ModuleType, grammar: str, tokenizer: PreTrainedTokenizerBase, vocab_size: int, ends: tuple[int, ...]
) -> Any:
    info = xgrammar.TokenizerInfo.from_huggingface(tokenizer, vocab_size=vocab_size, stop_token_ids=list(ends))
    return xgrammar.GrammarCompiler(info).compile_grammar(grammar)


class Allowed:
    """The tokens that may follow; any, unless told otherwise.

    Attributes:
        few: Their ids, ascending, where they are few; else None.
        only: The one token that may follow, if it is one.
    """

    few: Tensor | None = None
    only: int | None = None

    def __contains__(self, token: int) -> bool:
        return True

    def best(self, logits: Tensor) -> int:
        """The likeliest of them.

        Args:
            logits: Over the vocabulary.
        """
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
        # What is no number, or no finite one, must not let a token in that is not allowed.
        finite = logits.float().nan_to_num(nan=torch.finfo(torch.float32).min)
        return int(finite.masked_fill(self._others, -torch.inf).argmax())

    @cached_property
    def _others(self) -> Tensor:
        return torch.from_numpy(self._bits() == 0).to(self._device)

    def _bits(self) -> np.ndarray:
        return np.unpackbits(self._words.view(np.uint8), count=self._vocabulary, bitorder="little")


class Matcher(Protocol):
    """Where an output stands in a grammar; what `xgrammar.GrammarMatcher` offers."""

    def accept_token(self, token: int) -> bool:
        """Go on by a token."""
        ...

    def rollback(self, tokens: int) -> None:
        """Go back by so many tokens."""
        ...


class Grammar:
    """A compiled grammar, ready to follow outputs.

    Args:
        xgrammar: The package.
        compiled: What `compile_grammar` gives.
        device: Where logits are.
    """

    def __init__(self, xgrammar: ModuleType, compiled: Any, device: torch.device) -> None:
        self._xgrammar, self._compiled = xgrammar, compiled
        vocabulary = compiled.tokenizer_info.vocab_size
        self._bitmask = xgrammar.allocate_token_bitmask(1, vocabulary)
        self._read = lru_cache(_REMEMBERED)(lambda words: _AllowedByGrammar(words, vocabulary, device))

    def start(self) -> Any:
        """The state before the first token, a `Matcher`."""
        return self._xgrammar.GrammarMatcher(self._compiled)

    def allowed(self, matcher: Any) -> Allowed:
        """What may follow in a state that has not ended."""
        matcher.fill_next_token_bitmask(self._bitmask)
        return self._read(self._bitmask.numpy().tobytes())

    def follow(self, matchers: Sequence[Any], texts: Sequence[Sequence[int]]) -> list[int]:
        """Let each matcher go on by the tokens of its text up to the first that it refuses; by how many each has gone on.

        In one call, in which other threads may run: asking token by token, the interpreter lock would change hands each time.
        """
        each = [matcher for matcher, text in zip(matchers, texts, strict=True) for _ in text]
        accepted = self._xgrammar.BatchGrammarMatcher.batch_accept_token(each, [*chain.from_iterable(texts)])
        counts, place = [], 0
        for matcher, text in zip(matchers, texts, strict=True):
            taken = accepted[place : place + len(text)]
            count = taken.index(False) if False in taken else len(taken)
            if behind := sum(taken[count:]):  # a matcher that refuses a token takes the next ones in its place
                matcher.rollback(behind)
            counts.append(count)
            place += len(text)
        return counts

    def go_back(self, matchers: Sequence[Any], tokens: Sequence[int]) -> None:
        """Let each matcher go back by so many tokens."""
        self._xgrammar.BatchGrammarMatcher.batch_rollback(list(matchers), list(tokens))


class NoGrammar:
    """In place of a `Grammar`: every token may follow every other."""

    _anything = Allowed()

    def start(self) -> Matcher:
        """A state that accepts all."""
        return self

    def allowed(self, matcher: Matcher) -> Allowed:
        """Anything."""
        return self._anything

    def follow(self, matchers: Sequence[Matcher], texts: Sequence[Sequence[int]]) -> list[int]:
        """All of each."""
        return [*map(len, texts)]

    def go_back(self, matchers: Sequence[Matcher], tokens: Sequence[int]) -> None:
        """Nothing to do."""

    def accept_token(self, token: int) -> bool:
        """True."""
        return True

    def rollback(self, tokens: int) -> None:
        """Nothing to do."""
