"""Places of replies in rendered conversations.

A template that only appends shows a reply's place by rendering the turns before it, with and without
the reply. Others are tried with their own {% generation %} marks, then by rendering the conversation
once more with marked contents (the system prompt may move to the last user turn, as in Mistral's),
and last reply by reply, each as the template renders it at that time (thoughts may leave earlier
replies, as in Qwen3's).
"""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

from loragrid.models.chat_templates.template import Chat, ChatTemplate, Layout, render, render_by_marks, shaped

# Up to this many replies, all are located. Of a longer conversation only those that may be kept are, because locating
# one renders all turns before it.
MOST_REPLIES = 64
PREFIXES, MARKS, WHOLE, TURNS = "prefixes", "generation marks", "the whole conversation", "one row per reply"
# Private-use characters that open and close a reply while its place is looked for.
_OPEN, _CLOSE = "\ue000", "\ue001"

Place = tuple[int, int]


@dataclass(frozen=True, slots=True)
class Turn:
    """A reply with the text before it and through it, both None if the template refuses them.

    `number`: the reply's number in the chat; `content` and `question`: the contents of the reply and of the message
    before it, trimmed.
    """

    number: int
    prompt: str | None
    through: str | None
    content: str
    question: str


@dataclass(frozen=True, slots=True)
class Located:
    """Rendered texts with the character ranges of their replies, by the reply's number in the chat.

    `how`: one of the four ways above; with `TURNS` each text ends with its only reply. `known`: the characters up to
    which all replies are located, None for all of the texts.
    """

    texts: list[str]
    places: list[dict[int, Place]]
    how: str
    known: int | None = None


def render_turns(
    template: ChatTemplate, chats: Sequence[Chat], tools: list | None, *, first_characters: int | None = None
) -> list[list[Turn]]:
    """The replies of each chat, in order; the chats share their tools.

    If the template only appends: of a long chat only the replies within the first characters, and the last one.
    """
    if not template.layout.only_appends:
        first_characters = None
    found = [(chat, *reply) for chat, messages in enumerate(chats) for reply in _replies(messages, first_characters)]
    shapes = [shaped(template.abilities, chat) for chat in chats]
    before = [shapes[chat][:i] for chat, _, i in found]
    through = [shapes[chat][: i + 1] for chat, _, i in found]
    prompts = render(template, before, add_prompt=True, tools=tools)
    texts = render(template, through, add_prompt=False, tools=tools)
    turns: list[list[Turn]] = [[] for _ in chats]
    for (chat, number, i), prompt, text in zip(found, prompts, texts, strict=True):
        question, content = (_content(chats[chat][place]) if place >= 0 else "" for place in (i - 1, i))
        turns[chat].append(Turn(number, prompt, text, content, question))
    return turns


def _replies(chat: Chat, first_characters: int | None) -> list[tuple[int, int]]:
    """(Number, position) of the replies to locate."""
    replies = list(enumerate(i for i, message in enumerate(chat) if message["role"] == "assistant"))
    if first_characters is None or len(replies) <= MOST_REPLIES:
        return replies
    ends = list(itertools.accumulate(len(message["content"] or "") for message in chat))
    first = [(number, i) for number, i in replies if ends[i - 1] < first_characters or number == 0]
    return first if first[-1] == replies[-1] else [*first, replies[-1]]


def _content(message: dict) -> str:
    return (message["content"] or "").strip()


def locate(template: ChatTemplate, chat: Chat, turns: list[Turn], tools: list | None) -> Located | None:
    """The replies of one chat, None if they cannot be located."""
    if len(turns) <= turns[-1].number:
        by_prefixes = _by_prefixes(turns, template.layout)
        return by_prefixes or locate(template, chat, render_turns(template, [chat], tools)[0], tools)
    marked = None
    if template.has_generation_marks and not template.layout.only_appends:
        # Where rendering prefixes fails for any conversation, the template's own marks locate the replies of all.
        marked = _by_marks(template, chat, tools, replies=len(turns))
    return (
        marked
        or _by_prefixes(turns, template.layout)
        or _in_whole(template, chat, turns, tools)
        or _by_turns(turns, template.layout)
    )


def _by_prefixes(turns: list[Turn], layout: Layout) -> Located | None:
    whole, places, known = turns[-1].through, {}, None
    if whole is None:
        return None
    for number, turn in enumerate(turns):
        place = _place_at_its_turn(turn, layout, last=number == len(turns) - 1)
        # Anything else than growing text means that the template rewrote an earlier turn.
        if place is None or not whole.startswith(turn.through.removesuffix(layout.closing)):
            return None
        if turn.number == number:
            known = len(turn.through)
        places[turn.number] = place
    return Located([whole], [places], PREFIXES, known if len(turns) <= turns[-1].number else None)


