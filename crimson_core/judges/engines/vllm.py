"""The vllm judge: a causal language model run by vLLM's offline engine, for many pairs on GPUs."""

import json
import os
import re
import tempfile
from collections import deque
from collections.abc import Collection, Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from importlib.metadata import version
from itertools import count
from pathlib import Path
from typing import Any, NamedTuple

from crimson_core.errors import InputError, JudgeError
from crimson_core.install import INSTALL_PROMPT, install_command

os.environ.setdefault("VLLM_NO_USAGE_STATS", "1")  # vLLM reports its use to its makers, unless told not to
try:
    import vllm
    from vllm.lora.request import LoRARequest
    from vllm.sampling_params import RequestOutputKind, StructuredOutputsParams
except ImportError as error:
    raise JudgeError(
        f"The vllm judge needs {error.name or error}, which is not installed. Run, in an environment of its own: "
        f"{install_command('vllm')} && {INSTALL_PROMPT}"
    ) from None

from safetensors import safe_open
from transformers import GenerationConfig

from crimson_core.judges.base import Judgement
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
from crimson_core.judges.engines.hf.checkpoint import (
    Checkpoint,
    base_of,
    find_checkpoint,
    generation_config,
    load_tokenizer,
    loading,
    revision_of,
)
from crimson_core.judges.engines.hf.engine import first_line
from crimson_core.judges.engines.hf.grammar import evaluation_grammar
from crimson_core.protocol.evaluation import evaluation_schema
from crimson_core.protocol.pair import ReportPair

_DTYPES = ("bfloat16", "float16", "float32")
_IN_HAND = 2048
_ADDED = 32  # pairs that are tokenised between two looks at what vLLM has done
_RANKS = (1, 8, 16, 32, 64, 128, 256, 320, 512)  # of adapters, as vLLM makes room for them
_WRAPPED = "base_model.model."  # what PEFT puts before the name of a layer
_NGRAMS = {"method": "ngram", "prompt_lookup_min": 2, "prompt_lookup_max": 5}


class _Asked(NamedTuple):
    """A pair that vLLM has in hand."""

    index: int
    prompt_tokens: int
    limit: int


