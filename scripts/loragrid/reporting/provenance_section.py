"""The page's last sections: assumptions, sessions, origins, and how to repeat the study."""

import re
import shlex
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import yaml

from loragrid.comparing.trade_off import fit_to_ship
from loragrid.formatting import as_sentence, duration, visible, whole
from loragrid.models.adapter_files import ADAPTER, MODEL
from loragrid.paths import ROOT, SCRIPTS
from loragrid.records.history import History
from loragrid.records.outcomes import Outcome
from loragrid.reporting.page import Material
from loragrid.runtime.atomic_files import sha256_file
from loragrid.runtime.code_digest import modules_of
from loragrid.study.completion import defaults_used
from loragrid.study.methods import METHODS
from loragrid.study.sections import ModelEntry

ASSUMING_STAGES = (
    "prepare_data",
    "train",
    "score",
    "compare",
)  # those that decide the page's figures
HASH_CHARACTERS = 16  # shown of a hash; the records hold it whole


def assumptions(material: Material) -> list[dict[str, str]]:
    """The choices marked `# ASSUME:` in study file, tasks and code, as {"where", "text"}.

    One marked `# ASSUME (alpaca):` is shown only if the study has what the word stands for.
    """
    code = {module for stage in ASSUMING_STAGES for module in modules_of(SCRIPTS / f"{stage}.py")}
    tasks = sorted((ROOT / "config" / "tasks").rglob("*.yaml"))
    study_file = material.study.path
    present, found = _present(material), []
    for path in (*sorted(code), *tasks, study_file):
        where = path.name if path == study_file else str(path.relative_to(ROOT))
        found += [
            {"where": where, "text": as_sentence(text)}
            for condition, text in _assumptions_in(path)
            if not condition or condition in present
        ]
    return found


def _present(material: Material) -> set[str]:
    """Which of the conditions of assumptions the study fulfils, or may: "alpaca" rows, "tools" in rows that were not
    generated, a template without a "system" turn, and one that prints the "date"."""
    cards = list(material.cards.values())
    notes = " ".join(note for card in cards for note in card.get("notes", []))
    found = {
        "alpaca": any("alpaca" in str(card.get("format", "alpaca")) for card in cards),
        "tools": any(data.source is not None and not data.source.generator for data in material.study.data.values()),
        "system": not cards or "no system turn" in notes,
        "date": any(_may_print_date(entry) for entry in material.study.models.values()),
    }
    return {condition for condition, holds in found.items() if holds}


def _may_print_date(entry: ModelEntry) -> bool:
    """Whether a model's chat template prints today's date, as far as files on this machine show."""
    if entry.folder is None:
        return True
    files = [entry.folder / name for name in ("chat_template.jinja", "tokenizer_config.json")]
    if entry.chat_template:
        files = [Path(entry.chat_template)]
    texts = [file.read_text(encoding="utf-8") for file in files if file.is_file()]
    return not texts or any("strftime_now" in text for text in texts)


def default_rows(material: Material) -> list[dict[str, str]]:
    """The settings that the study file leaves to their defaults: key, value and the schema's reason."""
    return [
        {"key": key, "value": _default_text(value), "reason": reason}
        for key, value, reason in defaults_used(material.study.written)
    ]


def _default_text(value: Any) -> str:
    """A value as in a study file: null, true, {steps: 5}."""
    text = yaml.safe_dump(value, default_flow_style=True, width=200).strip()
    return visible(text.removesuffix("...").strip(), 120)


def _assumptions_in(path: Path) -> Iterator[tuple[str, str]]:
    """The texts after `# ASSUME:` in a file, each with its condition or "" and the comment lines that continue it."""
    lines = path.read_text(encoding="utf-8").splitlines()
    for number, line in enumerate(lines):
        match = re.match(r"^(.*?)#\s*ASSUME(?: \((\w+)\))?:\s*(.+)$", line)
        # A quote before the mark: the line holds the mark as text, as this module does.
        if not match or '"' in match[1] or "`" in match[1]:
            continue
        text = match[3].strip()
        for following in lines[number + 1 :]:
            more = re.match(r"^\s*#\s*(?!ASSUME)(.+)$", following)
            after_code = bool(match[1].strip())
            if after_code or not more:
                break
            text += f" {more[1].strip()}"
        yield match[2] or "", text


def sessions(material: Material) -> dict[str, Any]:
    """`rows`: every session of every run, also of unfinished runs.

    `total`: the training time of all of them.
    """
    rows, seconds = [], 0.0
    for outcome in material.outcomes:
        if outcome.kind != "run":
            continue
        if outcome.record:
            found = outcome.record.sessions
        else:
            folder = material.results / "train" / outcome.subject
            found = History(folder / "history.jsonl").sessions()
        for session in found:
            seconds += session.seconds
            rows.append(
                {
                    "label": material.compared.labels[outcome.subject],
                    "start": whole(session.start_step),
                    "end": whole(session.end_step),
                    "seconds": duration(session.seconds),
                    "host": visible(session.host, 80),
                    "device": visible(session.device, 80),
                    "ended": visible(session.ended, 200),
                }
            )
    return {"rows": rows, "total": duration(seconds)}