def _place_at_its_turn(turn: Turn, layout: Layout, *, last: bool) -> Place | None:
    """The reply's place in the text that ends with it."""
    if turn.prompt is None or turn.through is None:
        return None
    prompt = turn.prompt
    if not turn.through.startswith(prompt) and layout.opened:
        prompt = prompt.removesuffix(layout.opened)
    if not turn.through.startswith(prompt):
        return None
    through = turn.through if last else turn.through.removesuffix(layout.closing)
    return len(prompt), len(prompt) + _reply_length(through[len(prompt) :], turn.content)


def _reply_length(reply: str, content: str) -> int:
    """Length of a reply with its end-of-turn token, without the line break after that token."""
    at = reply.find(content)
    tail = reply[at + len(content) :] if at >= 0 else reply
    if tail.strip():
        return len(reply.rstrip())
    # No end-of-turn token: the line break itself ends the turn, and the model must learn it.
    return len(reply)


def _by_marks(template: ChatTemplate, chat: Chat, tools: list | None, *, replies: int) -> Located | None:
    rendered = render_by_marks(template, shaped(template.abilities, chat), tools)
    if rendered is None:
        return None
    text, ranges = rendered
    if len(ranges) > replies:
        ranges = _joined(ranges)
    # A range that holds no whole reply would be trained as another one.
    if len(ranges) != replies:
        return None
    return Located([text], [dict(enumerate(ranges))], MARKS)


def _joined(ranges: list[Place]) -> list[Place]:
    """Ranges without those that begin where another ends: a reply and the end of the text are one."""
    joined = ranges[:1]
    for start, end in ranges[1:]:
        if start == joined[-1][1]:
            joined[-1] = joined[-1][0], end
        else:
            joined.append((start, end))
    return joined


def _in_whole(template: ChatTemplate, chat: Chat, turns: list[Turn], tools: list | None) -> Located | None:
    """The replies in the whole conversation, if they are rendered there as at their own turns."""
    whole = turns[-1].through
    if whole is None or _OPEN in whole or _CLOSE in whole or not all(turn.content for turn in turns):
        return None
    marked = [_marked(message) for message in chat]
    text = render(template, [shaped(template.abilities, marked)], add_prompt=False, tools=tools)[0]
    if text is None or text.replace(_OPEN, "").replace(_CLOSE, "") != whole:
        return None
    opens = [at for at, character in enumerate(text) if character == _OPEN]
    closes = [at for at, character in enumerate(text) if character == _CLOSE]
    if len(opens) != len(turns) or len(closes) != len(turns):
        return None
    places = {}
    for number, turn in enumerate(turns):
        # Before the n-th opening mark there are 2n marks, counted from 0.
        contents = opens[number] - 2 * number, closes[number] - 2 * number - 1
        place = _place_around(contents, turn, whole, template.layout, last=number == len(turns) - 1)
        if place is None:
            return None
        places[number] = place
    return Located([whole], [places], WHOLE)


def _marked(message: dict) -> dict:
    if message["role"] != "assistant":
        return message
    content = message["content"]
    # Templates trim contents, so the marks are put inside the blanks.
    return message | {"content": content.replace(content.strip(), _OPEN + content.strip() + _CLOSE, 1)}


def _place_around(contents: Place, turn: Turn, whole: str, layout: Layout, *, last: bool) -> Place | None:
    """The place of a reply of which the content's place is known, None if it looked otherwise at its turn."""
    at_turn = _place_at_its_turn(turn, layout, last=last)
    if at_turn is None:
        return None
    reply = turn.through[slice(*at_turn)]
    lead, found, tail = reply.partition(turn.content)
    start, end = contents[0] - len(lead), contents[1] + len(tail)
    if not found or start < 0 or whole[start:end] != reply:
        return None
    # A reply follows the same opening as when it is generated: some templates leave out its empty thoughts later.
    opening = turn.prompt[: at_turn[0]].rpartition(turn.question)[2]
    if not whole[:start].endswith(opening):
        return None
    return start, end


def _by_turns(turns: list[Turn], layout: Layout) -> Located | None:
    places = [_place_at_its_turn(turn, layout, last=True) for turn in turns]
    if None in places:
        return None
    return Located([turn.through for turn in turns], [{n: place} for n, place in enumerate(places)], TURNS)
