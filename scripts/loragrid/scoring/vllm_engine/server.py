"""Run by the interpreter of vLLM's environment: one engine that answers requests, one JSON object per line.

    python server.py --versions          prints the versions that scores depend on
    python server.py                     reads the engine's settings from the first line, then requests

The requests come on stdin and the answers go to what was stdout. Imports nothing of this project,
which vLLM's environment does not have, and vLLM in functions only: the stage imports this module
for its path and its limits.
"""

import argparse
import json
import os
import sys
from collections.abc import Sequence
from typing import Any

PACKAGES = ("vllm", "torch", "transformers")
# The ranks that vLLM has kernels for (0.32, `MaxLoRARanks`).
MAX_LORA_RANKS = (1, 8, 16, 32, 64, 128, 256, 320, 512)
# vLLM keeps the keys and values of a prompt by blocks of that many tokens.
BLOCK_TOKENS = 16
# The stage's own CUDA context does not fit beside vLLM's default of 0.92.
CARD_SHARE = 0.9
# A subject's adapter is read when its first request comes, and is not needed after its last one.
ADAPTERS_IN_MEMORY = 2

# A prompt with the number of its last tokens that are scored, and a prompt with the most tokens of its answer.
Row = tuple[list[int], int]


def versions() -> dict[str, str]:
    """Versions of `PACKAGES` in this environment; without vLLM there is no entry for it."""
    from importlib import metadata

    found = {}
    for package in PACKAGES:
        # The build for CPUs has a name of its own.
        for name in (package, f"{package}-cpu"):
            try:
                found.setdefault(package, metadata.version(name))
            except metadata.PackageNotFoundError:
                continue
    return found


def load_engine(settings: dict[str, Any]) -> Any:
    """The engine: `model` (a folder), `dtype`, `context` (tokens).

    `max_lora_rank` is the largest rank of its adapters that vLLM has, and `target_modules` the last
    parts of the names that they adapt; without these names there is no LoRA.
    """
    from vllm import LLM
    from vllm.platforms import current_platform

    options = {}
    if settings["target_modules"]:
        # Subjects are scored one after the other, so a batch never holds two adapters.
        options = {"enable_lora": True, "max_lora_rank": settings["max_lora_rank"], "max_loras": 1}
        options["max_cpu_loras"] = ADAPTERS_IN_MEMORY
        # Without the names, vLLM also wraps the output layer and then computes the log-likelihoods of a
        # prompt wrongly (0.32: it expects as many rows as the batch has requests).
        options["lora_target_modules"] = settings["target_modules"]
    return LLM(
        model=settings["model"],
        dtype=settings["dtype"],
        max_model_len=settings["context"],
        trust_remote_code=False,
        load_format="safetensors",
        # The model's own generation settings would change the answers.
        generation_config="vllm",
        enable_prefix_caching=True,
        gpu_memory_utilization=CARD_SHARE,
        # Compiling for a CPU takes longer than the scoring of a model that fits one.
        enforce_eager=current_platform.is_cpu(),
        seed=0,
        **options,
    )


def answer(engine: Any, request: dict[str, Any]) -> dict[str, Any]:
    """The answer to one request: {"scores": …} or {"tokens": …}."""
    adapter = _adapter(request["adapter"])
    if request["kind"] == "score":
        return {"scores": score(engine, request["rows"], adapter)}
    return {"tokens": generate(engine, request["rows"], adapter, request)}


def score(engine: Any, rows: Sequence[Row], adapter: Any) -> list[list[tuple[float, int]]]:
    """For each row the (log-likelihood, rank) of its last tokens; rank 1 is the likeliest token.

    The last token of a prompt is the only one that may be generated, so that it needs no place in
    the context and its log-likelihood is that of all tokens: vLLM reports it before that limit applies.
    """
    prompts, parameters, parts = [], [], []
    for ids, scored in rows:
        if _token_by_token(len(ids), scored):
            starts = range(len(ids) - scored, len(ids))
        else:
            starts = range(len(ids) - 1, len(ids))
        parts.append(len(starts))
        prompts += [{"prompt_token_ids": ids[:start]} for start in starts]
        parameters += [_forced(ids[start], whole=len(starts) < scored) for start in starts]
    outputs = iter(engine.generate(prompts, parameters, lora_request=adapter, use_tqdm=False))
    return [
        [pair for _ in range(number) for pair in _pairs(next(outputs), scored)]
        for number, (_, scored) in zip(parts, rows)
    ]


