"""A study and a tokenised data set small enough to train in a second, for the tests of the train stage."""

import csv
import dataclasses
import json
from pathlib import Path
from typing import Any

import yaml

from study.grid import Cell, expand
from study.records import RunRecord
from study.study_file import Study, load_study

DEMO = Path(__file__).resolve().parents[1] / "config" / "studies" / "demo.yaml"
BASE_CASE = {"model": "toy", "learning_rate": 1.0e-2, "rank": 4, "batch": [2, 2], "seed": 7}
TRAINING = {
    "backend": "trl",
    "budget": {"steps": 12},
    "warmup_steps": 2,
    "weight_decay": 0.01,
    "schedule": "linear",
    "optimizer": "adamw_torch",
    "max_grad_norm": 1.0,
    "alpha": "rank",
    "dropout": 0.1,
    "target_modules": "all-linear",
    "compute_dtype": "fp32",
    "packing": False,
    "evaluate_every_steps": 4,
    "save_steps": 5,
    "save_minutes": 10,
    "keep_checkpoints": 2,
    "session_minutes": None,
    "threads": 1,
    "report_to": "none",
}


def write_study(folder: Path, model: Path, **changes: Any) -> Path:
    """A study file, the demo's but for what training reads; `changes` by dotted key with `__` for the dot, such as
    training__dropout=0.0."""
    settings = yaml.safe_load(DEMO.read_text(encoding="utf-8"))
    settings["models"] = {"toy": {"path": str(model), "precision": "32bit", "chat_template": None}}
    settings["data"] |= {"max_length_tokens": 48, "heldout_rows": 10}
    settings["base_case"], settings["grid"] = dict(BASE_CASE), {"design": "one_factor"}
    settings["training"] |= TRAINING
    for key, value in changes.items():
        *parents, last = key.split("__")
        place = settings
        for parent in parents:
            place = place[parent]
        place[last] = value
    for axis, value in settings["base_case"].items():
        settings["grid"][axis] = [value]
    path = folder / "toy.yaml"
    path.write_text(yaml.safe_dump(settings))
    return path


def write_data(folder: Path, *, train_rows: int = 30, heldout_rows: int = 10, vocabulary: int = 263) -> Path:
    """A tokenised data set of random rows of 8 to 48 tokens, the first third of each without loss; with its card."""
    import numpy as np
    import pyarrow as pa
    import pyarrow.parquet as pq

    from study.training_data import rows_sha256

    random = np.random.default_rng(5)
    folder.mkdir(parents=True, exist_ok=True)
    tables = {}
    for name, count in (("train", train_rows), ("heldout", heldout_rows)):
        rows = [random.integers(7, vocabulary, size=random.integers(8, 49)).tolist() for _ in range(count)]
        labels = [[-100] * (len(row) // 3) + row[len(row) // 3 :] for row in rows]
        columns = {
            "row": pa.array(range(count), pa.int64()),
            "input_ids": pa.array(rows, pa.list_(pa.int32())),
            "labels": pa.array(labels, pa.list_(pa.int32())),
        }
        tables[name] = pa.table(columns)
        pq.write_table(tables[name], folder / f"{name}.parquet")
    card = {
        "schema": 1,
        "fingerprint": rows_sha256(tables["train"]),
        "heldout_fingerprint": rows_sha256(tables["heldout"]),
        "split": {"train_rows": train_rows, "heldout_rows": heldout_rows},
    }
    (folder / "card.json").write_text(json.dumps(card))
    return folder


@dataclasses.dataclass(frozen=True)
class Toy:
    """A toy study with its cell and data, to be trained in a folder."""

    study: Study
    cell: Cell
    data: Path

    def train(self, out: Path, **more: Any) -> RunRecord:
        from train import train_run

        return train_run(study=self.study, cell=self.cell, data_folder=self.data, out=out, **more)


def make_toy(folder: Path, model: Path, **changes: Any) -> Toy:
    folder.mkdir(parents=True, exist_ok=True)
    study = load_study(str(write_study(folder, model, **changes)))
    return Toy(study=study, cell=expand(study)[0], data=write_data(folder / "data"))


def rows_of(out: Path) -> list[dict[str, str]]:
    with open(out / "losses.csv", newline="") as file:
        return list(csv.DictReader(file))
