"""The short card of an adapter folder: its base, its method, and how to load it."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from loragrid.paths import ROOT

CARD = "README.md"
# Keys of an adapter's configuration that the card repeats.
SETTINGS = ("peft_type", "r", "lora_alpha", "alpha", "use_dora", "use_rslora", "target_modules")
TEXT = """
# An adapter of {name}

{base}
{settings}

```python
from peft import PeftModel
from transformers import AutoModelForCausalLM, AutoTokenizer{four_bits}
base = AutoModelForCausalLM.from_pretrained({arguments}{quantized})
model = PeftModel.from_pretrained(base, "path/to/this/folder")
tokenizer = AutoTokenizer.from_pretrained({tokenizer})
```

{end}
"""
TRAINED = """
Trained by a run of loragrid. This card has no scores: those are in the study's report and in the card of the exported
run (`snakemake --cores 1 export`), whose adapter folder also has the tokenizer with the chat template of training.
""".strip()
EXPORTED = """
The tokenizer in this folder has the chat template that the adapter was trained with. Scores, data and limits are in the
card of the folder above.
""".strip()
# Without it the adapter would be on a base that it was not trained on; LoftQ even corrects the errors of the 4 bits.
FOUR_BITS = """, BitsAndBytesConfig

four_bits = BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_use_double_quant=True)
"""


def named_base(source: str, commit: str | None) -> str:
    """The base as an adapter's configuration names it: a hub id, or an absolute folder, found from any other folder.

    `source` and `commit`: as in a run's record, where a folder of the project is relative to the project.
    """
    return source if commit is not None else str((ROOT / source).resolve())


def placed_base(name: str) -> str:
    """What a card for others writes in place of the path of a local base."""
    return f"path/to/{name}"


def base_metadata(source: str, commit: str | None) -> dict[str, Any]:
    """The `base_model` of a card; for a local folder its name, since the hub refuses a path."""
    return {"base_model": source if commit is not None else Path(source).name}


def adapter_card(config: Mapping[str, Any], *, four_bits: bool, exported: bool = False) -> str:
    """The README.md of a folder with this adapter configuration, with metadata that the hub reads.

    `four_bits`: the adapter was trained on the base in 4 bits; `exported`: the folder has the tokenizer, and a local
    base is named without its place on this machine.
    """
    from huggingface_hub import ModelCardData

    source, commit = config["base_model_name_or_path"], config.get("revision")
    metadata = ModelCardData(
        **base_metadata(source, commit), library_name="peft", pipeline_tag="text-generation", tags=["loragrid"]
    )
    base, arguments = f"- Base: the local folder `{source}`", f'"{placed_base(source) if exported else source}"'
    if commit is not None:
        base, arguments = f"- Base: `{source}` at commit `{commit}`", f'"{source}", revision="{commit}"'
    shown = [f"- {name}: {_text(config[name])}" for name in SETTINGS if config.get(name)]
    if four_bits:
        base += ", in 4 bits (bitsandbytes, NF4)"
    text = TEXT.format(
        name=Path(source).name,
        base=base,
        settings="\n".join(shown),
        arguments=arguments,
        four_bits=FOUR_BITS if four_bits else "\n",
        quantized=", quantization_config=four_bits" if four_bits else "",
        tokenizer='"path/to/this/folder"' if exported else arguments,
        end=EXPORTED if exported else TRAINED,
    )
    return f"---\n{metadata.to_yaml()}\n---\n{text}"


def _text(value: Any) -> str:
    return ", ".join(value) if isinstance(value, list) else str(value)
