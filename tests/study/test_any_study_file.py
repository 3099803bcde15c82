"""Any study file, however wrong, is a study or a one-line error: never a traceback, and never minutes or gigabytes."""

import copy
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from loragrid.errors import UserError, error_lines
from loragrid.study.completion import defaults_used
from loragrid.study.schema import read_schema
from loragrid.study.study_file import load_study
from loragrid.study.tasks import scoring_digest
from loragrid.workflow.complete_study import complete_text
from loragrid.workflow.jobs import Jobs

# LORAGRID_FUZZ=20000 draws that many other examples instead of the suite's few.
EXAMPLES = int(os.environ.get("LORAGRID_FUZZ", "0"))
drawn = settings(max_examples=EXAMPLES or 30, derandomize=not EXAMPLES)

STUDY = {
    "title": "Any",
    "data": {
        "plans": {"source": {"generator": "running_plans", "rows": 40, "seed": 1}, "filters": {"min_turns": 1}},
        "both": {"mix": {"plans": 1}},
    },
    "heldout": {"rows": 8},
    "models": {"llama-s": {"path": "resources/models/llama-s"}, "big": {"hub": "some/model", "revision": "main"}},
    "base_case": {
        "model": "llama-s", "learning_rate": 1e-2, "batch": [2, 1], "budget": {"tokens": 1000}, "alpha": "2 * rank",
        "max_length_tokens": 128,
    },
    "grid": {
        "axes": {"rank": [4, 8], "model": ["llama-s"], "seed": [3407, 1]},
        "tied": [{"rank": 2, "learning_rate": 0.1}],
        "cells": {"half": {"batch": [1, 1]}},
        "base_case_seeds": [5],
    },
    "scoring": {"target": ["heldout_loss"], "limit": {"others": 4}, "at": [0.5]},
    "compare": {"alpha": 0.1},
    "tune": {
        "budget": {"tokens": 1000},
        "spaces": {"one": {"learning_rate": {"low": 1e-3, "high": 1e-1}, "rank": {"choices": [2, 4]}}},
    },
    "plan": {"card": "T4"},
}  # fmt: skip
WORDS = [
    *(
        "",
        "a\n",
        "\n",
        "null",
        "1e999",
        "-.inf",
        ".nan",
        "016",
        "0x1f",
        "1:30",
        "2e-4",
        "${HOME}",
        "{x}",
        "../../etc/passwd",
    ),
    *("rank", "rank / 0", "1 / rank", "sqrt(rank) ** 9", "heldout_loss", "running_plan", "ifeval", "plans", "llama-s"),
    *("config/tasks", "/dev/null", "/", "~", "\0", "\ud7ff", "a" * 300, "!!python/name:os.system", "main", "a/b", "T4"),
]
NUMBERS = [0, 1, -1, 2**31, 2**53, 2**64, 10**400, 0.0, -0.0, 0.5, 5e-324, 1e308, float("nan"), float("inf")]
SCALARS = st.none() | st.booleans() | st.sampled_from([*WORDS, *NUMBERS]) | st.text(max_size=8) | st.integers()
SETTINGS = read_schema()["properties"]["base_case"]["properties"]
KEYS = st.sampled_from(
    [*WORDS, *SETTINGS, *read_schema()["properties"], "low", "high", "choices", "path", "hub", "mix"]
)
VALUES = st.recursive(
    SCALARS, lambda part: st.lists(part, max_size=3) | st.dictionaries(KEYS | SCALARS, part, max_size=3), max_leaves=6
)


def places(node: Any, place: tuple = ()) -> Iterator[tuple]:
    """The places of all values below a node."""
    parts = node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ()
    for key, value in parts:
        yield (*place, key)
        yield from places(value, (*place, key))


PLACES = st.sampled_from(list(places(STUDY)))


@st.composite
def wrong_studies(draw: Any) -> dict:
    """The study with up to four values replaced, removed or added."""
    study = copy.deepcopy(STUDY)
    for _ in range(draw(st.integers(1, 4))):
        *above, last = draw(PLACES)
        node = study
        for key in above:
            node = node[key] if isinstance(node, dict | list) and _has(node, key) else None
        what = draw(st.sampled_from(["replace", "replace", "remove", "add"]))
        if isinstance(node, dict) and what == "remove":
            node.pop(last, None)
        elif isinstance(node, dict) and what == "add":
            node[draw(KEYS)] = draw(VALUES)
        elif isinstance(node, dict) or (isinstance(node, list) and _has(node, last)):
            node[last] = draw(VALUES)
    return study


def _has(node: dict | list, key: Any) -> bool:
    return key in node if isinstance(node, dict) else isinstance(key, int) and key < len(node)


