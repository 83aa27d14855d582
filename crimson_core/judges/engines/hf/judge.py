"""`HFJudge`: pairs in, evaluations out.

Decoding is greedy, by default inside a grammar made from the evaluation's JSON schema, so that every output that ends
is an evaluation.
"""

import warnings
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import version
from threading import Lock
from typing import NamedTuple, Self

import torch
import transformers
from torch import nn
from transformers import GenerationConfig, PreTrainedModel
from transformers.tokenization_utils_base import PreTrainedTokenizerBase

from crimson_core.errors import InputError, JudgeError
from crimson_core.judges.base import IN_MEMORY, Judgement
from crimson_core.judges.engines.hf import decoding
from crimson_core.judges.engines.hf.asking import (
    DEFAULT_NEW_TOKENS,
    MAX_FINDINGS,
    MAX_TEXT,
    bounds_of,
    chat_encoder,
    check_positive,
    encode_pair,
    end_tokens,
    order,
    output_limit,
    prompt_of,
    read_output,
)
from crimson_core.judges.engines.hf.checkpoint import base_of, find_checkpoint, load_model, load_tokenizer, revision_of
from crimson_core.judges.engines.hf.decoding import Decoder, Flight, Row, Work
from crimson_core.judges.engines.hf.device import chosen_device, is_out_of_memory
from crimson_core.judges.engines.hf.drafts import Drafts
from crimson_core.judges.engines.hf.encoding import ChatEncoder
from crimson_core.judges.engines.hf.engine import engine, first_line
from crimson_core.judges.engines.hf.grammar import Grammar, NoGrammar, compile_grammar, evaluation_grammar
from crimson_core.judges.engines.hf.packed import PackedModel, why_not_compiled, why_not_packed
from crimson_core.protocol.evaluation import evaluation_schema
from crimson_core.protocol.pair import ReportPair
from crimson_core.protocol.prompt import Prompt

_DTYPES = {"bfloat16": torch.bfloat16, "float16": torch.float16, "float32": torch.float32}
_CPU_BATCH, _CUDA_BATCH = 8, 256  # the latter as far as memory allows
_PLAIN_BATCH = 16  # on an accelerator with generate, which takes what memory it wants
_DECODING = ("drafts", "plain")


class _Options(NamedTuple):
    """What can be set for a model on disk and for one in memory."""

    batch_size: int | None
    constrained: bool
    max_new_tokens: int | None
    max_findings: int
    max_text: int
    decoding: str | None
    compile: bool | None

    def checked(self) -> Self:
        """Itself, before anything is loaded."""
        for option, value in self._asdict().items():
            if option not in ("constrained", "decoding", "compile") and (
                value is not None or option in ("max_findings", "max_text")
            ):
                check_positive(option, value)
        if self.decoding not in (None, *_DECODING):
            raise InputError(f"decoding is {self.decoding!r}. Use one of {', '.join(_DECODING)}, or leave it out.")
        if self.constrained:
            engine("xgrammar")
        return self


