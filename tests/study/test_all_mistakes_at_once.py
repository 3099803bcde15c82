"""One call names every mistake of a study file, numbers are read as they are meant, and likely slips are warnings."""

from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from loragrid.errors import MOST_SHOWN, UserError, UserErrors, error_lines
from loragrid.paths import ROOT
from loragrid.study.study_file import Study, load_study
from loragrid.study.tasks import scoring_digest

Load = Callable[[str], Study]
SHORT = """
title: A
data: {rows: {source: {path: rows.jsonl}}}
models: {llama-s: {path: resources/models/llama-s}}
"""


@pytest.fixture
def load(tmp_path: Path) -> Load:
    (tmp_path / "rows.jsonl").write_text('{"question": "a", "answer": "b"}\n' * 30)

    def load(text: str) -> Study:
        file = tmp_path / "mine.yaml"
        file.write_text(text)
        return load_study(str(file))

    return load


def test_all_unknown_missing_and_wrong_keys_are_named_in_one_call(load: Load) -> None:
    with pytest.raises(UserErrors) as caught:
        load(
            "data: {rows: {source: {path: nowhere.jsonl}, colums: {prompt: a}}}\n"
            "modles: {a: {path: resources/models/llama-s}}\n"
            "base_case: {lr: 2e-4, rank: 0, schedule: cosin, batch: [2, 016]}\n"
            "grid: {axes: {rank: [8, x, 16.0]}}\n"
        )
    assert str(caught.value).splitlines() == [
        'mine.yaml: data.rows.colums: unknown key ({"prompt": "a"}). Fix: write columns.',
        'mine.yaml: modles: unknown key ({"a": {"path": "resources/models/llama-s"}}). Fix: write models.',
        "mine.yaml: base_case.lr: unknown key (0.0002). Fix: write learning_rate.",
        *[line for line in str(caught.value).splitlines() if "base_case.rank" in line],
        "mine.yaml: base_case.schedule: not an allowed value ('cosin'). Fix: write cosine, or use one of linear, cosine, "
        "constant, constant_with_warmup.",
        "mine.yaml: base_case.batch[1]: a number that begins with 0 (016). Fix: write 16.",
        *[line for line in str(caught.value).splitlines() if "grid.axes.rank[1]" in line],
        "mine.yaml: grid.axes.rank[2]: has a decimal point (16.0). Fix: write the whole number 16.",
        "mine.yaml: title: missing. Fix: add it as described in config/README.md.",
    ]
    assert len(str(caught.value).splitlines()) == 9


def test_wrong_names_and_paths_are_named_beside_an_unknown_key(load: Load) -> None:
    with pytest.raises(UserErrors) as caught:
        load(
            "titel: A\nunknwon: 1\n"
            "data: {rows: {source: {path: nowhere.jsonl}}}\n"
            "models: {a: {path: nowhere}, b: {path: resources}}\n"
            "base_case: {model: c, data: row}\n"
        )
    text = str(caught.value)
    places = (
        "titel",
        "unknwon",
        "base_case.model",
        "base_case.data",
        "data.rows.source.path",
        "models.a.path",
        "models.b.path",
    )
    assert [line.split(": ")[1] for line in text.splitlines()] == list(places)
    assert "not a key of data ('row'). Fix: use one of rows." in text


def test_contradictions_are_named_together(load: Load) -> None:
    with pytest.raises(UserErrors) as caught:
        load(
            SHORT + "base_case: {alpha: 0 * rank}\n"
            "grid: {axes: {seed: [1, 2]}, cells: {a: {seed: 3, dropout: 0.1}}}\n"
            "scoring: {target: [ifeval], retention: [ifeval], limit: {gsm8k: 3, others: 5}}\n"
        )
    assert [line.split(": ")[1] for line in str(caught.value).splitlines()] == [
        "scoring",
        "scoring.limit",
        "grid.cells.a.seed",
        "base_case",
    ]


def test_a_file_of_another_kind_does_not_fill_the_screen(load: Load) -> None:
    with pytest.raises(UserError) as caught:
        load(yaml.safe_dump({f"key{number}": number for number in range(200)}))
    lines = error_lines(caught.value)
    assert len(lines) == MOST_SHOWN + 1 and lines[-1] == "error: 173 more mistakes. Fix: correct these first."
    assert all(line.startswith("error: mine.yaml: ") for line in lines[:-1])


@pytest.mark.parametrize(
    ("text", "budget"),
    [("tokens: 1e6", 1_000_000), ("tokens: 2.5E+5", 250_000), ("steps: 1e3", 1_000), ("epochs: 1e0", 1.0)],
)
def test_a_whole_number_may_have_an_exponent(load: Load, text: str, budget: float) -> None:
    settings = load(f"{SHORT}base_case: {{budget: {{{text}}}}}\n").yaml["base_case"]
    (value,) = settings["budget"].values()
    assert value == budget and type(value) is type(budget)


