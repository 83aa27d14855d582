"""The keys of YAML configurations: for the generation of data, and for a training run."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import Field, model_validator

from crimson_core.run.config_file import Strict
from training.corpus import CorpusConfig
from training.records import AnswerStyle

BATCH_SHARE = 0.5  # the price in batches, as a share of the usual one


class Counts(Strict):
    """Records per split."""

    train: int = Field(0, ge=0)
    validation: int = Field(0, ge=0)
    test: int = Field(0, ge=0)


class Price(Strict):
    """US dollars per million tokens."""

    input: float = Field(ge=0)
    output: float = Field(ge=0)

    def of(self, usage: Mapping[str, int]) -> float:
        """The price of tokens in US dollars; those of batches (`batch_prompt_tokens`, …) cost half."""
        prompt, answer = (
            usage.get(name, 0) + BATCH_SHARE * usage.get(f"batch_{name}", 0)
            for name in ("prompt_tokens", "completion_tokens")
        )
        return (self.input * prompt + self.output * answer) / 1e6


class Prices(Strict):
    """Prices of the writer's and of the judge's tokens."""

    writer: Price | None = None
    judge: Price | None = None


class Engine(Strict):
    """A writer or a judge: its spec and its options."""

    spec: str
    options: dict[str, Any] = Field(default_factory=dict)

    @property
    def is_bought(self) -> bool:
        """Whether it may cost money."""
        return self.spec.partition(":")[0] in ("openai", "azure")


class GenerateConfig(Strict):
    """A data set to generate."""

    corpus: CorpusConfig
    output: Path = Field(description="Folder of the data set.")
    candidates: Counts = Field(description="How many records each split gets.")
    writer: Engine = Field(
        description="rules, openai:<model> or azure:<deployment>; writes the candidates of regimes 2 to 5."
    )
    judge: Engine = Field(description="Any judge spec; labels what has no label by construction.")
    construction: bool = Field(True, description="Whether to use the writer's label if it knows it by construction.")
    seed: int = 42
    second_error: float = Field(0.5, ge=0, le=1, description="Probability of a second kind of error in regimes 3 to 5.")
    context: float = Field(0.8, ge=0, le=1, description="Probability that a field of the patient context is included.")
    forged: float = Field(
        0.05,
        ge=0,
        le=1,
        description="Share of the candidates that contain an order, a claim or a forged answer beside the report.",
    )
    encoder: str = Field("sentence-transformers/all-MiniLM-L6-v2", description="For similar reports; Hub id or folder.")
    neighbours: int = Field(5, ge=1, description="Number of the most similar reports from which one is drawn.")
    prices: Prices = Field(default_factory=Prices)
    budget: float | None = Field(None, gt=0, description="US dollars; when they are spent, no more requests are sent.")

    @property
    def unpriced(self) -> list[str]:
        """Which of `writer` and `judge` may cost money and have no price."""
        bought = (name for name in ("writer", "judge") if getattr(self, name).is_bought)
        return [name for name in bought if getattr(self.prices, name) is None]

    @model_validator(mode="after")
    def _has_prices(self) -> Self:
        if self.budget is not None and self.unpriced:
            raise ValueError(
                f"budget is set, and prices.{self.unpriced[0]} is missing: give its input and output price"
            )
        if not any(self.candidates.model_dump().values()):
            raise ValueError("candidates asks for no records")
        return self


class PromptConfig(Strict):
    """The prompt that a pair becomes; it is recorded in the checkpoint's folder."""

    style: Literal["reference", "compact"] = "reference"
    guidelines: bool = False
    system: bool = Field(
        True,
        description="Whether the reference prompt begins with the system message that the authors' inference sends; false trains "
        "on the user message alone, as the authors did.",
    )


class LoraSettings(Strict):
    """Settings of the adapter."""

    r: int = Field(16, ge=1)
    alpha: int = Field(32, ge=1)
    dropout: float = Field(0.05, ge=0, lt=1)


class EvaluationSettings(Strict):
    """Evaluation on the validation split during training."""

    steps: int = Field(500, ge=1, description="Steps between two evaluations; a checkpoint is written before each.")
    records: int = Field(1000, ge=1, description="Number of records for the loss, from the start of the split.")
    generate: int = Field(200, ge=0, description="Number of these for which the model writes evaluations.")
    batch_size: int | None = Field(None, ge=1, description="Pairs that are judged together.")


class FinetuneConfig(Strict):
    """A training run."""

    base: str = Field(description="Hub id or folder of the base model.")
    base_name: str | None = Field(None, description="The name of the base model in the adapter, if not `base`.")
    base_source: str | None = Field(None, description="The origin of the base model's weights, for the model card.")
    data: Path = Field(description="Folder with train.jsonl and validation.jsonl, from training.generate.")
    output: Path
    prompt: PromptConfig = Field(default_factory=PromptConfig)
    answers: AnswerStyle = Field(
        "compact",
        description="compact: without blanks, half the tokens. reference: as the reference implementation's trainer writes a "
        "label, in the label's order of keys, with blanks and escapes.",
    )
    epochs: float = Field(1, gt=0)
    max_steps: int | None = Field(None, ge=1, description="Instead of epochs.")
    batch_size: int = Field(4, ge=1, description="Records per device and step of accumulation.")
    accumulation: int | None = Field(
        None, ge=1, description="Steps of gradient accumulation; None: as many as effective_batch needs, else 1."
    )
    effective_batch: int | None = Field(
        None, ge=1, description="Records per step over all processes; a run that cannot reach it exactly is refused."
    )
    learning_rate: float = Field(1e-4, gt=0)
    schedule: Literal["cosine", "linear", "constant_with_warmup"] = "cosine"
    warmup: float = Field(0.05, ge=0, lt=1, description="Share of the steps.")
    weight_decay: float = Field(0.05, ge=0)
    errors_weight: float = Field(
        1,
        gt=0,
        description="Weight of the tokens of matches and errors in the training loss; those of findings weigh 1. Validation losses "
        "weigh all tokens alike.",
    )
    max_length: int = Field(4048, ge=16, description="Tokens of prompt and answer; longer records are left out.")
    seed: int = 42
    adapter: str | None = Field(
        None, description="Folder or Hub id of an adapter to train further, with its own LoRA settings."
    )
    lora: LoraSettings = Field(default_factory=LoraSettings)
    dtype: Literal["bfloat16", "float32"] = "bfloat16"
    gradient_checkpointing: bool = True
    compile: bool = Field(
        False,
        description="Whether torch compiles the layers first, which takes up to a minute and needs a C++ compiler on a CPU.",
    )
    output_sample: int | None = Field(
        None,
        ge=0,
        description="In training, the output layer computes the tokens of the data and so many others, which represent the rest; "
        "None: all tokens. This halves the time of a small model with a large vocabulary.",
    )
    group_by_length: bool = Field(
        False, description="Whether records of similar length share a batch, for less padding."
    )
    log_steps: int = Field(10, ge=1)
    evaluation: EvaluationSettings = Field(default_factory=EvaluationSettings)
