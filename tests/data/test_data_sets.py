"""Named data sets from file to Parquet: one held-out set, nested sizes, mixes, filters, and mistakes."""

import json
import random

import pytest

from loragrid.data import source_scan
from loragrid.data.data_sets import DataSets
from loragrid.data.source_scan import SourceScans
from loragrid.data.training_data import load_training_data
from loragrid.errors import UserError
from loragrid.models.loading import load_tokenizer
from loragrid.runtime.atomic_files import sha256_file
from prepare_data import prepare_data
from tests.fixtures.chat_data import as_source, prepare_all, read_rows, sentence, study_of_sets, talk, write_rows


def conversations(seed, count):
    """Conversations whose prompts and answers are unlike those of any other seed."""
    rng = random.Random(seed)
    return [talk(sentence(rng, 12), sentence(rng, 6)) for _ in range(count)]


def chat_and_code(tmp_path, *, chat=160, code=60):
    """Two files of conversations, as sources of the sets `chat` and `code`."""
    rows = {"chat": conversations(1, chat), "code": conversations(2, code)}
    return {name: {"source": as_source(write_rows(tmp_path / f"{name}.jsonl", rows[name]))} for name in rows}


def row_numbers(folder, side="train"):
    return {row["row"] for row in read_rows(folder, side)}


def choose(study, folder):
    """Row sets for training and held-out rows by their data set, without tokenising them."""
    sets = DataSets(study, SourceScans(folder))
    heldout = sets.heldout_rows()
    return {name: sets.training_rows(name, heldout) for name in study.data}, heldout


def digests(rows):
    return {key.digest for key in rows.keys}


def test_sizes_are_nested_and_share_one_held_out_set(tmp_path, toy_llama):
    source = chat_and_code(tmp_path)["chat"]
    data = {name: source | {"rows": rows} for name, rows in {"s": 10, "m": 40, "l": 150, "all": None}.items()}
    study = study_of_sets(data, toy_llama, heldout={"rows": 10, "set": "s"}, axes={"data": list(data)})
    cards, folders = prepare_all(study, tmp_path)
    small, medium, large, everything = (row_numbers(folders[name, "m"]) for name in data)
    assert (len(small), len(medium), len(large)) == (10, 40, 150)
    assert small < medium < large == everything
    held = {name: row_numbers(folder, "heldout") for name, folder in folders.items()}
    assert len(set(map(frozenset, held.values()))) == 1
    assert not held["all", "m"] & everything and len(held["all", "m"]) == 10
    assert len({card["heldout_fingerprint"] for card in cards.values()}) == 1
    assert len({card["fingerprint"] for card in cards.values()}) == 3
    card = cards["m", "m"]
    assert (card["set"], card["heldout"]["set"], card["sampled_out"]) == ("m", "s", 110)


def test_held_out_rows_are_kept_out_of_all_sources(tmp_path, toy_llama):
    """Near copies of every row of the held-out set are in another source: those of held-out rows leave it."""
    rng = random.Random(5)
    chat = conversations(1, 80)
    copies = []
    for number, row in enumerate(chat):
        question, answer = (turn["value"] for turn in row["conversations"])
        copies.append(
            [
                row,
                talk(question + " so", sentence(rng, 6)),
                talk(sentence(rng, 12), answer.upper() + "!"),
                talk(question.replace(" ", ", "), sentence(rng, 6)),
            ][number % 4]
        )
    data = {
        name: {"source": as_source(write_rows(tmp_path / f"{name}.jsonl", rows))}
        for name, rows in {"chat": chat, "copies": copies + conversations(3, 50)}.items()
    }
    data["both"] = {"mix": {"chat": 1, "copies": 1}}
    study = study_of_sets(data, toy_llama, heldout={"rows": 20}, axes={"data": list(data)})
    chosen, heldout = choose(study, tmp_path)
    held_rows = {key.row for key in heldout.keys}
    assert len(held_rows) == 20
    copies_left = {key.row for key in chosen["copies"].keys}
    assert copies_left == set(range(1, 131)) - held_rows
    lost = chosen["copies"]
    assert lost.held_out.count + lost.like_heldout.total == 20 and lost.held_out.count > 0
    assert (
        all(rows.count > 0 for rows in lost.like_heldout.by_reason.values()) and len(lost.like_heldout.by_reason) == 3
    )
    held_prompts = {key.prompt for key in heldout.keys}
    held_answers = {answer for key in heldout.keys for answer in key.answers}
    for rows in chosen.values():
        assert not digests(rows) & {key.digest for key in heldout.keys}
        assert not held_prompts & {key.prompt for key in rows.keys}
        assert not held_answers & {answer for key in rows.keys for answer in key.answers}
    cards, _ = prepare_all(study, tmp_path)
    assert len({card["heldout_fingerprint"] for card in cards.values()}) == 1
    for card in cards.values():
        assert card["split"]["leaks"] == {"answers": 0, "prompts": 0, "short_answers": 0}
    note = f"{lost.like_heldout.total} of {130 - lost.held_out.count} rows were kept out of training"
    assert any(text.startswith(note) for text in cards["copies", "m"]["split"]["notes"])


