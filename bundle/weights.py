"""Weights in a bundle, and the judge specs that name them on the target."""

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from crimson_core.errors import InputError, JudgeError
from crimson_core.install import install_command

_ENDINGS = (".safetensors", ".json", ".jinja", ".model", ".txt")  # files that judges read
_TERMS = ("README", "LICENSE", "NOTICE", "USE_POLICY")  # files that must accompany a copy
_TOLD = "training_run.json"  # names folders of the machine that trained the model; no judge reads it


class Weights(NamedTuple):
    """A model or an adapter."""

    name: str  # name of its folder, or its Hub id
    folder: Path  # its folder on this machine
    revision: str | None = None  # commit on the Hub; None for a folder
    pinned: bool = False  # whether the user named that revision; then the judge spec must name it too

    @property
    def path(self) -> str:
        """Its folder in the bundle. A Hub model keeps the layout of the Hub's cache, and with it its name and signature."""
        if self.revision is None:
            return f"weights/{self.name}"
        return f"{self._cache}/snapshots/{self.revision}"

    @property
    def reference(self) -> str | None:
        """The file of the bundle that names the newest revision; None if none is needed."""
        return f"{self._cache}/refs/main" if self.revision and not self.pinned else None

    @property
    def _cache(self) -> str:
        return f"hub/models--{self.name.replace('/', '--')}"

    @property
    def files(self) -> list[Path]:
        """The files to copy."""
        return [
            path
            for path in sorted(self.folder.iterdir())
            if path.is_file()
            and path.name != _TOLD
            and (path.suffix in _ENDINGS or path.name.upper().startswith(_TERMS))
        ]

    @property
    def base(self) -> str | None:
        """The base model that an adapter names, `?` if it names none; None for a whole model."""
        path = self.folder / "adapter_config.json"
        if not path.is_file():
            return None
        try:
            return str(json.loads(path.read_text(encoding="utf-8"))["base_model_name_or_path"] or "?")
        except (ValueError, TypeError, KeyError):
            return "?"

    @property
    def place(self) -> str:
        """Its name in a judge spec on the target, in a shell that has sourced `env.sh`."""
        if self.revision is None:
            return f"$CRIMSON_WEIGHTS/{self.name}"
        return f"{self.name}@{self.revision}" if self.pinned else self.name


def find_weights(given: Sequence[str]) -> list[Weights]:
    """The weights that the user named: folders, or Hub ids, which are downloaded or taken from the Hub's cache.

    Raises:
        InputError: A folder contains no model or adapter, two have the same name, or a Hub model needs a package that is
            not installed.
        JudgeError: A Hub model cannot be downloaded.
    """
    found = [_folder(Path(name).expanduser()) if Path(name).expanduser().is_dir() else _hub(name) for name in given]
    for number, weights in enumerate(found):
        if weights.path in [other.path for other in found[:number]]:
            raise InputError(f"weights: two are called {weights.name}. Rename one of the folders, or name it once.")
    return found


def judge_specs(all_weights: Sequence[Weights]) -> list[str]:
    """The judge specs for the target, one per model or adapter; the base of an adapter is a model too."""
    specs = []
    for weights in all_weights:
        spec = f"hf:{weights.place}"
        if weights.base is not None:
            base = _base_among(all_weights, weights.base)
            if base is None:
                spec += ",base=FOLDER_OF_ITS_BASE_MODEL"
            elif base.revision is None or base.name != weights.base:
                spec += f",base={base.place}"
        specs.append(spec)
    return specs


def _base_among(all_weights: Sequence[Weights], name: str) -> Weights | None:
    models = [weights for weights in all_weights if weights.base is None]
    for weights in models:
        if name == weights.name or Path(name).name == Path(weights.name).name:
            return weights
    return models[0] if len(models) == 1 else None


def _folder(folder: Path) -> Weights:
    weights = Weights(folder.resolve().name, folder)
    names = {path.name for path in weights.files}
    if not names & {"config.json", "adapter_config.json"} or not any(name.endswith(".safetensors") for name in names):
        raise InputError(
            f"weights {folder} is no model and no adapter: it must hold config.json or adapter_config.json, and "
            "safetensors. Give the folder that save_pretrained wrote, or a Hub id."
        )
    if not re.fullmatch(r"[\w.-]+", weights.name):
        raise InputError(f"weights {folder}: name the folder with letters, digits, '.', '_' and '-' only.")
    return weights


def _hub(name: str) -> Weights:
    try:
        from crimson_core.judges.engines.local.checkpoint import find_checkpoint
    except (ImportError, JudgeError):
        raise InputError(
            f"weights {name} is no folder here, and a download from the Hub needs the hf extra, which this Python lacks. "
            f"Run: {install_command('hf')}"
        ) from None
    checkpoint = find_checkpoint(name)
    return Weights(checkpoint.name, checkpoint.folder, checkpoint.revision, "@" in name)
