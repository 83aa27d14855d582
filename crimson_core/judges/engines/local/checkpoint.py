"""Model folders: finding, downloading, reading and identifying them. Only safetensors, never code from a checkpoint."""

import hashlib
import json
import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import transformers
from huggingface_hub import errors as hub_errors
from huggingface_hub import snapshot_download
from transformers import AutoConfig, AutoTokenizer, GenerationConfig
from transformers.tokenization_utils_base import PreTrainedTokenizerBase

from crimson_core.errors import InputError, JudgeError, first_line, needed
from crimson_core.protocol.prompt import PUBLISHED_NAMES, Prompt, prompt_for

# The files of a checkpoint: top level only, since subfolders contain copies in other formats.
_WANTED = ["*.safetensors", "*.json", "*.jinja", "*.model", "*.txt"]
_UNWANTED = ["*/*", "consolidated*"]
_GENERATION = "generation_config.json"
_TOLD = "training_run.json"  # how it was trained and tested, for its model card; no judge reads it


class Checkpoint(NamedTuple):
    """A model folder on this machine."""

    name: str  # Hub id, or the folder's name without its path
    folder: Path
    revision: str | None  # commit hash on the Hub; None for a local folder


def find_checkpoint(model: str, revision: str | None = None) -> Checkpoint:
    """The folder of a model; a Hub model comes from the Hub's cache or is downloaded first.

    Raises:
        InputError: A revision is given for a folder, or two different revisions.
        JudgeError: There is no such model, or it cannot be downloaded.
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
            f"{name} is not a model folder: it has neither config.json nor adapter_config.json. "
            "Give the folder that save_pretrained wrote, or a Hub id."
        )
    if not any(folder.glob("*.safetensors")):
        raise JudgeError(f"{name} has no safetensors, and nothing else is loaded. Convert its weights to safetensors.")
    return checkpoint


def base_of(checkpoint: Checkpoint, base: str | None = None) -> Checkpoint | None:
    """The base model of a LoRA adapter; None for a whole model.

    Args:
        checkpoint: The model or adapter.
        base: Folder or Hub id of the base model; None uses the one that the adapter names.

    Raises:
        InputError: `base` is given for a model that is not an adapter.
        JudgeError: The adapter or its base model is missing or cannot be read.
    """
    path = checkpoint.folder / "adapter_config.json"
    if base is not None and not (isinstance(base, (str, Path)) and str(base).strip()):
        raise InputError(f"base is {base!r}. Give the folder or Hub id of the adapter's base model.")
    if not path.is_file():
        if base is not None:
            raise InputError(f"base is {base!r}, but {checkpoint.name} is a whole model, not an adapter. Leave it out.")
        return None
    if not (checkpoint.folder / "adapter_model.safetensors").is_file():
        raise JudgeError(f"{checkpoint.name} is an adapter without adapter_model.safetensors. Save it as safetensors.")
    needed("peft", "hf")
    if base is not None:
        try:
            found = find_checkpoint(base)
        except JudgeError as error:
            raise JudgeError(f"{error} It was given as base, the base model of {checkpoint.name}.") from None
    else:
        try:
            config = json.loads(path.read_text(encoding="utf-8"))
            name, revision = config["base_model_name_or_path"], config.get("revision")
            found = find_checkpoint(name, None if Path(name).expanduser().is_dir() else revision)
        except (ValueError, TypeError, KeyError, AttributeError):
            raise JudgeError(
                f"{checkpoint.name}: its adapter_config.json names no base model. Write base_model_name_or_path into "
                "it, or say where the base model is with the option base."
            ) from None
        except JudgeError as error:
            raise JudgeError(
                f"{error} This is the base model that the adapter {checkpoint.name} names in its adapter_config.json; "
                "the option base puts another folder or Hub id in its place."
            ) from None
    if (found.folder / "adapter_config.json").is_file():
        raise JudgeError(f"{checkpoint.name}: its base model {found.name} is an adapter too. Merge that one first.")
    return found


def load_tokenizer(checkpoint: Checkpoint, base: Checkpoint | None) -> PreTrainedTokenizerBase:
    """The tokenizer of a model; an adapter without one uses its base model's, with its own chat template if it has one.

    Raises:
        JudgeError: The tokenizer cannot be loaded.
    """
    own = any((checkpoint.folder / name).is_file() for name in ("tokenizer.json", "tokenizer_config.json"))
    source = base if base and not own else checkpoint
    with loading(source), quiet():
        tokenizer = AutoTokenizer.from_pretrained(source.folder, trust_remote_code=False, local_files_only=True)
    template = checkpoint.folder / "chat_template.jinja"
    if source is not checkpoint and template.is_file():
        with loading(checkpoint):
            tokenizer.chat_template = template.read_text(encoding="utf-8")
    return tokenizer


def generation_config(checkpoint: Checkpoint, base: Checkpoint | None = None) -> GenerationConfig:
    """A model's generation config; an adapter's settings of outputs override its base model's.

    A whole model without a generation config gets the one that Transformers derives from its model config.

    Raises:
        JudgeError: The config cannot be read.
    """
    if base:
        config = generation_config(base)
        if (checkpoint.folder / _GENERATION).is_file():
            own = generation_config(checkpoint)
            for key in ("eos_token_id", "pad_token_id", "max_new_tokens"):
                if getattr(own, key) is not None:
                    setattr(config, key, getattr(own, key))
        return config
    with loading(checkpoint), quiet():
        if (checkpoint.folder / _GENERATION).is_file():
            return GenerationConfig.from_pretrained(checkpoint.folder, local_files_only=True)
        config = AutoConfig.from_pretrained(checkpoint.folder, trust_remote_code=False, local_files_only=True)
        return GenerationConfig.from_model_config(config)


def prompt_of(checkpoint: Checkpoint, guidelines: bool | None) -> Prompt:
    """The prompt of a checkpoint: what its name or its folder demands, else what the caller wants.

    Raises:
        JudgeError: The folder's prompt file cannot be read.
    """
    published = checkpoint.name in PUBLISHED_NAMES
    return prompt_for(checkpoint.name if published else str(checkpoint.folder), guidelines)


def origin_of(checkpoint: Checkpoint, base: Checkpoint | None) -> dict[str, str]:
    """The fields of a signature that identify a model and its base model."""
    revision = {"revision": revision_of(checkpoint)}
    return revision | {"base": f"{base.name}@{revision_of(base)}"} if base else revision


def revision_of(checkpoint: Checkpoint) -> str:
    """The commit of a Hub model; for a folder, a digest of its configuration and of samples of its weights."""
    if checkpoint.revision:
        return checkpoint.revision
    digest = hashlib.sha256()
    for path in sorted(checkpoint.folder.iterdir()):
        if path.name == _TOLD:
            continue
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


def _download(name: str, revision: str | None) -> Path:
    try:
        return Path(snapshot_download(name, revision=revision, allow_patterns=_WANTED, ignore_patterns=_UNWANTED))
    except hub_errors.GatedRepoError:
        reason = f"is gated. Accept its terms at https://huggingface.co/{name}, then run: hf auth login"
    except hub_errors.RevisionNotFoundError:
        reason = f"has no revision {revision!r} on the Hub. Give a branch, tag or commit that it has."
    except (hub_errors.RepositoryNotFoundError, hub_errors.HFValidationError):
        reason = (
            "is neither a local folder nor a model on the Hub that you can access. Check its name; for a private "
            "model, run: hf auth login"
        )
    except (hub_errors.LocalEntryNotFoundError, hub_errors.OfflineModeIsEnabled):
        reason = (
            "is not a local folder, the Hub cannot be reached, and it is not in the Hub's cache. Connect to the network, "
            "or give the folder of a model that you have. The offline judge needs no model."
        )
    except Exception as error:  # the client's own errors, the HTTP library's, a full disk
        reason = f"cannot be downloaded: {first_line(error)}. Try again, or give the folder of a model that you have."
    raise JudgeError(f"{name} {reason}")


@contextmanager
def loading(checkpoint: Checkpoint) -> Iterator[None]:
    """Turn any exception while loading a checkpoint into a `JudgeError`."""
    try:
        yield
    except JudgeError:
        raise
    except Exception as error:
        raise JudgeError(
            f"{checkpoint.name} cannot be loaded: {first_line(error)}. Check that it is a whole causal language "
            "model in the Transformers format and fits into memory."
        ) from None


@contextmanager
def quiet() -> Iterator[None]:
    """Suppress Transformers' warnings and progress bars, and restore the settings afterwards."""
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
