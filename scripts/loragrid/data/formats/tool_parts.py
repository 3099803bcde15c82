"""Tool calls and results that are parts of a turn's content, as Anthropic's API writes them, and results that are
objects.
"""

import json
from typing import Any

from loragrid.data.formats.reasons import BAD_CALL, UnusableRow
from loragrid.data.formats.texts import check_encodable, check_json, is_empty

USE, RESULT = "tool_use", "tool_result"


def take_uses(parts: list[Any]) -> tuple[list[Any], list[dict[str, Any]]]:
    """The other parts of a reply, and its calls in the form that `read_calls` reads."""
    others, calls = [], []
    for part in parts:
        if not _is(part, USE):
            others.append(part)
            continue
        call = {key: value for key, value in part.items() if key not in ("type", "input")}
        calls.append(call | {"arguments": part.get("input")})
    return others, calls


def take_results(parts: list[Any]) -> tuple[list[Any], list[tuple[Any, dict[str, Any]]]]:
    """The other parts of a user's turn, and what tools returned: (content, the turn's other fields) of each.

    Raises `UnusableRow` for a result whose fields are not those of one.
    """
    others, results = [], []
    for part in parts:
        if not _is(part, RESULT):
            others.append(part)
            continue
        rest = {key: value for key, value in part.items() if key not in ("type", "content", "tool_use_id")}
        call = part.get("tool_use_id")
        if not is_empty(call) and not isinstance(call, str):
            raise UnusableRow(BAD_CALL)
        results.append((part.get("content"), rest | ({"tool_call_id": call} if call else {})))
    return others, results


def result_content(content: Any) -> Any:
    """What a tool returned, an object as JSON text; text and lists of content parts as they are."""
    parts = isinstance(content, list) and all(isinstance(part, str) or _has_text(part) for part in content)
    if not isinstance(content, dict | list) or (parts and content):
        return content
    check_json(content, BAD_CALL)
    return json.dumps(content, ensure_ascii=False)


def take_names(rest: dict[str, Any]) -> dict[str, str]:
    """The names that tie a tool's turn to the call."""
    names = {}
    for key in ("name", "tool_call_id"):
        if isinstance(rest.get(key), str) and rest[key]:
            check_encodable(rest[key])
            names[key] = rest.pop(key)
    return names


def _is(part: Any, kind: str) -> bool:
    return isinstance(part, dict) and part.get("type") == kind


def _has_text(part: Any) -> bool:
    return isinstance(part, dict) and isinstance(part.get("text"), str)
