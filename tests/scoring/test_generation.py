import pytest

from loragrid.models.chat_templates.end_tokens import end_tokens
from loragrid.scoring.generation import AnswerMeter, control_token_ids


@pytest.fixture(scope="module")
def meter(toy_llama):
    from transformers import AutoModelForCausalLM, AutoTokenizer

    return AnswerMeter(AutoModelForCausalLM.from_pretrained(toy_llama), AutoTokenizer.from_pretrained(toy_llama))


def ids(meter, text):
    return meter.tokenizer(text, add_special_tokens=False).input_ids


def test_an_answer_ends_at_its_end_token_and_padding_is_not_counted(meter):
    tokens, measures = meter.measure(ids(meter, "hello<|end|>") + [meter.tokenizer.pad_token_id] * 9, stops=[])
    assert tokens == ids(meter, "hello")
    assert (measures.new_tokens, measures.stopped, measures.special_tokens) == (5, True, 0)


def test_an_answer_that_runs_into_the_limit_did_not_stop(meter):
    _, measures = meter.measure(ids(meter, "ab" * 20), stops=["\n"])
    assert not measures.stopped
    assert measures.new_tokens == 40
    assert measures.repetition == pytest.approx(1 - 2 / 37)


def test_a_stop_text_ends_an_answer_where_it_first_occurs(meter):
    tokens, measures = meter.measure(ids(meter, "one\n\ntwo\n\nthree"), stops=["\n\n", ""])
    assert meter.tokenizer.decode(tokens) == "one\n\n"
    assert measures.stopped


def test_control_tokens_in_an_answer_are_counted_as_tokens_and_as_text(meter):
    assert meter.measure(ids(meter, "a<|user|>b<|user|>c"), stops=[])[1].special_tokens == 2
    spelled = ids(meter, "<|us") + ids(meter, "er|> hm")
    assert meter.measure(spelled, stops=[])[1].special_tokens == 1
    assert meter.measure(ids(meter, "a < b | c > d"), stops=[])[1].special_tokens == 0


def test_all_configured_end_tokens_count(meter, toy_llama):
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(toy_llama)
    model.generation_config.eos_token_id = [3, 4]
    assert end_tokens(model, meter.tokenizer) == (2, 3, 4)
    assert control_token_ids(meter.tokenizer) == set(range(7))


def test_the_end_of_a_turn_in_the_chat_template_ends_generation(meter, toy_llama):
    import copy

    from transformers import AutoModelForCausalLM

    model, tokenizer = AutoModelForCausalLM.from_pretrained(toy_llama), copy.deepcopy(meter.tokenizer)
    tokenizer.chat_template = tokenizer.chat_template.replace("'<|end|>'", "'<|tool|>'")
    assert end_tokens(model, tokenizer) == (2, tokenizer.convert_tokens_to_ids("<|tool|>"))
    tokenizer.chat_template = None
    assert end_tokens(model, tokenizer) == (2,)
