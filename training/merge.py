"""Merges an adapter into its base model: `python -m training.merge ADAPTER OUTPUT`.

Sums are computed in float32 and saved as bf16. Only the language model of a multimodal Gemma 3 is kept, so the result is a
`gemma3_text` model, like the published CRIMSON model.
"""

import shutil
from pathlib import Path
from typing import Annotated

import torch
import typer
from huggingface_hub import HfApi, get_token
from safetensors import safe_open
from transformers import GenerationConfig, PreTrainedModel
from transformers.tokenization_utils_base import PreTrainedTokenizerBase

from crimson_core.errors import InputError, first_line
from crimson_core.judges.engines.hf.weights import language_model, load_model
from crimson_core.judges.engines.local.checkpoint import (
    Checkpoint,
    base_of,
    find_checkpoint,
    load_tokenizer,
    loading,
    quiet,
)
from crimson_core.protocol.prompt import PROMPT_FILE
from training.card import model_card, read_run
from training.command import run
from training.folder import whole_folder


def merge(
    adapter: str | Path,
    output: Path,
    *,
    base: str | Path | None = None,
    name: str | None = None,
    dtype: str = "bfloat16",
) -> None:
    """Merge a LoRA adapter into its base model, and write a folder with everything that a judge needs.

    This takes 4 bytes of memory per parameter of the base model.

    Args:
        adapter: Folder or Hub id.
        output: Folder to write, which must not exist or be empty.
        base: Folder or Hub id of the base model; None uses the one that the adapter names.
        name: The model's name in its card; None uses the name of the folder.
        dtype: Type of the saved weights, a name in torch.

    Raises:
        InputError: `adapter` cannot be merged, or `output` cannot be written; no part of it is left then.
        JudgeError: The adapter or its base model cannot be loaded.
    """
    with whole_folder(Path(output)) as folder:  # checked first, since loading takes long
        checkpoint = find_checkpoint(str(adapter))
        if not (checkpoint.folder / "adapter_config.json").is_file():
            raise InputError(f"adapter {adapter} is a whole model and no adapter. Give the folder of an adapter.")
        found = base_of(checkpoint, base)
        card = model_card(read_run(checkpoint.folder), name=name or Path(output).name, merged=True)
        _check_parts(checkpoint)
        tokenizer = load_tokenizer(checkpoint, found)
        if not tokenizer.chat_template:
            raise InputError(
                f"adapter {adapter} has no chat template, and its base model has none. Put the template that it was "
                "trained with into the adapter's folder as chat_template.jinja."
            )
        model = language_model(load_model(checkpoint, found, torch.float32, torch.device("cpu")))
        _save(model.to(getattr(torch, dtype)), tokenizer, folder)
        if (checkpoint.folder / PROMPT_FILE).is_file():
            shutil.copyfile(checkpoint.folder / PROMPT_FILE, folder / PROMPT_FILE)
        (folder / "README.md").write_text(card, encoding="utf-8")


def _check_parts(checkpoint: Checkpoint) -> None:
    """Count the weights for the vision part, which the merged model lacks; refuse an adapter that changes it.

    LoRA on all modules of a name also puts weights into the vision tower. Training on text leaves them at their start: one
    of each pair is zero, and they change nothing.
    """
    vision, trained = 0, False
    with loading(checkpoint), safe_open(checkpoint.folder / "adapter_model.safetensors", "pt") as weights:
        for name in weights.keys():  # noqa: SIM118, it is no dictionary
            if any(part in name for part in ("vision_tower", "multi_modal_projector")):
                vision += 1
                trained |= "lora_A" not in name and bool(weights.get_tensor(name).any())
    if trained:
        raise InputError(
            f"adapter {checkpoint.name} also adapts the vision part of its base model, which a text model does not "
            "have. Train LoRA on the language model only."
        )
    if vision:
        print(f"Left out: {vision} weights of the vision part, which change nothing.")


def _save(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, folder: Path) -> None:
    settings = model.generation_config
    pad = settings.pad_token_id if settings.pad_token_id is not None else tokenizer.pad_token_id
    # a new one, since the base model's may contain sampling parameters
    model.generation_config = GenerationConfig(
        do_sample=False,
        bos_token_id=settings.bos_token_id,
        eos_token_id=settings.eos_token_id if settings.eos_token_id is not None else tokenizer.eos_token_id,
        pad_token_id=pad,
        max_new_tokens=settings.max_new_tokens,
    )
    with quiet():
        model.save_pretrained(folder)
        tokenizer.save_pretrained(folder)


def check_login() -> None:
    """Check before the work that the Hub will accept the result.

    Raises:
        InputError: Nobody is logged in, or the Hub cannot be reached.
    """
    if not get_token():
        raise InputError("--push: nobody is logged in to the Hub. Run: hf auth login")
    try:
        HfApi().whoami()
    except Exception as error:  # the client's own errors and those of the HTTP library
        raise InputError(
            f"--push: the Hub does not answer or does not know your token ({type(error).__name__}). Check the network, "
            "or run: hf auth login"
        ) from None


def push(folder: Path, repository: str, *, private: bool = False) -> None:
    """Upload a folder to a model repository of the Hub, which is created if necessary.

    Raises:
        InputError: The Hub refuses; the folder is kept.
    """
    try:
        api = HfApi()
        api.create_repo(repository, private=private, exist_ok=True)
        api.upload_folder(repo_id=repository, folder_path=folder, commit_message="CRIMSON judge")
    except Exception as error:  # the client's own errors and those of the HTTP library
        raise InputError(
            f"--push {repository}: {first_line(error)}. The model is in {folder}; upload it later with: hf upload {repository} {folder}"
        ) from None


def main(
    adapter: Annotated[str, typer.Argument(help="Folder or Hub id of the adapter.")],
    output: Annotated[Path, typer.Argument(help="Folder to write; must not exist or be empty.")],
    base: Annotated[
        str | None,
        typer.Option(metavar="FOLDER_OR_ID", help="Its base model.  [default: the one that the adapter names]"),
    ] = None,
    repository: Annotated[
        str | None, typer.Option("--push", metavar="REPO_ID", help="Upload the result to this model repository.")
    ] = None,
    private: Annotated[bool, typer.Option("--private", help="Make the repository a private one.")] = False,
) -> None:
    """Merge a LoRA adapter into its base model, as a bf16 safetensors folder that the hf judge loads."""
    if private and not repository:
        raise InputError("--private needs --push.")
    if repository:
        check_login()
    merge(adapter, output, base=base, name=repository)
    print(f"The merged model is in {output}. Judge with it: crimson score FILE --judge hf:{output}")
    if repository:
        push(output, repository, private=private)
        print(f"It is at https://huggingface.co/{repository}.")


if __name__ == "__main__":
    run(main)
