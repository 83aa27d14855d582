"""The vllm judge: a causal language model in vLLM's offline engine, for many pairs on GPUs."""

import json
import os
import re
import tempfile
from collections import deque
from collections.abc import Collection, Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from importlib.metadata import version
from itertools import count
from pathlib import Path
from typing import Any

from safetensors import safe_open

from crimson_core.errors import InputError, JudgeError, check_whole, first_line
from crimson_core.judges.engines.local.checkpoint import (
    Checkpoint,
    base_of,
    find_checkpoint,
    generation_config,
    load_tokenizer,
    loading,
    origin_of,
    prompt_of,
)
from crimson_core.judges.engines.local.codec import MAX_FINDINGS, MAX_TEXT, Codec, Limits, chat_encoder
from crimson_core.judges.model import Answer, ModelJudge, Question

os.environ.setdefault("VLLM_NO_USAGE_STATS", "1")  # vLLM sends usage statistics unless told not to
import vllm  # noqa: E402
from vllm.lora.request import LoRARequest  # noqa: E402
from vllm.sampling_params import RequestOutputKind, StructuredOutputsParams  # noqa: E402

_DTYPES = ("bfloat16", "float16", "float32")
_IN_HAND = 2048
_ADDED = 32  # questions tokenised between two steps of vLLM
_RANKS = (1, 8, 16, 32, 64, 128, 256, 320, 512)  # the adapter ranks that vLLM allocates
_WRAPPED = "base_model.model."  # PEFT's prefix of a layer's name
_Asked = tuple[int, int, int]  # position of a question, tokens of its prompt, limit of its answer
_NGRAMS = {"method": "ngram", "prompt_lookup_min": 2, "prompt_lookup_max": 5}


def vllm_judge(
    model: str,
    *,
    base: str | None = None,
    revision: str | None = None,
    dtype: str = "bfloat16",
    tensor_parallel_size: int = 1,
    data_parallel_size: int = 1,
    max_model_len: int | None = None,
    gpu_memory_utilization: float | None = None,
    batch_size: int = _IN_HAND,
    ngram_drafts: int | None = None,
    constrained: bool = True,
    guidelines: bool | None = None,
    max_new_tokens: int | None = None,
    max_findings: int = MAX_FINDINGS,
    max_text: int = MAX_TEXT,
    engine: Mapping[str, Any] | None = None,
) -> ModelJudge:
    """A judge that asks a causal language model in the Transformers format, run by vLLM in this process.

    Prompt, grammar, end tokens and parsing are those of the hf judge. vLLM runs the model, batches pairs as its memory
    allows, and computes a common prefix of prompts once. Only safetensors are loaded, and never code from a checkpoint.

    vLLM applies a LoRA adapter of a text model beside its base model, without merging. An adapter of a multimodal
    model, or one with more than LoRA matrices, has to be merged first.

    With vLLM's greedy decoding, the batch or the drafts can decide between two tokens of almost equal probability, in
    bfloat16 more often than in float32.

    Args:
        model: Hub id, `<Hub id>@<revision>`, or folder: a whole model, or a LoRA adapter.
        base: Folder or Hub id of an adapter's base model; None uses the one that the adapter names.
        revision: Branch, tag or commit of a Hub model.
        dtype: `bfloat16`, `float16` or `float32`.
        tensor_parallel_size: GPUs that share one copy of the model.
        data_parallel_size: vLLM's option, which must be 1 in a single process. To run a copy of the model on each of
            several GPUs, start processes with `accelerate launch` (`AccelerateJudge`) or score with `--engine ray`.
        max_model_len: Maximum tokens of prompt and output together; None uses the model's own limit, for which vLLM
            must find memory.
        gpu_memory_utilization: The share of a GPU's memory that vLLM uses; None leaves it to vLLM.
        batch_size: Maximum number of pairs handed to vLLM, waiting ones included: enough that it never waits for the
            tokenizer. vLLM's own `max_num_seqs` limits how many run together.
        ngram_drafts: How many tokens vLLM drafts from n-grams of the prompt and the output; None turns drafts off.
        constrained: Keep the output inside the evaluation's JSON schema.
        guidelines: Whether the reference prompt contains the guidelines; None uses the default for this model.
        max_new_tokens: Maximum output tokens; None uses the checkpoint's own limit, else 8192.
        max_findings: Same as for `hf_judge`.
        max_text: Same as for `hf_judge`.
        engine: Further arguments of `vllm.LLM`, such as `{"enforce_eager": True}`; they are part of the signature.

    Raises:
        InputError: An option has an impossible value; the message names it.
        JudgeError: The model or vLLM is missing or cannot be used; the message says what to do.
    """
    sizes = {"tensor_parallel_size": tensor_parallel_size, "data_parallel_size": data_parallel_size}
    optional = {"max_model_len": max_model_len, "ngram_drafts": ngram_drafts}
    optional = {option: value for option, value in optional.items() if value is not None}
    for option, value in (sizes | {"batch_size": batch_size} | optional).items():
        check_whole(option, value)
    limits = Limits(constrained, max_new_tokens, max_findings, max_text)
    if dtype not in _DTYPES:
        raise InputError(f"dtype is {dtype!r}. Use one of {', '.join(_DTYPES)}.")

    checkpoint = find_checkpoint(model, revision)
    found = base_of(checkpoint, base)
    rank = _rank(checkpoint, found) if found else 0
    prompt = prompt_of(checkpoint, guidelines)
    tokenizer = load_tokenizer(checkpoint, found)
    encoder = chat_encoder(tokenizer, checkpoint.name, prompt)
    codec = Codec(encoder, generation_config(checkpoint, found), limits.max_new_tokens)

    settings: dict[str, Any] = {
        "dtype": dtype,
        **sizes,
        "max_model_len": max_model_len,
        "trust_remote_code": False,
        "load_format": "safetensors",
        "generation_config": "vllm",  # ignore the checkpoint's sampling settings
        "enable_prefix_caching": True,
        "structured_outputs_config": {"backend": "xgrammar"},  # no other backend reads this grammar
    }
    if gpu_memory_utilization is not None:
        settings["gpu_memory_utilization"] = gpu_memory_utilization
    if ngram_drafts:
        settings["speculative_config"] = _NGRAMS | {"num_speculative_tokens": ngram_drafts}
    if found:  # the grammar is compiled for the adapter's own tokenizer
        settings |= {"enable_lora": True, "max_lora_rank": rank, "tokenizer": tokenizer.name_or_path}
    more = dict(engine or {})
    for option in more:
        if option in ("model", *settings):
            raise InputError(f"engine contains {option!r}, which the vllm judge sets itself. Leave it out.")
    whole = found or checkpoint
    with loading(whole):
        links = _links_without_stale_index(whole.folder)
        llm = vllm.LLM(links.name if links else str(whole.folder), **settings, **more)
    codec.context = llm.model_config.max_model_len
    fields = {
        "judge": f"vllm:{checkpoint.name}",
        **origin_of(checkpoint, found),
        "decoding": f"greedy,max{codec.max_new_tokens},{limits}{f',ngram{ngram_drafts}' if ngram_drafts else ''}",
        "dtype": str(llm.model_config.dtype).removeprefix("torch."),
        **({"tensor_parallel": str(tensor_parallel_size)} if tensor_parallel_size > 1 else {}),
        **({"engine": json.dumps(more, sort_keys=True, default=str)} if more else {}),
        **{package: version(package) for package in ("torch", "transformers")},
        "vllm": vllm.__version__,
        **({"xgrammar": version("xgrammar")} if constrained else {}),
    }
    adapter = _take(llm, checkpoint) if found else None
    # The hf judge's grammar: it has bounds that vLLM's own translation of the schema lacks.
    return ModelJudge(VLLMEngine(llm, codec, limits.grammar(), adapter, batch_size, fields, links), prompt)


