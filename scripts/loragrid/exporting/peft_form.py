"""The adapter as PEFT loads it: its two files, a base that resolves from anywhere, and the tokenizer."""

import shutil
from pathlib import Path

from loragrid.exporting.exported_run import ExportedRun
from loragrid.models.adapter_card import CARD, adapter_card, named_base
from loragrid.models.adapter_files import ADAPTER_WEIGHTS
from loragrid.models.loading import load_tokenizer
from loragrid.runtime.atomic_files import read_json, write_json, write_text


def write_peft_form(run: ExportedRun, folder: Path) -> None:
    """Write the run's adapter to `folder`."""
    folder.mkdir(parents=True)
    shutil.copyfile(run.trained / ADAPTER_WEIGHTS, folder / ADAPTER_WEIGHTS)
    config = read_json(run.trained / "adapter_config.json")
    config["base_model_name_or_path"] = named_base(run.record.base_source, run.record.base_commit)
    config["revision"] = run.record.base_commit
    write_json(folder / "adapter_config.json", config)
    # Its chat template is the one of training, which may not be the base's own.
    load_tokenizer(run.entry).save_pretrained(folder)
    write_text(folder / CARD, adapter_card(config, four_bits=run.entry.precision == "4bit"))