def test_a_mix_has_its_weights_and_nested_sizes(tmp_path, toy_llama):
    data = chat_and_code(tmp_path) | {
        "whole": {"mix": {"chat": 3, "code": 1}},
        "half": {"mix": {"chat": 3, "code": 1}, "rows": 80},
        "less": {"mix": {"code": 0.25, "chat": 0.75}, "rows": 20},
    }
    study = study_of_sets(data, toy_llama, heldout={"rows": 10}, axes={"data": ["chat", "whole", "half", "less"]})
    cards, folders = prepare_all(study, tmp_path)
    whole, half, less = (row_numbers(folders[name, "m"]) for name in ("whole", "half", "less"))
    assert less < half < whole and (len(less), len(half), len(whole)) == (20, 80, 200)
    sources = {source["set"]: source for source in cards["half", "m"]["sources"]}
    assert {name: (source["share"], source["rows"]) for name, source in sources.items()} == {
        "chat": (0.75, 60),
        "code": (0.25, 20),
    }
    assert sorted(cards["half", "m"]["source"]["mix"].split(", ")) == ["chat 75%", "code 25%"]
    # Each row number leads to the row of its source.
    tokenizer = load_tokenizer(study.models["m"])
    seen = set()
    for row in read_rows(folders["half", "m"], "train"):
        (source,) = [each for each in sources.values() if each["first_row"] <= row["row"] <= each["last_row"]]
        lines = (tmp_path / source["source"]["path"]).read_text().splitlines()
        turns = json.loads(lines[row["row"] - source["first_row"]])["conversations"]
        assert turns[0]["value"] in tokenizer.decode(row["input_ids"])
        seen.add(source["set"])
    assert seen == {"chat", "code"}
    for folder in folders.values():
        load_training_data(folder)


def test_held_out_rows_of_a_mix_do_not_depend_on_its_size(tmp_path, toy_llama):
    mix = {"mix": {"chat": 1, "code": 1}}
    data = chat_and_code(tmp_path) | {"whole": mix, "half": mix | {"rows": 40}}
    chosen = {}
    for name in ("whole", "half"):
        study = study_of_sets(data, toy_llama, heldout={"rows": 20, "set": name})
        sets, heldout = choose(study, tmp_path)
        chosen[name] = [(part.name, [key.row for key in part.keys]) for part in heldout.rows.parts]
        assert all(not digests(rows) & digests(heldout.rows) for rows in sets.values())
        assert len(sets["half"].keys) == 40 and digests(sets["half"]) < digests(sets["whole"])
    assert chosen["whole"] == chosen["half"] and all(rows for _, rows in chosen["whole"])


def test_every_row_read_is_counted_once(tmp_path, toy_llama):
    chat, code = conversations(1, 60), conversations(2, 60)
    chat += [{"conversations": []}, chat[3], talk("short", "one")]
    code += [chat[8], talk(code[5]["conversations"][0]["value"] + " so", "An answer that no other row has."), 7]
    data = {
        "chat": {"source": as_source(write_rows(tmp_path / "chat.jsonl", chat)), "filters": {"min_characters": 20}},
        "code": {"source": as_source(write_rows(tmp_path / "code.jsonl", code)), "rows": 40},
        "both": {"mix": {"chat": 1, "code": 2}, "rows": 45, "filters": {"near_duplicates": "drop"}},
    }
    study = study_of_sets(data, toy_llama, heldout={"rows": 6}, axes={"data": list(data)})
    cards, _ = prepare_all(study, tmp_path)
    for card in cards.values():
        reasons = (card["dropped"], card["filtered"], card["like_heldout"])
        gone = sum(rows["count"] for reason in reasons for rows in reason.values())
        gone += card["duplicates_removed"]["count"] + card["near_duplicates_removed"]["count"]
        assert gone + card["sampled_out"] + card["rows_kept"] == card["rows_read"]
        assert card["split"]["train_rows"] + card["held_out"]["count"] == card["rows_kept"]
    assert cards["chat", "m"]["filtered"] == {"fewer than 20 characters": {"count": 1, "first_rows": [63]}}
    both = cards["both", "m"]
    assert both["rows_read"] == 126 and both["split"]["train_rows"] == 45
    assert {source["set"]: source["rows"] for source in both["sources"]} == {"chat": 15, "code": 30}
    # Rows of a mix are numbered through its sources.
    first = {source["set"]: source["first_row"] for source in both["sources"]}
    assert both["dropped"]["no conversation in the row"]["first_rows"] == [first["chat"] + 60]
    assert both["dropped"]["row is not an object"]["first_rows"] == [first["code"] + 62]