def provenance(material: Material) -> dict[str, Any]:
    """`versions` of the packages, `mixed_versions` among them, and `runs`.

    `odd_code`: some run has unusual code.
    """
    trained = [outcome for outcome in material.outcomes if outcome.record]
    scores = [outcome.score for outcome in material.outcomes if outcome.score]
    # A set per package: a study resumed elsewhere may mix versions, which the page warns about.
    versions: dict[str, set[str]] = {}
    for record in (*(outcome.record for outcome in trained), *scores):
        for name, version in record.versions.items():
            versions.setdefault(name, set()).add(str(version))
    codes = [outcome.record.code for outcome in trained]
    # The first of equally frequent ones, so that the page is the same each time.
    usual_code = max(codes, key=codes.count, default=None)
    runs = [_origin(material, outcome, usual_code) for outcome in trained]
    return {
        "versions": [(name, ", ".join(sorted(found))) for name, found in sorted(versions.items())],
        "mixed_versions": sorted(name for name, found in versions.items() if len(found) > 1),
        "runs": runs,
        "odd_code": any(run["odd"] for run in runs),
    }


def _origin(material: Material, outcome: Outcome, usual_code: str | None) -> dict[str, Any]:
    """The code, base, data and weights of one run."""
    record = outcome.record
    return {
        "label": material.compared.labels[outcome.subject],
        "run": outcome.subject,
        "code": record.code,
        "odd": record.code != usual_code,
        "commit": _commit(record.git),
        "base": visible(record.base_commit or record.base_sha256[:HASH_CHARACTERS], 60),
        "weights": (record.weights_sha256 or "–")[:HASH_CHARACTERS],
        "data": record.data_fingerprint[:HASH_CHARACTERS],
        "sessions": len(record.sessions),
        "finished": _to_the_minute(record.finished_at),
    }


def _to_the_minute(moment: str) -> str:
    """An ISO 8601 moment as 2026-03-01 14:05 UTC; other text as it is."""
    try:
        parsed = datetime.fromisoformat(moment)
    except ValueError:
        return visible(moment, 40)
    # Without an offset the moment would depend on the reader's machine.
    if parsed.tzinfo is None:
        return visible(moment, 40)
    return parsed.astimezone(UTC).strftime("%Y-%m-%d %H:%M UTC")


def _commit(git: dict[str, Any]) -> str:
    commit = visible((git.get("commit") or "not a git checkout")[:12])
    if git.get("dirty"):
        commit += " + local changes"
    return commit


def reproduce(material: Material) -> str:
    """The commands that repeat this study, from most runs' commit, and its file's digest."""
    path = material.study.path
    checkouts = [_checkout(outcome.record.git) for outcome in material.outcomes if outcome.record]
    study, where = path.name, " belongs in this folder, with the files that it names, and"
    if path.is_relative_to(ROOT):
        study, where = str(path.relative_to(ROOT)), ""
    if path.parent == ROOT / "config" / "studies":
        study = path.stem
    lines = [
        max(checkouts, key=checkouts.count, default=""),
        "make .venv/.study  # the packages, at pinned versions",
        f".venv/bin/snakemake --cores 1 --config {shlex.quote(f'study={visible(study)}')}",
        f"# {path.name}{where} has the SHA-256 {sha256_file(path)}",
    ]
    return "\n".join(line for line in lines if line)


def load_lines(material: Material) -> str:
    """Three lines of Python that load a finished run, the one to take if there is one; empty before any is finished."""
    records = {one.subject: one.record for one in material.outcomes if one.record}
    # A run of the method `none` left no weights.
    finished = [name for name, one in records.items() if one.status == "finished" and one.method != "none"]
    fit = fit_to_ship(material.compared.summary["trade_offs"], material.compared.adopted)
    runs = [*(row["run"] for row in fit if row["run"] in finished), *finished]
    if not runs:
        return ""
    package, kind = "peft", "AutoPeftModelForCausalLM"
    if not METHODS[records[runs[0]].method].adapter:
        package, kind = "transformers", "AutoModelForCausalLM"
    folder = (
        f"results/{visible(material.study.name)}/train/{visible(runs[0])}/{ADAPTER if package == 'peft' else MODEL}"
    )
    return f'from {package} import {kind}\nfolder = "{folder}"\nmodel = {kind}.from_pretrained(folder)'


def _checkout(git: dict[str, Any]) -> str:
    """The command that checks a run's commit out.

    Empty if it was not trained from a git checkout.
    """
    if not git.get("commit"):
        return ""
    command = f"git checkout {visible(git['commit'], 40)}"
    if git.get("dirty"):
        command += "  # and local changes"
    return command
