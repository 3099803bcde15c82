"""What the data card says about rows that makes the runs on them questionable: the page shows it first."""

from typing import Any

# ASSUME: from a tenth on, rows that were left out are a sign of a fault in the data, not of a few bad lines.
MANY_LEFT_OUT = 0.1
# ASSUME: from a tenth of the held-out rows on, answers that training has too make the held-out loss too low.
MANY_KNOWN_ANSWERS = 0.1
SHOWN_REASONS = 3


def row_warnings(facts: dict[str, Any]) -> list[str]:
    """Warnings about a set's rows, from the card's entries `rows_read`, `dropped` and `split`."""
    split = facts["split"]
    return [*_left_out(facts), *known_answers_warning(split["leaks"]["short_answers"], split["heldout_rows"])]


def _left_out(facts: dict[str, Any]) -> list[str]:
    counts = {reason: rows["count"] for reason, rows in facts["dropped"].items()}
    lost, read = sum(counts.values()), facts["rows_read"]
    if lost <= MANY_LEFT_OUT * read:
        return []
    by_count = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    shown = ", ".join(f"{count} {reason}" for reason, count in by_count[:SHOWN_REASONS])
    more = ", …" if len(by_count) > SHOWN_REASONS else ""
    return [f"{lost} of {read} rows ({lost / read:.0%}) cannot be trained on and were left out ({shown}{more})"]


def known_answers_warning(known: int, heldout: int) -> list[str]:
    """A warning if many of the held-out rows, `known` ones, have a short answer that training has too."""
    if known <= MANY_KNOWN_ANSWERS * heldout:
        return []
    return [
        f"{known / heldout:.0%} of the held-out rows have an answer under 20 characters that training has too. Labels "
        "should be shared so; if these are not labels, the held-out loss also measures memorised answers"
    ]
