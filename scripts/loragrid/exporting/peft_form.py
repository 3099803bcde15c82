"""The adapter as PEFT loads it: its two files, its base by name, and the tokenizer with the study's chat template."""

import shutil
from pathlib import Path

from loragrid.exporting.exported_run import ExportedRun
from loragrid.models.adapter_card import CARD, adapter_card
from loragrid.models.adapter_files import ADAPTER_WEIGHTS
from loragrid.models.loading import load_tokenizer
from loragrid.runtime.atomic_files import read_json, write_json, write_text


def write_peft_form(run: ExportedRun, folder: Path) -> None:
    """Write the run's adapter to `folder`."""
    folder.mkdir(parents=True)
    shutil.copyfile(run.trained / ADAPTER_WEIGHTS, folder / ADAPTER_WEIGHTS)
    config = read_json(run.trained / "adapter_config.json")
    # The path of a local base is private and of use on this machine only.
    config["base_model_name_or_path"] = run.base_name
    config["revision"] = run.record.base_commit
    write_json(folder / "adapter_config.json", config)
    # Its chat template is the one of training, which may not be the base's own.
    load_tokenizer(run.entry).save_pretrained(folder)
    write_text(folder / CARD, adapter_card(config, four_bits=run.entry.precision == "4bit", exported=True))
