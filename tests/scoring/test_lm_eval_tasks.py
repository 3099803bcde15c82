"""Tasks found by name and run in process, checked against lm-eval's own `simple_evaluate` on the same model."""

import json
import math
from dataclasses import replace
from types import SimpleNamespace

import pytest

from loragrid.errors import UserError
from loragrid.models.chat_template import inspect_template
from loragrid.scoring.lm_eval_run import _cluster, run_task
from loragrid.scoring.lm_eval_tasks import find_tasks
from loragrid.study.sections import ModelEntry

QUESTIONS = [
    {
        "q": f"What is {i} plus {i + 1}?",
        "a": str(2 * i + 1),
        "choices": [str(2 * i + 1), str(3 * i)],
        "passage": str(i // 6),
    }
    for i in range(3, 40)
]
HEAD = "dataset_path: json\ndataset_kwargs: {data_files: {test: questions.jsonl}}\ntest_split: test\n"
CHOICE = HEAD + (
    'task: toy_choice\noutput_type: multiple_choice\ndoc_to_text: "{{q}}"\ndoc_to_choice: "{{choices}}"\n'
    "doc_to_target: 0\nmetric_list:\n  - {metric: acc, aggregation: mean, higher_is_better: true}\n"
)
ANSWER = HEAD + (
    'task: toy_answer\noutput_type: generate_until\ndoc_to_text: "{{q}}"\ndoc_to_target: "{{a}}"\n'
    'generation_kwargs: {until: ["\\n"], max_gen_toks: 24, do_sample: false}\nprocess_results: !function score.score\n'
    "metric_list:\n  - {metric: digits, aggregation: mean, higher_is_better: true}\n"
    "  - {metric: letters, aggregation: mean, higher_is_better: true}\nmetadata: {version: 1, primary_metric: letters}\n"
)
ROLLING = HEAD + (
    'task: toy_rolling\noutput_type: loglikelihood_rolling\ndoc_to_text: ""\ndoc_to_target: "{{q}}"\nmetric_list:\n'
    "  - {metric: bits_per_byte, aggregation: bits_per_byte, higher_is_better: false}\n"
)
SENTENCES = HEAD + (
    'task: toy_sentences\noutput_type: multiple_choice\ndoc_to_text: ""\ndoc_to_choice: "{{[q, a]}}"\ndoc_to_target: 0\n'
    "metric_list:\n  - {metric: acc, aggregation: mean, higher_is_better: true}\n"
)
SCORE = (
    "def score(doc, results):\n    text = results[0]\n"
    "    return {'digits': float(any(c.isdigit() for c in text)), 'letters': sum(c.isalpha() for c in text)}\n"
)
ALL = ["toy_choice", "toy_answer", "toy_rolling", "toy_sentences"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tasks")
    (folder / "questions.jsonl").write_text("".join(json.dumps(row) + "\n" for row in QUESTIONS))
    (folder / "score.py").write_text(SCORE)
    for name, text in zip(ALL, (CHOICE, ANSWER, ROLLING, SENTENCES), strict=True):
        (folder / f"{name}.yaml").write_text(text)
    return folder


@pytest.fixture(scope="module")
def network(toy_llama):
    from transformers import AutoModelForCausalLM, AutoTokenizer

    return AutoModelForCausalLM.from_pretrained(toy_llama).eval(), AutoTokenizer.from_pretrained(toy_llama)


def find(names, folder, limit=None):
    """Tasks of a folder, by their names."""
    found = find_tasks([str(folder / f"{name}.yaml") for name in names], limit=limit)
    return {task.name: task for task in found.values()}


def watched(network, batch_size=8):
    from loragrid.scoring.lm_eval_model import WatchedLM

    return WatchedLM(network[0], inspect_template(network[1], model="toy"), batch_size=batch_size)


@pytest.fixture(scope="module")
def results(folder, network):
    lm = watched(network)
    return {name: run_task(lm, task, limit=30) for name, task in find(ALL, folder, limit=30).items()}


def values(result, metric):
    return {row["item"]: row["value"] for row in result.items if row["metric"] == metric}


def test_scores_are_those_of_lm_eval_itself(folder, network, results):
    from lm_eval import simple_evaluate
    from lm_eval.models.huggingface import HFLM
    from lm_eval.tasks import TaskManager

    lm = HFLM(pretrained=network[0], tokenizer=network[1], batch_size=8)
    shared = {
        "task_manager": TaskManager(include_defaults=False),
        "bootstrap_iters": 1000,
    }  # its index takes ten seconds
    for names, template in ((["toy_choice", "toy_answer"], True), (["toy_rolling", "toy_sentences"], False)):
        tasks = [task for found in find(names, folder, limit=30).values() for task in found.loaded["tasks"].values()]
        theirs = simple_evaluate(model=lm, tasks=tasks, limit=30, apply_chat_template=template, **shared)
        for name in names:
            for key, value in theirs["results"][name].items():
                metric, _, kind = key.partition(",")
                if kind and not metric.endswith("_stderr"):
                    assert results[name].metrics[metric]["value"] == value
            texts = [sample["resps"][0][0] for sample in theirs["samples"][name]]
            if name == "toy_answer":
                assert [row["output"] for row in results[name].items if row["metric"] == "digits"] == texts


def test_another_architecture_answers_every_kind_of_task(folder, toy_gemma):
    from transformers import AutoModelForCausalLM, AutoTokenizer

    lm = watched((AutoModelForCausalLM.from_pretrained(toy_gemma).eval(), AutoTokenizer.from_pretrained(toy_gemma)))
    for task in find(ALL, folder, limit=5).values():
        result = run_task(lm, task, limit=5)
        assert len(values(result, result.primary_metric)) == 5


def test_every_item_has_a_value_whose_mean_is_the_score(results):
    for name, metric in (("toy_choice", "acc"), ("toy_answer", "letters"), ("toy_sentences", "acc")):
        items = values(results[name], metric)
        assert list(items) == [str(i) for i in range(30)]
        assert results[name].metrics[metric]["value"] == pytest.approx(math.fsum(items.values()) / 30)
    bits = values(results["toy_rolling"], "bits_per_byte")
    assert len(bits) == 30 and all(6 < value < 10 for value in bits.values())  # near uniform over 263 byte tokens


def test_items_on_one_passage_share_a_cluster(results):
    clusters = {row["item"]: row["cluster"] for row in results["toy_choice"].items}
    assert len(set(clusters.values())) == 6  # rows 3 to 32, six to a passage
    assert clusters["0"] == clusters["2"] != clusters["3"]


def test_a_task_file_may_name_its_cluster_field_or_none():
    def cluster(metadata, doc):
        return _cluster(SimpleNamespace(get_config=lambda _: metadata), doc)

    doc = {"passage": "p", "lesson": 7}
    assert (
        cluster({"cluster_field": "lesson"}, doc) == cluster({"cluster_field": "lesson"}, doc | {"passage": "q"}) != ""
    )
    assert cluster({"cluster_field": None}, doc) == "" == cluster(None, {"lesson": 7})
    with pytest.raises(ValueError, match="cluster_field 'page' is none of the document's fields: passage, lesson"):
        cluster({"cluster_field": "page"}, doc)


def test_primary_metric_is_the_named_one_or_the_first(results):
    assert {name: result.primary_metric for name, result in results.items()} == {
        "toy_choice": "acc", "toy_answer": "letters", "toy_rolling": "bits_per_byte", "toy_sentences": "acc",
    }  # fmt: skip


def test_evidence_of_how_answers_ended_is_kept_and_is_no_score(results):
    answer = results["toy_answer"]
    for name in ("new_tokens", "stopped", "repetition", "special_tokens", "distinct_2"):
        assert answer.metrics[name]["higher_is_better"] is None
    assert values(answer, "new_tokens").keys() == values(answer, "letters").keys()
    for item, stopped in values(answer, "stopped").items():
        assert stopped or values(answer, "new_tokens")[item] == 24
    assert "new_tokens" not in results["toy_choice"].metrics


def test_only_a_task_that_asks_something_is_asked_in_the_chat_template(folder, network, results):
    rendered = []
    lm = watched(network)
    original = lm.tok_encode
    lm.tok_encode = lambda text, *a, **k: rendered.append(text) or original(text, *a, **k)
    tasks = find(["toy_choice", "toy_sentences"], folder, limit=2)
    run_task(lm, tasks["toy_choice"], limit=2)
    assert all(text.startswith("<s><|user|>What is ") and "<|end|><|assistant|>" in text for text in rendered)
    rendered.clear()
    run_task(lm, tasks["toy_sentences"], limit=2)
    assert rendered and not any("<|" in text for text in rendered)
    assert results["toy_choice"].notes == ()
    assert "without the chat template" in results["toy_sentences"].notes[0]


def test_no_second_beginning_of_sequence(folder, toy_llama, network):
    """A tokenizer that writes <s> by itself (as Llama's does) must not add one to a template that has it."""
    from tokenizers.processors import TemplateProcessing
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(toy_llama)
    tokenizer._tokenizer.post_processor = TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
    assert tokenizer("hi").input_ids[0] == 1
    seen = []
    for template in (tokenizer.chat_template, tokenizer.chat_template.replace("{{ bos_token }}", "")):
        tokenizer.chat_template = template
        lm = watched((network[0], tokenizer))
        generate, score = lm._model_generate, lm._loglikelihood_tokens
        lm._model_generate = lambda context, *a, _f=generate, **k: seen.append(context.tolist()) or _f(context, *a, **k)
        lm._loglikelihood_tokens = lambda r, *a, _f=score, **k: seen.append([x[1] for x in r]) or _f(r, *a, **k)
        for task in find(["toy_choice", "toy_answer"], folder, limit=3).values():
            run_task(lm, task, limit=3)
    counts = [[row.count(1) for row in rows] for rows in seen]
    assert counts == [[1] * 6, [1] * 3, [0] * 6, [0] * 3]  # exactly what the template writes, as in training


def test_a_task_description_reaches_a_model_whose_template_knows_no_system_turn(folder, network, toy_llama, tmp_path):
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(toy_llama)
    refusal = "{% if messages[0]['role'] == 'system' %}{{ raise_exception('no system') }}{% endif %}"
    tokenizer.chat_template = refusal + tokenizer.chat_template
    (tmp_path / "questions.jsonl").write_text(json.dumps(QUESTIONS[0]) + "\n")
    (tmp_path / "described.yaml").write_text(CHOICE.replace("toy_choice", "described") + "description: Count well.\n")
    lm, seen = watched((network[0], tokenizer)), []
    original = lm.tok_encode
    lm.tok_encode = lambda text, *a, **k: seen.append(text) or original(text, *a, **k)
    run_task(lm, find(["described"], tmp_path)["described"], limit=None)
    assert all("<|user|>Count well." in text and "What is 3 plus 4?" in text for text in seen)


def test_prompts_longer_than_the_context_are_cut_and_counted(folder, network, tmp_path):
    long = [*QUESTIONS[:3], QUESTIONS[0] | {"q": "x" * 700}]
    (tmp_path / "questions.jsonl").write_text("".join(json.dumps(row) + "\n" for row in long))
    (tmp_path / "score.py").write_text(SCORE)
    for name, text in (("toy_choice", CHOICE), ("toy_answer", ANSWER)):
        (tmp_path / f"{name}.yaml").write_text(text)
    for task in find(["toy_choice", "toy_answer"], tmp_path, limit=None).values():
        result = run_task(watched(network), task, limit=None)
        assert "1 of 4 prompts were longer than the model's context and cut on the left" in result.notes
        assert values(result, "cut_prompt") == {"0": 0.0, "1": 0.0, "2": 0.0, "3": 1.0}


def test_a_task_file_anywhere_with_its_data_beside_it(folder, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    path = str(folder / "toy_choice.yaml")
    found = find_tasks([path], limit=5)
    assert found[path].name == "toy_choice"


def test_digest_follows_items_settings_and_code_but_not_place(folder, tmp_path):
    import shutil

    def digest(folder, limit=5):
        return find(["toy_answer"], folder, limit=limit)["toy_answer"].digest

    copy = tmp_path / "copy"
    shutil.copytree(folder, copy)
    before = digest(folder)
    assert digest(copy) == before
    assert digest(copy, limit=6) != before
    (copy / "score.py").write_text(SCORE.replace("isdigit", "isspace"))
    assert digest(copy) != before
    shutil.copy(folder / "score.py", copy)
    (copy / "questions.jsonl").write_text("".join(json.dumps(row) + "\n" for row in QUESTIONS[1:]))
    assert digest(copy) != before


def test_results_of_lm_eval_hold_no_path_or_date(folder, results):
    for result in results.values():
        text = json.dumps(result.lm_eval)
        assert str(folder) not in text and "date" not in result.lm_eval
        assert result.lm_eval["results"] and "samples" not in result.lm_eval


def test_a_name_is_looked_up_in_the_projects_tasks_first(folder, monkeypatch):
    monkeypatch.setattr("loragrid.study.tasks.TASKS", folder)
    assert list(find_tasks(["toy_choice"], limit=5)) == ["toy_choice"]


def test_an_unknown_name_is_named_with_close_matches(folder, monkeypatch):
    monkeypatch.setattr("loragrid.study.tasks.TASKS", folder)
    with pytest.raises(UserError, match=r"task 'toy_chioce' is neither .*: did you mean toy_choice"):
        find_tasks(["toy_chioce"], limit=None)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (": [", "cannot be read"),
        ("- a\n", "cannot be read"),
        ("output_type: multiple_choice\n", "has no key 'task'"),
        (CHOICE.replace("questions.jsonl", "absent.jsonl"), "cannot be built .*absent.jsonl"),
        (CHOICE.replace("multiple_choice", "guesswork"), "cannot be built .*guesswork"),
        (CHOICE.replace("test_split: test", "test_split: exam"), "cannot be built .*exam"),
        (ANSWER, "cannot be read .*score"),
        (CHOICE.replace("metric: acc", "metric: ac_norm"), "metric 'ac_norm' is unknown: did you mean acc_norm"),
    ],
)
def test_a_bad_task_file_is_named(tmp_path, text, message):
    (tmp_path / "questions.jsonl").write_text(json.dumps(QUESTIONS[0]) + "\n")
    (tmp_path / "mine.yaml").write_text(text)
    with pytest.raises(UserError, match=f"mine.yaml.*{message}"):
        find_tasks([str(tmp_path / "mine.yaml")], limit=None)


def test_two_tasks_of_one_name_are_refused(tmp_path):
    (tmp_path / "questions.jsonl").write_text(json.dumps(QUESTIONS[0]) + "\n")
    for name in ("one", "two"):
        (tmp_path / f"{name}.yaml").write_text(CHOICE)
    with pytest.raises(UserError, match="two task files call themselves 'toy_choice'"):
        find_tasks([str(tmp_path / "one.yaml"), str(tmp_path / "two.yaml")], limit=None)


def test_a_shipped_task_whose_data_cannot_be_had_is_kept_with_its_reason(folder):
    task = find_tasks([str(folder / "toy_choice.yaml"), "blimp_causative"], limit=3)["blimp_causative"]
    assert task.loaded is None
    assert "cannot be built" in task.reason


def test_real_sentences_on_a_real_model(real, tmp_path):
    """BLiMP on stories260k: sentences without a question. It must know several of the six phenomena beyond chance."""
    from loragrid.models.loading import load_base, load_tokenizer

    entry = ModelEntry(path=str(real / "stories260k"), precision="32bit", chat_template=None)
    template = tmp_path / "plain.jinja"
    template.write_text("{% for m in messages %}{{ m.content }}{% endfor %}")
    paths = []
    for data in sorted((real / "tasks").glob("blimp_*.jsonl")):
        paths.append(tmp_path / f"{data.stem}.yaml")
        text = SENTENCES.replace("toy_sentences", data.stem).replace("questions.jsonl", str(data))
        paths[-1].write_text(text.replace("[q, a]", "[sentence_good, sentence_bad]") + 'target_delimiter: ""\n')
    tasks = find_tasks([str(path) for path in paths], limit=None)
    lm = watched((load_base(entry, device="cpu"), load_tokenizer(replace(entry, chat_template=str(template)))), 50)
    scores = {task.name: run_task(lm, task, limit=None).metrics["acc"] for task in tasks.values()}
    assert len(scores) == 6
    beyond_chance = [name for name, score in scores.items() if score["value"] - 3 * score["stderr"] > 0.5]
    assert len(beyond_chance) >= 3, scores
