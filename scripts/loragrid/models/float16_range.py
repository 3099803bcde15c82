"""Model families whose activations or gradients exceed float16, whose largest number is 65,504, and who says so.

The table decides before a base is loaded; the first updates of every run in float16 are checked as well
(training/float16_check.py), because a table knows families and not fine-tuned weights. Imports no torch.
"""

from dataclasses import dataclass

# The largest number of float16.
LIMIT = 65_504.0
_ZOO = "unsloth_zoo 2026.10.9, model_lists.py"
_VLLM = "vLLM refuses float16 for it, config/model.py"


@dataclass(frozen=True)
class Family:
    """What is known of a family in float16; with `always` it computes in float32 where there is no bfloat16."""

    always: bool
    source: str


# By the beginning of transformers' `model_type`; the longest that fits counts.
FAMILIES = {
    "gemma2": Family(False, f"{_VLLM}; public runs on a T4 train it"),
    "gemma3": Family(True, "https://unsloth.ai/blog/gemma3"),
    "gemma4": Family(True, "https://github.com/unslothai/unsloth/pull/5092"),
    "glm": Family(True, "https://github.com/zai-org/GLM-4/issues/96"),
    "glm4": Family(True, f"{_VLLM}; https://github.com/vllm-project/vllm/issues/17154"),
    "glm4_moe": Family(True, _ZOO),
    "gpt_oss": Family(True, _ZOO),
    "llama": Family(False, "TinyLlama: https://github.com/unslothai/unsloth/issues/911"),
    "qwen2": Family(False, "https://github.com/QwenLM/Qwen3/issues/670 and /868"),
    "qwen3": Family(False, "https://github.com/vllm-project/vllm/pull/33972"),
    "qwen3_5": Family(True, _ZOO),
    "qwen3_moe": Family(True, _ZOO),
}


def float16_family(model_type: str) -> Family | None:
    """The row of the table for a model type; None for a family of which no overflow was reported."""
    fitting = [name for name in FAMILIES if model_type == name or model_type.startswith(f"{name}_")]
    # Gemma 3n has no underscore.
    fitting += [name for name in ("gemma3",) if model_type.startswith(name)]
    return FAMILIES[max(fitting, key=len)] if fitting else None


def overflows_float16(model_type: str) -> bool:
    """Whether the model must compute in float32 on a device without bfloat16."""
    family = float16_family(model_type)
    return family is not None and family.always
