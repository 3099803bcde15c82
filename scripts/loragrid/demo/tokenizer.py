"""The demo's tokenizer: a small byte-level BPE with one token a digit, and its chat template."""

from collections.abc import Iterable
from typing import Any

VOCABULARY = 1024
SPECIAL_TOKENS = ("<|pad|>", "<|bos|>", "<|end|>", "<|system|>", "<|user|>", "<|assistant|>", "<|tool|>")
# A digit with its space is one piece, so that no number is a rare token. Punctuation and a line break join the next
# word, so that a run of a plan (", Wed easy 4") takes three tokens.
PIECES = r" ?\p{N}|(?:[,:]? |\n)?\p{L}+|[^\s\p{L}\p{N}]+|\s+"

# Every role opens with its own token and every turn ends with <|end|>, the only end-of-text token, so that the text of
# a conversation is a prefix of the text of a longer one. No blank separates a role token from the text, so that
# training, generation and scoring tokenise the first word of an answer alike.
CHAT_TEMPLATE = """\
{{- bos_token -}}
{%- for message in messages -%}
  {%- if message['role'] not in ['system', 'user', 'assistant', 'tool'] -%}
    {{- raise_exception('unknown role: ' + message['role'] | string) -}}
  {%- endif -%}
  {{- '<|' + message['role'] + '|>' + (message['content'] or '') + '<|end|>' -}}
{%- endfor -%}
{%- if add_generation_prompt -%}
  {{- '<|assistant|>' -}}
{%- endif -%}
"""


def train_tokenizer(texts: Iterable[str], *, max_length_tokens: int) -> Any:
    """A `PreTrainedTokenizerFast` trained on `texts`, with `CHAT_TEMPLATE`. Same texts, same tokenizer."""
    from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(PIECES), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        special_tokens=list(SPECIAL_TOKENS),
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="<|pad|>",
        bos_token="<|bos|>",
        eos_token="<|end|>",
        additional_special_tokens=list(SPECIAL_TOKENS[3:]),
        chat_template=CHAT_TEMPLATE,
        model_max_length=max_length_tokens,
        clean_up_tokenization_spaces=False,
    )
