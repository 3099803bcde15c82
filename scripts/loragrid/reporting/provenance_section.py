"""The page's last sections: the data, the assumptions, where everything comes from, how to make it again."""

import re
import shlex
from typing import Any

from loragrid.formatting import duration, visible, whole
from loragrid.paths import ROOT, SCRIPTS
from loragrid.records.history import History
from loragrid.reporting.page import Material
from loragrid.runtime.atomic_files import sha256_file
from loragrid.runtime.code_digest import modules_of


def data_facts(material: Material) -> dict[str, Any]:
    """The data cards side by side: names of the data sets, and per fact one text if all agree, else one per set."""
    cards = list(material.cards.values())
    facts = []
    for name, texts in zip(FACTS, zip(*(_facts(card) for card in cards))):
        facts.append({"name": name, "texts": [texts[0]] if len(set(texts)) == 1 else list(texts)})
    dropped = {(reason, *_found(found)) for card in cards for reason, found in card.get("dropped", {}).items()}
    return {"names": list(material.cards), "facts": facts, "dropped": sorted(dropped), "notes": _notes(material.cards)}


def _notes(cards: dict[str, dict[str, Any]]) -> list[str]:
    """What the cards have to say in sentences; before one that is not true of all data sets, the names of those it is true of."""
    found: dict[str, list[str]] = {}
    for name, card in cards.items():
        for note in (*card.get("notes", []), *card.get("split", {}).get("notes", [])):
            found.setdefault(_sentence(visible(note, 300)), []).append(name)
    return [note if len(names) == len(cards) else f"{', '.join(names)}: {note}" for note, names in found.items()]


FACTS = (
    "Source",
    "Form",
    "Rows read and kept",
    "Exact duplicates removed",
    "Left out by the sample",
    "Split",
    "Rows kept on one side of it",
    "Tokens to train on",
    "Tokens held out",
    "Cut at the longest length",
    "Cut after the last reply",
    "With characters that were broken",
    "Loss on",
    "Fingerprint",
)


def _facts(card: dict[str, Any]) -> tuple[str, ...]:
    source, tokens, split = card.get("source", {}), card.get("tokens", {}), card.get("split", {})
    return (
        ", ".join(f"{key} {visible(value, 80)}" for key, value in source.items() if value is not None),
        visible(card.get("format", "–"), 80),
        f"{whole(card.get('rows_read'))} read, {whole(card.get('rows_kept'))} kept",
        _count(card.get("duplicates_removed")),
        whole(card.get("sampled_out")),
        f"{whole(split.get('train_rows'))} for training, {whole(split.get('heldout_rows'))} held out",
        f"those with {visible(split['tied_by'], 80)}" if "tied_by" in split else "–",
        *(
            f"{whole(tokens.get(side))}, {whole(tokens.get(f'{side}_loss'))} of them carry loss"
            for side in ("train", "heldout")
        ),
        f"{_count(card.get('truncated'))}, at {whole(card.get('max_length_tokens'))} tokens",
        _count(card.get("cut_after_last_reply")),
        _count(card.get("broken_characters")),
        "the assistant’s replies" if card.get("loss_on") == "assistant" else "all tokens",
        str(card.get("fingerprint", "–"))[:16],
    )


def _found(found: dict[str, Any]) -> tuple[str, str]:
    return whole(found["count"]), ", ".join(map(str, found.get("first_rows", [])))


def _count(found: dict[str, Any] | None) -> str:
    return whole(found["count"]) if found else "–"


DECIDING = ("prepare_data", "train", "score", "compare")


def assumptions(material: Material) -> list[dict[str, str]]:
    """The choices marked `# ASSUME:` in the study file and in the code that the page's figures come from, with the lines that go
    on below them."""
    found = []
    code = {module for stage in DECIDING for module in modules_of(SCRIPTS / f"{stage}.py")}
    files = [*sorted(code), *sorted((ROOT / "config" / "tasks").rglob("*.yaml")), material.study.path]
    for path in files:
        lines = path.read_text(encoding="utf-8").splitlines()
        for number_, line in enumerate(lines):
            match = re.match(r"^(.*?)#\s*ASSUME:\s*(.+)$", line)
            if not match or '"' in match[1] or "`" in match[1]:
                continue
            text = [match[2].strip()]
            for after in lines[number_ + 1 :]:
                more = re.match(r"^\s*#\s*(?!ASSUME:)(.+)$", after)
                if match[1].strip() or not more:
                    break
                text.append(more[1].strip())
            where = path.name if path == material.study.path else str(path.relative_to(ROOT))
            found.append({"where": where, "text": _sentence(" ".join(text))})
    return found


