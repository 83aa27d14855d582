"""What a YAML configuration holds: of data to be generated, and of a training run."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from training.corpus import CorpusConfig
from training.records import AnswerStyle

BATCH_SHARE = 0.5  # of the price, in batches


class Counts(BaseModel):
    """Records per split."""

    model_config = ConfigDict(extra="forbid")

    train: int = Field(0, ge=0)
    validation: int = Field(0, ge=0)
    test: int = Field(0, ge=0)


class Price(BaseModel):
    """US dollars per million tokens."""

    model_config = ConfigDict(extra="forbid")

    input: float = Field(ge=0)
    output: float = Field(ge=0)

    def of(self, usage: Mapping[str, int]) -> float:
        """The price of some tokens in US dollars; those of batches (`batch_prompt_tokens`, …) cost half."""
        prompt, answer = (
            usage.get(name, 0) + BATCH_SHARE * usage.get(f"batch_{name}", 0)
            for name in ("prompt_tokens", "completion_tokens")
        )
        return (self.input * prompt + self.output * answer) / 1e6


class Prices(BaseModel):
    """What the writer's and the judge's tokens cost."""

    model_config = ConfigDict(extra="forbid")

    writer: Price | None = None
    judge: Price | None = None


class Engine(BaseModel):
    """A writer or a judge: its spec, and the options of its constructor."""

    model_config = ConfigDict(extra="forbid")

    spec: str
    options: dict[str, Any] = Field(default_factory=dict)


class GenerateConfig(BaseModel):
    """What to generate."""

    model_config = ConfigDict(extra="forbid")

    corpus: CorpusConfig
    output: Path = Field(description="Folder of the data set.")
    candidates: Counts = Field(description="How many records each split gets.")
    writer: Engine = Field(
        description="rules, openai:<model> or azure:<deployment>; writes the candidates of regimes 2 to 5."
    )
    judge: Engine = Field(description="Any judge spec; labels what has no label by construction.")
    construction: bool = Field(True, description="Whether a label by construction is taken where the writer knows it.")
    seed: int = 42
    second_error: float = Field(0.5, ge=0, le=1, description="Probability of a second kind of error in regimes 3 to 5.")
    context: float = Field(0.8, ge=0, le=1, description="Probability that a field of the patient context is included.")
    forged: float = Field(
        0.05,
        ge=0,
        le=1,
        description="Share of the candidates with an order, a claim or a forged answer beside the report.",
    )
    encoder: str = Field("sentence-transformers/all-MiniLM-L6-v2", description="For similar reports; Hub id or folder.")
    neighbours: int = Field(5, ge=1, description="From how many of the most similar reports one is drawn.")
    prices: Prices = Field(default_factory=Prices)
    budget: float | None = Field(None, gt=0, description="US dollars; no request is sent once they are spent.")

    @model_validator(mode="after")
    def _has_prices(self) -> Self:
        paid = [
            name for name in ("writer", "judge") if getattr(self, name).spec.partition(":")[0] in ("openai", "azure")
        ]
        unpriced = [name for name in paid if getattr(self.prices, name) is None]
        if self.budget is not None and unpriced:
            raise ValueError(f"budget is set, and prices.{unpriced[0]} is missing: give its input and output price")
        if not any(self.candidates.model_dump().values()):
            raise ValueError("candidates asks for no records")
        return self


class PromptConfig(BaseModel):
    """How a pair is put to the model; recorded in the checkpoint's folder."""

    model_config = ConfigDict(extra="forbid")

    style: Literal["reference", "compact"] = "reference"
    guidelines: bool = False
    system: bool = Field(
        True,
        description="Whether the reference prompt begins with the system message of the authors' inference; false trains on the "
        "user message alone, as they did.",
    )


class LoraSettings(BaseModel):
    """Of the adapter."""

    model_config = ConfigDict(extra="forbid")

    r: int = Field(16, ge=1)
    alpha: int = Field(32, ge=1)
    dropout: float = Field(0.05, ge=0, lt=1)


class EvaluationSettings(BaseModel):
    """Of the held-out split while training."""

    model_config = ConfigDict(extra="forbid")

    steps: int = Field(500, ge=1, description="Every how many steps; a checkpoint is written before each.")
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
    answers: AnswerStyle = Field(
        "compact",
        description="compact: without blanks, half the tokens. reference: a label as the reference implementation's trainer "
        "writes it, in its own order of keys, with blanks and escapes.",
    )
    epochs: float = Field(1, gt=0)
    max_steps: int | None = Field(None, ge=1, description="Instead of epochs.")
    batch_size: int = Field(4, ge=1, description="Records per device and step of accumulation.")
    accumulation: int | None = Field(
        None, ge=1, description="Steps of accumulation; None: as many as make effective_batch, or 1 where that is none."
    )
    effective_batch: int | None = Field(
        None, ge=1, description="Records of a step over all processes; a run that cannot have it is refused."
    )
    learning_rate: float = Field(1e-4, gt=0)
    schedule: Literal["cosine", "linear", "constant_with_warmup"] = "cosine"
    warmup: float = Field(0.05, ge=0, lt=1, description="Share of the steps.")
    weight_decay: float = Field(0.05, ge=0)
    errors_weight: float = Field(
        1,
        gt=0,
        description="What a token that tells matches and errors weighs in the training loss; one that tells a finding weighs 1. "
        "Held-out losses weigh all alike.",
    )
    max_length: int = Field(4048, ge=16, description="Tokens of prompt and answer; longer records are left out.")
    seed: int = 42
    adapter: str | None = Field(
        None, description="Folder or Hub id of an adapter to train further; its own LoRA settings hold then."
    )
    lora: LoraSettings = Field(default_factory=LoraSettings)
    dtype: Literal["bfloat16", "float32"] = "bfloat16"
    gradient_checkpointing: bool = True
    compile: bool = Field(
        False,
        description="Whether torch compiles the layers before training: takes up to a minute, and needs a C++ compiler on a CPU.",
    )
    output_sample: int | None = Field(
        None,
        ge=0,
        description="While training, the output layer knows the tokens of the data and so many others, which stand for all "
        "others; None: all tokens. Halves the time of a small model with a large vocabulary.",
    )
    group_by_length: bool = Field(False, description="Whether records of like length share a batch: less padding.")
    log_steps: int = Field(10, ge=1)
    evaluation: EvaluationSettings = Field(default_factory=EvaluationSettings)
