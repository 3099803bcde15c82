"""Weights of a run that are not whole are refused before anything is loaded."""

from pathlib import Path

import pytest

from loragrid.errors import UserError
from loragrid.scoring.subjects import check_complete


@pytest.mark.parametrize("config", ["{}", "[]"])
def test_an_adapter_without_its_configuration_is_one_line(tmp_path: Path, config: str) -> None:
    folder = tmp_path / "adapter"
    folder.mkdir()
    (folder / "adapter_model.safetensors").write_bytes(b"")
    (folder / "adapter_config.json").write_text(config)
    with pytest.raises(UserError, match=r"adapter_config\.json: not what PEFT writes \(no peft_type\)\. Fix: train"):
        check_complete(folder)
