"""The demo's tokenizer: a small byte-level BPE with one token a digit, and its chat template."""

from collections.abc import Iterable
from typing import Any

VOCABULARY = 1024
SPECIAL_TOKENS = ("<|pad|>", "<|bos|>", "<|end|>", "<|system|>", "<|user|>", "<|assistant|>", "<|tool|>")
# A digit with its space is a piece of its own, so that no number is a token the model has hardly seen; punctuation
# and a line break go with the word after them, so that a run of a plan (", Wed easy 4") is three tokens.
PIECES = r" ?\p{N}|(?:[,:]? |\n)?\p{L}+|[^\s\p{L}\p{N}]+|\s+"

# Every role opens with its own token and every turn ends with <|end|>, the only end-of-text token: what the template
# writes for a conversation is a prefix of what it writes for a longer one. No blank stands between a role token and the
# text, so that the first word of an answer is tokenised alike in training, generation and scoring.
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
    """A `PreTrainedTokenizerFast` learned from `texts`, with `CHAT_TEMPLATE`. Deterministic: same texts, same tokenizer."""
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
