"""Keys and values as other trainers write them, and what this study file has in their place.

The spellings are those of transformers, TRL, PEFT, unsloth, axolotl, LLaMA-Factory and torchtune.
"""

import difflib
import re
from collections.abc import Mapping, Sequence
from typing import Any

from loragrid.study.schema import forms_of, one_of, read_schema, types_of

# What is written here → spellings elsewhere. N stands for the number that the user gives.
USUAL = {
    "base_case.alpha": "lora_alpha",
    "base_case.batch: [N, 1]": "per_device_train_batch_size per_device_batch_size "
    "micro_batch_size batch_size train_batch_size",
    "base_case.batch: [1, N]": "gradient_accumulation_steps gradient_accumulation "
    "grad_accum accumulation accumulation_steps",
    "base_case.budget: {epochs: N}": "num_train_epochs num_epochs epochs epoch n_epochs",
    "base_case.budget: {steps: N}": "max_steps num_steps steps train_steps max_steps_per_epoch",
    "base_case.budget: {tokens: N}": "max_tokens tokens train_tokens token_budget",
    "base_case.compute_dtype": "dtype torch_dtype bf16 fp16 tf32 mixed_precision bnb_4bit_compute_dtype pure_bf16",
    "base_case.dropout": "lora_dropout",
    "base_case.evaluations": "eval_steps eval_strategy evaluation_strategy "
    "evals_per_epoch evaluate_every_steps do_eval",
    "base_case.learning_rate": "lr peak_lr max_lr learning_rates",
    "base_case.learning_rate_ratio": "loraplus_lr_ratio loraplus_ratio lora_plus_ratio",
    "base_case.loss_on": "train_on_inputs train_on_input "
    "assistant_only_loss completion_only_loss train_on_responses_only"
    "train_on_prompt mask_history roles_to_train train_on_eos",
    "base_case.max_grad_norm": "gradient_clipping grad_clip clip_grad_norm max_norm",
    "base_case.max_length_tokens": "max_length max_seq_length max_seq_len "
    "sequence_len seq_len seq_length cutoff_len"
    "model_max_length block_size max_length_token",
    "base_case.method": "adapter peft_type peft_method finetuning_type "
    "init_lora_weights pissa_init adapter_type tuner_type",
    "base_case.method: dora": "use_dora peft_use_dora",
    "base_case.method: rslora": "use_rslora peft_use_rslora",
    "base_case.optimizer": "optim optimiser optimizer_name",
    "base_case.packing": "sample_packing pack_sequences packed neat_packing",
    "base_case.precision: 4bit": "load_in_4bit bnb_4bit_quant_type quantization "
    "quantization_bit quantize quant_bits bits",
    "base_case.precision": "load_in_8bit load_in_16bit",
    "base_case.rank": "r lora_r lora_rank ranks",
    "base_case.schedule": "lr_scheduler_type lr_scheduler scheduler lr_schedule lr_decay_style",
    "base_case.seed": "random_state data_seed random_seed manual_seed",
    "base_case.target_modules": "lora_target lora_target_modules target modules lora_modules lora_attn_modules",
    "base_case.target_modules: all-linear": "lora_target_linear target_linear apply_lora_to_mlp",
    "base_case.threads": "num_threads torch_threads",
    "base_case.warmup: {ratio: N}": "warmup_ratio warm_up_ratio warmup_fraction warmup_proportion",
    "base_case.warmup: {steps: N}": "warmup_steps warm_up_steps num_warmup_steps lr_warmup_steps warmup_iters",
    "base_case.weight_decay": "wd decay",
    "data": "dataset datasets dataset_path dataset_name train_file data_path dataset_dir",
    "heldout.rows": "val_size val_set_size eval_size test_size validation_split heldout_rows",
    "models": "base_model model_name model_name_or_path model_id pretrained_model_name_or_path",
    "models.KEY.chat_template": "template chat_template chat_template_path",
    "data.KEY.rows": "max_samples max_rows num_samples max_train_samples",
    "training.keep_checkpoints": "save_total_limit",
    "training.liger_kernels": "use_liger_kernel use_liger enable_liger_kernel",
    "training.report_to": "wandb_project wandb_run_name use_wandb logger",
}
# Keys that nothing here needs → why.
NOT_NEEDED = {
    "gradient_checkpointing": "it is always on where a GPU trains",
    "use_gradient_checkpointing": "it is always on where a GPU trains",
    "logging_steps": "every update is recorded",
    "output_dir": "results are in results/ under the study file's name",
    "resume_from_checkpoint": "an interrupted run continues by itself",
    "auto_resume_from_checkpoints": "an interrupted run continues by itself",
    "overwrite_output_dir": "a changed setting makes a new run",
    "trust_remote_code": "code from a model's folder is never run",
    "bias": "biases are not trained",
    "task_type": "every model is a causal language model",
}
# Values elsewhere → values here, of whichever key takes one of them.
VALUES = {
    "bfloat16": ("bf16", "16bit"),
    "bf16": ("16bit",),
    "float16": ("fp16", "16bit"),
    "half": ("fp16", "16bit"),
    "fp16": ("16bit",),
    "float32": ("fp32", "32bit"),
    "fp32": ("32bit",),
    "nf4": ("4bit",),
    "int4": ("4bit",),
    "4": ("4bit",),
    "16": ("16bit",),
    "32": ("32bit",),
    "adamw": ("adamw_torch",),
    "adamw-hf": ("adamw_torch",),
    "adamw-bnb-8bit": ("adamw_8bit",),
    "paged-adamw": ("paged_adamw_8bit",),
    "all": ("all-linear",),
    "freeze": ("none",),
    "lora+": ("lora_plus",),
    "loraplus": ("lora_plus",),
    "assistant-only": ("assistant",),
    "qlora": ("lora",),
}
HERE = {spelling: key for key, spellings in USUAL.items() for spelling in spellings.split()}


