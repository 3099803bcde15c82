"""Write docs/chat-templates.md: how each chat template that TRL ships is trained on, found by trying it."""

if __name__ == "__main__":
    import check_environment  # noqa: F401  ends the process if packages are missing

import importlib.metadata
import importlib.util
import re
from pathlib import Path
from typing import Any

from loragrid.data.formats.conversation import Conversation
from loragrid.data.rendering.conversations import render_conversations
from loragrid.data.rendering.rendered import BY_MARKS, MOVED_TEXT, OPENED_THOUGHTS, PER_REPLY
from loragrid.errors import UserError
from loragrid.models.chat_templates.end_tokens import template_end
from loragrid.models.chat_templates.probes import inspect_template
from loragrid.models.chat_templates.template import ChatTemplate
from loragrid.paths import ROOT

PAGE = ROOT / "docs" / "chat-templates.md"
# What the templates write as control tokens: <|im_end|>, <｜User｜>, <start_of_turn>, <turn|>, [INST], </s>.
TOKENS = re.compile(r"<\|[^|<>\s]+\|>|<｜[^｜]+｜>|</?[a-z_]+>|<\|[a-z_]+>|<[a-z_]+\|>|\[/?[A-Z_]+\]")
ENDS_OF_TEXT = {  # of each family's tokenizer, where it is not </s>
    "phi3": "<|endoftext|>",
    "llama3": "<|end_of_text|>",
    "gptoss": "<|return|>",
    "deepseek": "<｜end▁of▁sentence｜>",
    "cohere": "<|END_OF_TURN_TOKEN|>",
    "glm4moe": "<|endoftext|>",
    "gemma": "<eos>",
    "diffusion_gemma": "<eos>",
    "idefics3": "<end_of_utterance>",
    **dict.fromkeys(("qwen", "lfm2", "nemotron"), "<|im_end|>"),
}
TALK = [
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": "How far?"},
    {"role": "assistant", "content": "Ten miles."},
    {"role": "user", "content": "How fast?"},
    {"role": "assistant", "content": "In two hours."},
]
WAYS = {
    BY_MARKS: "by its generation marks",
    MOVED_TEXT: "in the whole conversation",
    PER_REPLY: "one row per reply",
}
COLUMNS = ("Template", "Replies are located", "Behind a reply", "Tools", "Tool calls", "Reasoning")
INTRODUCTION = """# Chat templates

How a conversation is trained depends on the model's chat template. loragrid renders a probe with it
and finds out what it shows and where its replies are:

- **by rendering prefixes**: a longer conversation begins with the shorter one, so each reply's place
  is known.
- **by its generation marks**: the template marks its replies with `{% generation %}`.
- **in the whole conversation**: the template moves other text, as Mistral's move the system prompt to
  the last user turn, but each reply looks the same as when it was the last turn.
- **one row per reply**: the template rewrites earlier replies, for example without their thoughts.
  Each reply is a training row of its own, as the template renders the conversation up to it. A
  conversation of one exchange stays one row.

*opens thoughts* means that the opening of a new reply ends with `<think>`, which a finished reply
without thoughts does not hold: its loss begins where the reply begins, and the data card counts such
rows.

The data card counts what a template does not show: tools, reasoning, parts of messages. Tool calls
are trained as JSON below the reply's text if the template has no form for them, cannot show them
beside text, or shows only one call where a reply has several. Control tokens that a message spells
out are encoded as text, in training, in prompt files and in the app; `<think>`, `<tool_call>` and
other tokens that a model writes itself stay tokens.

`loss_on` puts the loss on all replies (`assistant`), on the last one (`last_reply`) or on every token
(`all`); replies that the data mark not to train on never carry it. Of conversations longer than
`max_length_tokens`, `long_rows` in the data set cuts the end (`cut`), makes windows that begin at a
user turn (`window`) or leaves them out (`drop`). The report shows three rows of each data set with the
text that carries loss.

A template is refused for one of three reasons, each with its own message: it does not render a plain
conversation; it rewrites the turns before a reply when the reply is added; or it opens a new reply
in another way than it renders a finished one.

The table is written by `python scripts/tools/describe_templates.py`, which tries every template that
TRL {version} ships with its own special tokens. A test compares the two.

"""


def main() -> None:
    """Write the page."""
    PAGE.write_text(page(), encoding="utf-8")


def page() -> str:
    """The whole page."""
    lines = [f"| {' | '.join(COLUMNS)} |", f"|{'---|' * len(COLUMNS)}"]
    for name, text in trl_templates().items():
        lines.append(f"| `{name}` | {' | '.join(describe(name, text))} |")
    return INTRODUCTION.replace("{version}", importlib.metadata.version("trl")) + "\n".join(lines) + "\n"


def trl_templates() -> dict[str, str]:
    """The templates that the installed TRL ships, by name."""
    folder = Path(importlib.util.find_spec("trl").origin).parent / "chat_templates"
    return {path.stem: path.read_text(encoding="utf-8") for path in sorted(folder.glob("*.jinja"))}


def describe(name: str, text: str) -> tuple[str, ...]:
    """The columns of one template behind its name."""
    try:
        template = inspect_template(tokenizer_for(name, text), model=name)
    except UserError as error:
        return (f"refused: {error}", *[""] * (len(COLUMNS) - 2))
    abilities, form = template.abilities, template.abilities.call_form
    calls = "as JSON"
    if form is not None:
        limits = [] if form.with_text else ["without text"]
        limits += [] if form.several else ["one a reply"]
        calls = ", ".join(["own form", *limits])
    end = template_end(template)
    return (
        _located(template),
        "–" if end is None else f"`{template.tokenizer.convert_ids_to_tokens(end)}`".replace("|", "\\|"),
        "shown" if abilities.tools else "left out",
        calls,
        f"`{abilities.thoughts_key}`" if abilities.thoughts_key else "left out",
    )


def _located(template: ChatTemplate) -> str:
    (rendered,) = render_conversations(template, [Conversation(TALK, None, False)])
    if rendered.reason is not None:
        return rendered.reason
    ways = [way for fact, way in WAYS.items() if fact in rendered.facts] or ["by rendering prefixes"]
    return ", ".join(ways + (["opens thoughts"] if OPENED_THOUGHTS in rendered.facts else []))


def tokenizer_for(name: str, text: str) -> Any:
    """A byte-level tokenizer with the special tokens that a template writes."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    family = max((known for known in ENDS_OF_TEXT if name.startswith(known)), key=len, default="")
    end = ENDS_OF_TEXT.get(family, "</s>")
    special = list(dict.fromkeys(["<s>", end, *sorted(set(TOKENS.findall(text)))]))
    words = [*special, *sorted(pre_tokenizers.ByteLevel.alphabet())]
    tokenizer = Tokenizer(models.BPE(vocab={word: index for index, word in enumerate(words)}, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token="<s>",
        eos_token=end,
        extra_special_tokens=special[2:],
        chat_template=text,
    )


if __name__ == "__main__":
    main()
