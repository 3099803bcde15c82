"""Tools and tool calls in the form of chat templates, whatever form the source gives them."""

import json
from typing import Any

from loragrid.data.formats.reasons import BAD_CALL, BAD_TOOLS, UnusableRow
from loragrid.data.formats.texts import check_json, is_empty

ARGUMENTS = ("arguments", "parameters")
Call = dict[str, Any]


def read_tools(tools: Any) -> list[dict[str, Any]] | None:
    """The tools of a row, JSON text or a list, as schemas {"type": "function", "function": …}.

    One tool may stand without a list, and each of a list may be JSON text.
    """
    if isinstance(tools, str):
        tools = _parsed(tools, BAD_TOOLS) if tools.strip() else None
    if not tools:
        return None
    if isinstance(tools, dict) and not tools.keys().isdisjoint(("name", "function")):
        tools = [tools]
    if isinstance(tools, list):
        tools = [_parsed(tool, BAD_TOOLS) if isinstance(tool, str) else tool for tool in tools]
    if not isinstance(tools, list) or not all(isinstance(tool, dict) for tool in tools):
        raise UnusableRow(BAD_TOOLS)
    # Finds the lone surrogates in a schema, which the template would write into the text.
    check_json(tools, BAD_TOOLS)
    wrapped = []
    for tool in tools:
        if "input_schema" in tool:  # Anthropic's name of the parameters
            tool = {("parameters" if key == "input_schema" else key): value for key, value in tool.items()}
        wrapped.append(tool if "function" in tool else {"type": "function", "function": tool})
    return wrapped


def read_calls(calls: Any) -> tuple[list[Call], set[str]]:
    """The calls of a reply, and the keys of calls that are not read.

    A call is {"function": {"name", "arguments"}} or {"name", "arguments"}; one call may stand without
    a list, and all of them may be JSON text. Raises `UnusableRow` for calls that cannot be read.
    """
    if isinstance(calls, str):
        calls = _parsed(calls, BAD_CALL)
    if isinstance(calls, dict):
        calls = [calls]
    if not isinstance(calls, list):
        raise UnusableRow(BAD_CALL)
    read, unread = [], set()
    for call in calls:
        read.append(_read_call(call, unread))
    check_json(read, BAD_CALL)
    return read, unread


def _read_call(call: Any, unread: set[str]) -> Call:
    """One call; adds the names of its keys that nothing reads to `unread`."""
    if not isinstance(call, dict):
        raise UnusableRow(BAD_CALL)
    function = call
    if isinstance(call.get("function"), dict):
        function = call["function"]
        unread |= _others(call, ("function",))
    name = function.get("name")
    if not isinstance(name, str) or not name.strip():
        raise UnusableRow(BAD_CALL)
    key = next((key for key in ARGUMENTS if key in function), ARGUMENTS[0])
    if function is call:
        unread |= _others(call, ("name", key))
    else:
        unread |= {f"function.{other}" for other in function if other not in ("name", key)}
    result: Call = {"type": "function", "function": {"name": name, "arguments": _arguments(function.get(key))}}
    # The id ties the call to the tool's turn; some templates write it.
    if isinstance(call.get("id"), str) and call["id"]:
        result["id"] = call["id"]
    return result


def _others(call: dict[str, Any], known: tuple[str, ...]) -> set[str]:
    """The keys beside `known` that hold something; id and type are read where they are text."""
    names = {name for name, value in call.items() if name not in known and not is_empty(value)}
    return {name for name in names if name not in ("id", "type") or not isinstance(call[name], str)}


def _arguments(value: Any) -> dict[str, Any]:
    if isinstance(value, str):
        # What is null in JSON text is meant: no columnar file put it there.
        value = _parsed(value, BAD_CALL) if value.strip() else {}
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise UnusableRow(BAD_CALL)
    return value


def calls_in_text(text: Any) -> list[Call] | None:
    """The calls that the text of a `function_call` turn holds as JSON; None for any other text."""
    if not isinstance(text, str) or text.lstrip()[:1] not in ("{", "["):
        return None
    try:
        calls = json.loads(text)
    except (ValueError, RecursionError):
        return None
    found = calls if isinstance(calls, list) else [calls]
    if not found or not all(_is_call(call) for call in found):
        return None
    return read_calls(found)[0]


def _is_call(value: Any) -> bool:
    # Any further key would be lost: such a turn stays the text that it is.
    return isinstance(value, dict) and isinstance(value.get("name"), str) and value.keys() <= {"name", "arguments"}


def _parsed(text: str, reason: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        raise UnusableRow(reason) from None