@dataclass(eq=False)
class VLLMEngine:
    """A model run by vLLM."""

    llm: vllm.LLM
    codec: Codec
    grammar: str | None  # None for no constraint
    adapter: "LoRARequest | None"
    batch_size: int  # maximum number of questions handed to vLLM; may be changed between runs
    fields: dict[str, str]  # the signature
    # a folder of links that vLLM reads from; it must live as long as the engine
    links: tempfile.TemporaryDirectory[str] | None
    _names: Iterator[int] = field(init=False, default_factory=count)
    _finished: dict[str, vllm.RequestOutput] = field(init=False, default_factory=dict)

    def signature(self) -> dict[str, str]:
        """Model, revision, decoding, dtype and versions, like the hf judge's."""
        return self.fields

    def write(self, questions: Sequence[Question]) -> Generator[tuple[int, Answer], None, None]:
        """Yield (position in `questions`, answer) as they are done.

        Closing the generator aborts the open requests. Runs may alternate in one thread, but not in several.

        Raises:
            InputError: `batch_size` was set to an impossible value.
            JudgeError: vLLM failed.
        """
        waiting = deque(range(len(questions)))
        asked: dict[str, _Asked] = {}
        try:
            while waiting or asked:
                check_whole("batch_size", self.batch_size)
                for _ in range(min(_ADDED, len(waiting), self.batch_size - len(asked))):
                    index = waiting.popleft()
                    try:
                        prompt = self.codec.encode(questions[index].messages)
                    except ValueError as error:
                        yield index, Answer(failure=str(error))
                    else:
                        self._ask(index, prompt, asked)
                for name in self._done(asked):
                    index, prompt_tokens, limit = asked.pop(name)
                    yield index, self._read(self._finished.pop(name), prompt_tokens, limit)
        finally:
            self._give_up(asked)

    def _ask(self, index: int, prompt: list[int], asked: dict[str, _Asked]) -> None:
        """Hand a prompt to vLLM."""
        limit = self.codec.limit(len(prompt))
        name = str(next(self._names))
        # Recorded before vLLM knows about it, so that an interrupt leaves nothing behind.
        asked[name] = index, len(prompt), limit
        with self._going_on():
            self.llm.llm_engine.add_request(
                name, {"prompt_token_ids": prompt}, self._sampling(limit), lora_request=self.adapter
            )

    def _done(self, asked: Collection[str]) -> list[str]:
        """The finished requests, after vLLM's next step if there are none yet."""
        if asked and self._finished.keys().isdisjoint(asked):
            with self._going_on():
                outputs = self.llm.llm_engine.step()
            self._finished |= {output.request_id: output for output in outputs if output.finished}
        return [name for name in self._finished if name in asked]

    def _give_up(self, asked: Collection[str]) -> None:
        for name in asked:
            self._finished.pop(name, None)
        if asked:
            with suppress(Exception):  # a dead engine has no open requests
                self.llm.llm_engine.abort_request(list(asked))

    def _read(self, output: vllm.RequestOutput, prompt_tokens: int, limit: int) -> Answer:
        (written,) = output.outputs
        if written.finish_reason not in ("stop", "length"):
            return Answer(failure=f"vLLM stopped before the end: {written.finish_reason}")
        return self.codec.answer(prompt_tokens, written.token_ids, limit)

    @contextmanager
    def _going_on(self) -> Iterator[None]:
        """Turn any exception of vLLM into a `JudgeError`."""
        try:
            yield
        except Exception as error:
            raise JudgeError(
                f"vLLM failed with {self.codec.name}: {first_line(error)}. Build the judge again."
            ) from None

    def _sampling(self, limit: int) -> vllm.SamplingParams:
        return vllm.SamplingParams(
            temperature=0.0,
            max_tokens=limit,
            stop_token_ids=self.codec.ends,
            detokenize=False,  # the codec decodes the ids, as for the hf judge
            output_kind=RequestOutputKind.FINAL_ONLY,
            structured_outputs=StructuredOutputsParams(grammar=self.grammar) if self.grammar else None,
        )