def test_a_rate_with_an_exponent_is_a_number_and_a_seed_that_begins_with_0_is_refused(load: Load) -> None:
    study = load(f"{SHORT}base_case: {{learning_rate: 2e-4, weight_decay: 1e3}}\ngrid: {{axes: {{seed: [0, 1]}}}}\n")
    assert (study.base_case.learning_rate, study.base_case.weight_decay) == (2e-4, 1000.0)
    assert study.grid.axes["seed"] == (0, 1)
    for written in ("016", "'016'", "089"):
        wanted = r"base_case\.rank: a number that begins with 0 \(0\d\d\)\. Fix: write (16|89)\."
        with pytest.raises(UserError, match=wanted):
            load(f"{SHORT}base_case: {{rank: {written}}}\n")
    with pytest.raises(UserError, match=r"session_minutes: not a number or null \('1:30'\)"):
        load(f"{SHORT}training: {{session_minutes: 1:30}}\n")
    # A number of Python that is none of YAML is not only a matter of quotes.
    for written, number in (("+.5", "0.5"), ("８", "8"), ("'1_000_001'", "1000001")):
        with pytest.raises(UserError, match=rf"weight_decay: text instead of a number .*Fix: write {number} without"):
            load(f"{SHORT}base_case: {{weight_decay: {written}}}\n")
    with pytest.raises(UserError, match=r"weight_decay: not a number \('nan'\)"):
        load(f"{SHORT}base_case: {{weight_decay: nan}}\n")
    # A name may look like one.
    assert "016" in load(SHORT.replace("llama-s:", "016:")).models


@pytest.mark.parametrize(
    ("section", "warning"),
    [
        (
            "grid: {axes: {rank: [16]}}",
            "grid.axes.rank: its only value is that of the base case (16), so the axis adds no",
        ),
        (
            "grid: {axes: {rank: [64]}}",
            "grid.axes.rank: a single value (64), which is trained beside the base case's 16.",
        ),
        ("plan: {rows: 100000}", "plan.rows: 100,000, but rows.jsonl has about 30 rows"),
        ("scoring: {target: [running_plan]}", "scoring.target: running_plan: of the demo's invented world"),
        (
            "scoring: {retention: [world_sums, world_facts]}",
            "scoring.retention: world_sums, world_facts: of the demo's",
        ),
        ("scoring: {qualitative: config/prompts/demo.jsonl}", "scoring.qualitative: the demo's prompts"),
    ],
)
def test_a_likely_slip_is_a_warning_with_what_to_change(load: Load, section: str, warning: str) -> None:
    (line,) = load(f"{SHORT}{section}\n").likely_slips
    assert line.startswith(f"mine.yaml: {warning}") and ". Fix: " in line and line.endswith(".")


def test_two_models_that_are_one_are_a_warning(load: Load) -> None:
    two = (
        SHORT.replace("models: {", "models: {copy: {path: resources/models/llama-s}, ")
        + "base_case: {model: llama-s}\n"
    )
    (line,) = load(f"{two}grid: {{axes: {{model: [llama-s, copy]}}}}\n").likely_slips
    assert (
        line.startswith("mine.yaml: models.llama-s: the same model as copy (") and ". Fix: give llama-s its own" in line
    )
    assert load(two).likely_slips == [], "one that is not trained is no slip"


@pytest.mark.parametrize(
    "section",
    [
        "base_case: {rank: 16}\ngrid: {axes: {rank: [64], seed: [1]}}",
        "grid: {axes: {rank: [16, 64]}}",
        "plan: {rows: 25, row_tokens: 9}",
        "scoring: {target: [heldout_loss], retention: [arc_easy]}",
    ],
)
def test_what_is_meant_has_no_warning(load: Load, section: str) -> None:
    assert load(f"{SHORT}{section}\n").likely_slips == []


def test_the_studies_that_ship_have_no_warning() -> None:
    for file in (ROOT / "config" / "studies").glob("*.yaml"):
        assert load_study(file.stem).likely_slips == [], file.name


WRONG_NAMES = """
heldout: {rows: 5, set: rowz}
scoring: {target: [heldout_los], retention: [ifevall, ifeval], limit: {others: 5}}
tune: {budget: {steps: 1}, space: x, spaces: {one: {learning_rate: {low: 1e-3, high: 1e-1}}}}
plan: {card: T44}
"""
NAMED = ("heldout.set", "tune.space", "plan.card", "scoring.target[0]", "scoring.retention[0]")


@pytest.mark.parametrize(
    ("more", "before"),
    [
        ("", ()),
        ("titel: A\n", ("titel",)),
        ("base_case: {method: full, rank: 8}\n", ("base_case.rank",)),
        ("compare: {bootstrap_draws: .nan}\n", ("compare.bootstrap_draws",)),
    ],
)
def test_names_of_any_kind_are_named_together_whatever_else_is_wrong(load: Load, more: str, before: tuple) -> None:
    with pytest.raises(UserErrors) as caught:
        load(SHORT + WRONG_NAMES + more)
    lines = str(caught.value).splitlines()
    assert tuple(line.split(": ")[1] for line in lines) == (*before, *NAMED)
    assert lines[-3].startswith(
        "mine.yaml: plan.card: not in config/cards.yaml ('T44'). Fix: write T4, or use one of T4,"
    )
    assert (
        lines[-1]
        == "mine.yaml: scoring.retention[0]: unknown task ('ifevall'). Fix: use ifeval or ifeval_es or ifeval_ca."
    )


def test_a_map_that_lacks_a_key_hides_no_wrong_name(load: Load) -> None:
    with pytest.raises(UserErrors) as caught:
        load(SHORT + "heldout: {set: rowz}\nscoring: {limit: {ifeval: 3}}\nplan: {card: T44}\n")
    places = [line.split(": ")[1] for line in str(caught.value).splitlines()]
    assert places == ["scoring.limit.others", "heldout.set", "plan.card"]


def test_all_unknown_tasks_of_a_study_that_is_right_otherwise_are_named_together(load: Load) -> None:
    study = load(SHORT + "scoring: {target: [heldout_los, ifeval], retention: [ifevall]}\n")
    with pytest.raises(UserErrors) as caught:
        scoring_digest(study)
    places = [line.split(": ")[1] for line in str(caught.value).splitlines()]
    assert places == ["scoring.target[0]", "scoring.retention[0]"]
