"""Data cards and records replace a plan's assumptions."""

from pathlib import Path

import pytest

from loragrid.errors import UserError
from loragrid.planning.job_resources import resource_requests
from loragrid.planning.plan_page import format_table
from loragrid.study.study_file import Study
from plan import make_plan
from tests.fixtures.plan_records import by_run, write_card, write_run_record, write_score_record


def test_prepared_data_replace_the_assumption(t4: Study, tmp_path: Path) -> None:
    cell = t4.cells[0]
    write_card(t4, tmp_path, cell.data, rows=1000, tokens=275_000)
    plan = make_plan(study=t4, results=tmp_path)
    assert plan["data"][cell.data] == {"rows": 1000, "row_tokens": 275.0, "counted": True}
    assert by_run(plan)[cell.run]["steps"] == 955


def test_a_file_that_is_no_data_card_is_named_and_stops_no_dry_run(t4: Study, tmp_path: Path) -> None:
    cell = t4.cells[0]
    write_card(t4, tmp_path, cell.data, rows=1000, tokens=275_000)
    card = tmp_path / "data" / cell.data / "card.json"
    for text in ("{}", "[]"):
        card.write_text(text)
        with pytest.raises(UserError, match=r"card\.json: not a data card\. Fix: delete the file"):
            make_plan(study=t4, results=tmp_path)
        requests = resource_requests(t4, t4.cells, results=tmp_path, session_minutes=None)
        assert requests["train"][cell.run]["vram_mib"] >= 14_000, "the whole card, since nothing is known"


def test_finished_runs_on_such_a_device_replace_the_rate(t4: Study, tmp_path: Path) -> None:
    cells = [cell for cell in t4.cells if cell.model == "llama-1b"]
    before = by_run(make_plan(study=t4, results=tmp_path))
    write_run_record(t4, tmp_path, cells[0].run, seconds=1000.0)
    write_score_record(t4, tmp_path, cells[0].run, seconds=120.0)
    plan = make_plan(study=t4, results=tmp_path)
    after = by_run(plan)
    done = after[cells[0].run]
    assert done["train_hours"] == pytest.approx(1000 / 3600)
    assert done["train_from"] == "measured on the run itself, which finished"
    assert done["measured_peak_mib"] == 5000 and done["score_hours"] == pytest.approx(120 / 3600)
    factor = done["train_hours"] / before[cells[0].run]["train_hours"]
    assert "5,000 MiB measured" in format_table(plan)
    assert after[cells[1].run]["score_from"] == "measured on others of llama-1b"
    assert after[cells[1].run]["score_hours"] == done["score_hours"]
    for cell in t4.cells[1:]:
        assert after[cell.run]["train_hours"] == pytest.approx(factor * before[cell.run]["train_hours"])
        assert "measured here on 1 run" in after[cell.run]["train_from"]
    # A run that diverged after a tenth of its updates says a tenth.
    tenth = done["steps"] / 10  # a record of 47.7 updates: the shares are exact
    write_run_record(t4, tmp_path, cells[0].run, seconds=100.0, steps=tenth, status="diverged")
    again = by_run(make_plan(study=t4, results=tmp_path))
    assert again[cells[1].run]["train_hours"] == pytest.approx(after[cells[1].run]["train_hours"])


def test_records_of_another_device_and_broken_ones_are_left_out(
    t4: Study, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    cells = t4.cells
    before = by_run(make_plan(study=t4, results=tmp_path))
    write_run_record(t4, tmp_path, cells[0].run, seconds=1.0, device={"kind": "cpu", "name": "a laptop"})
    (tmp_path / "train" / cells[1].run).mkdir()
    (tmp_path / "train" / cells[1].run / "record.json").write_text("{")
    assert by_run(make_plan(study=t4, results=tmp_path)) == before
    assert f"{cells[1].run}/record.json cannot be read" in capsys.readouterr().err


def test_runs_of_other_studies_on_the_same_card_replace_rate_and_memory(t4: Study, tmp_path: Path) -> None:
    results, other = tmp_path / "t4", tmp_path / "other"
    cell = t4.cells[0]
    before = by_run(make_plan(study=t4, results=results))[cell.run]
    settings = {name: _as_json(value) for name, value in vars(cell.settings).items() if name != "model"}
    values = {"method": "lora", "settings": settings, "tokens": before["tokens"], "samples": before["tokens"] // 550}
    values |= {"trainable_parameters": before["trainable"], "heldout_rows": t4.heldout.rows}
    values |= {"total_parameters": before["parameters"] + before["trainable"], "peak_vram_mib": 14_800.0}
    write_run_record(t4, other, cell.run, seconds=1000.0, **values)
    after = by_run(make_plan(study=t4, results=results))
    done = after[cell.run]
    assert done["train_from"] == "measured on 1 run of other studies on this base and such a device"
    assert done["train_hours"] * 3600 == pytest.approx(1000, rel=0.01)
    # 14,800 MiB and the context are more than a T4 has, whatever the model predicts.
    assert done["measured_peak_mib"] == 14_800 and done["fits"] is False
    gemma = next(row for row in after.values() if row["model"] == "gemma-270m")
    wide = next(row for row in after.values() if row["per_device"] == 4)
    assert gemma["measured_peak_mib"] is None and "not measured" in gemma["train_from"]
    assert wide["measured_peak_mib"] is None and wide["fits"] and wide["train_from"].startswith("public")
    write_run_record(t4, other, cell.run, seconds=1000.0, **values, device={"kind": "cuda", "name": "NVIDIA L4"})
    assert by_run(make_plan(study=t4, results=results))[cell.run] == before


def _as_json(value: object) -> object:
    return list(value) if isinstance(value, tuple) else value if not hasattr(value, "__dict__") else {}