def _take(llm: vllm.LLM, checkpoint: Checkpoint) -> LoRARequest:
    """Load the adapter into vLLM now; by itself it would do so with the first question."""
    request = LoRARequest(checkpoint.name, 1, str(checkpoint.folder.resolve()))
    try:
        llm.llm_engine.add_lora(request)
    except Exception as error:
        raise _untaken(checkpoint, first_line(error)) from None
    return request


def _rank(checkpoint: Checkpoint, base: Checkpoint) -> int:
    """The rank that vLLM must allocate for an adapter.

    Raises:
        JudgeError: vLLM does not support the adapter. It would silently drop weights that fit no layer.
    """
    with loading(checkpoint):
        config = json.loads((checkpoint.folder / "adapter_config.json").read_text(encoding="utf-8"))
        rank = max([config["r"], *(config.get("rank_pattern") or {}).values()])
        layers = _layers(checkpoint.folder / "adapter_model.safetensors")
        known = {layer for path in base.folder.glob("*.safetensors") for layer in _layers(path)}
    if any("language_model." in layer for layer in layers) or any("language_model." in layer for layer in known):
        raise _untaken(checkpoint, "its base model is not for text alone")
    if strange := sorted(layers - known):
        raise _untaken(checkpoint, f"its layer {strange[0]} is not in the base model {base.name}")
    if rank > _RANKS[-1]:
        raise _untaken(checkpoint, f"its rank is {rank}, and vLLM's largest is {_RANKS[-1]}")
    return next(room for room in _RANKS if room >= rank)


def _layers(weights: Path) -> set[str]:
    """The layers in a safetensors file, by the base model's names."""
    with safe_open(weights, "pt") as file:
        names = list(file.keys())
    return {
        re.sub(r"(\.lora_(magnitude_vector|(embedding_)?[AB]))?(\.weight)?$", "", name.removeprefix(_WRAPPED))
        for name in names
    }


def _untaken(checkpoint: Checkpoint, why: str) -> JudgeError:
    return JudgeError(
        f"vLLM cannot apply the adapter {checkpoint.name}: {why}. Merge it into its base model (python -m training.merge), "
        "or use the hf judge."
    )


def _links_without_stale_index(folder: Path) -> tempfile.TemporaryDirectory[str] | None:
    """Links to a model folder's files without its shard index, if the index names shards that do not exist; else None.

    vLLM would trust the index. The published model has such a stale index beside its weights in a single file.
    """
    index = folder / "model.safetensors.index.json"
    if not index.is_file() or not (folder / "model.safetensors").is_file():
        return None
    shards = set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values())
    if all((folder / shard).is_file() for shard in shards):
        return None
    links = tempfile.TemporaryDirectory(prefix="crimson-vllm-")
    for path in folder.iterdir():
        if path.name != index.name:
            Path(links.name, path.name).symlink_to(path.resolve())
    return links
