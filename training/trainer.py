"""The trainer: the loop of `transformers` with another order of records, figures on the model's evaluations, and a log."""

import json
import math
import os
import time
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from accelerate.utils import gather_object
from torch.utils.data import Dataset, Sampler
from transformers import Trainer, TrainerCallback
from transformers.trainer import TRAINER_STATE_NAME
from transformers.trainer_pt_utils import get_length_grouped_indices

from crimson_core.errors import CrimsonError
from crimson_core.judges import Judge
from crimson_core.run.scorer import CrimsonScorer
from training.agreement import agreement
from training.journal import write_whole
from training.records import Record

METRICS_FILE = "metrics.jsonl"
STATE_FILE = TRAINER_STATE_NAME  # of a checkpoint
_MOST_SKIPPED = 10  # steps in a row


class JudgeTrainer(Trainer):
    """A trainer that also lets the model write evaluations for held-out records.

    A checkpoint is written before the evaluation of its step, so a crash there loses no step, and its state is written again
    afterwards. A run that continues from a checkpoint that was not evaluated (`was_evaluated`) needs `eval_on_start`.

    A step whose gradient is not finite would make every weight NaN, and `transformers` would log a loss of 0 from then on.
    Such a step is skipped, counted and logged.

    Raises:
        CrimsonError: In `train`, after ten such steps in a row.
    """

    judge: Judge | None = None
    generated: Sequence[Record] = ()
    skipped_steps = 0  # since this start of the run
    _skipped_in_a_row = 0

    def compute_loss(self, model: torch.nn.Module, inputs: dict[str, Any], *args: Any, **kwargs: Any) -> Any:
        """Compute the loss as usual; in training it also gets the tokens' weights, which the model does not accept."""
        plain, weights = self.compute_loss_func, inputs.pop("weights")
        self.compute_loss_func = partial(plain, weights=weights if model.training else None)
        try:
            return super().compute_loss(model, inputs, *args, **kwargs)
        finally:
            self.compute_loss_func = plain

    def _get_train_sampler(self, train_dataset: Dataset | None = None) -> Sampler | None:
        if self.args.train_sampling_strategy != "group_by_length":
            return super()._get_train_sampler(train_dataset)
        step = self.args.train_batch_size * self.args.gradient_accumulation_steps * self.args.world_size
        return LengthGroups((train_dataset or self.train_dataset).lengths, step, self.args.data_seed)

    def _clip_grad_norm(self, model: torch.nn.Module) -> Any:
        norm = super()._clip_grad_norm(model)
        if math.isfinite(norm):
            self._skipped_in_a_row = 0
            return norm
        model.zero_grad(set_to_none=True)  # the optimizer leaves a weight without a gradient as it is
        self.skipped_steps, self._skipped_in_a_row = self.skipped_steps + 1, self._skipped_in_a_row + 1
        if self._skipped_in_a_row == _MOST_SKIPPED:
            raise CrimsonError(
                f"The gradients of {_MOST_SKIPPED} steps in a row, up to step {self.state.global_step + 1}, are not finite. "
                "They were skipped, and no weight was changed by them. Try a lower learning_rate or dtype=float32, with "
                "another output."
            )
        return norm

    def log(self, logs: dict[str, float], *args: Any, **kwargs: Any) -> None:
        """Log as usual, with the number of skipped steps if there are any."""
        super().log(logs | {"skipped_steps": self.skipped_steps} if self.skipped_steps else logs, *args, **kwargs)

    def _run_epoch(self, *args: Any, **kwargs: Any) -> None:
        # Continued from the last checkpoint, `transformers` would take one step too many.
        if self.state.global_step < self.state.max_steps:
            super()._run_epoch(*args, **kwargs)

    def _maybe_log_save_evaluate(
        self,
        tr_loss: torch.Tensor,
        grad_norm: Any,
        model: torch.nn.Module,
        trial: Any,
        epoch: float,
        ignore_keys_for_eval: list[str] | None,
        *args: Any,
        **kwargs: Any,
    ) -> None:
        evaluating, self.control.should_evaluate = self.control.should_evaluate, False
        super()._maybe_log_save_evaluate(tr_loss, grad_norm, model, trial, epoch, ignore_keys_for_eval, *args, **kwargs)
        if evaluating:
            self._evaluate(trial, ignore_keys_for_eval)

    def _evaluate(self, trial: Any, *args: Any, **kwargs: Any) -> dict[str, float]:
        """Evaluate the checkpoint of this step, and write the figures into its state."""
        checkpoint = Path(self._get_output_dir(trial)) / f"checkpoint-{self.state.global_step}"
        metrics = super()._evaluate(trial, *args, **kwargs)
        if self._determine_best_metric(metrics, trial):
            self.state.best_model_checkpoint = str(checkpoint)
        if self.is_world_process_zero():
            temporary = checkpoint / f"{STATE_FILE}.new"
            self.state.save_to_json(str(temporary))
            os.replace(temporary, checkpoint / STATE_FILE)
        # An evaluation draws random numbers, which a run that continues from here has not drawn.
        self._load_rng_state(str(checkpoint))
        return metrics

    def evaluate(self, *args: Any, **kwargs: Any) -> dict[str, float]:
        """Evaluate as usual, and compute the agreement of the model's evaluations with the labels."""
        metrics = super().evaluate(*args, **kwargs)
        if self.generated:
            figures = self._agreement()
            more = {f"eval_{key}": value for key, value in figures.items() if not math.isnan(value)}
            self.log(more)
            metrics |= more
        return metrics

    def _agreement(self) -> dict[str, float]:
        """The figures over all pairs, of which each process judges its share."""
        rank, processes = self.args.process_index, self.args.world_size
        share = list(range(rank, len(self.generated), processes))
        pairs = [self.generated[i].pair for i in share]
        # The judge bypasses the wrapper that casts types in training, without which bfloat16 states meet the adapter's float32.
        # And the layers are not compiled for its shapes.
        with self.accelerator.autocast(), torch.compiler.set_stance("force_eager"):
            results = CrimsonScorer(self.judge).score(pairs) if share else []
        done = dict(gather_object(list(zip(share, results, strict=True))))
        return agreement(self.generated, [done[i] for i in range(len(self.generated))])


