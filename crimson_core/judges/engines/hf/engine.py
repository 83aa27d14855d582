"""The common part of both ways of decoding: a Transformers model, and its state while it writes."""

from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn
from transformers import GenerationConfig, PreTrainedModel

from crimson_core.judges.engines.hf.decoding import Work
from crimson_core.judges.engines.hf.device import is_out_of_memory
from crimson_core.judges.engines.hf.held import held
from crimson_core.judges.engines.local.codec import Codec
from crimson_core.judges.model import Answer


@dataclass(eq=False)
class HFEngine:
    """A causal language model of Transformers in this process; a way of decoding adds `write`.

    Attributes:
        model: The model, without a wrapper of peft.
        codec: Encodes prompts and decodes outputs.
        grammar: The compiled grammar of the outputs; None if they are free.
        batch_size: Number of questions that are answered together; may be changed between runs. It is halved when memory
            runs out, and stays so. A question that does not fit even alone is a failed answer.
        fields: The fields of the signature.
        work: Counts and times of decoding with drafts so far.
    """

    model: PreTrainedModel
    codec: Codec
    grammar: Any
    batch_size: int
    fields: dict[str, str]
    work: Work = field(init=False, default_factory=Work)

    def signature(self) -> dict[str, str]:
        """Model, revision, decoding, dtype and versions."""
        return self.fields

    def fits(self, work: Callable[[], None]) -> bool:
        """Run `work`; return False if memory ran out."""
        try:
            work()
            return True
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
        # Out here, since the exception holds on to the tensors of the failed call.
        if torch.accelerator.is_available():
            torch.accelerator.empty_cache()
        return False

    def writing(self, modules: Iterable[nn.Module]) -> AbstractContextManager[None]:
        """Switch off dropout and the model's own generation config meanwhile.

        Sampling, penalties or suppressed tokens of a checkpoint's config would be merged into every generate() call.

        Args:
            modules: All modules of the model, as a list, which is faster to walk through than the model.
        """
        model = self.model

        def change() -> Callable[[], None]:
            config, training = model.generation_config, [module for module in modules if module.training]
            model.generation_config = GenerationConfig()
            _set_training(training, False)

            def undo() -> None:
                model.generation_config = config
                _set_training(training, True)

            return undo

        return held(model, change)


def _set_training(modules: Iterable[nn.Module], training: bool) -> None:
    for module in modules:
        module.training = training


def too_large(prompt: Sequence[int]) -> Answer:
    """The answer where memory runs out for a single prompt."""
    return Answer(failure=f"out of memory on a prompt of {len(prompt)} tokens, alone")
