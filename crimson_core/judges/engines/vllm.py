"""The vllm judge: a causal language model run by vLLM's offline engine, for many pairs on GPUs."""

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

os.environ.setdefault("VLLM_NO_USAGE_STATS", "1")  # vLLM reports its use to its makers, unless told not to
import vllm  # noqa: E402
from vllm.lora.request import LoRARequest  # noqa: E402
from vllm.sampling_params import RequestOutputKind, StructuredOutputsParams  # noqa: E402

_DTYPES = ("bfloat16", "float16", "float32")
_IN_HAND = 2048
_ADDED = 32  # questions that are tokenised between two looks at what vLLM has done
_RANKS = (1, 8, 16, 32, 64, 128, 256, 320, 512)  # of adapters, as vLLM makes room for them
_WRAPPED = "base_model.model."  # what PEFT puts before the name of a layer
_Asked = tuple[int, int, int]  # place of a question, tokens of its prompt, and of its answer at most
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

    Prompt, grammar, end tokens and the reading of outputs are those of the hf judge; vLLM runs the model, batches pairs
    as its memory allows, and computes the common start of their prompts once. Only safetensors are loaded and no code
    from a checkpoint is ever run.

    A LoRA adapter of a text model is applied by vLLM beside its base model, not merged into it. One of a model that also sees
    images, or with more than LoRA matrices, has to be merged first.

    Greedy decoding in vLLM can tip a close choice between two tokens with the batch or with drafts, in bfloat16 more often
    than in float32.

    Args:
        model: Hub id, `<Hub id>@<revision>`, or folder: a whole model, or a LoRA adapter.
        base: Folder or Hub id of an adapter's base model; None takes the one that the adapter names.
        revision: Branch, tag or commit of a Hub id.
        dtype: `bfloat16`, `float16` or `float32`.
        tensor_parallel_size: GPUs that share one copy of the model.
        data_parallel_size: As vLLM has it, which refuses more than 1 in one process. For copies of the model on several GPUs
            start several processes with `accelerate launch` (`AccelerateJudge`), or score with `--engine ray`: each process or
            worker has one.
        max_model_len: Longest prompt and output together in tokens; None takes the model's own, for which vLLM must find memory.
        gpu_memory_utilization: Share of a GPU's memory that vLLM takes; None leaves it to vLLM.
        batch_size: Most pairs that vLLM has in hand, waiting ones included: enough that it never waits for tokenising. How
            many run together is vLLM's own `max_num_seqs`.
        ngram_drafts: Tokens that vLLM guesses ahead where the last words stood before in the prompt or the output, and then
            checks together; None guesses none.
        constrained: Keep the output inside the evaluation's JSON schema.
        guidelines: Whether the reference prompt holds the guidelines; None is the default for this model.
        max_new_tokens: Longest output in tokens; None takes the checkpoint's own limit, else 8192.
        max_findings: As of `hf_judge`.
        max_text: As of `hf_judge`.
        engine: Further arguments of `vllm.LLM`, such as `{"enforce_eager": True}`; they stand in the signature.

    Raises:
        InputError: An option has no possible value; the text names it.
        JudgeError: The model or vLLM cannot be had or cannot be used; the text says what to do.
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
        "generation_config": "vllm",  # nothing of how the checkpoint wants to be sampled
        "enable_prefix_caching": True,
        "structured_outputs_config": {"backend": "xgrammar"},  # no other one reads this grammar
    }
    if gpu_memory_utilization is not None:
        settings["gpu_memory_utilization"] = gpu_memory_utilization
    if ngram_drafts:
        settings["speculative_config"] = _NGRAMS | {"num_speculative_tokens": ngram_drafts}
    if found:  # the grammar is made of the tokens that the adapter's own tokenizer has
        settings |= {"enable_lora": True, "max_lora_rank": rank, "tokenizer": tokenizer.name_or_path}
    more = dict(engine or {})
    for option in more:
        if option in ("model", *settings):
            raise InputError(f"engine holds {option!r}, which the vllm judge sets itself. Leave it out.")
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
    # The grammar of the hf judge: it is the schema, with bounds that vLLM's own translation of a schema has not.
    return ModelJudge(VLLMEngine(llm, codec, limits.grammar(), adapter, batch_size, fields, links), prompt)


