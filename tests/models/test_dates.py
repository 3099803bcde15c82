"""Templates that print today's date: the same text on every day, in data, prompts and named templates."""

import datetime
import json
import shutil

import pytest
from transformers.utils import chat_template_utils

from loragrid.data.rendering.conversations import render_conversations
from loragrid.models.chat_templates.dates import FIXED_DATE, with_fixed_date
from loragrid.models.chat_templates.probes import inspect_template
from loragrid.models.loading import load_tokenizer
from loragrid.scoring.prompts import prompt_ids
from loragrid.study.sections import ModelEntry
from tests.fixtures.chat_templates import CHATML, make_tokenizer, talk

FORMATS = ["%d %b %Y", "%Y-%m-%d", "%A, %B %-d, %Y", "%d/%m/%y %H:%M", "%B"]
DATED = "{{ 'Today is ' + strftime_now('%Y-%m-%d') + '. ' }}"


def on_day(monkeypatch, day):
    class Clock(datetime.datetime):
        @classmethod
        def now(cls, tz=None):
            return cls(2031, 5, day)

    monkeypatch.setattr(chat_template_utils, "datetime", Clock)


@pytest.fixture()
def named_model(toy_llama, tmp_path):
    """A model whose tokenizer has named templates, all of which print the date."""
    folder = shutil.copytree(toy_llama, tmp_path / "named")
    (folder / "chat_template.jinja").unlink(missing_ok=True)
    config = json.loads((folder / "tokenizer_config.json").read_text())
    template = DATED + CHATML
    tools = "{% if tools %}{{ tools | tojson }}{% endif %}"
    config["chat_template"] = [
        {"name": "default", "template": template},
        {"name": "tool_use", "template": tools + template},
    ]
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    return ModelEntry(chat_template=None, path=str(folder))


def test_data_and_prompts_are_the_same_on_two_days(named_model, monkeypatch):
    tool = {"type": "function", "function": {"name": "measure", "parameters": {}}}
    chats = [talk(("user", "x"), ("assistant", "y"), tools=tools) for tools in (None, [tool])]
    texts, raw = [], []
    for day in (1, 2):
        on_day(monkeypatch, day)
        tokenizer = load_tokenizer(named_model)
        raw.append(make_tokenizer(DATED + CHATML).apply_chat_template(chats[0].messages, tokenize=False))
        template = inspect_template(tokenizer, model="m")
        found = [rendered.chats[0].text for rendered in render_conversations(template, chats)]
        asked = tokenizer.apply_chat_template([{"role": "user", "content": "x"}], tokenize=False)
        texts.append([*found, asked, tokenizer.decode(prompt_ids(tokenizer, "x"))])
    assert raw == [f"Today is 2031-05-0{day}. <im>user\nx</im>\n<im>assistant\ny</im>\n" for day in (1, 2)]
    assert texts[0] == texts[1] and all("Today is 2024-07-26. " in text for text in texts[0])
    assert "measure" in texts[0][1] and "measure" not in texts[0][0]


def test_the_fixed_date_has_the_template_s_format(monkeypatch):
    on_day(monkeypatch, 1)
    day = datetime.datetime(2024, 7, 26)
    for form in FORMATS:
        text = with_fixed_date("{{ strftime_now('" + form + "') }}")
        rendered = make_tokenizer(text).apply_chat_template([{"role": "user", "content": "x"}], tokenize=False)
        assert rendered == day.strftime(form)
    assert day.strftime("%d %b %Y") == FIXED_DATE and with_fixed_date(with_fixed_date(DATED)) == with_fixed_date(DATED)
