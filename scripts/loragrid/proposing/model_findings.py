"""What is in a user's base model: its shape, its context and a chat template that shows conversations."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from loragrid.errors import UserError
from loragrid.models.chat_templates.checked import checked_template
from loragrid.models.chat_templates.template import ChatTemplate
from loragrid.models.find_shape import find_shape
from loragrid.models.loading import context_tokens, load_tokenizer
from loragrid.models.model_files import resolve_folder
from loragrid.models.shape import Shape
from loragrid.paths import ROOT
from loragrid.study.sections import ModelEntry

CHAT_TEMPLATE = "config/chat_templates/chatml.jinja"


@dataclass(frozen=True, kw_only=True)
class ModelFindings:
    """A base model. `entry`: as the study file names it; `own_template`: it brings a chat template."""

    key: str
    entry: Mapping[str, Any]
    shape: Shape
    context: int | None
    template: ChatTemplate
    own_template: bool

    @property
    def from_hub(self) -> bool:
        """Whether the model came over the network, so that tasks can be downloaded too."""
        return "hub" in self.entry


def read_model(entry: Mapping[str, Any], *, key: str) -> ModelFindings:
    """Read a base's configuration and tokenizer; a hub model is downloaded. Raises `UserError` as training would."""
    of_hub = {"revision": "main"} if "hub" in entry else {}
    used = ModelEntry(chat_template=None, **({**of_hub, **entry} | _absolute(entry)))
    folder, _ = resolve_folder(used)
    own_template = has_chat_template(folder)
    if not own_template:
        used = ModelEntry(**vars(used) | {"chat_template": str(ROOT / CHAT_TEMPLATE)})
    shape = find_shape(used, network=True)
    if shape is None:
        raise UserError(f"MODEL: no config.json with the model's sizes ({folder}). Fix: give a complete model folder.")
    return ModelFindings(
        key=key,
        entry={**entry} if own_template else {**entry, "chat_template": CHAT_TEMPLATE},
        shape=shape,
        context=context_tokens(used),
        template=checked_template(load_tokenizer(used), model=key),
        own_template=own_template,
    )


def _absolute(entry: Mapping[str, Any]) -> dict[str, str]:
    return {"path": str(ROOT / entry["path"])} if "path" in entry else {}


def has_chat_template(folder: Path) -> bool:
    """Whether a model folder brings a chat template, in any of the places where transformers looks for one."""
    if any((folder / name).is_file() for name in ("chat_template.jinja", "chat_template.json")):
        return True
    try:
        config = json.loads((folder / "tokenizer_config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False  # load_tokenizer names what is wrong with the file
    return isinstance(config, dict) and bool(config.get("chat_template"))
