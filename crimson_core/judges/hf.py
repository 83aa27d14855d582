"""The hf judge: a causal language model in the Transformers format, run on this machine.

Report text is data: it is tokenised so that no part of it can become a control token (`ChatEncoder`). Decoding is
greedy, by default inside a grammar made from the evaluation's JSON schema, so that every output that ends is an
evaluation.
"""

import hashlib
import json
import re
import secrets
import warnings
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from copy import deepcopy
from importlib import import_module
from importlib.metadata import version
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

from crimson_core.errors import InputError, JudgeError
from crimson_core.evaluation import evaluation_schema
from crimson_core.judges.base import Judgement
from crimson_core.prompt import PUBLISHED_NAMES, Message, prompt_for
from crimson_core.report import ReportPair

_INSTALL = 'Run: pip install "crimson-metric[hf]"'

try:
    import jinja2
    import torch
    import transformers
    from huggingface_hub import errors as hub_errors
    from huggingface_hub import snapshot_download
    from tokenizers import AddedToken
    from transformers import AutoModelForCausalLM, AutoTokenizer, GenerationConfig, PreTrainedModel
    from transformers.tokenization_utils_base import PreTrainedTokenizerBase
except ImportError as error:
    raise JudgeError(f"The hf judge needs {error.name or error}, which is not installed. {_INSTALL}") from None

_DTYPES = {"bfloat16": torch.bfloat16, "float16": torch.float16, "float32": torch.float32}
_DEFAULT_NEW_TOKENS = 8192  # the reference implementation's, where a checkpoint does not say
_CPU_BATCH, _ACCELERATOR_BATCH = 8, 16
# Enough for JSON that is indented by four spaces at its deepest place, 20 spaces and a line break.
_MAX_WHITESPACE = 24
_MAX_ESCAPES = 8

# What a checkpoint consists of: top-level files only, since subfolders hold copies in other formats.
_WANTED = ["*.safetensors", "*.json", "*.jinja", "*.model", "*.txt"]
_UNWANTED = ["*/*", "consolidated*"]


class Checkpoint(NamedTuple):
    """A model folder on this machine.

    Attributes:
        name: Hub id, or the folder's own name without its path.
        folder: Where it is.
        revision: Commit hash on the Hub; None for a folder that the user gave.
    """

    name: str
    folder: Path
    revision: str | None


