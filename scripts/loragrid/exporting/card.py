"""The card of an exported run: README.md with metadata that the hub reads."""

import html
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from loragrid.exporting.card_scores import CardScore, forgotten, read_scores, seeds_of_setting
from loragrid.exporting.exported_run import ExportedRun
from loragrid.exporting.licences import base_licence, source_licence
from loragrid.exporting.merging import MergedFacts
from loragrid.exporting.parity import Parity
from loragrid.formatting import visible, whole
from loragrid.models.adapter_card import base_metadata, placed_base
from loragrid.study.run_names import value_text
from loragrid.study.sections import DataSource

# Of a run's identity those that the card shows in other places: base, data, held-out rows.
ELSEWHERE = ("model", "data", "heldout", "threads", "evaluations")
LONGEST = 200  # characters of a text that the study's author or a data set has written


@dataclass(frozen=True)
class Card:
    """Everything that a card says beside what the run's records hold.

    `rejected`: merged models in other dtypes that were not kept; `page`: the report, which may be absent.
    """

    merged: MergedFacts
    parities: Sequence[Parity]
    notes: Sequence[str]
    page: Path | None
    rejected: Sequence[Parity] = ()

    @property
    def has_page(self) -> bool:
        """Whether the report is there."""
        return self.page is not None and self.page.is_file()


def card_text(run: ExportedRun, card: Card) -> str:
    """The card of a run, its metadata first."""
    import jinja2

    templates = jinja2.FileSystemLoader(Path(__file__).parent / "templates")
    environment = jinja2.Environment(loader=templates, trim_blocks=True, undefined=jinja2.StrictUndefined)
    environment.finalize = _in_a_table
    scores = read_scores(run)
    record = run.record
    body = environment.get_template("card.md.j2").render(
        title=f"{Path(run.base_name).name}, {record.method}: {run.name}",
        run=run.name,
        study_title=html.escape(visible(run.study.title, LONGEST), quote=False),
        page=card.has_page,
        base=_base_text(run),
        base_path=None if record.base_commit is not None else placed_base(run.base_name),
        base_sha256=record.base_sha256,
        data=[(name, _data_text(source)) for name, source in sources_of(run).items()],
        rows=f"{whole(record.train_rows)} to train on, {whole(record.heldout_rows)} held out",
        fingerprint=record.data_fingerprint,
        base_licence=base_licence(run.entry).text,
        adapter=not run.is_whole,
        four_bits=run.entry.precision == "4bit",
        dtype=card.merged.dtype,
        merged_into=card.merged.merged_into,
        parities=card.parities,
        rejected=card.rejected,
        form_notes=card.notes,
        scores=scores,
        forgotten=forgotten(run),
        settings=list(_settings(record.settings)),
        limits=list(_limits(run, scores)),
    )
    return f"---\n{card_metadata(run, scores)}\n---\n\n{body}"


def card_metadata(run: ExportedRun, scores: Sequence[CardScore]) -> str:
    """The card's metadata as YAML."""
    from huggingface_hub import EvalResult, ModelCardData

    record, licence = run.record, base_licence(run.entry)
    results = [
        EvalResult(
            task_type="text-generation",
            dataset_type=score.task,
            dataset_name=score.task,
            dataset_args={"items": score.items},
            metric_type=score.metric,
            metric_value=score.value,
            metric_args=None if score.low is None else {"confidence": 0.95, "low": score.low, "high": score.high},
        )
        for score in scores
    ]
    data = ModelCardData(
        **base_metadata(record.base_source, record.base_commit),
        library_name="transformers" if run.is_whole else "peft",
        license=licence.id,
        datasets=[source.hub or name for name, source in sources_of(run).items()],
        pipeline_tag="text-generation",
        tags=["loragrid", record.method],
        model_name=run.name,
        eval_results=results or None,
    )
    return data.to_yaml()


def sources_of(run: ExportedRun) -> dict[str, DataSource]:
    """The sources of the rows that the run was trained on, by the study's names, through all mixes."""

    def find(name: str) -> dict[str, DataSource]:
        data = run.study.data[name]
        if data.mix is None:
            return {name: data.source}
        return {key: source for part in data.mix for key, source in find(part).items()}

    return find(run.cell.settings.data)


def _base_text(run: ExportedRun) -> str:
    record = run.record
    if record.base_commit is None:
        return f"`{run.base_name}`, a local folder, trained on in {run.entry.precision}"
    return f"`{record.base_source}` at commit `{record.base_commit}`, trained on in {run.entry.precision}"


def _data_text(source: DataSource) -> str:
    if source.hub is not None:
        origin = f"`{source.hub}` at `{source.revision}`, split {source.split}"
    elif source.path is not None:
        # The folder is a place on this machine.
        origin = f"file `{visible(Path(source.path).name, LONGEST)}`"
    else:
        origin = f"generator `{source.generator}`, {whole(source.rows)} rows, seed {source.seed}"
    return f"{origin}; licence {source_licence(source).text}"


def _settings(settings: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Names and values of the settings that the method has."""
    shown = {name: value for name, value in settings.items() if name not in ELSEWHERE and value is not None}
    return [(name.replace("_", " "), _value(value)) for name, value in shown.items()]


def _value(value: Any) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{name} {_value(part)}" for name, part in value.items())
    return value_text(value)


def _limits(run: ExportedRun, scores: Sequence[CardScore]) -> list[str]:
    """What a reader must not take from this card."""
    record, seeds = run.record, seeds_of_setting(run)
    limits = ["Nothing was measured beyond the tasks above: no safety, no bias, no other language or use."]
    if scores:
        limits.append("The scores are those of the run on its training base; how far the forms differ is in the table.")
    if seeds == 1:
        limits.append("One seed: another seed of the same setting may have learned or forgotten something else.")
    limits.append(
        f"Trained on {whole(record.tokens)} tokens, rows of at most {record.settings['max_length_tokens']} tokens."
    )
    if record.base_commit is None:
        limits.append("The base is a local folder: others need the same files (their sha256 is above).")
    notes = (*record.notes, *(run.score.notes if run.score else ()))
    return [*limits, *(f"{note[:1].upper()}{note[1:]}." for note in notes)]


def _in_a_table(value: Any) -> Any:
    """Text that cannot end a cell or a line of a table."""
    return value.replace("|", "\\|").replace("\n", " ") if isinstance(value, str) else value