def _token_by_token(length: int, scored: int) -> bool:
    """Whether each scored token is asked for with a prompt of its own.

    vLLM does not use its prefix cache for a prompt whose own log-likelihoods are asked for. With
    the cache a prompt costs its last blocks, so many short prompts cost less than one long one.
    """
    return scored == 1 or 2 * scored * BLOCK_TOKENS < length


def _forced(token: int, *, whole: bool) -> Any:
    """One token, and the log-likelihoods of the prompt too if `whole`."""
    from vllm import SamplingParams

    return SamplingParams(
        temperature=0,
        max_tokens=1,
        logprobs=0,
        prompt_logprobs=0 if whole else None,
        allowed_token_ids=[token],
        ignore_eos=True,
        detokenize=False,
    )


def _pairs(output: Any, scored: int) -> list[tuple[float, int]]:
    """The (log-likelihood, rank) of the forced token, and of the prompt's scored ones before it."""
    forced = output.outputs[0]
    pairs = [_entry(forced.logprobs[0], forced.token_ids[0])]
    if output.prompt_logprobs is None or scored == 1:
        return pairs
    count = scored - 1
    before = zip(output.prompt_logprobs[-count:], output.prompt_token_ids[-count:])
    return [_entry(*one) for one in before] + pairs


def _entry(found: dict[int, Any], token: int) -> tuple[float, int]:
    return found[token].logprob, found[token].rank


def generate(engine: Any, rows: Sequence[Row], adapter: Any, settings: dict[str, Any]) -> list[list[int]]:
    """The generated tokens of each row, through its end token or stop text.

    `settings`: "ends" (token ids), "stops" (texts) and "sampling" (vLLM's names and values).
    """
    from vllm import SamplingParams

    parameters = [
        SamplingParams(
            max_tokens=limit,
            stop_token_ids=settings["ends"],
            stop=settings["stops"] or None,
            ignore_eos=True,  # the ends are complete, and the tokenizer's may not be among them
            skip_special_tokens=False,
            detokenize=bool(settings["stops"]),
            **settings["sampling"],
        )
        for _, limit in rows
    ]
    prompts = [{"prompt_token_ids": ids} for ids, _ in rows]
    outputs = engine.generate(prompts, parameters, lora_request=adapter, use_tqdm=False)
    return [list(output.outputs[0].token_ids) for output in outputs]


def _adapter(given: Sequence[Any] | None) -> Any:
    """vLLM's request for an adapter that is given as (number above 0, folder)."""
    if given is None:
        return None
    from vllm.lora.request import LoRARequest

    number, folder = given
    return LoRARequest(lora_name=f"adapter {number}", lora_int_id=number, lora_path=folder)


def main() -> None:
    """Answer requests until stdin ends."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--versions", action="store_true")
    if parser.parse_args().versions:
        print(json.dumps(versions()))
        return
    # vLLM and its processes print to stdout; that goes to stderr, and the answers go where stdout was.
    with os.fdopen(os.dup(1), "w", encoding="utf-8") as answers:
        os.dup2(2, 1)
        engine = load_engine(json.loads(sys.stdin.readline()))
        print(json.dumps({"ready": True}), file=answers, flush=True)
        for line in sys.stdin:
            try:
                found = answer(engine, json.loads(line))
            except Exception as error:
                if type(error).__name__ == "EngineDeadError":
                    raise
                found = {"error": f"{type(error).__name__}: {error}"}
            print(json.dumps(found), file=answers, flush=True)


if __name__ == "__main__":
    main()
