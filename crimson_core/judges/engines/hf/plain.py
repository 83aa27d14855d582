"""Decoding with `generate` of Transformers, batch by batch."""

from collections import deque
from collections.abc import Generator, Sequence

import torch
from transformers import GenerationConfig

from crimson_core.errors import check_whole, needed
from crimson_core.judges.engines.hf.engine import HFEngine, too_large
from crimson_core.judges.model import Answer, Question


class PlainEngine(HFEngine):
    """Writes one token at a time, for any architecture."""

    def write(self, questions: Sequence[Question]) -> Generator[tuple[int, Answer], None, None]:
        """Yield (position in `questions`, answer), batch by batch."""
        queue = deque(range(len(questions)))
        alone: list[int] = []
        while queue or alone:
            check_whole("batch_size", self.batch_size)
            batch = [queue.popleft() for _ in range(min(self.batch_size, len(queue)))] or [alone.pop()]
            prompts: dict[int, list[int]] = {}
            for index in batch:
                try:
                    prompts[index] = self.codec.encode(questions[index].messages)
                except ValueError as error:
                    yield index, Answer(failure=str(error))
            if not prompts:
                continue
            outputs = self._generate(list(prompts.values()))
            if outputs is None and len(prompts) > 1:
                self.batch_size = len(prompts) // 2
                queue.extendleft(reversed(prompts))
            elif outputs is None:
                (index,) = prompts
                yield index, too_large(prompts[index])
            else:
                limit = self.codec.limit(max(map(len, prompts.values())))
                for (index, prompt), output in zip(prompts.items(), outputs, strict=True):
                    ended = any(token in self.codec.ends for token in output)
                    if not ended and limit < self.codec.limit(len(prompt)):
                        alone.append(index)  # cut short for a longer neighbour's sake
                    else:
                        yield index, self.codec.answer(len(prompt), output, limit)

    def _generate(self, prompts: list[list[int]]) -> list[list[int]] | None:
        """One output per prompt, padded behind its end token; None if memory ran out."""
        width = max(map(len, prompts))
        ids = torch.tensor([[self.codec.pad] * (width - len(prompt)) + prompt for prompt in prompts])
        mask = torch.tensor([[0] * (width - len(prompt)) + [1] * len(prompt) for prompt in prompts])
        greedy = GenerationConfig(
            max_new_tokens=self.codec.limit(width),
            do_sample=False,
            num_beams=1,
            eos_token_id=self.codec.ends,
            pad_token_id=self.codec.pad,
            use_cache=True,  # training may have switched it off
        )
        processors = [needed("xgrammar.contrib.hf", "hf").LogitsProcessor(self.grammar)] if self.grammar else []
        outputs: list[list[int]] = []

        def generate() -> None:
            output = self.model.generate(  # type: ignore[operator]  # its type does not say so
                input_ids=ids.to(self.model.device),
                attention_mask=mask.to(self.model.device),
                generation_config=greedy,
                logits_processor=processors,
            )
            outputs.extend(output[:, width:].tolist())

        with self.writing(self.model.modules()):
            return outputs if self.fits(generate) else None