@dataclass(eq=False)
class VLLMEngine:
    """A model in vLLM's hands.

    Attributes:
        llm: vLLM's engine.
        codec: Of the checkpoint.
        grammar: What outputs must obey; None for nothing.
        adapter: That is applied to the model.
        batch_size: Most questions that vLLM has in hand; may be changed between runs.
        fields: Of the signature.
        links: To what vLLM reads, kept as long as it.
    """

    llm: vllm.LLM
    codec: Codec
    grammar: str | None
    adapter: "LoRARequest | None"
    batch_size: int
    fields: dict[str, str]
    links: tempfile.TemporaryDirectory[str] | None
    _names: Iterator[int] = field(init=False, default_factory=count)
    _finished: dict[str, vllm.RequestOutput] = field(init=False, default_factory=dict)

    def signature(self) -> dict[str, str]:
        """Model, revision, decoding, dtype and versions, as of the hf judge."""
        return self.fields

    def write(self, questions: Sequence[Question]) -> Generator[tuple[int, Answer], None, None]:
        """Yield (position in `questions`, answer), each as it is done.

        Closing the generator early takes what is not done out of vLLM's hands. Runs may take turns in one thread, but
        not go on in several.

        Raises:
            InputError: `batch_size` has been set to something that is none.
            JudgeError: vLLM broke down.
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
        """Put a prompt into vLLM's hands; it goes on with others meanwhile."""
        limit = self.codec.limit(len(prompt))
        name = str(next(self._names))
        # Noted before vLLM knows of it, so that an interrupt leaves nothing behind.
        asked[name] = index, len(prompt), limit
        with self._going_on():
            self.llm.llm_engine.add_request(
                name, {"prompt_token_ids": prompt}, self._sampling(limit), lora_request=self.adapter
            )

    def _done(self, asked: Collection[str]) -> list[str]:
        """Those requests that are finished, after waiting for vLLM's next step if none is."""
        if asked and self._finished.keys().isdisjoint(asked):
            with self._going_on():
                outputs = self.llm.llm_engine.step()
            self._finished |= {output.request_id: output for output in outputs if output.finished}
        return [name for name in self._finished if name in asked]

    def _give_up(self, asked: Collection[str]) -> None:
        for name in asked:
            self._finished.pop(name, None)
        if asked:
            with suppress(Exception):  # an engine that has died has nothing in hand
                self.llm.llm_engine.abort_request(list(asked))

    def _read(self, output: vllm.RequestOutput, prompt_tokens: int, limit: int) -> Answer:
        (written,) = output.outputs
        if written.finish_reason not in ("stop", "length"):
            return Answer(failure=f"vLLM left off without an end: {written.finish_reason}")
        return self.codec.answer(prompt_tokens, written.token_ids, limit)

    @contextmanager
    def _going_on(self) -> Iterator[None]:
        """Turn whatever vLLM raises while it works into a `JudgeError`."""
        try:
            yield
        except Exception as error:
            raise JudgeError(
                f"vLLM could not go on with {self.codec.name}: {first_line(error)}. Build the judge anew."
            ) from None

    def _sampling(self, limit: int) -> vllm.SamplingParams:
        return vllm.SamplingParams(
            temperature=0.0,
            max_tokens=limit,
            stop_token_ids=self.codec.ends,
            detokenize=False,  # the text is read from the ids, as in the hf judge
            output_kind=RequestOutputKind.FINAL_ONLY,
            structured_outputs=StructuredOutputsParams(grammar=self.grammar) if self.grammar else None,
        )


def _take(llm: vllm.LLM, checkpoint: Checkpoint) -> LoRARequest:
    """The adapter, in vLLM's hands; it would otherwise look at it with the first question."""
    request = LoRARequest(checkpoint.name, 1, str(checkpoint.folder.resolve()))
    try:
        llm.llm_engine.add_lora(request)
    except Exception as error:
        raise _untaken(checkpoint, first_line(error)) from None
    return request


def _rank(checkpoint: Checkpoint, base: Checkpoint) -> int:
    """The room that vLLM has to make for an adapter: the next larger of the ranks that it knows.

    Raises:
        JudgeError: vLLM cannot take it. Weights that fit no layer it would leave out in silence.
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
    """The layers that a safetensors file holds weights of, by the base model's names for them."""
    with safe_open(weights, "pt") as file:
        names = list(file.keys())
    return {
        re.sub(r"(\.lora_(magnitude_vector|(embedding_)?[AB]))?(\.weight)?$", "", name.removeprefix(_WRAPPED))
        for name in names
    }


def _untaken(checkpoint: Checkpoint, why: str) -> JudgeError:
    return JudgeError(
        f"vLLM cannot take the adapter {checkpoint.name}: {why}. Merge it into its base model (python -m training.merge), "
        "or use the hf judge."
    )


def _links_without_stale_index(folder: Path) -> tempfile.TemporaryDirectory[str] | None:
    """Links to the files of a model folder but for an index of shards that are not there, which vLLM would believe.

    The published model has such an index beside its weights in a single file. None: the folder can be used as it is.
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
