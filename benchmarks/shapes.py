"""Base models with random weights in the true shapes of the T4 study's models, so speed and memory are those of the real ones.

Sizes from the models' own config.json (Llama 3.2: https://huggingface.co/meta-llama, Gemma 3: https://huggingface.co/google).
`tiny` shapes are for trying the benchmarks out on a CPU.
"""

import json
from pathlib import Path
from typing import Any

import numpy as np

from loragrid.paths import ROOT

LLAMA = {
    "vocab_size": 128_256,
    "num_key_value_heads": 8,
    "max_position_embeddings": 131_072,
    "tie_word_embeddings": True,
}
LLAMA |= {"rope_parameters": {"rope_type": "default", "rope_theta": 500_000.0}, "intermediate_size": 8192}
SHAPES: dict[str, tuple[str, dict[str, Any]]] = {
    "llama-1b": (
        "Llama",
        LLAMA | {"num_hidden_layers": 16, "hidden_size": 2048, "num_attention_heads": 32, "head_dim": 64},
    ),
    "llama-3b": (
        "Llama",
        LLAMA | {"num_hidden_layers": 28, "hidden_size": 3072, "num_attention_heads": 24, "head_dim": 128},
    ),
    "gemma-270m": (
        "Gemma3",
        {
            **{"vocab_size": 262_144, "num_hidden_layers": 18, "hidden_size": 640, "intermediate_size": 2048},
            **{"num_attention_heads": 4, "num_key_value_heads": 1, "head_dim": 256, "sliding_window": 512},
            **{"max_position_embeddings": 32_768, "tie_word_embeddings": True},
        },
    ),
    "tiny": (
        "Llama",
        {
            **{"vocab_size": 2048, "num_hidden_layers": 2, "hidden_size": 64, "intermediate_size": 128},
            **{"num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 4096},
        },
    ),
}
# ASSUME: rows of FineTome-100k: log-normal lengths with a mean of about 550 tokens, a third of a row without loss.
MEAN_TOKENS, SPREAD = 550, 0.7


def make_model(name: str, folder: Path, *, dtype: str) -> Path:
    """A model folder with that shape's random weights, in float16, bfloat16 or float32, and the demo's tokenizer."""
    import torch
    import transformers

    family, sizes = SHAPES[name]
    config_class = getattr(transformers, "LlamaConfig" if family == "Llama" else "Gemma3TextConfig")
    model_class = getattr(transformers, f"{family}ForCausalLM")
    tokenizer = transformers.AutoTokenizer.from_pretrained(ROOT / "resources" / "models" / "llama-s")
    tokens = {key: getattr(tokenizer, key) for key in ("bos_token_id", "eos_token_id", "pad_token_id")}
    torch.manual_seed(3407)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    with torch.device(device):
        model = model_class(config_class(**sizes, **tokens)).to(getattr(torch, dtype))
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def make_rows(folder: Path, *, rows: int, heldout: int, most_tokens: int, mean_tokens: int = MEAN_TOKENS) -> Path:
    """A tokenised data set of random tokens, in the format of prepare_data."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    from loragrid.data.training_data import rows_sha256

    random = np.random.default_rng(3407)
    folder.mkdir(parents=True)
    digests, tokens = {}, {}
    for name, count in (("train", rows), ("heldout", heldout)):
        lengths = np.clip(random.lognormal(np.log(mean_tokens) - SPREAD**2 / 2, SPREAD, count), 16, most_tokens)
        ids = [random.integers(16, 2000, size=int(length)).tolist() for length in lengths]
        columns = {
            "row": pa.array(range(count), pa.int64()),
            "input_ids": pa.array(ids, pa.list_(pa.int32())),
            "labels": pa.array([[-100] * (len(r) // 3) + r[len(r) // 3 :] for r in ids], pa.list_(pa.int32())),
        }
        table = pa.table(columns)
        pq.write_table(table, folder / f"{name}.parquet")
        digests[name], tokens[name] = rows_sha256(table), sum(map(len, ids))
    card = {"schema": 1, "fingerprint": digests["train"], "heldout_fingerprint": digests["heldout"]}
    card |= {"tokens": tokens, "split": {"train_rows": rows, "heldout_rows": heldout}}
    (folder / "card.json").write_text(json.dumps(card))
    return folder
