"""What a chat template supports, the roles that it is given, and the templates that are refused."""

import pytest

from loragrid.errors import UserError
from loragrid.models.chat_templates.adapting import adapt_roles
from loragrid.models.chat_templates.dates import with_fixed_date
from loragrid.models.chat_templates.probes import inspect_template
from loragrid.models.chat_templates.template import render
from tests.fixtures.chat_templates import CHATML, GEMMA_LIKE, LLAMA_LIKE, make_tokenizer, talk


def test_roles_that_a_template_lacks():
    messages = talk(
        ("system", "Be brief."),
        ("user", "Hi"),
        ("assistant", "call"),
        ("tool", "42"),
        ("assistant", "a"),
        ("assistant", "b"),
    ).messages
    llama = inspect_template(make_tokenizer(LLAMA_LIKE), model="m")
    can = llama.abilities
    assert can.system and can.tool_role and can.repeated_roles and not can.tools and can.call_form is None
    assert adapt_roles(llama, messages) == messages
    gemma = inspect_template(make_tokenizer(GEMMA_LIKE), model="m")
    can = gemma.abilities
    assert not (can.system or can.tool_role or can.repeated_roles)
    assert [(m["role"], m["content"]) for m in adapt_roles(gemma, messages)] == [
        ("user", "Be brief.\n\nHi"),
        ("assistant", "call"),
        ("user", "42"),
        ("assistant", "a\n\nb"),
    ]


REWRITES_PROMPT = CHATML.replace("m['content'] +", "m['content'] + (' !' if loop.last else '') +")
OTHER_OPENING = CHATML.replace("'<im>assistant\n' }}{% endif", "'<im>bot: ' }}{% endif")


def test_each_cause_of_a_refusal_has_its_message():
    with pytest.raises(UserError, match=r"model tiny: .* no chat template\. Fix: set chat_template"):
        inspect_template(make_tokenizer(None), model="tiny")
    with pytest.raises(UserError, match=r"model tiny: .* does not render a plain conversation \(.*\)\. Fix"):
        inspect_template(make_tokenizer("{{ no such }}"), model="tiny")
    no_reply = "{% for m in messages %}{% if m['role'] == 'user' %}{{ m['content'] }}{% endif %}{% endfor %}"
    with pytest.raises(UserError, match=r"plain conversation \(a reply is missing in 'probe user textprobe"):
        inspect_template(make_tokenizer(no_reply), model="tiny")
    with pytest.raises(UserError, match=r"model tiny: .* rewrites earlier turns when a reply is added"):
        inspect_template(make_tokenizer(REWRITES_PROMPT), model="tiny")
    with pytest.raises(UserError, match=r"opens a reply with .*<im>bot: .* renders a finished one otherwise"):
        inspect_template(make_tokenizer(OTHER_OPENING), model="tiny")


def test_a_template_prints_a_fixed_date():
    dated = "{{ strftime_now('%d %b %Y') + '\n' }}" + CHATML
    template = inspect_template(make_tokenizer(dated), model="m")
    chat = talk(("user", "x"), ("assistant", "y")).messages
    assert render(template, [chat], add_prompt=False)[0].startswith("26 Jul 2024\n")
    assert with_fixed_date(with_fixed_date(dated)) == with_fixed_date(dated) == template.text
    assert with_fixed_date(CHATML) == CHATML