class VLLMJudge:
    """Judges with a causal language model in the Transformers format, run by vLLM in this process.

    Prompt, grammar, end tokens and the reading of outputs are those of `HFJudge`; vLLM runs the model, batches pairs as its
    memory allows, and computes the common start of their prompts once. Only safetensors are loaded and no code from a
    checkpoint is ever run.

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
        max_findings: As of `HFJudge`.
        max_text: As of `HFJudge`.
        engine: Further arguments of `vllm.LLM`, such as `{"enforce_eager": True}`; they stand in the signature.

    Attributes:
        prompt: How a pair is put to the model; may be replaced by another `Prompt` of the same style.
        batch_size: As above; may be changed between runs.

    Raises:
        InputError: An option has no possible value; the text names it.
        JudgeError: The model or vLLM cannot be had or cannot be used; the text says what to do.
    """

    def __init__(
        self,
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
    ) -> None:
        needed = {
            "tensor_parallel_size": tensor_parallel_size,
            "data_parallel_size": data_parallel_size,
            "batch_size": batch_size,
            "max_findings": max_findings,
            "max_text": max_text,
        }
        optional = {
            "max_model_len": max_model_len,
            "max_new_tokens": max_new_tokens,
            "ngram_drafts": ngram_drafts,
        }
        for option, value in (needed | {k: v for k, v in optional.items() if v is not None}).items():
            check_positive(option, value)
        if dtype not in _DTYPES:
            raise InputError(f"dtype is {dtype!r}. Use one of {', '.join(_DTYPES)}.")

        checkpoint = find_checkpoint(model, revision)
        found = base_of(checkpoint, base)
        rank = _rank(checkpoint, found) if found else 0
        self.prompt = prompt_of(checkpoint, guidelines)
        self.batch_size = batch_size
        self._name = checkpoint.name
        self._tokenizer = load_tokenizer(checkpoint, found)
        self._encoder = chat_encoder(self._tokenizer, checkpoint.name, self.prompt)
        said = _said(checkpoint, found)
        self._ends = end_tokens(said, self._tokenizer, checkpoint.name)
        self._max_new_tokens = max_new_tokens or said.max_new_tokens or DEFAULT_NEW_TOKENS
        # The grammar of the hf judge: it is the schema, with bounds that vLLM's own translation of a schema has not.
        self._grammar = evaluation_grammar(evaluation_schema(max_findings, max_text)) if constrained else None

        settings: dict[str, Any] = {
            "dtype": dtype,
            "tensor_parallel_size": tensor_parallel_size,
            "data_parallel_size": data_parallel_size,
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
            settings |= {"enable_lora": True, "max_lora_rank": rank, "tokenizer": self._tokenizer.name_or_path}
        more = dict(engine or {})
        for option in more:
            if option in ("model", *settings):
                raise InputError(f"engine holds {option!r}, which the vllm judge sets itself. Leave it out.")
        whole = found or checkpoint
        with loading(whole):
            self._links = _links_without_stale_index(whole.folder)  # kept as long as vLLM
            self._llm = vllm.LLM(self._links.name if self._links else str(whole.folder), **settings, **more)
        self._engine = self._llm.llm_engine
        self._adapter = self._take(checkpoint) if found else None
        self._names = count()
        self._finished: dict[str, vllm.RequestOutput] = {}
        about = self._llm.model_config
        self._context: int = about.max_model_len
        drafts = f",ngram{ngram_drafts}" if ngram_drafts else ""
        self._signature = {
            "judge": f"vllm:{checkpoint.name}",
            "revision": revision_of(checkpoint),
            **({"base": f"{found.name}@{revision_of(found)}"} if found else {}),
            "prompt": "",
            "decoding": f"greedy,max{self._max_new_tokens},{bounds_of(constrained, max_findings, max_text)}{drafts}",
            "dtype": str(about.dtype).removeprefix("torch."),
            **({"tensor_parallel": str(tensor_parallel_size)} if tensor_parallel_size > 1 else {}),
            **({"engine": json.dumps(more, sort_keys=True, default=str)} if more else {}),
            **{package: version(package) for package in ("torch", "transformers")},
            "vllm": vllm.__version__,
            **({"xgrammar": version("xgrammar")} if constrained else {}),
        }

    def signature(self) -> dict[str, str]:
        """Model, revision, prompt, decoding, dtype and versions, as of `HFJudge`."""
        return self._signature | {"prompt": str(self.prompt)}

    def judge(self, pairs: Sequence[ReportPair]) -> Generator[tuple[int, Judgement], None, None]:
        """Yield (position in `pairs`, judgement), each as it is done; short pairs are begun first.

        A pair whose prompt the model cannot hold, or whose output does not end, is a failed judgement. Closing the generator
        early takes what is not done out of vLLM's hands. Runs may take turns in one thread, but not go on in several.

        Raises:
            InputError: `batch_size` has been set to something that is none.
            JudgeError: vLLM broke down.
        """
        waiting = deque(sorted(range(len(pairs)), key=lambda index: order(pairs[index])))
        asked: dict[str, _Asked] = {}
        try:
            while waiting or asked:
                check_positive("batch_size", self.batch_size)
                for _ in range(min(_ADDED, len(waiting), self.batch_size - len(asked))):
                    index = waiting.popleft()
                    try:
                        prompt = encode_pair(self._encoder, self.prompt, pairs[index], self._context)
                    except ValueError as error:
                        yield index, Judgement(failure=str(error))
                    else:
                        self._ask(index, prompt, asked)
                for name in self._done(asked):
                    index, prompt_tokens, limit = asked.pop(name)
                    yield index, self._read(self._finished.pop(name), prompt_tokens, limit)
        finally:
            self._give_up(asked)

    def _ask(self, index: int, prompt: list[int], asked: dict[str, _Asked]) -> None:
        """Put a prompt into vLLM's hands; it goes on with others meanwhile."""
        limit = output_limit(self._max_new_tokens, self._context, len(prompt))
        name = str(next(self._names))
        # Noted before vLLM knows of it, so that an interrupt leaves nothing behind.
        asked[name] = _Asked(index, len(prompt), limit)
        with self._going_on():
            self._engine.add_request(
                name, {"prompt_token_ids": prompt}, self._sampling(limit), lora_request=self._adapter
            )

    def _done(self, asked: Collection[str]) -> list[str]:
        """Those requests that are finished, after waiting for vLLM's next step if none is."""
        if asked and self._finished.keys().isdisjoint(asked):
            with self._going_on():
                outputs = self._engine.step()
            self._finished |= {output.request_id: output for output in outputs if output.finished}
        return [name for name in self._finished if name in asked]

    def _give_up(self, asked: Collection[str]) -> None:
        for name in asked:
            self._finished.pop(name, None)
        if asked:
            with suppress(Exception):  # an engine that has died has nothing in hand
                self._engine.abort_request(list(asked))

    def _read(self, output: vllm.RequestOutput, prompt_tokens: int, limit: int) -> Judgement:
        (written,) = output.outputs
        if written.finish_reason not in ("stop", "length"):
            return Judgement(failure=f"vLLM left off without an end: {written.finish_reason}")
        return read_output(self._tokenizer, self._ends, prompt_tokens, written.token_ids, limit)

    @contextmanager
    def _going_on(self) -> Iterator[None]:
        """Turn whatever vLLM raises while it works into a `JudgeError`."""
        try:
            yield
        except Exception as error:
            raise JudgeError(
                f"vLLM could not go on with {self._name}: {first_line(error)}. Build the judge anew."
            ) from None

    def _take(self, checkpoint: Checkpoint) -> LoRARequest:
        """The adapter, in vLLM's hands; it would otherwise look at it with the first pair."""
        request = LoRARequest(checkpoint.name, 1, str(checkpoint.folder.resolve()))
        try:
            self._engine.add_lora(request)
        except Exception as error:
            raise _untaken(checkpoint, first_line(error)) from None
        return request

    def _sampling(self, limit: int) -> vllm.SamplingParams:
        return vllm.SamplingParams(
            temperature=0.0,
            max_tokens=limit,
            stop_token_ids=self._ends,
            detokenize=False,  # the text is read from the ids, as in the hf judge
            output_kind=RequestOutputKind.FINAL_ONLY,
            structured_outputs=StructuredOutputsParams(grammar=self._grammar) if self._grammar else None,
        )


def _said(checkpoint: Checkpoint, base: Checkpoint | None) -> GenerationConfig:
    """What generation configs say of outputs: the base model's, and what the adapter's own says otherwise."""
    said = generation_config(base or checkpoint)
    if base and (checkpoint.folder / "generation_config.json").is_file():
        own = generation_config(checkpoint)
        for key in ("eos_token_id", "max_new_tokens"):
            if getattr(own, key) is not None:
                setattr(said, key, getattr(own, key))
    return said


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


def _links_without_stale_index(folder: Path) -> tempfile.TemporaryDirectory | None:
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