class HFJudge:
    """Judges with a causal language model in the Transformers format.

    Only safetensors are loaded and no code from a checkpoint is ever run. Decoding is greedy whatever the
    checkpoint's generation config says; of that, the end tokens, the pad token and `max_new_tokens` are honoured.

    Args:
        model: Hub id, `<Hub id>@<revision>`, or folder: a merged model, or a LoRA adapter, which is merged into the
            base model that its config names.
        base: Folder or Hub id of an adapter's base model; None takes the one that the adapter names.
        revision: Branch, tag or commit of a Hub id.
        batch_size: Pairs that are generated together; None starts with 8 on a CPU and on an accelerator with as many, up
            to 256, as its free memory holds (16 with `plain`). It is halved when memory runs out, and stays so.
        device: For example `cpu`, `cuda` or `cuda:1`; None takes the accelerators that exist, else the CPU.
        dtype: `bfloat16`, `float16` or `float32`. In float32 a pair's evaluation does not depend on its batch; in the
            shorter types rounding differs with the shape of a batch, which can tip a close choice between two tokens.
        constrained: Keep the output inside the evaluation's JSON schema. False decodes freely, as the reference
            implementation does.
        guidelines: Whether the reference prompt holds the guidelines; None is the default for this model.
        max_new_tokens: Longest output in tokens; None takes the checkpoint's own limit, else 8192.
        max_findings: Longest list of findings, matches or errors that a constrained output can hold.
        max_text: Longest finding text or explanation in a constrained output, in characters; each of at most eight
            escaped characters in it, such as a quotation mark, allows as many again.
        decoding: `drafts` guesses tokens ahead and lets the model check them, which is several times as fast and writes
            the same: equal in float32 but for tokens that tie within rounding. `plain` is `generate` of Transformers,
            one token at a time. None takes drafts where the model's architecture is known to allow it (Gemma 3, Llama,
            Mistral, Qwen 2 and 3, on one device), else plain, which then stands in the signature.
        compile: Let torch compile the model's layers, which takes some seconds before the first pair and makes passes on a
            GPU about twice as fast. None does so on a CUDA device in half precision, where a C compiler is there. It
            stands in the signature.

    Attributes:
        prompt: How a pair is put to the model; may be replaced by another `Prompt` of the same style.
        batch_size: As above; may be changed between runs.
        work: What decoding with drafts has done so far: passes, tokens, seconds.

    Raises:
        InputError: An option has no possible value; the text names it.
        JudgeError: The model cannot be had or cannot be used; the text says what to do.
    """

    def __init__(
        self,
        model: str,
        *,
        base: str | None = None,
        revision: str | None = None,
        batch_size: int | None = None,
        device: str | None = None,
        dtype: str = "bfloat16",
        constrained: bool = True,
        guidelines: bool | None = None,
        max_new_tokens: int | None = None,
        max_findings: int = MAX_FINDINGS,
        max_text: int = MAX_TEXT,
        decoding: str | None = None,
        compile: bool | None = None,
    ) -> None:
        options = _Options(batch_size, constrained, max_new_tokens, max_findings, max_text, decoding, compile).checked()
        if dtype not in _DTYPES:
            raise InputError(f"dtype is {dtype!r}. Use one of {', '.join(_DTYPES)}.")
        device = chosen_device(device)

        checkpoint = find_checkpoint(model, revision)
        prompt = prompt_of(checkpoint, guidelines)
        found = base_of(checkpoint, base)
        tokenizer = load_tokenizer(checkpoint, found)
        encoder = chat_encoder(tokenizer, checkpoint.name, prompt)  # before the weights, which take long
        loaded = load_model(checkpoint, found, _DTYPES[dtype], device)
        origin = {"revision": revision_of(checkpoint)}
        if found:
            origin["base"] = f"{found.name}@{revision_of(found)}"
        self._set_up(loaded, tokenizer, encoder, checkpoint.name, prompt, origin, options)
        # Nobody else uses this model, so threads that share the judge need not see its config come and go.
        self._model.generation_config = GenerationConfig()

    @classmethod
    def from_model(
        cls,
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        *,
        name: str,
        prompt: Prompt,
        batch_size: int | None = None,
        constrained: bool = True,
        max_new_tokens: int | None = None,
        max_findings: int = MAX_FINDINGS,
        max_text: int = MAX_TEXT,
        decoding: str | None = None,
        compile: bool = False,
    ) -> Self:
        """A judge around a model in memory, for example one that is being trained.

        The model is used as it is at each call, and is left as it was: every module in the mode that it was in, and
        with its own generation config. Of that config the end tokens, the pad token and `max_new_tokens` are honoured,
        as they are now.

        Args:
            model: A causal language model, or a `PeftModel` with LoRA around one.
            tokenizer: Of the fast kind, with a chat template.
            name: For the signature and for errors.
            prompt: How a pair is put to the model.
            batch_size: As of the class, like the options that follow.
            constrained: As of the class.
            max_new_tokens: As of the class.
            max_findings: As of the class.
            max_text: As of the class.
            decoding: As of the class.
            compile: As of the class; the model's layers stay compiled.

        Raises:
            InputError: An option has no possible value; the text names it.
            JudgeError: The model cannot be used; the text says what to do.
        """
        options = _Options(batch_size, constrained, max_new_tokens, max_findings, max_text, decoding, compile).checked()
        judge = cls.__new__(cls)
        encoder = chat_encoder(tokenizer, name, prompt)
        judge._set_up(model, tokenizer, encoder, name, prompt, {"revision": IN_MEMORY}, options)
        return judge

    def _set_up(
        self,
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        encoder: ChatEncoder,
        name: str,
        prompt: Prompt,
        origin: dict[str, str],
        options: _Options,
    ) -> None:
        said = model.generation_config
        # LoRA works inside of the model that peft wraps; the wrapper's generate() writes its config into that model.
        self._model = model.get_base_model() if hasattr(model, "get_base_model") else model
        self._tokenizer, self._encoder, self.prompt = tokenizer, encoder, prompt
        self._ends = end_tokens(said, tokenizer, name)
        self._pad = next(i for i in (said.pad_token_id, tokenizer.pad_token_id, self._ends[0]) if i is not None)
        self._max_new_tokens = options.max_new_tokens or said.max_new_tokens or DEFAULT_NEW_TOKENS
        config = self._model.config.get_text_config()
        self._context: int | None = getattr(config, "max_position_embeddings", None)
        self.work = Work()
        obstacle = why_not_packed(self._model)
        if obstacle and options.decoding == "drafts":
            raise JudgeError(f"{name} cannot be decoded with drafts: {obstacle} is not known here. Leave decoding out.")
        self._packed = None if obstacle or options.decoding == "plain" else PackedModel(self._model)
        compiled = self._compile(name, options.compile)
        self._grammar = None
        if options.constrained:
            grammar = evaluation_grammar(evaluation_schema(options.max_findings, options.max_text))
            self._grammar = compile_grammar(engine("xgrammar"), grammar, tokenizer, config.vocab_size, self._ends)
        on_cpu = self._model.device.type == "cpu"
        usual = _CPU_BATCH if on_cpu else _CUDA_BATCH if self._packed else _PLAIN_BATCH
        self.batch_size = options.batch_size or usual
        bounds = bounds_of(options.constrained, options.max_findings, options.max_text)
        self._signature = {
            "judge": f"hf:{name}",
            **origin,
            "prompt": "",
            "decoding": f"greedy,max{self._max_new_tokens},{bounds}"
            f"{'' if self._packed else ',plain'}{',compiled' if compiled else ''}",
            "dtype": str(self._model.dtype).removeprefix("torch."),
            "torch": torch.__version__,
            "transformers": transformers.__version__,
            **({"xgrammar": version("xgrammar")} if options.constrained else {}),
        }

    def _compile(self, name: str, wanted: bool | None) -> bool:
        """Compile the model's layers, if that is wanted or, where nothing is said, possible; whether they are compiled."""
        if wanted is False or (wanted is None and not self._packed):
            return False
        obstacle = why_not_compiled(self._model) if self._packed else "it is decoded plainly"
        if obstacle and wanted:
            raise JudgeError(f"{name} cannot be compiled: {obstacle}. Leave compile out.")
        if obstacle:
            return False
        try:
            self._packed.compile()
            return True
        except Exception as error:  # of the compiler and of all that it calls
            if wanted:
                raise JudgeError(f"{name} cannot be compiled: {first_line(error)}. Give compile=False.") from None
            warnings.warn(
                f"The layers of {name} could not be compiled ({first_line(error)}). They run as they are, which takes "
                "about twice the time; compile=False does so without this warning.",
                stacklevel=4,
            )
            return False

    def signature(self) -> dict[str, str]:
        """Model, revision, prompt, decoding, dtype and versions.

        The revision of a Hub model is its commit. A folder has none: `sampled-…` is a digest of its small files
        (configs, tokenizer, chat template) and of the first 4 KiB of every tensor, which another training run changes.
        """
        return self._signature | {"prompt": str(self.prompt)}

    def judge(self, pairs: Sequence[ReportPair]) -> Iterator[tuple[int, Judgement]]:
        """Yield (position in `pairs`, judgement), short pairs first.

        A pair whose prompt the model cannot hold, whose output does not end, or which does not fit into memory even
        alone, is a failed judgement.

        Raises:
            InputError: `batch_size` has been set to something that is none.
        """
        # By characters, which needs no tokenising ahead. Short ones first: memory runs out in the long ones, and by
        # then a halved batch size suits all that follow.
        queue = deque(sorted(range(len(pairs)), key=lambda index: order(pairs[index])))
        yield from (self._with_drafts if self._packed else self._plainly)(pairs, queue)

    def _with_drafts(self, pairs: Sequence[ReportPair], queue: deque[int]) -> Iterator[tuple[int, Judgement]]:
        """A pair that is done makes room for the next one at once."""
        pace = decoding.CPU_PACE if self._model.device.type == "cpu" else decoding.CUDA_PACE
        grammar = Grammar(engine("xgrammar"), self._grammar, self._model.device) if self._grammar else NoGrammar()
        drafts = Drafts(self._encoder.encode_text, self._tokenizer.decode, self._model.device.type == "cpu")
        hand = _Hand(pace.crews)
        modules = list(self._model.modules())
        turn = 0
        while queue or hand.rows:
            check_positive("batch_size", self.batch_size)
            if hand.decoder is None:
                hand.decoder = Decoder(self._packed, grammar, frozenset(self._ends), self.work, pace)
            turn = (turn + 1) % pace.crews
            done: list[tuple[int, Row]] = []
            refused: list[tuple[int, Judgement]] = []

            def go_on() -> None:
                done.extend(hand.land(turn))  # noqa: B023 (called at once)
                self._take_up(pairs, queue, hand, turn, drafts, refused)  # noqa: B023
                hand.launch(turn)  # noqa: B023

            with _left_as_it_was(self._model, modules):
                fits = self._fits(go_on)
            for index, row in done:
                with self.work.timed("drafting"):
                    drafts.finish(row.drafter, row.output)
                with self.work.timed("parsing"):
                    judgement = self._read(len(row.prompt), row.output, row.limit)
                yield index, judgement
            yield from refused
            if not fits:
                yield from self._begin_again(pairs, queue, hand)

    def _take_up(
        self,
        pairs: Sequence[ReportPair],
        queue: deque[int],
        hand: "_Hand",
        turn: int,
        drafts: Drafts,
        refused: list[tuple[int, Judgement]],
    ) -> None:
        """Add rows to a crew, as far as the next pass has room for their prompts; pairs that cannot be asked are refused."""
        crew, decoder = hand.crews[turn], hand.decoder
        others = len(hand.rows) - len(crew)
        batch_size = self.batch_size if hand.alone is None else 1
        most = min(batch_size - others, -(-batch_size // len(hand.crews)))
        while queue and len(crew) < most and decoder.wants_more(crew.values()):
            index = queue[0]
            if index not in hand.next:
                try:
                    with self.work.timed("tokenising"):
                        hand.next = {index: self._encode(pairs[index])}
                except ValueError as error:
                    refused.append((queue.popleft(), Judgement(failure=str(error))))
                    continue
            prompt = hand.next[index]
            if not decoder.has_room(len(prompt), others + len(crew)):
                break
            if hand.alone != index:
                decoder.reserve(len(prompt), min(self.batch_size, len(queue)))
            with self.work.timed("drafting"):
                drafter = drafts.row(pairs[index], prompt)
            crew[index] = decoder.start(prompt, self._limit(len(prompt)), drafter)
            queue.popleft()

    def _begin_again(
        self, pairs: Sequence[ReportPair], queue: deque[int], hand: "_Hand"
    ) -> Iterator[tuple[int, Judgement]]:
        """After memory has run out: with what was in hand, in smaller batches, at last one pair with nothing beside it."""
        rows, alone = hand.rows, hand.alone
        hand.drop()
        queue.extendleft(reversed(rows))
        if len(rows) > 1:
            self.batch_size = len(rows) // 2
        elif not rows and self.batch_size > 1:  # nothing but room for rows was asked for
            self.batch_size //= 2
        elif alone == queue[0]:
            index = queue.popleft()
            yield index, _too_large(self._encode(pairs[index]))
        else:
            hand.alone = queue[0]

    def _plainly(self, pairs: Sequence[ReportPair], queue: deque[int]) -> Iterator[tuple[int, Judgement]]:
        """Batch by batch with `generate`."""
        alone: list[int] = []
        while queue or alone:
            check_positive("batch_size", self.batch_size)
            batch = [queue.popleft() for _ in range(min(self.batch_size, len(queue)))] or [alone.pop()]
            prompts: dict[int, list[int]] = {}
            for index in batch:
                try:
                    prompts[index] = self._encode(pairs[index])
                except ValueError as error:
                    yield index, Judgement(failure=str(error))
            if not prompts:
                continue
            outputs = self._generate(list(prompts.values()))
            if outputs is None and len(prompts) > 1:
                self.batch_size = len(prompts) // 2
                queue.extendleft(reversed(prompts))
            elif outputs is None:
                (index,) = prompts
                yield index, _too_large(prompts[index])
            else:
                limit = self._limit(max(map(len, prompts.values())))
                for (index, prompt), output in zip(prompts.items(), outputs, strict=True):
                    ended = any(token in self._ends for token in output)
                    if not ended and limit < self._limit(len(prompt)):
                        alone.append(index)  # cut short for a longer neighbour's sake
                    else:
                        yield index, self._read(len(prompt), output, limit)

    def _encode(self, pair: ReportPair) -> list[int]:
        """Token ids of a pair's prompt; a ValueError says why the model cannot be asked."""
        return encode_pair(self._encoder, self.prompt, pair, self._context)

    def _limit(self, prompt_tokens: int) -> int:
        """How many tokens may follow a prompt."""
        return output_limit(self._max_new_tokens, self._context, prompt_tokens)

    def _generate(self, prompts: list[list[int]]) -> list[list[int]] | None:
        """One output per prompt, padded behind its end token; None if memory ran out."""
        width = max(map(len, prompts))
        ids = torch.tensor([[self._pad] * (width - len(prompt)) + prompt for prompt in prompts])
        mask = torch.tensor([[0] * (width - len(prompt)) + [1] * len(prompt) for prompt in prompts])
        greedy = GenerationConfig(
            max_new_tokens=self._limit(width),
            do_sample=False,
            num_beams=1,
            eos_token_id=self._ends,
            pad_token_id=self._pad,
            use_cache=True,  # training may have switched it off
        )
        processors = [engine("xgrammar.contrib.hf").LogitsProcessor(self._grammar)] if self._grammar else []
        outputs: list[list[int]] = []

        def generate() -> None:
            output = self._model.generate(
                input_ids=ids.to(self._model.device),
                attention_mask=mask.to(self._model.device),
                generation_config=greedy,
                logits_processor=processors,
            )
            outputs.extend(output[:, width:].tolist())

        with _left_as_it_was(self._model, self._model.modules()):
            return outputs if self._fits(generate) else None

    def _fits(self, work: Callable[[], None]) -> bool:
        """Let the model work, and say whether memory was enough."""
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

    def _read(self, prompt_tokens: int, output: list[int], limit: int) -> Judgement:
        return read_output(self._tokenizer, self._ends, prompt_tokens, output, limit)


class _Hand:
    """The rows that are being written, in one or two crews, and the passes that the device has been given.

    With two crews the device always has a pass to do while the host reads what it said of the other crew's rows.

    Args:
        crews: How many.

    Attributes:
        crews: Rows by the index of their pair.
        decoder: Of all crews; None where a new one is to be made.
        next: The pair that is waiting for room, and its prompt, if it has been encoded.
        alone: A pair for which memory ran out with nothing but what was kept or reserved beside it: it is tried without.
    """

    def __init__(self, crews: int) -> None:
        self.crews: list[dict[int, Row]] = [{} for _ in range(crews)]
        self.decoder: Decoder | None = None
        self.next: dict[int, list[int]] = {}
        self.alone: int | None = None
        self._flights: list[Flight | None] = [None] * crews

    @property
    def rows(self) -> dict[int, Row]:
        """Those of all crews."""
        return {index: row for crew in self.crews for index, row in crew.items()}

    def land(self, turn: int) -> list[tuple[int, Row]]:
        """Wait for a crew's pass; the rows that are done leave the crew."""
        flight, self._flights[turn] = self._flights[turn], None
        if flight is not None:
            self.decoder.land(flight)
        crew = self.crews[turn]
        done = [(index, row) for index, row in crew.items() if row.done]
        for index, row in done:
            self.decoder.finish(row)
            del crew[index]
            self.alone = None if index == self.alone else self.alone
        return done

    def launch(self, turn: int) -> None:
        """Give the device a pass over a crew's rows, if there are any."""
        if crew := self.crews[turn]:
            self._flights[turn] = self.decoder.launch(list(crew.values()))

    def drop(self) -> None:
        """Let go of everything."""
        self.__init__(len(self.crews))


def _too_large(prompt: Sequence[int]) -> Judgement:
    return Judgement(failure=f"out of memory on a prompt of {len(prompt)} tokens, alone")


@contextmanager
def _left_as_it_was(model: PreTrainedModel, modules: Iterable[nn.Module]) -> Iterator[None]:
    """Generate without dropout and without the model's own wishes, and put both back.

    What a checkpoint wants sampled, penalised or suppressed would be merged into every generate() call.

    Args:
        model: Whose wishes.
        modules: All of the model's. Walking through a model takes longer than through a list of them.
    """
    key = id(model)
    with _held_lock:
        if key not in _held:
            _held[key] = _Held(model.generation_config, [module for module in modules if module.training])
            model.generation_config = GenerationConfig()
            for module in _held[key].training:
                module.training = False
        _held[key].users += 1
    try:
        yield
    finally:
        with _held_lock:
            held = _held[key]
            held.users -= 1
            if not held.users:  # the last thread puts things back
                del _held[key]
                model.generation_config = held.wishes
                for module in held.training:
                    module.training = True


@dataclass
class _Held:
    """What is to be put back when no thread generates with a model any more.

    Attributes:
        wishes: The model's own generation config.
        training: Modules in training mode.
        users: Threads that generate.
    """

    wishes: GenerationConfig
    training: list[nn.Module]
    users: int = 0


_held: dict[int, _Held] = {}  # by id of a model
_held_lock = Lock()