def key_fix(unknown: str, value: Any, *, place: Sequence[str], known: Sequence[str]) -> str:
    """What to write for the key `unknown` with its value in the section `place`, which has the keys `known`."""
    name = unknown.lower().replace("-", "_")
    if name in known:
        return f"write {name}"
    elsewhere = _section_of(name, place)
    if elsewhere is not None:
        return f"move it to {elsewhere}.{name}"
    if name in HERE:
        return _written_here(HERE[name], value, place, known)
    if name in NOT_NEEDED:
        return f"remove it: {NOT_NEEDED[name]}"
    close = difflib.get_close_matches(unknown, known, n=1)
    return f"write {close[0]}" if close else one_of(known)


def _section_of(name: str, place: Sequence[str]) -> str | None:
    """The section with that key, if only one has it or a run's settings do."""
    sections = read_schema()["properties"]
    if list(place) == ["grid"] and name in sections["base_case"]["properties"]:
        return "grid.axes"
    found = [section for section, entry in sections.items() if name in entry.get("properties", {})]
    if "base_case" in found:
        return "base_case"
    return found[0] if len(found) == 1 else None


def _written_here(here: str, value: Any, place: Sequence[str], known: Sequence[str]) -> str:
    key, _, form = here.partition(": ")
    name = key.removeprefix("base_case.")
    if name not in known:
        name, place = key, []
    if not form:
        return f"write {name}"
    values = value if isinstance(value, list) else [value]
    forms = [form.replace("N", _number_text(item)) for item in values[:5]]
    # An axis has a list of values, and a search space choices.
    if list(place) == ["grid", "axes"]:
        return f"write {name}: [{', '.join(forms)}]"
    if "spaces" in place:
        return f"write {name}: {{choices: [{form}]}}"
    return f"write {name}: {forms[0]}" if len(forms) == 1 else f"write {name}: {form}"


def _number_text(value: Any) -> str:
    share = _percent(value)
    if share is not None:
        return f"{share:g}"
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return f"{value:g}" if is_number and abs(value) < 10**6 else "N"


def value_fix(value: Any, schema: Any, *, place: Sequence[str | int]) -> str | None:
    """What to write for a value that the schema refuses at `place`, if it is a usual slip."""
    if not isinstance(schema, Mapping):
        return None
    name = next((part for part in reversed(place) if isinstance(part, str)), "")
    types = types_of(forms_of(schema))
    share = _percent(value)
    if share is not None and "number" in types | _types_below(schema):
        return f"write {share:g}" if "number" in types else f"write {{ratio: {share:g}}}"
    if isinstance(value, list) and "array" not in types and list(place[:1]) == ["base_case"] and len(place) > 1:
        return f"write one value here, and list the others in grid.axes.{place[1]}"
    if name == "target_modules" and isinstance(value, str) and _usual_value(value, schema) is None:
        return f"write [{', '.join(re.split('[,; ]+', value.strip()))}]"
    if value is None or isinstance(value, bool):
        return None
    fix = _number_fix(value, name, types) if isinstance(value, int | float) else None
    return fix or _usual_value(value, schema)


def _number_fix(value: float, name: str, types: set[str]) -> str | None:
    """The fix for a number where a map or a list belongs."""
    if name == "warmup" and "object" in types:
        return f"write {{ratio: {value:g}}}" if value < 1 else f"write {{steps: {value:g}}}"
    if name == "budget" and "object" in types:
        return f"write {{epochs: {value:g}}}, {{steps: {value:g}}} or {{tokens: {value:g}}}"
    if name == "batch" and "array" in types:
        return f"write [{value:g}, 1]: rows per device, and gradient accumulation steps"
    return None


def _usual_value(value: Any, schema: Mapping[str, Any]) -> str | None:
    """The fix for another spelling of one of the values that the schema lists."""
    allowed = [item for form in forms_of(schema) for item in form.get("enum", [])]
    text = str(value).strip().lower().replace("_", "-")
    same = [item for item in allowed if str(item).replace("_", "-") == text]
    same += [item for item in VALUES.get(text, ()) if item in allowed]
    if not same:
        return None
    if text == "qlora":
        return "write lora, and the precision 4bit"
    return f"write {same[0]}"


def _percent(value: Any) -> float | None:
    found = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*%\s*", value) if isinstance(value, str) else None
    return float(found[1]) / 100 if found else None


def _types_below(schema: Mapping[str, Any]) -> set[str]:
    return types_of(form for part in schema.get("properties", {}).values() for form in forms_of(part))
