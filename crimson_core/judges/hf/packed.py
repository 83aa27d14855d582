"""Forward passes over rows of unequal length, packed into one sequence: no padding, and logits only where asked for.

The tokens of all rows run through the model's own layers as one sequence. Only attention tells the rows apart: each row
sees its own cache, by position. Rows of any length, prompts and drafts alike, share a pass, and a row's numbers do not
depend on its neighbours but for rounding.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from typing import Any, NamedTuple

import psutil
import torch
from torch import Tensor, nn
from torch.nn.functional import linear, scaled_dot_product_attention
from torch.overrides import TorchFunctionMode
from transformers import AttentionInterface, AttentionMaskInterface, PreTrainedModel
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

from crimson_core.judges.hf.cache import RowCache

_NAME = "crimson_packed"
_FEW = 128  # positions of a pass
_SHARE = 0.7  # of the free memory, which the tensors of a pass need as well

# Architectures whose forward pass was read, and is checked against generate() in the tests: what tells positions apart is
# attention and rotary embedding only, attention goes through the AttentionInterface, and logits are lm_head's (and soft-capped).
_KNOWN = frozenset({"gemma3_text", "llama", "mistral", "qwen2", "qwen3"})
_KNOWN_LAYERS = frozenset({"full_attention", "sliding_attention"})
_KNOWN_ROPES = frozenset({"default", "linear", "llama3", "yarn"})  # the others look at the longest row of a pass


class Span(NamedTuple):
    """Some next tokens of one row.

    Attributes:
        cache: The row's; the tokens follow what it counts.
        tokens: Their ids.
    """

    cache: RowCache
    tokens: Sequence[int]


class _Packed:
    """What attention has to know of a pass."""

    def __init__(self, spans: Sequence[Span]) -> None:
        self.rows: list[tuple[RowCache, slice]] = []
        place = 0
        for span in spans:
            self.rows.append((span.cache, slice(place, place := place + len(span.tokens))))
        self._masks: dict[tuple[Any, ...], Tensor | None] = {}

    def mask(self, row: int, low: int, window: int | None, like: Tensor) -> Tensor | None:
        """What is added to the scores of a row's new positions against those from `low` on: 0 or minus infinity."""
        key = row, low, window, like.device
        if key not in self._masks:
            cache, place = self.rows[row]
            start, end = cache.length, cache.length + place.stop - place.start
            mask = None
            if end - start > 1:  # a single position sees all that it is given
                query = torch.arange(start, end, device=like.device)[:, None]
                distance = query - torch.arange(low, end, device=like.device)
                hidden = distance < 0 if window is None else (distance < 0) | (distance >= window)
                mask = torch.zeros_like(distance, dtype=like.dtype).masked_fill_(hidden, -torch.inf)
            self._masks[key] = mask
        return self._masks[key]


def _attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float | None = None,
    sliding_window: int | None = None,
    packed: _Packed | None = None,
    **options: Any,
) -> tuple[Tensor, None]:
    """Attention of a packed pass; in any other pass, that of Transformers.

    Args:
        module: The model's attention module.
        query: (1, heads, tokens, head size).
        key: (1, key heads, tokens, head size).
        value: Likewise.
        attention_mask: Of no use in a packed pass.
        scaling: Of the scores.
        sliding_window: As of `RowCache.write`.
        packed: The rows.
        **options: For Transformers.

    Returns:
        (1, tokens, heads, head size), and no weights.
    """
    if packed is None:
        return sdpa_attention_forward(
            module, query, key, value, attention_mask, scaling=scaling, sliding_window=sliding_window, **options
        )
    heads, size, key_heads = query.shape[1], value.shape[3], key.shape[1]
    output = query.new_empty(1, query.shape[2], heads, size)
    for row, (cache, place) in enumerate(packed.rows):
        keys, values, low = cache.write(module.layer_idx, key[0, :, place], value[0, :, place], sliding_window)
        groups = query[0, :, place].unflatten(0, (key_heads, -1))
        shared = (-1, groups.shape[1], -1, -1)  # queries that share a key head
        mask = packed.mask(row, low, sliding_window, query)
        answer = scaled_dot_product_attention(
            groups, keys[:, None].expand(shared), values[:, None].expand(shared), mask, scale=scaling
        )
        output[0, place] = answer.flatten(0, 1).transpose(0, 1)
    return output, None


AttentionInterface.register(_NAME, _attention)
AttentionMaskInterface.register(_NAME, sdpa_mask)


