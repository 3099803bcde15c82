"""Rows of unusual forms from the study file to the tokens: the same tokens as of the usual form."""

import json

from pyarrow import Table, parquet

from tests.fixtures.chat_data import good_rows, prepare, study_of, write_rows


def with_calls():
    """Conversations with tool calls whose arguments have other keys in each row."""
    rows = []
    for number, row in enumerate(good_rows(20)):
        question, answer = (turn["value"] for turn in row["conversations"])
        call = {"type": "function", "function": {"name": "look", "arguments": {f"tree {number % 3}": number}}}
        turns = [
            {"role": "user", "content": question},
            {"role": "assistant", "content": "I look.", "tool_calls": [call]},
            {"role": "tool", "content": f"{number} trees"},
            {"role": "assistant", "content": answer, "weight": number % 2},
        ]
        rows.append({"messages": turns, "id": number})
    return rows


def test_parquet_and_jsonl_of_the_same_rows_have_one_fingerprint(tmp_path, toy_llama):
    write_rows(tmp_path / "rows.jsonl", with_calls())
    parquet.write_table(Table.from_pylist(with_calls()), tmp_path / "rows.parquet")
    cards = []
    for name in ("rows.jsonl", "rows.parquet"):
        cards.append(prepare(study_of(tmp_path / name, toy_llama, heldout_rows=3), tmp_path / f"{name}.out"))
    for key in ("fingerprint", "heldout_fingerprint", "unused_fields", "notes", "tokens"):
        assert cards[0][key] == cards[1][key]
    assert cards[0]["unused_fields"] == {"id": 20}


def test_named_columns_and_speakers_give_the_tokens_of_the_usual_names(tmp_path, toy_llama):
    rows = good_rows(20)
    told = [[turn["value"] for turn in row["conversations"]] for row in rows]
    forms = {
        "usual": (rows, {}),
        "speakers": (
            [{"conversations": [{"from": f"Seeker{n}", "value": t} for n, t in enumerate(r)]} for r in told],
            {},
        ),
        "columns": ([{"frage": question, "antwort": answer} for question, answer in told], {}),
        "text": ([{"turns": json.dumps([{"user": q}, {"assistant": a}])} for q, a in told], {}),
    }
    forms["speakers"][1].update(roles={"seeker0": "user", "SEEKER1": "assistant"})
    forms["columns"][1].update(columns={"prompt": "frage", "reply": "antwort"})
    prints, ids = set(), []
    for name, (written, names) in forms.items():
        study = study_of(write_rows(tmp_path / f"{name}.jsonl", written), toy_llama, heldout_rows=3, **names)
        card = prepare(study, tmp_path / name)
        prints.add((card["fingerprint"], card["heldout_fingerprint"]))
        ids += study.data_sets
    assert len(prints) == 1 and len(set(ids)) == len(forms)


def test_only_columns_and_roles_that_are_set_count_in_the_identity(tmp_path, toy_llama):
    source = write_rows(tmp_path / "rows.jsonl", good_rows())

    def identity(**names):
        return list(study_of(source, toy_llama, **names).data_sets)

    assert identity() == identity(columns={}, roles={})
    assert (
        len(
            {
                *identity(),
                *identity(roles={"a": "user"}),
                *identity(roles={"a": "tool"}),
                *identity(columns={"text": "a"}),
            }
        )
        == 4
    )
