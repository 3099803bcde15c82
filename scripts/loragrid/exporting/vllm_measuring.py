"""Held-out losses and greedy answers of a merged model when vLLM runs it, where `make vllm` has installed it."""

from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

from loragrid.errors import UserError
from loragrid.exporting.questions import Measured, Question
from loragrid.runtime.atomic_files import read_json
from loragrid.runtime.progress_lines import ProgressLines
from loragrid.scoring.generation import AnswerMeter
from loragrid.scoring.heldout.losses import weighted_mean
from loragrid.scoring.prompts import prompt_ids
from loragrid.scoring.running_task import RunningTask
from loragrid.scoring.vllm_engine.process import interpreter
from loragrid.scoring.vllm_engine.served_adapters import ServedAdapters
from loragrid.scoring.vllm_engine.vllm_model import VllmModel
from loragrid.study.sections import ModelEntry


class MergedInVllm(VllmModel):
    """A merged model in vLLM, in the dtype of its weights, as `vllm serve` runs it; it scores no tasks."""

    def __init__(self, folder: Path) -> None:
        entry = ModelEntry(chat_template=None, path=str(folder), precision="16bit")
        super().__init__("merged", entry, scoring=None, served=ServedAdapters(), weights=None)

    def _dtype(self) -> str:
        return read_json(self._folder() / "config.json")["dtype"]


def vllm_is_installed() -> bool:
    """Whether vLLM has an environment."""
    try:
        interpreter()
    except UserError:
        return False
    return True


def measure_vllm(folder: Path, parquet: Path, questions: Sequence[Question], *, running: RunningTask) -> Measured:
    """Measure the merged model in `folder`; raises `Failed` if vLLM ends."""
    with closing(MergedInVllm(folder)) as model:
        with ProgressLines(f"{running.label}, starting", total=1, items="engines"):
            model.load()
        losses = model.heldout_losses(parquet, running)
        tokenizer, meter = model.template.tokenizer, AnswerMeter(model.facts, model.template.tokenizer)
        prompts = [prompt_ids(tokenizer, one.text) if one.ids is None else one.ids for one in questions]
        asked = [(ids, one.most_tokens) for ids, one in zip(prompts, questions, strict=True)]
        settings: dict[str, Any] = {"ends": sorted(meter.end_ids), "stops": [], "sampling": model.facts.sampling()}
        with running.progress(len(asked), "answers"):
            written = model.generate(asked, settings=settings)
        answers = []
        for (_, most), tokens in zip(asked, written, strict=True):
            kept, _ = meter.measure(tokens[:most], stops=[])
            answers.append(tokenizer.decode(kept, skip_special_tokens=True))
        loss, _ = weighted_mean(losses)
        return Measured(loss, len(losses), answers, prompts, f"{model._dtype()} in vLLM")
