"""The three cards of the first screen: did it help and at what price, which setting mattered, can I believe it."""

from dataclasses import dataclass
from typing import Any

from loragrid.comparing.trade_off import SHIP
from loragrid.formatting import listed, plain_name, plural
from loragrid.reporting.compared_study import ComparedStudy
from loragrid.reporting.first_screen.amounts import target_change, with_interval
from loragrid.reporting.first_screen.checks import searched_tasks
from loragrid.reporting.sentences.axis_findings import missed_text, sort_axes, target_rows, what_mattered
from loragrid.reporting.sentences.findings import did_it_help, start
from loragrid.reporting.sentences.interactions import axes_together, movements
from loragrid.statistics.paired_statistics import BETTER, WORSE

MOST_WORDS = 35  # of a card: a reader of twenty seconds has time for a hundred
BELIEF = "Can I believe it?"
MOST_AXES = 3  # named in one sentence


@dataclass(frozen=True)
class Card:
    """A question with its answer in a word or two, and a text of at most MOST_WORDS.

    `tone`: good, bad, adapters, unsure, or plain for what is neither.
    """

    question: str
    tone: str
    short: str
    text: str


def first_that_fits(*texts: str) -> str:
    """The first text of at most MOST_WORDS, the longest first; the last one cut to them."""
    for text in texts:
        if len(text.split()) <= MOST_WORDS:
            return text
    return f"{' '.join(texts[-1].split()[:MOST_WORDS])} …"


def cards(compared: ComparedStudy, failures: list[str]) -> list[Card]:
    """The cards; one alone if nothing was scored yet. `failures`: the checks that did not pass, as clauses."""
    if compared.target is None or compared.comparisons.empty:
        text = "No run has been scored beside its untrained base yet, so nothing can be said."
        return [Card("Did fine-tuning help?", "unsure", "Can’t tell", text)]
    return [help_card(compared), mattered_card(compared), belief_card(compared, failures)]


def help_card(compared: ComparedStudy) -> Card:
    """How many settings gained on the target, what one of them gained and lost, and how many are fit to ship."""
    headline = did_it_help(compared)
    trained = [row for row in compared.summary["trade_offs"] if row["run"] not in compared.adopted]
    tone, short = _with_price(headline.tone, headline.short, trained)
    count = headline.text.split(". ", 1)[0].replace("“", "").replace("”", "") + "."
    if not trained:
        return Card(headline.question, tone, short, first_that_fits(headline.text, count))
    row = _shown_row(trained, compared)
    label = "the base case" if row["run"] in compared.base_case_runs else compared.setting_labels[row["run"]]
    ships = _ships(trained, compared)
    who = start(label)
    kept = _kept(row)
    texts = (
        f"{count} {who}: {target_change(row, compared)}{kept}. {ships}",
        f"{count} {who}: {target_change(row, compared, interval=False)}{kept}. {ships}",
        f"{count} {ships}",
        count,
    )
    return Card(headline.question, tone, short, first_that_fits(*texts))


def _with_price(tone: str, short: str, trained: list[dict[str, Any]]) -> tuple[str, str]:
    """A yes is green only if a setting that gained also kept what it could do before."""
    if tone != "good" or any(row["ship"] == SHIP for row in trained):
        return tone, short
    gained = [row for row in trained if row["gain_verdict"] == BETTER]
    if all(row["kept"] is None for row in gained):
        return "plain", f"{short}, on the target"
    forgot = sum(row["kept_verdict"] == WORSE for row in gained)
    if forgot:
        return "unsure", f"{short}, but {'it' if forgot == len(gained) else 'some'} forgot"
    return "unsure", f"{short}, retention open"


def _shown_row(trained: list[dict[str, Any]], compared: ComparedStudy) -> dict[str, Any]:
    """The setting that the card quotes: one fit to ship, else the base case, else the surest gain."""
    ranked = sorted(trained, key=lambda row: -row["gain_low"])
    fit = [row for row in ranked if row["ship"] == SHIP]
    case = [row for row in trained if row["run"] in compared.base_case_runs]
    return (fit or case or ranked)[0]


