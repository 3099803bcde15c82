"""Sentences on the largest gain of several settings, and on models none of whose settings gained."""

from typing import Any

from loragrid.comparing.contrasts import SETTING
from loragrid.comparing.diagnosing.learning import NOTHING
from loragrid.formatting import between, change_beside, listed, plain_name, plural, setting
from loragrid.reporting.compared_study import ComparedStudy


def largest_gain_text(compared: ComparedStudy) -> str:
    """The largest gain on the main target, shrunk for having been chosen; empty with fewer than two to choose from."""
    best = compared.summary["best_setting"]
    if best is None or best["k"] < 2:
        return ""
    kind = "setting" if best["level"] == SETTING else "adapter"
    raw, shrunken = (change_beside(best[name], best["low"], best["high"], compared.unit) for name in ("raw", "value"))
    who = compared.setting_labels[best["run"]]
    interval = between(best["low"], best["high"], compared.unit)
    return (
        f"The largest of {plural(best['k'], 'gain')}: {who}, {raw} measured. The largest of several owes part of its "
        f"size to luck; without that part it is {shrunken} ({compared.interval} {interval}, which holds for whichever "
        f"{kind} comes out largest)."
    )


def unlearned_texts(compared: ComparedStudy) -> dict[str, str]:
    """Model → a sentence, for models none of whose settings is shown to have learned the main target."""
    return {found["model"]: _unlearned(found, compared) for found in compared.summary["learned_nothing"]}


def _unlearned(found: dict[str, Any], compared: ComparedStudy) -> str:
    best = found["best"]
    gain = change_beside(best["value"], best["low"], best["high"], compared.unit)
    interval = between(best["low"], best["high"], compared.unit)
    rates = listed([setting(rate) for rate in found["learning_rates"]])
    said = "learned nothing" if found["code"] == NOTHING else "is not shown to have learned anything"
    tried = f"{plural(found['settings'], 'setting')} at learning rate {rates}"
    return (
        f"{found['model']} {said} on {plain_name(compared.target)} ({tried}; largest gain {gain}, {interval}), "
        "so this study does not show what the model can do once it has learned."
    )