class LengthGroups(Sampler[int]):
    """The order of an epoch: records of similar length share a step, and the steps are shuffled.

    `transformers` orders fifty steps at a time from long to short. A model that learns from ever shorter records for fifty
    steps learns to expect few findings, however many the next report has. Here, a step has `step` records over all processes, and
    seed and epoch decide the order.
    """

    def __init__(self, lengths: Sequence[int], step: int, seed: int) -> None:
        self._lengths, self._step, self._seed = lengths, step, seed
        self._epoch = 0

    def __len__(self) -> int:
        return len(self._lengths)

    def set_epoch(self, epoch: int) -> None:
        """Called by accelerate before each epoch."""
        self._epoch = epoch

    def __iter__(self) -> Iterator[int]:
        random = torch.Generator().manual_seed(self._seed + self._epoch)
        grouped = get_length_grouped_indices(self._lengths, self._step, generator=random)
        whole = len(grouped) // self._step
        for place in torch.randperm(whole, generator=random).tolist():
            yield from grouped[place * self._step : (place + 1) * self._step]
        yield from grouped[whole * self._step :]


class MetricsLog(TrainerCallback):
    """Writes logs as JSON lines.

    Lines after the checkpoint from which a run continues are deleted, and so are those of an evaluation that was cut off, which
    is then repeated.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.began = time.monotonic()

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Keep the lines up to the step from which the run continues."""
        if state.is_world_process_zero:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            kept = [m for m in read_metrics(self.path) if m["step"] <= state.global_step]
            if args.eval_on_start:
                kept = [m for m in kept if m["step"] < state.global_step or "loss" in m]
            write_whole(self.path, (json.dumps(metrics) + "\n" for metrics in kept))
            # over all starts of the run
            self.began = time.monotonic() - max((m["seconds"] for m in kept if "seconds" in m), default=0.0)

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, float] | None = None, **_: Any) -> None:
        """Add a line."""
        if state.is_world_process_zero and logs:
            with self.path.open("a", encoding="utf-8") as file:
                done = {"step": state.global_step, "epoch": state.epoch, "seconds": time.monotonic() - self.began}
                print(json.dumps(done | logs), file=file)


def was_evaluated(checkpoint: Path) -> bool:
    """Whether the evaluation of a complete checkpoint's step was finished."""
    state = json.loads((checkpoint / STATE_FILE).read_text(encoding="utf-8"))
    return any(logged["step"] == state["global_step"] and "eval_loss" in logged for logged in state["log_history"])


def read_metrics(path: Path) -> list[dict[str, float]]:
    """The logged figures of a run, one dictionary per line; empty if there is no file."""
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()] if path.is_file() else []