class HFJudge:
    """Judges with a causal language model in the Transformers format.

    Only safetensors are loaded and no code from a checkpoint is ever run. Decoding is greedy whatever the
    checkpoint's generation config says; of that, the end tokens, the pad token and `max_new_tokens` are honoured.

    Args:
        model: Hub id, `<Hub id>@<revision>`, or folder: a merged model, or a LoRA adapter, which is merged into the
            base model that its config names.
        revision: Branch, tag or commit of a Hub id.
        batch_size: Pairs that are generated together; None starts with 16 on an accelerator and 8 without one. It is
            halved when memory runs out, and stays so.
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

    Attributes:
        prompt: How a pair is put to the model; may be replaced by another `Prompt` of the same style.
        batch_size: As above; may be changed between runs.

    Raises:
        InputError: An option has no possible value; the text names it.
        JudgeError: The model cannot be had or cannot be used; the text says what to do.
    """

    def __init__(
        self,
        model: str,
        *,
        revision: str | None = None,
        batch_size: int | None = None,
        device: str | None = None,
        dtype: str = "bfloat16",
        constrained: bool = True,
        guidelines: bool | None = None,
        max_new_tokens: int | None = None,
        max_findings: int = 40,
        max_text: int = 400,
    ) -> None:
        for option, value in (("batch_size", batch_size), ("max_new_tokens", max_new_tokens)):
            if value is not None:
                _check_positive(option, value)
        _check_positive("max_findings", max_findings)
        _check_positive("max_text", max_text)
        if dtype not in _DTYPES:
            raise InputError(f"dtype is {dtype!r}. Use one of {', '.join(_DTYPES)}.")
        device = _check_device(device)

        xgrammar = _engine("xgrammar") if constrained else None
        checkpoint = find_checkpoint(model, revision)
        self.prompt = prompt_for(
            checkpoint.name if checkpoint.name in PUBLISHED_NAMES else str(checkpoint.folder), guidelines
        )
        base = _base_of(checkpoint)
        tokenizer = _load_tokenizer(checkpoint, base)
        self._encoder = ChatEncoder(tokenizer, checkpoint.name)
        self._encoder.prepare([message["role"] for message in self.prompt.messages(ReportPair("", ""))])
        self._model = _load_model(checkpoint, base, _DTYPES[dtype], device)

        said = self._model.generation_config
        # What a checkpoint wants sampled, penalised or suppressed would be merged into every generate() call.
        self._model.generation_config = GenerationConfig()
        self._ends = _end_tokens(said, tokenizer, checkpoint.name)
        self._pad = next(i for i in (said.pad_token_id, tokenizer.pad_token_id, self._ends[0]) if i is not None)
        self._max_new_tokens = max_new_tokens or said.max_new_tokens or _DEFAULT_NEW_TOKENS
        config = self._model.config.get_text_config()
        self._context: int | None = getattr(config, "max_position_embeddings", None)
        self._grammar = None
        if xgrammar:
            grammar = evaluation_grammar(evaluation_schema(max_findings, max_text))
            self._grammar = _compile(xgrammar, grammar, tokenizer, config.vocab_size, self._ends)
        self._tokenizer = tokenizer
        self.batch_size = batch_size or (_CPU_BATCH if self._model.device.type == "cpu" else _ACCELERATOR_BATCH)
        self._signature = {
            "judge": f"hf:{checkpoint.name}",
            "revision": _revision(checkpoint),
            **({"base": f"{base.name}@{_revision(base)}"} if base else {}),
            "prompt": "",
            "decoding": f"greedy,max{self._max_new_tokens},"
            + (f"xgrammar,findings{max_findings},text{max_text}" if xgrammar else "unconstrained"),
            "dtype": dtype,
            "torch": torch.__version__,
            "transformers": transformers.__version__,
            **({"xgrammar": version("xgrammar")} if xgrammar else {}),
        }

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
        queue = deque(sorted(range(len(pairs)), key=lambda index: _characters(pairs[index])))
        alone: list[int] = []
        while queue or alone:
            _check_positive("batch_size", self.batch_size)
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
                yield index, Judgement(failure=f"out of memory on a prompt of {len(prompts[index])} tokens, alone")
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
        prompt = self._encoder.encode(self.prompt.messages(pair))
        if self._limit(len(prompt)) < 1:
            raise ValueError(f"the prompt has {len(prompt)} tokens and the model holds {self._context}")
        return prompt

    def _limit(self, prompt_tokens: int) -> int:
        """How many tokens may follow a prompt."""
        if self._context is None:
            return self._max_new_tokens
        return min(self._max_new_tokens, self._context - prompt_tokens)

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
        )
        processors = [_engine("xgrammar.contrib.hf").LogitsProcessor(self._grammar)] if self._grammar else []
        try:
            output = self._model.generate(
                input_ids=ids.to(self._model.device),
                attention_mask=mask.to(self._model.device),
                generation_config=greedy,
                logits_processor=processors,
            )
            return output[:, width:].tolist()
        except (RuntimeError, MemoryError) as error:
            if not _is_out_of_memory(error):
                raise
        # Out here, since the exception holds on to the tensors of the failed call.
        if torch.accelerator.is_available():
            torch.accelerator.empty_cache()
        return None

    def _read(self, prompt_tokens: int, output: list[int], limit: int) -> Judgement:
        end = next((place for place, token in enumerate(output) if token in self._ends), None)
        output = output if end is None else output[: end + 1]
        text = self._tokenizer.decode(output, skip_special_tokens=True)
        usage = {"prompt_tokens": prompt_tokens, "completion_tokens": len(output)}
        if end is None:
            return Judgement(failure=f"the output did not end within {limit} tokens", raw_output=text, usage=usage)
        return Judgement.from_output(text, usage)


