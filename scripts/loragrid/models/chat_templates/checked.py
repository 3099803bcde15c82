"""The first use of a chat template and of a tokenizer's pattern, which others wrote: limited in time and memory."""

from dataclasses import replace
from typing import TYPE_CHECKING

from loragrid.models.chat_templates.probes import inspect_template
from loragrid.models.chat_templates.template import ChatTemplate
from loragrid.runtime.memory_limit import memory_limit
from loragrid.runtime.worker_processes import TimeLimit, in_own_process

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

PROBE_SECONDS = 60  # for what takes a tenth of a second
PROBE_BYTES = 4 * 2**30  # for texts of a few lines
# Long runs that almost match: the texts on which a pattern of nested repetitions tries every way to part them.
HARD_TEXTS = [
    "a" * 2_000 + "!",
    "a" * 2_000 + "1",
    "1" * 2_000 + "a",
    " " * 2_000 + "x",
    "\n" * 2_000 + "x",
    "!?" * 1_000 + "a",
]


def checked_template(tokenizer: "PreTrainedTokenizerFast", *, model: str) -> ChatTemplate:
    """As `inspect_template`, for a template and a tokenizer that have not been tried yet.

    Also raises `UserError` for a template that takes too much time or memory, and for a pattern that takes too long.
    """
    limit = TimeLimit(PROBE_SECONDS, f"model {model}: its chat template", fix="set another chat_template")
    template = in_own_process(_inspected, (tokenizer, model), limit)
    limit = TimeLimit(PROBE_SECONDS, f"model {model}: its tokenizer's pattern", fix="use another tokenizer.json")
    in_own_process(_tokenise_hard_texts, tokenizer, limit)
    return replace(template, tokenizer=tokenizer)


def _inspected(tokenizer_and_model: tuple["PreTrainedTokenizerFast", str]) -> ChatTemplate:
    tokenizer, model = tokenizer_and_model
    with memory_limit(PROBE_BYTES):
        template = inspect_template(tokenizer, model=model)
    # The caller has the tokenizer, which takes long to send.
    return replace(template, tokenizer=None)


def _tokenise_hard_texts(tokenizer: "PreTrainedTokenizerFast") -> None:
    tokenizer(HARD_TEXTS, add_special_tokens=False, verbose=False)