def _kept(row: dict[str, Any]) -> str:
    """The price, as a clause: what the setting lost of what its base could do."""
    if row["kept"] is None:
        return ", retention not measured"
    return f", retention {with_interval(row, 'kept', 'share')}"


def _ships(trained: list[dict[str, Any]], compared: ComparedStudy) -> str:
    if not compared.judges_settings:
        return "Whether to ship one takes a second seed."
    count = sum(row["ship"] == SHIP for row in trained)
    verb = "are" if count > 1 else "is"
    return f"{start(str(count or 'none'))} {verb} shown fit to ship."


def mattered_card(compared: ComparedStudy) -> Card:
    """The axes with a proved effect on the target, and what the tests of the others would have missed."""
    headline = what_mattered(compared)
    tone = "plain" if headline.tone == "good" else headline.tone
    rows, _ = target_rows(compared)
    if rows.empty or (rows["verdict"] == "").all():
        first = headline.text.split(". ", 1)[0] + "."
        return Card(headline.question, tone, headline.short, first_that_fits(headline.text, first))
    found = sort_axes(rows, compared)
    if not found.moved and not found.still:
        first = headline.text.split(". ", 1)[0] + "."
        return Card(headline.question, tone, headline.short, first_that_fits(headline.text, first))
    together = axes_together(compared)
    steps = movements(compared) + [f"{start(step)}." for step in found.steps]
    # An effect averaged over the setting that it depends on says little.
    alone = [name for name in found.still if name not in together]
    still = f"{start(_few(alone))}: no effect on {plain_name(compared.target)} shown" if alone else ""
    closing = f"{still}." if still else ""
    full = f"{still}; {missed_text(found, compared.unit, effect='one')}." if still and not together else closing
    short = headline.short if len(found.moved) <= 2 else f"{start(found.moved[0])} and {len(found.moved) - 1} others"
    choices = (steps, full), (steps, closing), (steps[:2], closing), (steps[:1], closing), (steps[:1], "")
    texts = [" ".join([*first, last]).strip() for first, last in choices]
    return Card(headline.question, tone, short, first_that_fits(*[text for text in texts if text]))


def _few(names: list[str]) -> str:
    """model, rank and 3 other axes."""
    more = len(names) - MOST_AXES
    shown = names if more <= 0 else [*names[:MOST_AXES], plural(more, "other axis", "other axes")]
    return listed(shown)


def belief_card(compared: ComparedStudy, failures: list[str]) -> Card:
    """Seeds, items, corrections, and the checks that passed or did not."""
    seeds = compared.of_runs.loc[compared.of_runs["task"] == compared.target, "seeds"]
    if seeds.empty:
        return Card(
            BELIEF,
            "unsure",
            "Nothing to judge yet",
            "No trained run was compared with its untrained base on the target.",
        )
    least, most = int(seeds.min()), int(seeds.max())
    number = plural(most, "seed") if least == most else f"{least} to {most} seeds"
    items = f"{plural(compared.summary['tasks'][compared.target]['items'], 'item')} of {plain_name(compared.target)}"
    tone, short = _belief(least, most, failures)
    compared_count = sum(family.get("target", 0) for family in compared.summary["families"].values())
    rests = f"{number} a setting, {items}, p corrected for {plural(compared_count, 'comparison')}."
    rows = "task item" if searched_tasks(compared) else "held-out row"
    passed = f"Checks passed: all runs scored, no fault in the base, no {rows} in the training rows."
    if failures:
        passed = f"Caution: {'; '.join(failures)}."
    one = f"Caution: {failures[0]}." if failures else passed
    return Card(BELIEF, tone, short, first_that_fits(f"{rests} {passed}", f"{rests} {one}", rests))


def _belief(least: int, most: int, failures: list[str]) -> tuple[str, str]:
    if most == 1:
        return "unsure", "Not of settings yet"
    if failures:
        return "unsure", "With care"
    # Two seeds hardly measure their own spread, so only large effects can be proved with them.
    return ("plain", "Yes") if least > 2 else ("plain", "Large effects only")
