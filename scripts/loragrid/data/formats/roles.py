"""Roles of speakers by the names that public data give them."""

from collections.abc import Mapping
from typing import Any

from loragrid.data.formats.reasons import NO_ROLE, UnusableRow, unknown_role

NAMES = {
    "system": "system developer",
    "user": "user human prompter customer client question query prompt input",
    # ASSUME (tools): the model writes its tool calls, so a call is trained on like any other reply.
    "assistant": (
        "assistant gpt gpt4 gpt-4 chatgpt chatbot bot bing bard ai model claude gemini llama agent "
        "answer response output function_call tool_call"
    ),
    "tool": "tool observation function tool_response tool_result ipython",
    # An instructor teaches the one and instructs the other: the other speakers tell which.
    "either": "instructor",
}
ROLES = {name: role for role, names in NAMES.items() for name in names.split()}
CALL_ROLES = frozenset(("function_call", "tool_call"))  # of turns whose text is the JSON of a call


def normal_name(name: str) -> str:
    """A speaker's name as it is compared: "USER: " is "user"."""
    return name.strip().strip(":：\ufeff\u200b").strip().lower()


def known_roles(mapped: Mapping[str, str]) -> dict[str, str]:
    """Role by speaker: the usual names, and those that a study maps itself."""
    return ROLES | {normal_name(name): role for name, role in mapped.items()}


def role_of(name: Any, roles: Mapping[str, str]) -> str:
    """The role of a speaker, "either" for one that only the others tell.

    Raises `UnusableRow` for an unknown name.
    """
    if type(name) is int:
        name = str(name)  # a column of 0 and 1, which a study's roles can map
    if not isinstance(name, str) or not normal_name(name):
        raise UnusableRow(NO_ROLE)
    role = roles.get(name) or roles.get(normal_name(name))
    if role is None:
        raise UnusableRow(unknown_role(" ".join(name.split())))
    return role


def settle_either(names: list[Any], roles: Mapping[str, str]) -> dict[str, str]:
    """`roles` in which a name that fits two roles has the one that no other speaker has."""
    found = {roles.get(normal_name(name)) for name in names if isinstance(name, str)}
    role = "user" if "assistant" in found else "assistant"
    return {name: role if known == "either" else known for name, known in roles.items()}
