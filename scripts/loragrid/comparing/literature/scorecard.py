"""Published findings about LoRA against this study's own cells.

Each agrees, disagrees, is left open, or was not tested. Only what two seeds or more show of settings
counts. The findings and their rules are data, `config/literature.yaml`; this room only applies the rules.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from loragrid.comparing.literature.axis_rules import larger_is, little_effect, precision, value_is
from loragrid.comparing.literature.findings import LITERATURE, load_findings
from loragrid.comparing.literature.method_rules import keeps_more, rate_ratio
from loragrid.comparing.literature.rate_rules import same_best_rate
from loragrid.comparing.literature.study_cells import RuleResult, StudyCells
from loragrid.errors import UserError

RULES: dict[str, Callable[..., RuleResult]] = {
    "little_effect": little_effect,
    "larger_is": larger_is,
    "value_is": value_is,
    "same_best_rate": same_best_rate,
    "rate_ratio": rate_ratio,
    "keeps_more": keeps_more,
    "precision": precision,
}


def scorecard(cells: StudyCells, path: Path = LITERATURE) -> list[dict[str, Any]]:
    """Per finding its key, what this study says about it (`result`), and `why`."""
    rows = []
    for key, finding in load_findings(path).items():
        kind = finding.rule["kind"]
        if kind not in RULES:
            raise UserError(f"{path.name}: rule kind {kind!r} is unknown. Fix: use one of {', '.join(RULES)}")
        result, why = RULES[kind](finding.rule, cells)
        rows.append({"finding": key, "result": result, "why": why})
    return rows
