"""What a chat template supports, the roles that it is given, and the templates that are refused."""

import pytest

from loragrid.data.rendering.tokenizing import render_conversations
from loragrid.errors import UserError
from loragrid.models.chat_template import adapt_roles, inspect_template, with_fixed_date
from tests.fixtures.chat_templates import CHATML, GEMMA_LIKE, LLAMA_LIKE, REWRITES, make_tokenizer, talk


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
    assert (
        llama.supports_system
        and llama.supports_tool_role
        and llama.supports_repeated_roles
        and not llama.supports_tools
    )
    assert adapt_roles(llama, messages) == messages
    gemma = inspect_template(make_tokenizer(GEMMA_LIKE), model="m")
    assert not (gemma.supports_system or gemma.supports_tool_role or gemma.supports_repeated_roles)
    assert [(m["role"], m["content"]) for m in adapt_roles(gemma, messages)] == [
        ("user", "Be brief.\n\nHi"),
        ("assistant", "call"),
        ("user", "42"),
        ("assistant", "a\n\nb"),
    ]


def test_a_template_that_rewrites_earlier_turns_is_refused_by_name():
    with pytest.raises(UserError, match=r"model tiny: .* rewrites earlier turns .* set a chat_template"):
        inspect_template(make_tokenizer(REWRITES), model="tiny")
    with pytest.raises(UserError, match=r"model tiny: .* no chat template\. Fix: set chat_template"):
        inspect_template(make_tokenizer(None), model="tiny")
    with pytest.raises(UserError, match=r"model tiny: .* does not render a plain conversation"):
        inspect_template(make_tokenizer("{{ no such }}"), model="tiny")


def test_a_template_prints_a_fixed_date():
    dated = "{{ strftime_now('%d %b %Y') + '\n' }}" + CHATML
    template = inspect_template(make_tokenizer(dated), model="m")
    assert render_conversations(template, [talk(("user", "x"), ("assistant", "y"))])[0].text.startswith("26 Jul 2024\n")
    assert with_fixed_date(with_fixed_date(dated)) == with_fixed_date(dated) == template.text
    assert with_fixed_date(CHATML) == CHATML
