from dataclasses import replace
from pathlib import Path

import pytest

from loragrid.errors import UserError
from loragrid.records.record import RunRecord, ScoreRecord, Session, TaskScore, read_record, write_record

SESSION = Session(start_step=0, end_step=5, seconds=1.5, host="h", device="cpu", ended="finished")
RUN = RunRecord(
    study="demo", run="r", model="m", method="lora", settings={"rank": 4}, status="finished", reason=None, backend="trl",
    data_id="d", data_fingerprint="f", train_rows=1, heldout_rows=1, base_source="s", base_commit=None,
    base_sha256="b", losses_file="losses.csv", steps=5, planned_steps=5, samples=1, tokens=1, loss_tokens=1,
    padding_share=0.0, train_seconds=1.5, tokens_per_second=1.0, peak_vram_mib=None, peak_rss_mib=1.0,
    energy_joules=None, trainable_parameters=1, total_parameters=2, final_train_loss=1.0, first_heldout_loss=2.0,
    final_heldout_loss=1.5, sessions=(SESSION,), versions={"torch": "2"}, git={"commit": None, "dirty": None},
    device={"kind": "cpu"}, code="c", weights_sha256="a", finished_at="2026-01-01T00:00:00+00:00",
    kept_at=(0.25, 0.5), notes=("unsloth: weights in float32, trained in fp32",),
)  # fmt: skip
SCORE = ScoreRecord(
    study="demo", subject="r", kind="run", model="m", base="b", status="scored", reason=None, weights_sha256="a",
    precision="32bit", chat_template_sha256=None, seconds=1.0, versions={}, git={}, device={}, code="c",
    tasks={"t": TaskScore(group="target", status="scored", reason=None, items=3, primary_metric="acc",
                          metrics={"acc": {"value": 1.0, "stderr": 0.1, "higher_is_better": True}}, seconds=1.0)},
    finished_at="2026-01-01T00:00:00+00:00",
)  # fmt: skip


ALONG = replace(SCORE, subject="r@0.5", share=0.5)
ADOPTED = replace(SCORE, subject="adopted-a-00000000", kind="adopted", source="owner/name", source_commit="c")


@pytest.mark.parametrize("record", [RUN, SCORE, ALONG, ADOPTED])
def test_a_record_is_read_as_it_was_written(tmp_path: Path, record: RunRecord | ScoreRecord) -> None:
    write_record(tmp_path / "record.json", record)
    assert read_record(tmp_path / "record.json", type(record)) == record


@pytest.mark.parametrize(
    "text", ["[]", "{}", '{"schema": 2}', '{"schema": 1}', '{"schema": 99, "study": "x"}', '{"schema": 2, "new": 2}']
)
def test_a_file_that_is_not_a_complete_record_is_named(tmp_path: Path, text: str) -> None:
    (tmp_path / "record.json").write_text(text)
    with pytest.raises(UserError, match=r"record\.json"):
        read_record(tmp_path / "record.json", RunRecord)


def test_an_unknown_status_is_refused(tmp_path: Path) -> None:
    write_record(tmp_path / "record.json", replace(RUN, status="perhaps"))
    with pytest.raises(UserError, match="perhaps"):
        read_record(tmp_path / "record.json", RunRecord)
