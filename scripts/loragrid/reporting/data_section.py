"""The page's section on the data: the data cards side by side, and the rows left out."""

from typing import Any

from loragrid.formatting import as_sentence, visible, whole
from loragrid.records.outcomes import data_failure
from loragrid.reporting.contamination_section import contamination_facts
from loragrid.reporting.page import Material
from loragrid.reporting.sentences.row_notes import row_notes, unused_fields


def data_facts(material: Material) -> dict[str, Any]:
    """`names` of the data sets, and `facts` with one text if all agree, else one per data set.

    `dropped` holds (reason, count, first row numbers, names of the data sets if not all), `notes`
    the cards' remarks as sentences, `sets` each one's data set and model, `contamination` the items
    that are also in the training rows, `trained` rows with the text that carries loss.
    """
    cards = material.cards
    by_card = [_facts(card, _filters(material, card)) for card in cards.values()]
    facts = []
    for name in dict.fromkeys(name for found in by_card for name in found):
        texts = [found[name] for found in by_card]
        if len(set(texts)) == 1:
            texts = texts[:1]
        facts.append({"name": name, "texts": texts})
    return {
        "names": list(cards),
        "sets": {name: _set_and_model(material, name) for name in cards},
        "facts": facts,
        "dropped": _dropped(cards),
        "notes": _notes(cards),
        "contamination": contamination_facts(material),
        "trained": _trained_rows(material),
    }


def _set_and_model(material: Material, name: str) -> tuple[str, str]:
    settings = material.study.data_sets[name].settings
    return visible(settings.data, 40), visible(settings.model, 40)


def data_failures(material: Material) -> list[str]:
    """A sentence per data set whose preparation failed, with the reason."""
    found = []
    for data in material.study.data_sets:
        failure = data_failure(material.results, data)
        if failure:
            found.append(f"{visible(data, 80)}: {visible(failure, 500)}")
    return found


def data_warnings(material: Material) -> list[str]:
    """The data cards' warnings as sentences; one that is not on every card begins with its data sets."""
    found: dict[str, list[str]] = {}
    for name, card in material.cards.items():
        for warning in card.get("warnings", []):
            found.setdefault(as_sentence(visible(warning, 300)), []).append(name)
    warnings = []
    for warning, names in found.items():
        where = "" if len(names) == len(material.cards) else f"{', '.join(names)}: "
        warnings.append(where + warning)
    return warnings


MOST_DATA_SETS = 4  # of which the page shows rows
LOSS_ON = {"assistant": "the assistant’s replies", "last_reply": "the last reply", "all": "all tokens"}
# Parts of a card that count rows left out by reason.
LEFT_OUT = ("dropped", "filtered", "like_heldout")


def _trained_rows(material: Material) -> list[dict[str, Any]]:
    """Per data set its `name` and `rows`: the row's number and (text, whether it carries loss) in order."""
    found = []
    for name, card in material.cards.items():
        rows = []
        for example in card.get("examples", []):
            segments = [(visible(text, 2_000), bool(loss)) for text, loss in example.get("segments", [])]
            rows.append({"row": example["row"], "segments": segments})
        if any(row["segments"] for row in rows):
            found.append({"name": name, "rows": rows})
    return found[:MOST_DATA_SETS]


def _dropped(cards: dict[str, dict[str, Any]]) -> list[tuple[str, str, str, str]]:
    """Rows left out, by reason; what is equal on several cards is named once."""
    found: dict[tuple[str, str, str], list[str]] = {}
    for name, card in cards.items():
        for part in LEFT_OUT:
            for reason, rows in card.get(part, {}).items():
                first_rows = ", ".join(map(str, rows.get("first_rows", [])))
                found.setdefault((reason, whole(rows["count"]), first_rows), []).append(name)
    return [
        (*row, "" if len(names) == len(cards) else ", ".join(names))
        for row, names in sorted(found.items(), key=lambda item: item[0])
    ]