def sessions(material: Material) -> dict[str, Any]:
    """Every stretch of every run's training, also of those that are not finished, and the training time of them all."""
    rows, seconds = [], 0.0
    for outcome in material.outcomes:
        if outcome.cell is None:
            continue
        history = History(material.results / "train" / outcome.subject / "history.jsonl")
        found = outcome.record.sessions if outcome.record else history.sessions()
        seconds += sum(session.seconds for session in found)
        rows += [
            {
                "label": material.compared.labels[outcome.subject],
                "start": whole(session.start_step),
                "end": whole(session.end_step),
                "seconds": duration(session.seconds),
                "host": visible(session.host, 80),
                "device": visible(session.device, 80),
                "ended": visible(session.ended, 200),
            }
            for session in found
        ]
    return {"rows": rows, "total": duration(seconds)}


def _sentence(text: str) -> str:
    """With a capital, unless it begins with a name of the code, and a full stop."""
    start = text if "_" in text.split()[0] else text[:1].upper() + text[1:]
    return start if start.endswith((".", "!", "?")) else f"{start}."


def provenance(material: Material) -> dict[str, Any]:
    """Versions, commits, code versions and hashes; runs whose code differs from the most common one are marked."""
    records = [o.record for o in material.outcomes if o.record]
    versions: dict[str, set[str]] = {}
    for record in [*records, *(o.score for o in material.outcomes if o.score)]:
        for name, version in record.versions.items():
            versions.setdefault(name, set()).add(str(version))
    codes = [record.code for record in records]
    usual = max(set(codes), key=codes.count) if codes else None
    runs = [
        {
            "label": material.compared.labels[o.subject],
            "run": o.subject,
            "code": o.record.code,
            "odd": o.record.code != usual,
            "commit": _commit(o.record.git),
            "base": visible(o.record.base_commit or o.record.base_sha256[:16], 60),
            "adapter": (o.record.adapter_sha256 or "–")[:16],
            "data": o.record.data_fingerprint[:16],
            "sessions": len(o.record.sessions),
            "finished": visible(o.record.finished_at, 40),
        }
        for o in material.outcomes
        if o.record
    ]
    return {
        "versions": [(name, ", ".join(sorted(found))) for name, found in sorted(versions.items())],
        "mixed_versions": sorted(name for name, found in versions.items() if len(found) > 1),
        "runs": runs,
        "odd_code": any(run["odd"] for run in runs),
    }


def _commit(git: dict[str, Any]) -> str:
    commit = visible((git.get("commit") or "not a git checkout")[:12])
    return f"{commit} + local changes" if git.get("dirty") else commit


def reproduce(material: Material) -> str:
    """The commands that make this study again, from the commit that most runs were trained at, and its file's digest."""
    path, commits = material.study.path, [_commit_of(o.record.git) for o in material.outcomes if o.record]
    commit = max(commits, key=commits.count) if commits else ""
    shipped = path.parent == ROOT / "config" / "studies"
    named = path.stem if shipped else path.relative_to(ROOT) if path.is_relative_to(ROOT) else path.name
    beside = "" if path.is_relative_to(ROOT) else " lies in this folder with the files that it names and"
    lines = [
        commit,
        "make .venv/.study  # the packages, as pinned",
        f".venv/bin/snakemake --cores 1 --config {shlex.quote(f'study={visible(named)}')}",
        f"# {path.name}{beside} has the SHA-256 {sha256_file(path)}",
    ]
    return "\n".join(line for line in lines if line)


def _commit_of(git: dict[str, Any]) -> str:
    if not git.get("commit"):
        return ""
    return f"git checkout {visible(git['commit'], 40)}" + ("  # and local changes" if git.get("dirty") else "")
