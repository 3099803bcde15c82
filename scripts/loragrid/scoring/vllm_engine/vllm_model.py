"""The model being scored when vLLM runs it: one engine, and the adapters of its base as requests."""

import math
from collections.abc import Sequence
from functools import cached_property, partial
from pathlib import Path
from typing import Any

from loragrid.errors import UserError
from loragrid.models.chat_templates.template import ChatTemplate
from loragrid.models.loading import half_dtype, torch_device
from loragrid.models.model_files import check_model_folder, resolve_folder
from loragrid.models.passes.row_losses import IGNORED, Row, RowLoss
from loragrid.scoring.answers import Answering, ask_prompts
from loragrid.scoring.generation import AnswerMeter
from loragrid.scoring.heldout.losses import read_rows
from loragrid.scoring.hf_engine.greedy_decoding import HARMLESS
from loragrid.scoring.lm_eval_tasks import StudyTask
from loragrid.scoring.loaded_model import study_template
from loragrid.scoring.prompts import Prompt
from loragrid.scoring.running_task import NOTHING_KEPT, RunningTask
from loragrid.scoring.task_results import TaskResult
from loragrid.scoring.vllm_engine.held_engine import Engine, EngineModel, give_back, take_engine
from loragrid.scoring.vllm_engine.served_adapters import ServedAdapters, check_precision
from loragrid.study.sections import ModelEntry, Scoring


class ModelFacts:
    """What lm-eval and `AnswerMeter` read of a model that another process runs: its configurations."""

    def __init__(self, folder: Path) -> None:
        import torch
        from transformers import AutoConfig, GenerationConfig

        self.device = torch.device("cpu")  # of the tensors here
        self.config = AutoConfig.from_pretrained(folder, trust_remote_code=False)
        self.generation_config = GenerationConfig.from_model_config(self.config)
        if (folder / "generation_config.json").is_file():
            self.generation_config = GenerationConfig.from_pretrained(folder)

    @property
    def context(self) -> int:
        """Tokens of the context."""
        return self.config.get_text_config().max_position_embeddings

    def sampling(self) -> dict[str, float]:
        """vLLM's settings for greedy answers that follow the model's generation settings.

        Raises `UserError` for a setting that vLLM does not have.
        """
        changed = self.generation_config.to_diff_dict()
        unknown = sorted(set(changed) - HARMLESS - {"repetition_penalty"})
        if unknown:
            raise UserError(
                f"scoring.engine: vllm has no {unknown[0]}, which the model's generation_config.json sets "
                f"({changed[unknown[0]]}). Fix: set it to hf."
            )
        return {"temperature": 0.0, "repetition_penalty": changed.get("repetition_penalty", 1.0)}


class VllmModel:
    """A base in vLLM, started on first use, with the interface of `LoadedModel`.

    `served`: of all adapters that will be attached. `weights`: folder of a whole model that was
    trained from the base and is loaded in its place. Raises `UserError` for a base that vLLM cannot
    load.
    """

    def __init__(
        self, name: str, entry: ModelEntry, *, scoring: Scoring, served: ServedAdapters, weights: Path | None
    ) -> None:
        check_precision(entry.precision, f"model {name}")
        self.name, self.entry, self.scoring, self.weights = name, entry, scoring, weights
        self._served = served
        self._adapter: Path | None = None
        self._engine: Engine | None = None
        self._lm: Any = None

    def attach_adapter(self, adapter: Path | None) -> None:
        """Use this adapter for the next tasks, or the base alone if None."""
        self._adapter, self._lm = adapter, None

    @property
    def base_in_memory(self) -> bool:
        """Whether the engine runs."""
        return self._engine is not None

    @cached_property
    def template(self) -> ChatTemplate:
        """The tokenizer and chat template, with the same fixed date as in training."""
        return study_template(self.entry, self.name)

    @cached_property
    def facts(self) -> ModelFacts:
        """The configurations of the model that the engine runs."""
        return ModelFacts(self._folder())

    def load(self) -> None:
        """Start the engine if it does not run yet; raises `Failed` if it ends, as for too little memory."""
        if self._engine is None:
            _ = self.template, self.facts.sampling()
            self._engine = take_engine(EngineModel(self._folder(), self._dtype(), self.facts.context), self._served)

    def score(self, task: StudyTask, running: RunningTask = NOTHING_KEPT) -> TaskResult:
        """Score one task of lm-eval; exceptions pass through."""
        self.load()
        if task.loaded is None:
            raise RuntimeError(task.reason)
        from loragrid.scoring.lm_eval_run import run_task
        from loragrid.scoring.vllm_engine.lm_eval_vllm import VllmLm

        if self._lm is None:
            self._lm = VllmLm(self, self.template)
        return run_task(self._lm, task, running)

    def heldout_losses(self, parquet: Path, running: RunningTask = NOTHING_KEPT) -> list[RowLoss]:
        """The loss of each row of `heldout.parquet`."""
        self.load()
        _, rows = read_rows(parquet)
        with running.progress(len(rows), "rows"):
            return self.row_losses(rows)

    def answers(self, prompts: Sequence[Prompt], running: RunningTask = NOTHING_KEPT) -> list[dict[str, Any]]:
        """Greedy answers to the study's prompts, as `answer_prompts`."""
        self.load()
        meter = AnswerMeter(self.facts, self.template.tokenizer)
        settings = {"ends": sorted(meter.end_ids), "stops": [], "sampling": self.facts.sampling()}
        answering = Answering(meter, self.facts.context, partial(self.generate, settings=settings), self.row_losses)
        with running.progress(len(prompts), "prompts"):
            return ask_prompts(answering, prompts)

    def generate(self, rows: Sequence[tuple[list[int], int]], *, settings: dict[str, Any]) -> list[list[int]]:
        """The generated tokens of each (prompt, most tokens); `settings` as in `server.generate`."""
        return self._engine.process.tokens(rows, self._engine.request(self._adapter), settings)

    def scores(self, rows: Sequence[tuple[list[int], int]]) -> list[list[list[float]]]:
        """(log-likelihood, rank) of the last tokens of each (tokens, number of last ones)."""
        return self._engine.process.scores(rows, self._engine.request(self._adapter))

    def row_losses(self, rows: Sequence[Row]) -> list[RowLoss]:
        """As `loragrid.models.passes.row_losses`."""
        longest, context = max(len(ids) for ids, _ in rows), self.facts.context
        if longest > context:
            raise ValueError(f"a row of {longest} tokens is longer than the model's context of {context}")
        # The first label is never predicted.
        places = [[place for place in range(1, len(ids)) if labels[place] != IGNORED] for ids, labels in rows]
        asked = [(list(ids[: at[-1] + 1]), at[-1] + 1 - at[0]) for (ids, _), at in zip(rows, places, strict=True)]
        sums = []
        for at, pairs in zip(places, self.scores(asked), strict=True):
            sums.append(RowLoss(-math.fsum(pairs[place - at[0]][0] for place in at), len(at)))
        return sums

    def close(self) -> None:
        """End the engine and free its memory; a resident worker holds it for its next job."""
        if self._engine is not None:
            give_back(self._engine)
            self._engine = None

    def _folder(self) -> Path:
        return self.weights or resolve_folder(self.entry)[0]

    def _dtype(self) -> str:
        if self.entry.precision == "32bit":
            return "float32"
        half = half_dtype(check_model_folder(self._folder()), device=torch_device())
        return str(half).removeprefix("torch.")