def _notes(cards: dict[str, dict[str, Any]]) -> list[str]:
    """The cards' remarks as sentences.

    A remark that is not on every card begins with the names of its data sets.
    """
    found: dict[str, list[str]] = {}
    for name, card in cards.items():
        for note in (*row_notes(card), *card.get("notes", []), *card.get("split", {}).get("notes", [])):
            found.setdefault(as_sentence(visible(note, 300)), []).append(name)
    notes = []
    for note, names in found.items():
        where = "" if len(names) == len(cards) else f"{', '.join(names)}: "
        notes.append(where + note)
    return notes


def _filters(material: Material, card: dict[str, Any]) -> str:
    """The filters of the card's data set, as the study file has them; those that keep all rows are not named."""
    entry = material.study.data.get(card.get("set", ""))
    if entry is None:
        return "–"
    parts = []
    for what, words in (("characters", "characters"), ("turns", "messages")):
        least, most = (getattr(entry.filters, f"{end}_{what}") for end in ("min", "max"))
        if least > 0:
            parts.append(f"at least {whole(least)} {words}")
        if most is not None:
            parts.append(f"at most {whole(most)} {words}")
    if entry.filters.near_duplicates == "drop":
        parts.append("no near duplicates")
    return ", ".join(parts) or "none"


def _facts(card: dict[str, Any], filters: str) -> dict[str, str]:
    """The facts of one card, by the name that the page gives them."""
    split, heldout = card.get("split", {}), card.get("heldout", {})
    train_rows, heldout_rows = (whole(split.get(f"{side}_rows")) for side in ("train", "heldout"))
    facts = {
        "Data set": visible(card.get("set", "–"), 80),
        "Source": _sources(card),
        "Format": visible(card.get("format", "–"), 80),
        "Filters": filters,
        "Rows": f"{whole(card.get('rows_read'))} read, {whole(card.get('rows_kept'))} kept",
        "Exact duplicates removed": _count(card.get("duplicates_removed")),
        "Near duplicates removed": _count(card.get("near_duplicates_removed")),
        "Rows left out by sampling": whole(card.get("sampled_out")),
        "Kept out as held-out rows": _count(card.get("held_out")),
        "Kept out as too like held-out rows": whole(_total(card.get("like_heldout"))),
        "Split": f"{train_rows} for training, {heldout_rows} held out",
        "Held out from": visible(heldout.get("set", "–"), 80),
        "Kept on the same side of the split": "–",
        "Training tokens": _tokens(card, "train"),
        "Held-out tokens": _tokens(card, "heldout"),
        "Rows truncated": f"{_count(card.get('truncated'))}, at {whole(card.get('max_length_tokens'))} tokens",
        "Rows cut after the last reply": _count(card.get("cut_after_last_reply")),
        "Rows with broken characters": _count(card.get("broken_characters")),
        "Fields not used": unused_fields(card),
        "Loss on": LOSS_ON.get(card.get("loss_on"), "–"),
        "Fingerprint": str(card.get("fingerprint", "–"))[:16],
    }
    if "tied_by" in split:
        facts["Kept on the same side of the split"] = f"rows with {visible(split['tied_by'], 80)}"
    return facts


def _sources(card: dict[str, Any]) -> str:
    """The origin of the rows; of a mix each part with its share."""
    parts = card.get("sources") or [{"source": card.get("source", {})}]
    if len(parts) == 1:
        return _source(parts[0]["source"])
    return "; ".join(
        f"{part['share']:.0%} {visible(part['set'], 40)} ({whole(part['rows'])} rows: {_source(part['source'])})"
        for part in parts
    )


def _source(source: dict[str, Any]) -> str:
    return ", ".join(f"{key} {visible(value, 80)}" for key, value in source.items() if value is not None)


def _total(by_reason: dict[str, Any] | None) -> int | None:
    return None if by_reason is None else sum(rows["count"] for rows in by_reason.values())


def _tokens(card: dict[str, Any], side: str) -> str:
    tokens = card.get("tokens", {})
    return f"{whole(tokens.get(side))}, of which {whole(tokens.get(f'{side}_loss'))} carry loss"


def _count(rows: dict[str, Any] | None) -> str:
    return whole(rows["count"]) if rows else "–"
