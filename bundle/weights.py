"""Weights that travel in a bundle, and the judge specs under which they are found on the other side."""

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from crimson_core.errors import InputError, JudgeError
from crimson_core.install import install_command

_ENDINGS = (".safetensors", ".json", ".jinja", ".model", ".txt")  # what judges read
_TERMS = ("README", "LICENSE", "NOTICE", "USE_POLICY")  # what must go along with a copy
_TOLD = "training_run.json"  # names folders of the machine that trained it, and no judge reads it


class Weights(NamedTuple):
    """A model or an adapter.

    Attributes:
        name: Its folder's own name, or its Hub id.
        folder: Where it is on this machine.
        revision: Commit on the Hub; None for a folder.
        pinned: Whether the user asked for that revision, so that the judge spec must name it too.
    """

    name: str
    folder: Path
    revision: str | None = None
    pinned: bool = False

    @property
    def path(self) -> str:
        """Its folder in the bundle. A Hub model keeps the layout of the Hub's cache, and with it its name and signature."""
        if self.revision is None:
            return f"weights/{self.name}"
        return f"{self._cache}/snapshots/{self.revision}"

    @property
    def reference(self) -> str | None:
        """The file of the bundle that tells which revision is the newest; None where none is needed."""
        return f"{self._cache}/refs/main" if self.revision and not self.pinned else None

    @property
    def _cache(self) -> str:
        return f"hub/models--{self.name.replace('/', '--')}"

    @property
    def files(self) -> list[Path]:
        """The files that travel."""
        return [
            path
            for path in sorted(self.folder.iterdir())
            if path.is_file()
            and path.name != _TOLD
            and (path.suffix in _ENDINGS or path.name.upper().startswith(_TERMS))
        ]

    @property
    def base(self) -> str | None:
        """The base model that an adapter names, `?` where it names none; None for a whole model."""
        path = self.folder / "adapter_config.json"
        if not path.is_file():
            return None
        try:
            return str(json.loads(path.read_text(encoding="utf-8"))["base_model_name_or_path"] or "?")
        except (ValueError, TypeError, KeyError):
            return "?"

    @property
    def place(self) -> str:
        """How a judge spec names it on the other side, in a shell that has read `env.sh`."""
        if self.revision is None:
            return f"$CRIMSON_WEIGHTS/{self.name}"
        return f"{self.name}@{self.revision}" if self.pinned else self.name


def find_weights(given: Sequence[str]) -> list[Weights]:
    """What the user named: folders, or Hub ids, which are downloaded or taken from the Hub's cache.

    Raises:
        InputError: A folder holds no model or adapter, two have one name, or Hub models need a package that is not here.
        JudgeError: A Hub model cannot be had.
    """
    found = [_folder(Path(name).expanduser()) if Path(name).expanduser().is_dir() else _hub(name) for name in given]
    for number, weights in enumerate(found):
        if weights.path in [other.path for other in found[:number]]:
            raise InputError(f"weights: two are called {weights.name}. Rename one of the folders, or name it once.")
    return found


def judge_specs(all_weights: Sequence[Weights]) -> list[str]:
    """The judge specs to score with on the other side; what is the base of an adapter here counts as a model too."""
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
