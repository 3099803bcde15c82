"""What preparation assumed of single rows, and which of their fields it does not use, as sentences."""

from typing import Any

from loragrid.formatting import plural, visible

NOTES = {
    "system_turn_wins": "a system turn beside a system column with another text in {rows}: the turn is read",
    "part_weight": "a weight that is neither 0 nor 1 in {rows}: it is read as 1",
    "marked_prompt": "a mark to train on a turn that is no reply in {rows}: it has no effect",
    "prompt_replies_untrained": "prompts of {rows} hold earlier replies: only what completes a prompt is trained",
    "preference_rows": "of {rows} with a preference the chosen reply is trained, and the rejected one is not used",
    "plain_text": "plain text in {rows}: it is trained as it is, without a chat template",
}


def row_notes(card: dict[str, Any]) -> list[str]:
    """A sentence for each assumption that a data card counts, without capital and full stop."""
    found = []
    for code, rows in card.get("row_notes", {}).items():
        # A card of a later version may have codes that this one does not know.
        sentence = NOTES.get(code, f"{visible(code, 80)}: {{rows}}")
        found.append(sentence.replace("{rows}", _rows(rows)))
    return found


def unused_fields(card: dict[str, Any]) -> str:
    """The fields of a source's rows that nothing reads, each with the number of rows that have it."""
    fields = card.get("unused_fields")
    if fields is None:
        return "–"
    names = [f"{visible(name, 60)} ({plural(count, 'row')})" for name, count in fields.items()]
    return ", ".join(names) or "none"


def _rows(rows: dict[str, Any]) -> str:
    first = ", ".join(map(str, rows.get("first_rows", [])))
    more = " …" if rows["count"] > len(rows.get("first_rows", [])) else ""
    return f"{plural(rows['count'], 'row')} ({first}{more})"
