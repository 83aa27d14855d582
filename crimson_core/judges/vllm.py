"""The vllm judge: a causal language model run by vLLM's offline engine, for many pairs on GPUs."""

import json
import os
import tempfile
from collections.abc import Generator, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

from crimson_core.errors import InputError, JudgeError
from crimson_core.evaluation import evaluation_schema
from crimson_core.judges.base import Judgement
from crimson_core.judges.hf.asking import (
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
from crimson_core.judges.hf.checkpoint import (
    find_checkpoint,
    generation_config,
    load_tokenizer,
    loading,
    revision_of,
)
from crimson_core.judges.hf.engine import first_line, missing
from crimson_core.judges.hf.grammar import evaluation_grammar
from crimson_core.report import ReportPair

os.environ.setdefault("VLLM_NO_USAGE_STATS", "1")  # vLLM reports its use to its makers, unless told not to
try:
    import vllm
    from vllm.sampling_params import StructuredOutputsParams
except ImportError as error:
    raise missing(error.name or str(error), "vllm") from None

_DTYPES = ("bfloat16", "float16", "float32")
_BATCH = 512


class VLLMJudge:
    """Judges with a causal language model in the Transformers format, run by vLLM in this process.

    Prompt, grammar, end tokens and the reading of outputs are those of `HFJudge`; vLLM runs the model, batches pairs as its
    memory allows, and computes the common start of their prompts once. Only safetensors are loaded and no code from a
    checkpoint is ever run. An adapter has to be merged first.

    Greedy decoding in vLLM can tip a close choice between two tokens with the batch, in bfloat16 more often than in float32.

    Args:
        model: Hub id, `<Hub id>@<revision>`, or folder of a whole model.
        revision: Branch, tag or commit of a Hub id.
        dtype: `bfloat16`, `float16` or `float32`.
        tensor_parallel_size: GPUs that share one copy of the model.
        data_parallel_size: As vLLM has it, which refuses more than 1 in one process. For copies of the model on several GPUs
            score with `--engine ray`, where each worker has one.
        max_model_len: Longest prompt and output together in tokens; None takes the model's own, for which vLLM must find memory.
        gpu_memory_utilization: Share of a GPU's memory that vLLM takes; None leaves it to vLLM.
        batch_size: Pairs handed to vLLM at a time. How many run together is vLLM's `max_num_seqs`.
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
        revision: str | None = None,
        dtype: str = "bfloat16",
        tensor_parallel_size: int = 1,
        data_parallel_size: int = 1,
        max_model_len: int | None = None,
        gpu_memory_utilization: float | None = None,
        batch_size: int = _BATCH,
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
        optional = {"max_model_len": max_model_len, "max_new_tokens": max_new_tokens}
        for option, value in (needed | {k: v for k, v in optional.items() if v is not None}).items():
            check_positive(option, value)
        if dtype not in _DTYPES:
            raise InputError(f"dtype is {dtype!r}. Use one of {', '.join(_DTYPES)}.")

        checkpoint = find_checkpoint(model, revision)
        if (checkpoint.folder / "adapter_config.json").is_file():
            raise JudgeError(
                f"{checkpoint.name} is an adapter, and vLLM gets whole models here. Merge it (python -m training.merge), "
                "or use the hf judge."
            )
        self.prompt = prompt_of(checkpoint, guidelines)
        self.batch_size = batch_size
        self._name = checkpoint.name
        self._tokenizer = load_tokenizer(checkpoint, None)
        self._encoder = chat_encoder(self._tokenizer, checkpoint.name, self.prompt)
        said = generation_config(checkpoint)
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
        more = dict(engine or {})
        for option in more:
            if option in ("model", *settings):
                raise InputError(f"engine holds {option!r}, which the vllm judge sets itself. Leave it out.")
        with loading(checkpoint):
            self._links = _links_without_stale_index(checkpoint.folder)  # kept as long as vLLM
            self._llm = vllm.LLM(self._links.name if self._links else str(checkpoint.folder), **settings, **more)
        about = self._llm.model_config
        self._context: int = about.max_model_len
        self._signature = {
            "judge": f"vllm:{checkpoint.name}",
            "revision": revision_of(checkpoint),
            "prompt": "",
            "decoding": f"greedy,max{self._max_new_tokens},{bounds_of(constrained, max_findings, max_text)}",
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
        """Yield (position in `pairs`, judgement), batch by batch, short pairs first.

        A pair whose prompt the model cannot hold, or whose output does not end, is a failed judgement.

        Raises:
            InputError: `batch_size` has been set to something that is none.
            JudgeError: vLLM broke down.
        """
        waiting = sorted(range(len(pairs)), key=lambda index: order(pairs[index]))
        while waiting:
            check_positive("batch_size", self.batch_size)
            batch, waiting = waiting[: self.batch_size], waiting[self.batch_size :]
            prompts: dict[int, list[int]] = {}
            for index in batch:
                try:
                    prompts[index] = encode_pair(self._encoder, self.prompt, pairs[index], self._context)
                except ValueError as error:
                    yield index, Judgement(failure=str(error))
            if prompts:
                yield from zip(prompts, self._answers(list(prompts.values())), strict=True)

    def _answers(self, prompts: list[list[int]]) -> list[Judgement]:
        limits = [output_limit(self._max_new_tokens, self._context, len(prompt)) for prompt in prompts]
        try:
            outputs = self._llm.generate(
                [{"prompt_token_ids": prompt} for prompt in prompts],
                [self._sampling(limit) for limit in limits],
                use_tqdm=False,
            )
        except Exception as error:
            raise JudgeError(f"vLLM could not go on with {self._name}: {first_line(error)}.") from None
        if [output.prompt_token_ids for output in outputs] != prompts:  # as after an interrupted run
            raise JudgeError("vLLM gave outputs of other prompts. Build the judge anew.")
        return [
            read_output(self._tokenizer, self._ends, len(prompt), output.outputs[0].token_ids, limit)
            for prompt, output, limit in zip(prompts, outputs, limits, strict=True)
        ]

    def _sampling(self, limit: int) -> vllm.SamplingParams:
        return vllm.SamplingParams(
            temperature=0.0,
            max_tokens=limit,
            stop_token_ids=self._ends,
            detokenize=False,  # the text is read from the ids, as in the hf judge
            structured_outputs=StructuredOutputsParams(grammar=self._grammar) if self._grammar else None,
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
