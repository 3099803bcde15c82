"""What a search optimises: the validation loss, or a metric of a task, scored at the end of a trial."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from loragrid.errors import UserError, one_line
from loragrid.models.adapter_files import is_adapter
from loragrid.models.attached_adapters import merged
from loragrid.models.chat_templates.probes import inspect_template
from loragrid.models.loading import load_tokenizer
from loragrid.models.model_files import prepared_entry
from loragrid.study.study_file import Study

if TYPE_CHECKING:
    from loragrid.scoring.lm_eval_tasks import StudyTask


@dataclass(frozen=True)
class Objective:
    """A task, with the items that the search chooses by, and its metric; None for the validation loss."""

    higher_is_better: bool = False
    task: "StudyTask | None" = None
    metric: str | None = None

    @property
    def items(self) -> int | None:
        """The number of items that the search chooses by; None for the validation loss."""
        return None if self.task is None else sum(len(places) for places in self.task.places.values())


def read_objective(study: Study) -> Objective:
    """The objective of a study's search; raises a one-line `UserError` for a metric that the task lacks.

    Also for a task that cannot be built, and for one without items beyond those of the final scores.
    """
    tune, where = study.tune, f"{study.path.name}: tune.objective"
    if tune.task is None:
        return Objective()
    from loragrid.scoring.lm_eval_run import metric_directions
    from loragrid.scoring.lm_eval_tasks import find_tasks
    from loragrid.searching.search_items import search_items

    (task,) = find_tasks([tune.task], limit=study.scoring.limit).values()
    if task.loaded is None:
        raise UserError(f"{where}: the task {task.name} {task.reason}. Fix: use another task, or validation_loss.")
    directions = metric_directions(task)
    if tune.metric not in directions:
        known = ", ".join(f"{tune.task}:{metric}" for metric in directions)
        raise UserError(f"{where}: not a metric of the task ({tune.metric!r}). Fix: use one of {known}.")
    try:
        places = search_items(task, where=where)
    except UserError:
        raise
    except Exception as error:  # a task's own functions can raise anything
        reason = one_line(f"{type(error).__name__}: {error}")
        raise UserError(
            f"{where}: the items of {task.name} cannot be read ({reason}). Fix: correct the task."
        ) from None
    task = replace(task, places=places)
    return Objective(higher_is_better=directions[tune.metric], task=task, metric=tune.metric)


def trial_scorer(study: Study, objective: Objective, data_folder: Path) -> Callable[[Any], float] | None:
    """A function that scores a trained model as the score stage does; None for the validation loss.

    It is scored as it was trained. On a GPU in half precision this may differ in rounding from a
    score of the saved adapter.
    """
    if objective.task is None:
        return None
    entry = prepared_entry(study.base_entry(study.cells[0]), data_folder)
    tokenizer = load_tokenizer(entry)
    template = inspect_template(tokenizer, model=study.base_case.model)
    tokenizer.chat_template = template.text

    def score(model: Any) -> float:
        import torch

        from loragrid.scoring.lm_eval_model import LmEvalModel
        from loragrid.scoring.lm_eval_run import run_task

        # Not in inference mode, whose tensors the next trial's training could not use.
        with _evaluating(model), merged(model), torch.no_grad():
            lm = LmEvalModel(model, template, batch_size=study.scoring.batch_size)
            result = run_task(lm, objective.task)
        return result.metrics[objective.metric]["value"]

    return score


@contextmanager
def _evaluating(model: Any) -> Iterator[None]:
    """The model without dropout, and with attention that takes padded batches."""
    network = model.get_base_model() if is_adapter(model) else model
    attention = network.config.get_text_config()._attn_implementation
    was_training = model.training
    model.eval()
    # Training uses attention within samples, which takes no padding (padding_free.py).
    network.set_attn_implementation("sdpa")
    try:
        yield
    finally:
        network.set_attn_implementation(attention)
        model.train(was_training)
