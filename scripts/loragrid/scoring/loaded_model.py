"""The model under test: a base loaded once, and one adapter at a time on it."""

from functools import cached_property
from pathlib import Path
from typing import Any

from loragrid.errors import Failed
from loragrid.models.chat_template import ChatTemplate, inspect_template
from loragrid.models.loading import load_base, load_tokenizer, torch_device
from loragrid.records.failures import out_of_memory
from loragrid.scoring.task_results import TaskResult
from loragrid.study.sections import ModelEntry, Scoring


class Workbench:
    """A base and tokenizer, loaded when a task first needs them, so that a job with nothing left to score loads nothing.

    `name` and `entry` are the study's key of the model and what stands there, `scoring` its section of that name.
    """

    def __init__(self, name: str, entry: ModelEntry, *, scoring: Scoring) -> None:
        self.name, self.entry, self.scoring = name, entry, scoring
        self._adapter: Path | None = None
        self._model: Any = None
        self._lm: Any = None

    def wear(self, adapter: Path | None) -> None:
        """Name the adapter for the next tasks, None for the base alone. The one before is taken off now."""
        if self._model is not None and self._adapter is not None:
            self._model.unload()  # gives the base its own layers back; a test compares weights and scores bit by bit
        self._adapter, self._model, self._lm = adapter, None, None

    @property
    def loaded(self) -> bool:
        """Whether the base is in memory."""
        return "base" in vars(self)

    @cached_property
    def template(self) -> ChatTemplate:
        """The tokenizer and chat template, with the same fixed date as in training."""
        tokenizer = load_tokenizer(self.entry)
        template = inspect_template(tokenizer, model=self.name)
        tokenizer.chat_template = template.text
        return template

    @cached_property
    def base(self) -> Any:
        """The untrained base in the study's precision."""
        return load_base(self.entry, device=torch_device())

    @property
    def model(self) -> Any:
        """The base with the adapter on it (not merged), or the base alone."""
        if self._model is None:
            self._model = self.base
            if self._adapter is not None:
                from peft import PeftModel

                self._model = PeftModel.from_pretrained(self.base, self._adapter).eval()
        return self._model

    def prepare(self) -> None:
        """Load what is needed and not loaded yet. Too little memory for the model is a `Failed`."""
        try:
            _ = self.template, self.model
        except (RuntimeError, MemoryError) as error:
            short = out_of_memory(error)
            if short is None:
                raise
            raise Failed(
                f"model {self.name} does not fit: out of {short['where']} memory (needed {short['needed_mib']} MiB, "
                f"available {short['available_mib']} MiB): take a lower precision or a smaller model",
                reason="out_of_memory",
            ) from error

    def run(self, task: Any, *, data: Path) -> TaskResult:
        """Run one task on the model; `task` is None for the held-out loss of `data`. Whatever goes wrong is raised."""
        if task is None:
            from loragrid.scoring.heldout_loss import heldout_loss

            return heldout_loss(self.model, data / "heldout.parquet", batch_size=self.scoring.batch_size)
        if task.loaded is None:
            raise RuntimeError(task.reason)
        import torch

        from loragrid.scoring.lm_eval_model import WatchedLM
        from loragrid.scoring.lm_eval_run import run_task

        if self._lm is None:
            self._lm = WatchedLM(self.model, self.template, batch_size=self.scoring.batch_size)
        with torch.inference_mode():
            return run_task(self._lm, task, limit=task.limit)
