"""The page's section on how sure the verdicts are: families, tests, the spread between seeds, tasks."""

from typing import Any

from loragrid.comparing.contrasts import ADAPTERS, SETTING
from loragrid.formatting import change, plain_name, visible
from loragrid.reporting.compared_study import ComparedStudy
from loragrid.reporting.page import Material
from loragrid.reporting.sentences.verdicts import families_text, task_name
from loragrid.statistics.paired_statistics import MCNEMAR
from loragrid.statistics.setting_contrasts import SEEDS_T
from loragrid.statistics.sign_flips import DRAWN, EXACT, TAIL

# Level → what its comparisons are called in a sentence.
LEVEL_WORDS = {SETTING: "Of settings", ADAPTERS: "Of two adapters"}
MOST_OWN = 3  # settings with a spread of their own in one cell

# Method in the tables → its sentence on the page.
TESTS = {
    SEEDS_T: "Settings are tested by a t test, with the variances of items and of seeds in the error.",
    MCNEMAR: "Right-or-wrong items of two adapters are tested by the exact McNemar test.",
    EXACT: (
        "Where few items are not simply right or wrong, or few clusters are shared, all flips of the "
        "signs of their differences are counted."
    ),
    DRAWN: (
        "Items that are not simply right or wrong, or that share a cluster, are tested by random "
        "flips of the signs of their differences."
    ),
    TAIL: (
        "Where no random flip reaches the observed difference, the p value is that of the paired t "
        "test, which assumes many items: random flips alone cannot give a p value small enough to "
        "survive the correction."
    ),
}


def methods_used(compared: ComparedStudy) -> list[str]:
    """One sentence per method behind the verdicts of this page."""
    frames = (compared.comparisons, compared.axes)
    used = {method for frame in frames if "method" in frame for method in frame["method"].dropna()}
    return [sentence for method, sentence in TESTS.items() if method in used]


def family_sentences(compared: ComparedStudy) -> list[str]:
    """Per level how many comparisons each family holds; nothing without comparisons."""
    return [
        f"{words}: {families_text(compared.summary['families'][level])}."
        for level, words in LEVEL_WORDS.items()
        if level in compared.summary["families"]
    ]


def seed_spread_rows(compared: ComparedStudy) -> list[dict[str, str]]:
    """Per measure the standard deviation between seeds that its settings share, and settings with one of their own."""
    rows = []
    for task, known in compared.summary["seed_spreads"].items():
        pooled, own = known["pooled"], known["own"]
        # Settings that vary most are those that a reader must know of.
        ranked = sorted(own.items(), key=lambda item: -item[1]["sd"])
        named = [
            f"{visible(compared.setting_labels[run], 60)}: {_amount(spread, task, compared)}"
            for run, spread in ranked[:MOST_OWN]
        ]
        if len(ranked) > MOST_OWN:
            named.append(f"{len(ranked) - MOST_OWN} more")
        rows.append(
            {
                "task": task_name(task),
                "shared": _amount(pooled, task, compared) if pooled else "–",
                "by": str(pooled["settings"]) if pooled else "–",
                "own": "; ".join(named) or "–",
            }
        )
    return rows


def _amount(spread: dict[str, Any], task: str, compared: ComparedStudy) -> str:
    """A standard deviation with its degrees of freedom."""
    sd = change(spread["sd"], compared.units[task], words=True, places=1).lstrip("+")
    return f"{sd} ({spread['df']} df)"


def task_rows(compared: ComparedStudy) -> list[dict[str, Any]]:
    """The tasks with their purpose, metric, items and distinct requests."""
    return [{"name": plain_name(name), **task} for name, task in compared.summary["tasks"].items()]


def task_notes(material: Material) -> dict[str, list[str]]:
    """Tasks whose items share clusters (`clustered`), and retention tasks without a margin."""
    tasks = material.compared.summary["tasks"]
    return {
        "clustered": [plain_name(name) for name, task in tasks.items() if task["clusters"]],
        "unmargined": [
            plain_name(name) for name, task in tasks.items() if task["group"] == "retention" and task["unit"] != "share"
        ],
    }
