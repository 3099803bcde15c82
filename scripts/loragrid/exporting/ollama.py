"""A Modelfile for Ollama: the model, the chat template in Ollama's language, and the end tokens.

Ollama's templates are written in Go, and Jinja's are not read. So the text around each turn is found by rendering
chats, and the template that is made of it must render other chats as the original does. Not tried with Ollama itself.
"""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from loragrid.errors import UserError
from loragrid.models.chat_templates.template import render_text
from loragrid.runtime.atomic_files import read_json, write_text

# Roles of chats that the found template must render as the original does, each with the opening of a reply.
PROOFS = (("user",), ("user", "assistant", "user"), ("system", "user"), ("system", *("user", "assistant") * 2, "user"))
NO_SYSTEM = "# The chat template has no system turn of its own, so a system prompt is left out here.\n"


@dataclass(frozen=True)
class Turns:
    """The texts (before, after) around the contents of turns, what begins a chat, and what opens a reply.

    `system`: around a system prompt that begins a chat in place of `start`; None if there is no such turn.
    """

    start: str
    system: tuple[str, str] | None
    user: tuple[str, str]
    assistant: tuple[str, str]
    opening: str

    def render(self, chat: list[dict[str, str]]) -> str:
        """A chat with the opening of a reply, as Ollama would write it."""
        text = self.start
        if chat[0]["role"] == "system":
            text, chat = chat[0]["content"].join(self.system), chat[1:]
        return text + "".join(turn["content"].join(getattr(self, turn["role"])) for turn in chat) + self.opening


def write_modelfile(source: str, merged: Path, file: Path) -> None:
    """Write a Modelfile for the model at `source`, a path from its folder; `merged`: folder of the merged model.

    Raises `UserError` for a chat template that is more than texts around turns.
    """
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(merged, trust_remote_code=False)
    turns = find_turns(tokenizer)
    ends = read_json(merged / "generation_config.json")["eos_token_id"]
    stops = tokenizer.convert_ids_to_tokens([ends] if isinstance(ends, int) else ends)
    lines = [f"FROM {source}", f'TEMPLATE """{go_template(without_bos(turns, tokenizer))}"""']
    lines += [f'PARAMETER stop "{stop}"' for stop in stops]
    write_text(file, ("" if turns.system else NO_SYSTEM) + "\n".join(lines) + "\n")


def without_bos(turns: Turns, tokenizer: Any) -> Turns:
    """The turns without a token of the beginning that the tokenizer adds by itself: Ollama adds it too."""
    bos = tokenizer.bos_token
    if not bos or tokenizer("x").input_ids[0] != tokenizer.bos_token_id:
        return turns
    system = turns.system and (turns.system[0].removeprefix(bos), turns.system[1])
    return replace(turns, start=turns.start.removeprefix(bos), system=system)


def go_template(turns: Turns) -> str:
    """The template in Ollama's language, for all messages of a chat."""
    start = _literal(turns.start)
    if turns.system:
        start = "{{- if .System }}" + _around(turns.system, ".System") + "{{- else }}" + start + "{{- end }}"
    user, assistant = _around(turns.user, ".Content"), _around(turns.assistant, ".Content")
    roles = f'{{{{- if eq .Role "user" }}}}{user}{{{{- else if eq .Role "assistant" }}}}{assistant}{{{{- end }}}}'
    return f"{start}{{{{- range .Messages }}}}{roles}{{{{- end }}}}{_literal(turns.opening)}"


def _around(texts: tuple[str, str], content: str) -> str:
    before, after = texts
    return f"{_literal(before)}{{{{- {content} }}}}{_literal(after)}"


def _literal(text: str) -> str:
    """Text as an action of a template: blanks between actions are cut."""
    quoted = text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
    return f'{{{{- "{quoted}" }}}}' if text else ""


def find_turns(tokenizer: Any) -> Turns:
    """The texts around turns; raises `UserError` for a template that is more than that."""
    try:
        turns = _from_probes(tokenizer)
    except ValueError:  # a text that is not where it would be
        raise _more_than_turns(("user", "assistant", "user")) from None
    for roles in PROOFS:
        if roles[0] == "system" and turns.system is None:
            continue
        chat = [{"role": role, "content": f"text {number}"} for number, role in enumerate(roles)]
        if turns.render(chat) != _rendered(tokenizer, chat, opening=True):
            raise _more_than_turns(roles)
    return turns


def _from_probes(tokenizer: Any) -> Turns:
    """The texts, from chats of one, two and three turns; raises ValueError where one does not begin as the other."""
    names = ("user", "assistant", "user")
    chat = [{"role": role, "content": f"probe {number}"} for number, role in enumerate(names)]
    first, second, third = (_rendered(tokenizer, chat[:count]) for count in (1, 2, 3))
    reply, again = _rest(second, first), _rest(third, second)
    before_user, after_user = again.split(chat[2]["content"])
    turn = chat[0]["content"].join((before_user, after_user))
    start = first.removesuffix(turn)
    if start + turn != first:
        raise ValueError(first)
    system = _rendered(tokenizer, [{"role": "system", "content": "probe of system"}, chat[0]])
    around = system.removesuffix(turn).split("probe of system")
    return Turns(
        start=start,
        system=tuple(around) if system.endswith(turn) and len(around) == 2 else None,
        user=(before_user, after_user),
        assistant=_pair(reply.split(chat[1]["content"])),
        opening=_rest(_rendered(tokenizer, chat[:1], opening=True), first),
    )


def _pair(pieces: list[str]) -> tuple[str, str]:
    before, after = pieces
    return before, after


def _rest(longer: str, shorter: str) -> str:
    if not longer.startswith(shorter):
        raise ValueError(longer)
    return longer.removeprefix(shorter)


def _rendered(tokenizer: Any, chat: list[dict[str, str]], *, opening: bool = False) -> str:
    """The chat as text; empty where the template refuses it."""
    return render_text(tokenizer, tokenizer.chat_template, [chat], add_prompt=opening)[0] or ""


def _more_than_turns(roles: tuple[str, ...]) -> UserError:
    return UserError(
        "ollama: the chat template is more than a text around each turn, which Ollama's templates cannot repeat "
        f"(chat of {', '.join(roles)}). Fix: leave ollama out, and serve merged/ with vLLM or transformers."
    )
