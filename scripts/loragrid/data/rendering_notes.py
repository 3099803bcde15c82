"""The data card's notes and warnings on how a set's rows were rendered and labelled."""

from collections.abc import Sequence

from loragrid.data.rendering import rendered as fact
from loragrid.data.tokenised_rows import TokenisedRows
from loragrid.models.chat_templates.end_tokens import template_end

# From this share of rows on, a missing end of replies is a warning.
MANY_WITHOUT_END = 0.5
SENTENCES = {
    fact.MADE_UP_CALLS: "in {rows} the template has no form for the replies' tool calls: "
    "the calls are trained as JSON below the reply's text, one a line",
    fact.THOUGHTS_LEFT_OUT: "the reasoning of {rows} is left out: the template shows none",
    fact.NOT_SHOWN: "the template leaves out part of a message in {rows}",
    fact.CONTROL_TOKENS: "messages of {rows} spell out control tokens, which are encoded as text",
    fact.OPENED_THOUGHTS: "in {rows} a reply has no thoughts, although the template opens thoughts for a new reply: "
    "the loss begins where the reply begins",
    fact.MOVED_TEXT: "the template moves text between turns when a conversation goes on, such as the system prompt "
    "to the last user turn: the replies of {rows} are trained in the whole conversation",
    fact.BY_MARKS: "the replies of {rows} are located by the template's generation marks",
    fact.PER_REPLY: "the template rewrites earlier replies: {rows} are trained one reply at a time, "
    "each as the template renders the conversation up to it",
    fact.JOINED_WITH_MARKED: "the template has no two replies in a row: in {rows} a reply is joined with one that is "
    "marked not to train on, and neither carries loss",
    fact.WINDOWS: "{rows} longer than max_length_tokens are split into windows that begin at a user turn, "
    "with the system prompt repeated; no reply is trained twice",
}


def rendering_notes(tokenised: TokenisedRows) -> list[str]:
    """What rendering assumed, moved or left out, with counts."""
    notes, abilities = _notes_on_roles(tokenised), tokenised.template.abilities
    with_tools, crossing = tokenised.with_tools.count, tokenised.crossing_border.count
    if with_tools and abilities.tools:
        notes.insert(0, f"the tools of {_rows(with_tools)} are shown to the model by its template")
    elif with_tools:
        notes.insert(0, f"the tools of {_rows(with_tools)} are left out: the template shows none")
    for code, sentence in SENTENCES.items():
        found = tokenised.facts.by_reason.get(code)
        if found is not None:
            notes.append(sentence.format(rows=_rows(found.count, first=found.first_rows)))
    if tokenised.written.rows != tokenised.conversations:
        notes.append(f"{tokenised.conversations} conversations are {tokenised.written.rows} training rows")
    if tokenised.begun.count:
        rows = _rows(tokenised.begun.count, first=tokenised.begun.first_rows)
        notes.append(f"{rows} of very long text were cut before they were tokenised: their length counts the beginning")
    if crossing:
        notes.append(f"in {_rows(crossing)} a token crosses a reply's border; it counts as the reply's")
    if template_end(tokenised.template) is None:
        notes.append("replies end without a special token: the model is not taught where to stop")
    elif tokenised.without_end.count:
        notes.append(_without_end(tokenised))
    return notes


def rendering_warnings(tokenised: TokenisedRows) -> list[str]:
    """What makes the runs on these rows questionable."""
    if tokenised.without_end.count > MANY_WITHOUT_END * tokenised.written.rows:
        return [_without_end(tokenised)]
    return []


def _notes_on_roles(tokenised: TokenisedRows) -> list[str]:
    notes, abilities = [], tokenised.template.abilities
    if "system" in tokenised.roles and not abilities.system:
        notes.append("the template has no system turn: its text opens the next user turn")
    if "tool" in tokenised.roles and not (abilities.tool_role or abilities.results_after_calls):
        notes.append("the template has no tool turn: the output of tools is given as user turns")
    return notes


def _without_end(tokenised: TokenisedRows) -> str:
    count, rows = tokenised.without_end.count, tokenised.written.rows
    cause = "max_length_tokens cuts before it"
    if template_end(tokenised.template) is None:
        cause = "the template writes no special token behind a reply"
    share = f"{count} of {rows} training rows ({count / rows:.0%})"
    return f"{share} hold no end of a reply ({cause}): they do not teach the model where to stop"


def _rows(count: int, *, first: Sequence[int] = ()) -> str:
    noun = "row" if count == 1 else "rows"
    if not first:
        return f"{count} {noun}"
    more = " …" if count > len(first) else ""
    return f"{count} {noun} ({', '.join(map(str, first))}{more})"
