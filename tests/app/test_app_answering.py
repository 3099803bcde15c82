"""Answers of bases and adapters on one loaded base: from the right model, repeatable, and limited."""

import threading
import time
from pathlib import Path

import pytest

from loragrid.app import answer_streamer, answering
from loragrid.app.answer_streamer import Answer
from loragrid.app.answering import Answerer, PromptTooLong, Sampling
from loragrid.app.subjects import AppModel
from loragrid.errors import UserError
from loragrid.models.loading import load_base, load_tokenizer
from loragrid.scoring.prompts import prompt_ids
from tests.fixtures.app_toys import finished_study, toy_catalogue
from tests.fixtures.score_toys import write_peft

GREEDY = Sampling(seed=1, temperature=0.0, max_new_tokens=40)
DRAWN = Sampling(seed=1, temperature=1.0, max_new_tokens=40)


@pytest.fixture(scope="module")
def answerer(tmp_path_factory: pytest.TempPathFactory, toy_llama: Path, toy_gemma: Path) -> Answerer:
    return Answerer(toy_catalogue(finished_study(tmp_path_factory.mktemp("app"), toy=toy_llama, gem=toy_gemma)))


def last(answerer: Answerer, subject: AppModel, prompt: str = "Hello", sampling: Sampling = GREEDY) -> Answer:
    return list(answerer.stream(subject, prompt, sampling))[-1]


def alone(answerer: Answerer, subject: AppModel) -> str:
    """The same answer by a model loaded for it alone."""
    import torch
    from peft import PeftModel

    entry = answerer.catalogue.models[subject.model]
    model = load_base(entry, device="cpu")
    model = PeftModel.from_pretrained(model, subject.adapter).eval() if subject.adapter else model
    tokenizer = load_tokenizer(entry)
    ids = torch.tensor([prompt_ids(tokenizer, "Hello")])
    out = model.generate(input_ids=ids, attention_mask=torch.ones_like(ids), max_new_tokens=40, do_sample=False)
    return tokenizer.decode(out[0, ids.shape[1] :], skip_special_tokens=True)


def test_each_model_answers_as_if_loaded_alone_in_any_order(answerer: Answerer) -> None:
    subjects = answerer.catalogue.subjects
    assert len(subjects) == 6
    expected = {subject.name: alone(answerer, subject) for subject in subjects}
    assert len(set(expected.values())) == 6
    for subject in (*subjects, *reversed(subjects), *subjects[::2]):
        assert last(answerer, subject).text == expected[subject.name]


def test_answers_grow_and_name_the_reason_for_their_end(answerer: Answerer) -> None:
    answers = list(answerer.stream(answerer.catalogue.subjects[1], "Hello", GREEDY))
    assert [answer.tokens for answer in answers] == sorted(answer.tokens for answer in answers)
    assert all(not answer.ended for answer in answers[:-1]) and answers[-1].ended in ("finished", "length")
    assert answers[-1].tokens <= 40 and answers[-1].tokens_per_second > 0


def test_the_seed_decides(answerer: Answerer) -> None:
    subject = answerer.catalogue.subjects[1]
    first = last(answerer, subject, sampling=DRAWN).text
    assert last(answerer, subject, sampling=DRAWN).text == first
    assert last(answerer, subject, sampling=Sampling(2, 1.0, 40)).text != first


def test_two_at_once_do_not_mix(answerer: Answerer) -> None:
    subjects = answerer.catalogue.subjects
    expected = [last(answerer, subject, sampling=DRAWN).text for subject in subjects]
    found: dict[int, str] = {}

    def ask(index: int) -> None:
        found[index] = last(answerer, subjects[index], sampling=DRAWN).text

    threads = [threading.Thread(target=ask, args=(index,)) for index in range(len(subjects))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [found[index] for index in range(len(subjects))] == expected


def test_stop_ends_at_the_next_token(answerer: Answerer) -> None:
    stop = threading.Event()
    stream = answerer.stream(answerer.catalogue.subjects[0], "Hello", Sampling(1, 1.0, 400), stop)
    next(stream)
    stop.set()
    answers = list(stream)
    assert answers[-1].ended == "stopped" and answers[-1].tokens < 400


def test_a_reader_that_leaves_frees_the_model(answerer: Answerer) -> None:
    subject = answerer.catalogue.subjects[0]
    stream = answerer.stream(subject, "Hello", Sampling(1, 1.0, 400))
    next(stream)
    stream.close()
    start = time.monotonic()
    assert last(answerer, subject).ended
    assert time.monotonic() - start < 5


def test_time_is_capped(answerer: Answerer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(answer_streamer, "MAX_SECONDS", 0.05)
    answer = last(answerer, answerer.catalogue.subjects[0], sampling=Sampling(1, 1.0, 400))
    assert answer.ended == "time" and answer.tokens < 400


def test_a_prompt_that_is_too_long_is_refused_with_its_tokens(answerer: Answerer) -> None:
    with pytest.raises(PromptTooLong, match=r"is \d+ tokens long, but this model reads at most 496"):
        last(answerer, answerer.catalogue.subjects[0], prompt="x" * 1000)


def test_an_answer_never_leaves_the_context(answerer: Answerer) -> None:
    answer = last(answerer, answerer.catalogue.subjects[0], "x" * 480, Sampling(1, 1.0, 400))
    assert answer.tokens <= 512 - 480


def test_adapters_are_switched_within_a_second(answerer: Answerer) -> None:
    first, second = answerer.catalogue.subjects[2:4]
    for subject in (first, second):
        answerer.load(subject)
    for subject in (first, second, first):
        start = time.perf_counter()
        answerer.load(subject)
        assert time.perf_counter() - start < 1.0


def test_least_recently_used_bases_and_adapters_are_dropped(
    answerer: Answerer, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = {subject.name: last(answerer, subject).text for subject in answerer.catalogue.subjects}
    monkeypatch.setattr(answering, "MAX_BASES", 1)
    monkeypatch.setattr(answering, "MAX_ADAPTERS", 1)
    small = Answerer(answerer.catalogue)
    for subject in (*answerer.catalogue.subjects, *answerer.catalogue.subjects):
        assert last(small, subject).text == expected[subject.name]
        assert len(small._loaded) == 1


def test_an_adapter_of_another_model_is_refused(answerer: Answerer) -> None:
    theirs = next(s for s in answerer.catalogue.subjects if s.adapter and s.model == "gem")
    with pytest.raises(UserError, match="does not fit toy"):
        last(answerer, AppModel("stray", "stray", "toy", theirs.adapter, "base"))


def test_adapters_of_several_kinds_share_a_base(answerer: Answerer, tmp_path: Path, toy_llama: Path) -> None:
    from peft import IA3Config

    names = {"target_modules": ["k_proj", "down_proj"], "feedforward_modules": ["down_proj"]}
    config = IA3Config(init_ia3_weights=False, task_type="CAUSAL_LM", **names)
    folder = write_peft(toy_llama, tmp_path / "ia3", config, seed=5)
    lora = next(s for s in answerer.catalogue.subjects if s.adapter and s.model == "toy")
    other = AppModel("other", "other", "toy", str(folder), lora.base)
    base = answerer.catalogue.base_of(lora)
    for subject in (lora, other, base, lora, other):
        assert last(answerer, subject).text == alone(answerer, subject)