@st.composite
def wrong_texts(draw: Any) -> bytes:
    """The study's text with a few bytes replaced by marks of YAML or by anything."""
    text = yaml.safe_dump(STUDY, sort_keys=False).encode()
    for _ in range(draw(st.integers(1, 3))):
        start = draw(st.integers(0, len(text)))
        marks = [
            b"&a ",
            b"*a",
            b"<<: *a\n",
            b"? ",
            b"- ",
            b": ",
            b"\t",
            b"{",
            b"[",
            b"'",
            b'"',
            b"|",
            b"!!set ",
            b"--- \n",
        ]
        text = (
            text[:start]
            + draw(st.sampled_from(marks) | st.binary(max_size=4))
            + text[start + draw(st.integers(0, 9)) :]
        )
    return text


def check(file: Path) -> None:
    """What each call of the workflow does with a study file before it starts a job."""
    try:
        study = load_study(str(file))
        Jobs(study, results="results/any", session_minutes=None)
        _ = study.cells, study.tune, study.plan, study.compare, study.training, scoring_digest(study)
    except UserError as error:
        for line in error_lines(error):
            assert "Fix: " in line and len(line) < 3_000, line
    else:
        assert complete_text(study) and list(defaults_used(study.written))


@drawn
@given(wrong_studies())
def test_wrong_values(tmp_path: Path, study: dict) -> None:
    file = tmp_path / "any.yaml"
    file.write_text(
        yaml.safe_dump(study, sort_keys=False, allow_unicode=True), encoding="utf-8", errors="surrogatepass"
    )
    check(file)


@drawn
@given(wrong_texts())
def test_wrong_text(tmp_path: Path, text: bytes) -> None:
    file = tmp_path / "any.yaml"
    file.write_bytes(text)
    check(file)


def test_the_study_that_they_start_from_is_right(tmp_path: Path) -> None:
    file = tmp_path / "any.yaml"
    file.write_text(yaml.safe_dump(STUDY, sort_keys=False))
    assert len(load_study(str(file)).cells) == 11


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        pytest.param("a0: &a0 [1,1,1,1,1,1,1,1,1]\n{}", "its aliases make more than 200,000 values", id="aliases"),
        pytest.param("a0: &a0 {{a: 1}}\n{}", "its aliases make more than 200,000 values", id="merged maps"),
        pytest.param("a: &a [*a]\n", "recursive", id="a value within itself"),
        pytest.param("#" * 5_000_000, "longer than 4 MB", id="a long file"),
        pytest.param("[" * 500, "cannot be read as YAML", id="deep"),
        pytest.param("heldout: " + "9" * 5_000, "cannot be read as YAML", id="many digits"),
    ],
)
def test_a_small_file_takes_no_gigabytes(tmp_path: Path, text: str, problem: str) -> None:
    """Nine aliases on each of eight levels name 43 million values, in a file of half a kilobyte."""
    whole = "a{0}: &a{0} [{1}]\n" if "[1,1" in text else "a{0}: &a{0} {{<<: [{1}]}}\n"
    levels = "".join(whole.format(level, ",".join([f"*a{level - 1}"] * 9)) for level in range(1, 9))
    file = tmp_path / "any.yaml"
    file.write_text(text.replace("{}", levels).replace("{{", "{").replace("}}", "}"))
    with pytest.raises(UserError) as error:
        load_study(str(file))
    assert problem in str(error.value)


@pytest.mark.parametrize(
    ("key", "value", "problem"),
    [
        ("models", {"toy\n": {"path": "resources/models/llama-s"}}, "models: not in the right form ('toy\\n')"),
        ("base_case", {"threads": 10**9}, "base_case.threads: above the maximum of 1024 (1000000000)"),
        ("scoring", {"threads": 10**9}, "scoring.threads: above the maximum of 1024 (1000000000)"),
        (
            "grid",
            {"design": "factorial", "axes": {name: list(range(8, 28)) for name in ("rank", "seed", "max_length_tokens", "threads")}},
            "more than 100,000 runs (160,000)",
        ),
    ],
)  # fmt: skip
def test_values_that_would_do_harm_later(tmp_path: Path, key: str, value: Any, problem: str) -> None:
    file = tmp_path / "any.yaml"
    bare = {name: STUDY[name] for name in ("title", "data", "models", "base_case", "scoring")}
    # A factorial grid needs the base case's values in it.
    bare["base_case"] = bare["base_case"] | {"rank": 8, "max_length_tokens": 8, "threads": 8, "seed": 8}
    merged = bare.get(key, {}) | value if key in ("base_case", "scoring") else value
    if key == "models":
        bare["base_case"]["model"] = "toy\n"
    file.write_text(yaml.safe_dump(bare | {key: merged}))
    with pytest.raises(UserError) as error:
        load_study(str(file))
    assert problem in str(error.value)
