"""The settings of a training run, as its YAML configuration has them."""

from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field


class PromptConfig(BaseModel):
    """How a pair is put to the model; recorded in the checkpoint's folder."""

    model_config = ConfigDict(extra="forbid")

    style: Literal["reference", "compact"] = "reference"
    guidelines: bool = False


class LoraSettings(BaseModel):
    """Of the adapter."""

    model_config = ConfigDict(extra="forbid")

    r: int = Field(16, ge=1)
    alpha: int = Field(32, ge=1)
    dropout: float = Field(0.05, ge=0, lt=1)


class EvaluationSettings(BaseModel):
    """Of the held-out split while training."""

    model_config = ConfigDict(extra="forbid")

    steps: int = Field(500, ge=1, description="Every how many steps; a checkpoint is written each time.")
    records: int = Field(1000, ge=1, description="Records of the validation split for the loss, the first ones.")
    generate: int = Field(200, ge=0, description="Of these, for how many the model writes its evaluations.")
    batch_size: int | None = Field(None, ge=1, description="Pairs that are generated together.")


class FinetuneConfig(BaseModel):
    """A training run."""

    model_config = ConfigDict(extra="forbid")

    base: str = Field(description="Hub id or folder of the base model.")
    base_name: str | None = Field(None, description="What the adapter names as its base, if not `base`.")
    base_source: str | None = Field(None, description="Where the base's weights come from, for the card.")
    data: Path = Field(description="Folder with train.jsonl and validation.jsonl, as training.generate writes it.")
    output: Path
    prompt: PromptConfig = Field(default_factory=PromptConfig)
    epochs: float = Field(1, gt=0)
    max_steps: int | None = Field(None, ge=1, description="Instead of epochs.")
    batch_size: int = Field(4, ge=1, description="Records per device and step of accumulation.")
    accumulation: int = Field(1, ge=1)
    learning_rate: float = Field(1e-4, gt=0)
    schedule: Literal["cosine", "linear", "constant_with_warmup"] = "cosine"
    warmup: float = Field(0.05, ge=0, lt=1, description="Share of the steps.")
    weight_decay: float = Field(0.05, ge=0)
    max_length: int = Field(4048, ge=16, description="Tokens of prompt and answer; longer records are left out.")
    seed: int = 42
    lora: LoraSettings = Field(default_factory=LoraSettings)
    dtype: Literal["bfloat16", "float32"] = "bfloat16"
    gradient_checkpointing: bool = True
    group_by_length: bool = Field(False, description="Whether records of like length share a batch: less padding.")
    log_steps: int = Field(10, ge=1)
    evaluation: EvaluationSettings = Field(default_factory=EvaluationSettings)