def why_not_packed(model: PreTrainedModel) -> str | None:
    """Why a model's passes cannot be packed with certainty; None if they can."""
    config = model.config
    if config.model_type not in _KNOWN or type(model).__name__ not in _CLASSES:
        return f"the architecture {config.model_type}"
    if len(set(getattr(model, "hf_device_map", {"": 0}).values())) > 1:
        return "a model on several devices"
    if config._attn_implementation not in ("sdpa", "eager", _NAME):
        return f"the attention {config._attn_implementation}"
    if getattr(config, "attn_logit_softcapping", None) or getattr(config, "use_bidirectional_attention", False):
        return "its kind of attention"
    if not _KNOWN_LAYERS.issuperset(getattr(config, "layer_types", None) or ()):
        return "its kinds of layers"
    ropes = config.rope_parameters or {}
    ropes = ropes.values() if all(isinstance(rope, dict) for rope in ropes.values()) else [ropes]
    if any(rope.get("rope_type", "default") not in _KNOWN_ROPES for rope in ropes):
        return "its kind of rotary embedding"
    return None


_CLASSES = frozenset(
    {"Gemma3ForCausalLM", "LlamaForCausalLM", "MistralForCausalLM", "Qwen2ForCausalLM", "Qwen3ForCausalLM"}
)


class PackedModel:
    """A causal language model that is asked in packed passes.

    Args:
        model: One of which `why_not_packed` says nothing.
    """

    def __init__(self, model: PreTrainedModel) -> None:
        self.device = model.device
        self._model = model
        head = model.get_output_embeddings()
        self._plain_head = head if type(head) is nn.Linear else None  # LoRA may have wrapped it

    def has_room(self, caches: Iterable[tuple[RowCache, int]]) -> bool:
        """Whether memory is free for the caches of some rows, with the tokens that each is to hold, and of one row more."""
        config = self._model.config
        heads = getattr(config, "num_key_value_heads", None) or config.num_attention_heads
        size = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
        each = 2 * config.num_hidden_layers * heads * size * self._model.dtype.itemsize  # bytes of a token
        wanted = [(cache.length, tokens) for cache, tokens in caches]
        coming = sum(max(0, tokens - length) for length, tokens in wanted) + max((t for _, t in wanted), default=0)
        return coming * each < _free_memory(self.device) * _SHARE

    @contextmanager
    def attention(self) -> Iterator[None]:
        """Let the model's attention tell rows apart, and put back what was there."""
        config = self._model.config
        before = config._attn_implementation
        config._attn_implementation = _NAME
        try:
            with _WeightInFront() if self.device.type == "cpu" else nullcontext():
                yield
        finally:
            config._attn_implementation = before

    def hidden_states(self, spans: Sequence[Span]) -> Tensor:
        """The last hidden states of all tokens of all spans, one behind the other; their caches are written.

        Returns:
            (tokens, hidden size).
        """
        ids = [token for span in spans for token in span.tokens]
        positions = [at for span in spans for at in range(span.cache.length, span.cache.length + len(span.tokens))]
        return self._model.model(
            input_ids=torch.tensor([ids], device=self.device),
            position_ids=torch.tensor([positions], device=self.device),
            attention_mask=torch.empty(
                1, 1, 1, 1, device=self.device
            ),  # four dimensions: Transformers makes none of its own
            use_cache=False,
            packed=_Packed(spans),
        ).last_hidden_state[0]

    def logits(self, hidden: Tensor, only: Tensor | None = None) -> Tensor:
        """Logits as `generate` sees them.

        Args:
            hidden: (n, hidden size).
            only: Token ids; None for the whole vocabulary.

        Returns:
            (n, vocabulary or number of ids), in float32.
        """
        if self._plain_head is None or (only is None and self.device.type != "cpu"):
            logits = self._model.lm_head(hidden)
            logits = logits if only is None else logits[:, only]
        else:
            weight, bias = self._plain_head.weight, self._plain_head.bias
            if only is not None:
                weight, bias = weight[only], None if bias is None else bias[only]
            logits = _linear(hidden, weight, bias)
        cap = getattr(self._model.config, "final_logit_softcapping", None)
        if cap is not None:
            logits = torch.tanh(logits / cap) * cap
        return logits.float()


class _WeightInFront(TorchFunctionMode):
    """Inside of it, linear layers take a few positions as `_linear` does. Modes are a thread's own."""

    def __torch_function__(
        self, func: Callable, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if func is linear and args[0].dim() == 3 and args[0].shape[0] == 1 and 1 < args[0].shape[1] <= _FEW:
            return _linear(args[0][0], *args[1:], **(kwargs or {}))[None]
        return func(*args, **(kwargs or {}))


def _linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """`torch.nn.functional.linear` on (positions, in); with the weight in front, a CPU takes two thirds of the time for a few."""
    return (weight @ x.T if bias is None else torch.addmm(bias[:, None], weight, x.T)).T.contiguous()


def _free_memory(device: torch.device) -> int:
    """In bytes; what torch has reserved and does not use counts as free."""
    if device.type != "cuda":
        return psutil.virtual_memory().available
    unused = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    return torch.cuda.mem_get_info(device)[0] + unused
