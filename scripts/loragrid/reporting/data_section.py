"""The page's section on the data: the data cards side by side, and the rows left out."""

from typing import Any

from loragrid.formatting import as_sentence, visible, whole
from loragrid.reporting.page import Material


def data_facts(material: Material) -> dict[str, Any]:
    """`names` of the data sets, and `facts` with one text if all agree, else one per data set.

    `dropped` holds (reason, count, first row numbers), `notes` the cards' remarks as sentences.
    """
    cards = material.cards
    by_card = [_facts(card) for card in cards.values()]
    facts = []
    for name in dict.fromkeys(name for found in by_card for name in found):
        texts = [found[name] for found in by_card]
        if len(set(texts)) == 1:
            texts = texts[:1]
        facts.append({"name": name, "texts": texts})
    return {
        "names": list(cards),
        "facts": facts,
        "dropped": _dropped(cards),
        "notes": _notes(cards),
    }


def _dropped(cards: dict[str, dict[str, Any]]) -> list[tuple[str, str, str]]:
    # A set: data sets of one source drop the same rows, which are named once.
    dropped = set()
    for card in cards.values():
        for reason, rows in card.get("dropped", {}).items():
            first_rows = ", ".join(map(str, rows.get("first_rows", [])))
            dropped.add((reason, whole(rows["count"]), first_rows))
    return sorted(dropped)


def _notes(cards: dict[str, dict[str, Any]]) -> list[str]:
    """The cards' remarks as sentences.

    A remark that is not on every card begins with the names of its data sets.
    """
    found: dict[str, list[str]] = {}
    for name, card in cards.items():
        for note in (*card.get("notes", []), *card.get("split", {}).get("notes", [])):
            found.setdefault(as_sentence(visible(note, 300)), []).append(name)
    notes = []
    for note, names in found.items():
        where = "" if len(names) == len(cards) else f"{', '.join(names)}: "
        notes.append(where + note)
    return notes


def _facts(card: dict[str, Any]) -> dict[str, str]:
    """The facts of one card, by the name that the page gives them."""
    source, split = card.get("source", {}), card.get("split", {})
    same_side = "–"
    if "tied_by" in split:
        same_side = f"rows with {visible(split['tied_by'], 80)}"
    loss_on = "all tokens"
    if card.get("loss_on") == "assistant":
        loss_on = "the assistant’s replies"
    known = {key: visible(value, 80) for key, value in source.items() if value is not None}
    train_rows, heldout_rows = (whole(split.get(f"{side}_rows")) for side in ("train", "heldout"))
    longest = whole(card.get("max_length_tokens"))
    return {
        "Source": ", ".join(f"{key} {value}" for key, value in known.items()),
        "Format": visible(card.get("format", "–"), 80),
        "Rows": f"{whole(card.get('rows_read'))} read, {whole(card.get('rows_kept'))} kept",
        "Exact duplicates removed": _count(card.get("duplicates_removed")),
        "Rows left out by sampling": whole(card.get("sampled_out")),
        "Split": f"{train_rows} for training, {heldout_rows} held out",
        "Kept on the same side of the split": same_side,
        "Training tokens": _tokens(card, "train"),
        "Held-out tokens": _tokens(card, "heldout"),
        "Rows truncated": f"{_count(card.get('truncated'))}, at {longest} tokens",
        "Rows cut after the last reply": _count(card.get("cut_after_last_reply")),
        "Rows with broken characters": _count(card.get("broken_characters")),
        "Loss on": loss_on,
        "Fingerprint": str(card.get("fingerprint", "–"))[:16],
    }


def _tokens(card: dict[str, Any], side: str) -> str:
    tokens = card.get("tokens", {})
    return f"{whole(tokens.get(side))}, of which {whole(tokens.get(f'{side}_loss'))} carry loss"


def _count(rows: dict[str, Any] | None) -> str:
    return whole(rows["count"]) if rows else "–"
