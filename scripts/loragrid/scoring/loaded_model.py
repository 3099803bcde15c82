"""The model being scored: a base that is loaded once, with one adapter at a time attached."""

from collections.abc import Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any

from loragrid.models.attached_adapters import attach_adapter, detach_adapter, merged
from loragrid.models.base_cache import fresh_base, held_base
from loragrid.models.chat_templates.probes import inspect_template
from loragrid.models.chat_templates.template import ChatTemplate
from loragrid.models.loading import load_tokenizer, torch_device
from loragrid.models.model_files import files_state, resolve_folder
from loragrid.models.passes.row_losses import RowLoss
from loragrid.records.failures import model_must_fit
from loragrid.runtime.delegation.residency import kept
from loragrid.runtime.progress_lines import working
from loragrid.scoring.answers import answer_prompts
from loragrid.scoring.heldout.losses import measure
from loragrid.scoring.lm_eval_tasks import StudyTask
from loragrid.scoring.prompts import Prompt
from loragrid.scoring.running_task import NOTHING_KEPT, RunningTask
from loragrid.scoring.task_results import TaskResult
from loragrid.study.sections import ModelEntry, Scoring


def study_template(entry: ModelEntry, name: str) -> ChatTemplate:
    """The tokenizer and chat template of a model, with the same fixed date as in training."""
    return kept("template", key=lambda: _template_files(entry, name), make=lambda: _read_template(entry, name))


def _template_files(entry: ModelEntry, name: str) -> tuple:
    text = Path(entry.chat_template).read_text(encoding="utf-8") if entry.chat_template else None
    return name, text, files_state(resolve_folder(entry)[0])


def _read_template(entry: ModelEntry, name: str) -> ChatTemplate:
    tokenizer = load_tokenizer(entry)
    template = inspect_template(tokenizer, model=name)
    tokenizer.chat_template = template.text
    return template


class LoadedModel:
    """A base and its tokenizer, loaded on first use: a job with nothing left to score loads nothing.

    `name`: the study's key of the model; `entry`: its entry in the study file, with a precision.
    `weights`: folder of a whole model that was trained from the base and is loaded in its place,
    with the base's tokenizer and chat template.
    """

    def __init__(self, name: str, entry: ModelEntry, *, scoring: Scoring, weights: Path | None = None) -> None:
        self.name, self.entry, self.scoring, self.weights = name, entry, scoring, weights
        self._adapter: Path | None = None
        self._model: Any = None
        self._lm: Any = None

    def attach_adapter(self, adapter: Path | None) -> None:
        """Use this adapter for the next tasks, or the base alone if None; remove the previous one."""
        if self._model is not None and self._adapter is not None and detach_adapter(self._model) is None:
            del self.base  # it is loaded again
        self._adapter, self._model, self._lm = adapter, None, None

    @property
    def base_in_memory(self) -> bool:
        """Whether the base is loaded."""
        # A cached_property stores its value under its own name.
        return "base" in vars(self)

    @cached_property
    def template(self) -> ChatTemplate:
        """The tokenizer and chat template, with the same fixed date as in training."""
        return study_template(self.entry, self.name)

    @cached_property
    def base(self) -> Any:
        """The untrained base, or the whole model in its place, in the study's precision."""
        if self.weights is not None:
            entry = replace(self.entry, path=str(self.weights), hub=None, revision=None)
            return fresh_base(entry, device=torch_device())
        return held_base(self.entry, device=torch_device())

    @property
    def model(self) -> Any:
        """The base with the adapter attached, or the base alone."""
        if self._model is None:
            self._model = self.base
            if self._adapter is not None:
                self._model = attach_adapter(self.base, self._adapter)
        return self._model

    def load(self) -> None:
        """Load what is not loaded yet: tokenizer, base, adapter. Raises `Failed` if memory runs out."""
        if self._model is None:
            with model_must_fit(self.name), working(f"[{self.name}] loading the model"):
                _ = self.template, self.model

    def score(self, task: StudyTask, running: RunningTask = NOTHING_KEPT) -> TaskResult:
        """Score one task of lm-eval; exceptions pass through."""
        if task.loaded is None:
            raise RuntimeError(task.reason)
        import torch

        from loragrid.scoring.lm_eval_model import LmEvalModel
        from loragrid.scoring.lm_eval_run import run_task

        if self._lm is None:
            self._lm = LmEvalModel(self.model, self.template, batch_size=self.scoring.batch_size)
        with merged(self.model), torch.inference_mode():
            return run_task(self._lm, task, running)

    def heldout_losses(self, parquet: Path, running: RunningTask = NOTHING_KEPT) -> list[RowLoss]:
        """The loss of each held-out row, as `measure`."""
        return measure(self.model, parquet, running)

    def answers(self, prompts: Sequence[Prompt], running: RunningTask = NOTHING_KEPT) -> list[dict[str, Any]]:
        """Greedy answers to the study's prompts, as `answer_prompts`."""
        batch_size = self.scoring.batch_size
        with merged(self.model):
            return answer_prompts(self.model, self.template.tokenizer, prompts, batch_size=batch_size, running=running)

    def close(self) -> None:
        """Forget the model, which frees its memory."""
        self._model = self._lm = None
        vars(self).pop("base", None)
