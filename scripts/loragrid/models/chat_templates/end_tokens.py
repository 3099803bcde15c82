"""Tokens that end a generated reply."""

from typing import TYPE_CHECKING, Any

from loragrid.models.chat_templates.template import ChatTemplate

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

REPLY = "probe reply text"


def template_end(template: ChatTemplate) -> int | None:
    """The id of the first added token that the template writes behind a reply, None if there is none."""
    return _first_added_token(template.tokenizer, template.layout.reply_end)


def end_tokens(model: "PreTrainedModel", tokenizer: "PreTrainedTokenizerBase") -> tuple[int, ...]:
    """Token ids that end a generated reply, ascending.

    They are those of the generation settings and of the model's configuration, the tokenizer's end of text, and the
    token that the chat template writes behind a reply: a base with a ChatML template ends turns with a token that its
    settings do not name (https://github.com/QwenLM/Qwen3/issues/1064).
    """
    ids: set[int] = set()
    for configured in (model.generation_config.eos_token_id, model.config.get_text_config().eos_token_id):
        ids.update([configured] if isinstance(configured, int) else configured or ())
    if tokenizer.eos_token_id is not None:
        ids.add(tokenizer.eos_token_id)
    if tokenizer.chat_template:
        end = _first_added_token(tokenizer, _reply_end(tokenizer))
        ids.update(() if end is None else [end])
    return tuple(sorted(ids))


def _reply_end(tokenizer: Any) -> str:
    """The text that the tokenizer's chat template writes behind a reply, "" if it shows none."""
    chat = [{"role": "user", "content": "x"}, {"role": "assistant", "content": REPLY}]
    try:
        text = tokenizer.apply_chat_template(chat, tokenize=False)
    except Exception:  # a template is a program and may raise anything, as for contents that are no lists of parts
        return ""
    return text.rpartition(REPLY)[2] if REPLY in text else ""


def _first_added_token(tokenizer: Any, text: str) -> int | None:
    ids = tokenizer(text, add_special_tokens=False).input_ids
    added = tokenizer.added_tokens_decoder
    return next((token for token in ids if token in added), None)