def test_the_same_files_whatever_the_order_and_the_names(tmp_path, toy_llama):
    """A mix is named by what it holds: the same identity must be the same rows."""
    files = chat_and_code(tmp_path)
    results = []
    for place, (one, other) in enumerate([("chat", "code"), ("code", "chat"), ("code", "chat")]):
        data = {"both": {"mix": {one: 1, other: 1}}, one: files[one], other: files[other]}
        text = json.dumps(data).replace('"chat"', '"talks"') if place == 2 else json.dumps(data)
        study = study_of_sets(json.loads(text), toy_llama, heldout={"set": "both"})
        _, folders = prepare_all(study, tmp_path / str(place))
        (data_id,) = study.data_sets
        results.append((data_id, *(sha256_file(folders["both", "m"] / f"{s}.parquet") for s in ("train", "heldout"))))
    assert results[0] == results[1] == results[2]


def test_held_out_rows_are_cut_and_labelled_by_the_base_case(tmp_path, toy_llama, toy_gemma):
    data = chat_and_code(tmp_path, chat=40, code=20)
    models = [toy_llama, toy_gemma]
    others = {"data": ["chat", "code"], "max_length_tokens": [100, 200], "loss_on": ["assistant", "all"]}
    found = set()
    for ordered in (models, models[::-1]):
        axes = {"model": [model.name for model in models]} | others
        study = study_of_sets(data, *ordered, heldout={"set": "code"}, axes=axes)
        for data_id, cell in study.data_sets.items():
            card = prepare_data(study=study, data_id=data_id, out=tmp_path / data_id)
            settings = cell.settings.max_length_tokens, cell.settings.loss_on
            assert (card["max_length_tokens"], card["loss_on"]) == settings
            assert (card["truncated"]["count"] > 0) == (settings[0] == 100)
            longest = max(len(row["input_ids"]) for row in read_rows(tmp_path / data_id, "train"))
            assert longest == 100 if settings[0] == 100 else 100 < longest <= 200
            assert (card["heldout"]["max_length_tokens"], card["heldout"]["loss_on"]) == (200, "assistant")
            found.add((cell.model, settings, card["fingerprint"], card["heldout_fingerprint"]))
    # For each model four data sets, one held-out set.
    assert len(found) == 8 and len({(model, heldout) for model, _, _, heldout in found}) == 2


def test_generators_and_files_mix_and_each_source_is_read_once(tmp_path, toy_llama, monkeypatch):
    plans, files = {"generator": "running_plans", "rows": 60}, chat_and_code(tmp_path)
    data = {
        "mixed": {"mix": {"plans": 1, "short": 1, "more": 1, "long": 0.2}},
        "plans": {"source": plans | {"seed": 3}},
        "more": {"source": plans | {"seed": 4}},
        "short": files["chat"] | {"filters": {"max_characters": 115}},
        "long": files["chat"] | {"filters": {"min_characters": 116}},
    }
    scanned = []
    scan = source_scan.scan_source
    monkeypatch.setattr(
        source_scan, "scan_source", lambda source, *names: scanned.append(source.name) or scan(source, *names)
    )
    study = study_of_sets(data, toy_llama, heldout={"set": "plans"}, base_case={"max_length_tokens": 512})
    cards, folders = prepare_all(study, tmp_path)
    assert len(scanned) == len(set(scanned)) == 3
    names = {path.name for path in folders["mixed", "m"].iterdir()}
    assert {"source.jsonl", "source_2.jsonl"} < names
    assert len(cards["mixed", "m"]["sources"]) == 4
    assert all(source["rows"] > 0 for source in cards["mixed", "m"]["sources"])
    prepare_all(study, tmp_path)  # replaces its own files


def test_mistakes_are_one_line(tmp_path, toy_llama):
    files = chat_and_code(tmp_path, chat=40, code=20)
    cases = {
        r"^data\.x\.rows: more than the 35 rows .*\(36\)\. Fix: lower it to 35 or less": files["chat"] | {"rows": 36},
        r"^data\.x\.rows: more than the 40 rows .*: code has 20 \(41\)": {"mix": {"chat": 1, "code": 1}, "rows": 41},
        r"^data\.x\.filters: none of the 40 usable rows passes \(40 fewer than 9999 characters": files["chat"]
        | {"filters": {"min_characters": 9999}},
        r"^data\.x\.mix\.\w+: no row of this set is left": {"mix": {"chat": 1, "again": 1}},
    }
    for message, entry in cases.items():
        data = {"x": entry, "again": files["chat"], **files}
        study = study_of_sets(data, toy_llama, heldout={"set": "chat"})
        with pytest.raises(UserError, match=message) as caught:
            prepare_all(study, tmp_path / "out")
        assert "\n" not in str(caught.value) and not list((tmp_path / "out").glob("x-*/*.json"))
