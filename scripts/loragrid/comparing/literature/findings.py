"""Published findings about LoRA and their rules, from `config/literature.yaml`.

Every call of Snakemake reads the digest of the rules here, so this module imports only what the
workflow has imported already.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from loragrid.paths import ROOT
from loragrid.runtime.atomic_files import sha256_json

LITERATURE = ROOT / "config" / "literature.yaml"


@dataclass(frozen=True)
class PublishedFinding:
    """One finding. `rule` says how compare tests it; the other fields are words for the report.

    `beside` qualifies an answer.
    """

    claim: str
    sources: tuple[dict[str, Any], ...]
    rule: dict[str, Any]
    beside: str | None = None


def load_findings(path: Path = LITERATURE) -> dict[str, PublishedFinding]:
    """Key → finding, in the file's order."""
    literature = yaml.safe_load(path.read_text(encoding="utf-8"))
    found = {}
    for key, entry in literature["findings"].items():
        sources = tuple(literature["sources"][source] for source in entry["sources"])
        found[key] = PublishedFinding(**entry | {"sources": sources})
    return found


def rules_digest(path: Path = LITERATURE) -> str:
    """Digest of the rules alone, so that rewording a claim does not run compare again."""
    return sha256_json({key: finding.rule for key, finding in load_findings(path).items()})