class ChatEncoder:
    """Chat messages as token ids, where no message content can become a control token.

    For contents without control tokens the ids are those of `tokenizer.apply_chat_template`. A control token is every
    added token with visible characters, whether or not the tokenizer calls it special (`<think>` often is not).

    The chat template is rendered once, with marks for the contents. Each control token that the template holds gets a
    random name that nobody outside this process can know, and a copy of the tokenizer knows the control tokens by
    these names only. The template with the contents filled in is tokenised by that copy in one go, so that tokens
    which span the border of template and content come out as ever.

    Args:
        tokenizer: A tokenizer of the fast kind, with a chat template.
        name: The model's name, for errors.

    Raises:
        JudgeError: The tokenizer is of another kind or has no chat template.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase, name: str) -> None:
        if not tokenizer.is_fast:
            raise JudgeError(f"{name} has no fast tokenizer (tokenizer.json). Convert it with transformers first.")
        if not tokenizer.chat_template:
            raise JudgeError(
                f"{name} has no chat template. Use a model that is trained for chat, or put the template that it was "
                "trained with into its folder as chat_template.jinja."
            )
        self._tokenizer, self._name = tokenizer, name
        added = tokenizer.backend_tokenizer.get_added_tokens_decoder()
        self._control = {i: token for i, token in added.items() if token.content.replace("▁", " ").strip()}
        self._blind = deepcopy(tokenizer.backend_tokenizer)
        self._blind.no_truncation()
        self._blind.no_padding()
        self._blind.add_special_tokens([_added_token(token.content, token, True) for token in self._control.values()])
        self._blind.encode_special_tokens = True  # special tokens are read as plain text
        self._aliases: dict[int, int] = {}  # id of a random name -> id of its control token
        self._templates: dict[tuple[str, ...], list[str | tuple[int, bool, bool]]] = {}

    def encode(self, messages: Sequence[Message]) -> list[int]:
        """Token ids of the messages and the generation prompt.

        Raises:
            ValueError: A content became a control token all the same, as with a vocabulary of whole words.
            JudgeError: The chat template does not take these roles.
        """
        text = ""
        for part in self.prepare([message["role"] for message in messages]):
            if isinstance(part, tuple):
                place, keep_left, keep_right = part
                content = messages[place]["content"]
                content = content if keep_left else content.lstrip()
                part = content if keep_right else content.rstrip()
            text += part
        ids = self._blind.encode(text, add_special_tokens=False).ids
        if not self._control.keys().isdisjoint(ids):
            raise ValueError("the text of the pair forms control tokens of the model")
        return [self._aliases.get(i, i) for i in ids]

    def prepare(self, roles: Sequence[str]) -> list[str | tuple[int, bool, bool]]:
        """The chat template for messages of these roles, rendered once: its texts and its places for contents.

        A place is (number of the message, whether white space is kept left of its content, and right).

        Raises:
            JudgeError: The chat template does not take these roles, or cannot be taken apart.
        """
        key = tuple(roles)
        if key not in self._templates:
            self._templates[key] = self._take_apart(key)
            probe = [{"role": role, "content": f"\n No {role} \n\n  finding.\t"} for role in roles]
            expected = self._tokenizer.apply_chat_template(probe, add_generation_prompt=True, return_dict=True)
            if self.encode(probe) != list(expected["input_ids"]):
                raise JudgeError(f"The tokenizer of {self._name} cannot be guarded against forged control tokens.")
        return self._templates[key]

    def _take_apart(self, roles: tuple[str, ...]) -> list[str | tuple[int, bool, bool]]:
        marks = [secrets.token_hex(16) for _ in roles]
        space = "\x0b"  # white space that no template holds by itself
        text = self._render(roles, marks)
        spaced = self._render(roles, [f"{space}{mark}{space}" for mark in marks])
        for mark, role in zip(marks, roles, strict=True):
            if text.count(mark) != 1 or spaced.count(mark) != 1:
                raise JudgeError(f"The chat template of {self._name} does not print the {role} message. {self._advice}")
        text = self._rename(text)
        parts: list[str | tuple[int, bool, bool]] = []
        for part in re.split(f"({'|'.join(marks)})", text):
            if part in marks:
                parts.append((marks.index(part), f"{space}{part}" in spaced, f"{part}{space}" in spaced))
            else:
                parts.append(part)
        return parts

    def _render(self, roles: tuple[str, ...], contents: list[str]) -> str:
        messages = [{"role": role, "content": content} for role, content in zip(roles, contents, strict=True)]
        try:
            return self._tokenizer.apply_chat_template(messages, add_generation_prompt=True, tokenize=False)
        except jinja2.TemplateError as error:
            raise JudgeError(
                f"The chat template of {self._name} refuses messages of the roles {', '.join(roles)}: "
                f"{_first_line(error)}. {self._advice}"
            ) from None

    @property
    def _advice(self) -> str:
        return "Use a model whose template takes a system and a user message."

    def _rename(self, text: str) -> str:
        """The rendered template with every control token under its random name."""
        encoding = self._tokenizer.backend_tokenizer.encode(text, add_special_tokens=False)
        for i, (start, end) in reversed(list(zip(encoding.ids, encoding.offsets, strict=True))):
            if i in self._control:  # the span may hold white space that the token swallows
                renamed = text[start:end].replace(self._control[i].content, self._alias(i), 1)
                text = text[:start] + renamed + text[end:]
        return text

    def _alias(self, control: int) -> str:
        name = f"<|{secrets.token_hex(16)}|>"
        self._blind.add_tokens([_added_token(name, self._control[control], False)])
        self._aliases[self._blind.token_to_id(name)] = control
        return name


def find_checkpoint(model: str, revision: str | None = None) -> Checkpoint:
    """The folder of a model; a Hub model is downloaded first, or taken from the Hub's cache.

    Raises:
        InputError: A revision is given for a folder, or two different ones.
        JudgeError: There is no such model, or it cannot be had.
    """
    model = str(model)  # a Path is fine too
    name, at, pinned = model.partition("@")
    if Path(model).expanduser().is_dir():
        name, pinned = model, ""
    elif at and (not pinned or revision not in (None, pinned)):
        raise InputError(f"model is {model!r} and revision is {revision!r}. Give one revision, in one of the two.")
    revision = pinned or revision
    folder = Path(name).expanduser()
    if folder.is_dir():
        if revision:
            raise InputError(f"revision is {revision!r}, but {name} is a folder. Leave it out, or give a Hub id.")
        checkpoint = Checkpoint(folder.resolve().name, folder, None)
    elif not re.fullmatch(r"[\w.-]+(/[\w.-]+)?", name) or name.startswith("."):
        raise JudgeError(f"There is no folder {name}. Give a model folder, or a Hub id such as {PUBLISHED_NAMES[0]}.")
    else:
        folder = _download(name, revision)
        checkpoint = Checkpoint(name, folder, folder.name)
    if not any((folder / config).is_file() for config in ("config.json", "adapter_config.json")):
        raise JudgeError(
            f"{name} is no model folder: it holds neither config.json nor adapter_config.json. "
            "Give the folder that save_pretrained wrote, or a Hub id."
        )
    if not any(folder.glob("*.safetensors")):
        raise JudgeError(
            f"{name} holds no safetensors, and nothing else is loaded. Convert its weights to safetensors."
        )
    return checkpoint


def evaluation_grammar(schema: dict[str, Any]) -> str:
    """`evaluation_schema` with bounds as a grammar for xgrammar (EBNF), so that every output is finite.

    xgrammar's own translation of a bounded string knows no escaped characters and allows raw control characters,
    which JSON forbids; here a text may hold a few escapes, and white space is bounded as well.
    """
    rules: dict[str, str] = {}  # body -> name

    def rule(node: dict[str, Any], name: str) -> str:
        if "enum" in node:
            body = " | ".join(_literal(value) for value in node["enum"])
        elif "pattern" in node:  # ^R[1-9][0-9]?$: a letter, then what means the same in both notations
            letter, rest = node["pattern"][1], node["pattern"][2:-1]
            body = rf'"\"{letter}" {rest} "\""'
        elif node["type"] == "string":
            plain = rf"[^\0-\x1f\"\\]{{0,{node['maxLength']}}}"
            body = rf'"\"" {plain} ("\\" escape {plain}){{0,{_MAX_ESCAPES}}} "\""'
        elif node["type"] == "array":
            item = rule(node["items"], f"{name}_item")
            body = f'"[" ws ({item} (ws "," ws {item}){{0,{node["maxItems"] - 1}}} ws)? "]"'
        else:
            fields = [
                f'{_literal(key)} ws ":" ws {rule(value, f"{name}_{key}")}' for key, value in node["properties"].items()
            ]
            body = '"{" ws ' + ' ws "," ws '.join(fields) + ' ws "}"'
        # Equal bodies are one rule: xgrammar prepares each rule against the whole vocabulary.
        return rules.setdefault(body, name)

    root = rule(schema, "evaluation")
    lines = [f"{name} ::= {body}" for body, name in rules.items()]
    lines.append(rf"ws ::= [ \n\r\t]{{0,{_MAX_WHITESPACE}}}")
    lines.append(r'escape ::= [\"\\/bfnrt] | "u" [0-9A-Fa-f] [0-9A-Fa-f] [0-9A-Fa-f] [0-9A-Fa-f]')
    return "\n".join([f"root ::= {root}", *lines])


def _literal(value: str) -> str:
    return json.dumps(json.dumps(value))


def _compile(
    xgrammar: ModuleType, grammar: str, tokenizer: PreTrainedTokenizerBase, vocab_size: int, ends: list[int]
) -> Any:
    info = xgrammar.TokenizerInfo.from_huggingface(tokenizer, vocab_size=vocab_size, stop_token_ids=ends)
    return xgrammar.GrammarCompiler(info).compile_grammar(grammar)


def _load_model(
    checkpoint: Checkpoint, base: Checkpoint | None, dtype: torch.dtype, device: torch.device | None
) -> PreTrainedModel:
    placed: dict[str, Any] = {}
    if device is None and torch.accelerator.is_available():
        placed["device_map"] = "auto"
    with _loading(base or checkpoint), _quiet():
        # No attention implementation is asked for: it is sdpa for every model that has it.
        model, info = AutoModelForCausalLM.from_pretrained(
            (base or checkpoint).folder,
            dtype=dtype,
            use_safetensors=True,
            trust_remote_code=False,
            local_files_only=True,
            output_loading_info=True,
            **placed,
        )
        # Transformers fills what is missing with random numbers and goes on.
        if info["missing_keys"] or info["mismatched_keys"]:
            raise ValueError("its weights do not fit its config")
    if base:
        peft = _engine("peft")
        with _loading(checkpoint), _quiet():
            warnings.filterwarnings("error", message="Found missing adapter keys")
            model = peft.PeftModel.from_pretrained(model, checkpoint.folder).merge_and_unload()
    return model if device is None else model.to(device)


def _load_tokenizer(checkpoint: Checkpoint, base: Checkpoint | None) -> PreTrainedTokenizerBase:
    own = any((checkpoint.folder / name).is_file() for name in ("tokenizer.json", "tokenizer_config.json"))
    source = base if base and not own else checkpoint
    with _loading(source), _quiet():
        return AutoTokenizer.from_pretrained(source.folder, trust_remote_code=False, local_files_only=True)


def _base_of(checkpoint: Checkpoint) -> Checkpoint | None:
    """The base model of a LoRA adapter; None for a model that is whole."""
    path = checkpoint.folder / "adapter_config.json"
    if not path.is_file():
        return None
    if not (checkpoint.folder / "adapter_model.safetensors").is_file():
        raise JudgeError(f"{checkpoint.name} is an adapter without adapter_model.safetensors. Save it as safetensors.")
    _engine("peft")
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
        name, revision = config["base_model_name_or_path"], config.get("revision")
        base = find_checkpoint(name, None if Path(name).expanduser().is_dir() else revision)
    except (ValueError, TypeError, KeyError, AttributeError):
        raise JudgeError(
            f"{checkpoint.name}: its adapter_config.json names no base model. Write base_model_name_or_path into it."
        ) from None
    except JudgeError as error:
        raise JudgeError(
            f"{error} This is the base model that the adapter {checkpoint.name} names in its adapter_config.json."
        ) from None
    if (base.folder / "adapter_config.json").is_file():
        raise JudgeError(f"{checkpoint.name}: its base model {base.name} is an adapter too. Merge that one first.")
    return base


def _download(name: str, revision: str | None) -> Path:
    try:
        return Path(snapshot_download(name, revision=revision, allow_patterns=_WANTED, ignore_patterns=_UNWANTED))
    except hub_errors.GatedRepoError:
        reason = f"is gated. Accept its terms at https://huggingface.co/{name}, then run: hf auth login"
    except hub_errors.RevisionNotFoundError:
        reason = f"has no revision {revision!r} on the Hub. Give a branch, tag or commit that it has."
    except (hub_errors.RepositoryNotFoundError, hub_errors.HFValidationError):
        reason = (
            "is neither a folder here nor a model on the Hub that you may see. Check its name; for a private "
            "model, run: hf auth login"
        )
    except (hub_errors.LocalEntryNotFoundError, hub_errors.OfflineModeIsEnabled):
        reason = (
            "is no folder here, the Hub cannot be reached, and it is not in the Hub's cache. Connect to the network, "
            "or give the folder of a model that you have. The offline judge needs no model."
        )
    except Exception as error:  # the client's own errors, the HTTP library's, a full disk
        reason = f"cannot be downloaded: {_first_line(error)}. Try again, or give the folder of a model that you have."
    raise JudgeError(f"{name} {reason}")


def _revision(checkpoint: Checkpoint) -> str:
    """The commit of a Hub model; for a folder, a digest that is cheap to make."""
    if checkpoint.revision:
        return checkpoint.revision
    digest = hashlib.sha256()
    for path in sorted(checkpoint.folder.iterdir()):
        if path.suffix in (".json", ".jinja", ".model", ".txt"):
            digest.update(path.name.encode() + b"\0" + path.read_bytes())
        elif path.suffix == ".safetensors":
            with path.open("rb") as file:
                header = file.read(int.from_bytes(file.read(8), "little"))
                digest.update(path.name.encode() + b"\0" + header)
                start = file.tell()
                tensors = [tensor for key, tensor in json.loads(header).items() if key != "__metadata__"]
                for begin, end in sorted(tensor["data_offsets"] for tensor in tensors):
                    file.seek(start + begin)
                    digest.update(file.read(min(end - begin, 4096)))
    return f"sampled-{digest.hexdigest()[:12]}"


def _end_tokens(said: GenerationConfig, tokenizer: PreTrainedTokenizerBase, name: str) -> list[int]:
    ends = said.eos_token_id if said.eos_token_id is not None else tokenizer.eos_token_id
    if ends is None or ends == []:
        raise JudgeError(f"{name} names no end token. Write eos_token_id into its generation_config.json.")
    return [ends] if isinstance(ends, int) else list(ends)


def _added_token(content: str, like: AddedToken, special: bool) -> AddedToken:
    normalized = like.normalized and special  # a random name is matched as it stands
    return AddedToken(content, lstrip=like.lstrip, rstrip=like.rstrip, normalized=normalized, special=special)


def _characters(pair: ReportPair) -> int:
    return (
        len(pair.reference)
        + len(pair.candidate)
        + sum(map(len, pair.context.as_dict().values() if pair.context else ()))
    )


def _check_positive(option: str, value: Any) -> None:
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise InputError(f"{option} is {value!r}. Give a whole number from 1 on.")


def _check_device(device: str | None) -> torch.device | None:
    if device is None:
        return None
    accelerator = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else None
    count = torch.accelerator.device_count() if accelerator else 0
    known = ["cpu", *([accelerator.type] if accelerator else []), *(f"{accelerator.type}:{n}" for n in range(count))]
    if device not in known:
        raise InputError(f"device is {device!r}. This machine has {', '.join(known)}; leave it out to take the best.")
    return torch.device(device)


def _is_out_of_memory(error: BaseException) -> bool:
    """The CPU's and Apple's allocators raise plain RuntimeErrors."""
    return isinstance(error, (torch.OutOfMemoryError, MemoryError)) or any(
        words in str(error) for words in ("DefaultCPUAllocator", "out of memory")
    )


def _engine(module: str) -> ModuleType:
    try:
        return import_module(module)
    except ImportError:
        raise JudgeError(f"The hf judge needs {module}, which is not installed. {_INSTALL}") from None


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:200].rstrip(".")


@contextmanager
def _loading(checkpoint: Checkpoint) -> Iterator[None]:
    """Turn whatever an engine raises about a broken checkpoint into one `JudgeError`."""
    try:
        yield
    except JudgeError:
        raise
    except Exception as error:
        raise JudgeError(
            f"{checkpoint.name} cannot be loaded: {_first_line(error)}. Check that it is a whole causal language "
            "model in the Transformers format and fits into memory."
        ) from None


@contextmanager
def _quiet() -> Iterator[None]:
    """Hold back Transformers' warnings and progress bars, and put things back as they were."""
    logging = transformers.utils.logging
    verbosity, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    if bars:
        logging.disable_progress_bar()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.set_verbosity(verbosity)
        if bars:
            logging.enable_progress_bar()
