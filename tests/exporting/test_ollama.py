"""Modelfiles: the chat template in Ollama's language renders chats as the original does, or is refused."""

import re
from pathlib import Path

import pytest

from loragrid.errors import UserError
from loragrid.exporting.ollama import NO_SYSTEM, find_turns, go_template, write_modelfile
from tests.fixtures.chat_templates import CHATML, GEMMA_LIKE, LLAMA_LIKE, REWRITES, make_tokenizer

DEFAULT_SYSTEM = (
    "{% if messages[0]['role'] != 'system' %}{{ '<im>system\nBe \"kind\".</im>\n' }}{% endif %}"
    "{% for m in messages %}{{ '<im>' + m['role'] + '\n' + m['content'] + '</im>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<im>assistant\n' }}{% endif %}"
)
CHAT = [{"role": role, "content": role.upper()} for role in ("system", "user", "assistant", "user")]


def go(template: str, chat: list[dict[str, str]]) -> str:
    """What Ollama writes: the few constructs of these templates, by hand."""
    system = chat[0]["content"] if chat[0]["role"] == "system" else ""
    begin = re.match(r"\{\{- if \.System \}\}(.*?)\{\{- else \}\}(.*?)\{\{- end \}\}", template)
    text, rest = "", template
    if begin:
        text, rest = filled(begin[1 if system else 2], system), template[begin.end() :]
    start, loop, opening = re.fullmatch(r"(.*)\{\{- range \.Messages \}\}(.*)\{\{- end \}\}(.*)", rest).groups()
    user, reply = re.fullmatch(r"\{\{- if eq .*?\}\}(.*)\{\{- else if eq .*?\}\}(.*)\{\{- end \}\}", loop).groups()
    text += filled(start, "")
    for turn in chat:
        text += {"user": filled(user, turn["content"]), "assistant": filled(reply, turn["content"])}.get(
            turn["role"], ""
        )
    return text + filled(opening, "")


def filled(actions: str, content: str) -> str:
    parts = re.findall(r"\{\{- (?:\"((?:[^\"\\]|\\.)*)\"|\.\w+) \}\}", actions)
    assert "".join(re.findall(r"\{\{- .*? \}\}", actions)) == actions
    return "".join(part.encode().decode("unicode_escape") if part else content for part in parts)


@pytest.mark.parametrize("template", [LLAMA_LIKE, CHATML, GEMMA_LIKE, DEFAULT_SYSTEM])
def test_the_template_writes_what_the_original_does(template: str) -> None:
    tokenizer = make_tokenizer(template)
    turns = find_turns(tokenizer)
    assert (turns.system is None) == (template == GEMMA_LIKE)
    for chat in (CHAT[1:2], CHAT[1:], *([] if turns.system is None else [CHAT])):
        wanted = tokenizer.apply_chat_template(chat, tokenize=False, add_generation_prompt=True)
        assert go(go_template(turns), chat) == wanted


def test_a_template_that_rewrites_turns_is_refused_in_one_line() -> None:
    with pytest.raises(UserError, match=r"^ollama: the chat template is more than .*\. Fix: leave ollama out"):
        find_turns(make_tokenizer(REWRITES))


def test_a_modelfile_has_the_end_tokens_and_no_second_token_of_the_beginning(tmp_path: Path) -> None:
    make_tokenizer(GEMMA_LIKE).save_pretrained(tmp_path / "merged")
    (tmp_path / "merged" / "generation_config.json").write_text('{"eos_token_id": [4, 6]}')
    write_modelfile("../gguf/model.gguf", tmp_path / "merged", tmp_path / "ollama" / "Modelfile")
    lines = (tmp_path / "ollama" / "Modelfile").read_text().splitlines()
    assert f"{lines[0]}\n" == NO_SYSTEM and lines[1] == "FROM ../gguf/model.gguf"
    assert lines[2].startswith('TEMPLATE """{{- range .Messages }}')  # the tokenizer writes <s> itself
    assert lines[3:] == ['PARAMETER stop "<|eot|>"', 'PARAMETER stop "<end>"']
