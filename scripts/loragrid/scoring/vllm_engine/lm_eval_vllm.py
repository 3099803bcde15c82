"""lm-eval's Hugging Face model with vLLM behind it: the same tokens, texts and stops, other forward passes.

Imports lm-eval and torch at the top, as `lm_eval_model` does. Import this module in functions only.
"""

import math
from typing import Any

import torch
from torch.nn.utils.rnn import pad_sequence

from loragrid.models.chat_templates.template import ChatTemplate
from loragrid.scoring.lm_eval_model import LmEvalModel

# vLLM forms its own batches, so it gets all requests of a task at once.
ALL_AT_ONCE = 1_000_000
# Settings of a request with the same name and meaning in vLLM.
SAME_NAMES = ("temperature", "top_p", "top_k", "min_p", "repetition_penalty")
SAMPLING_SEED = 1234  # lm-eval's own for torch


class VllmLm(LmEvalModel):
    """`LmEvalModel` whose log-likelihoods and answers come from vLLM."""

    def __init__(self, model: Any, template: ChatTemplate) -> None:
        """`model`: a `VllmModel`."""
        super().__init__(model.facts, template, batch_size=ALL_AT_ONCE)
        self._engine = model

    @property
    def max_length(self) -> int:
        """Tokens of a scored text before its last one: vLLM's context holds the last one too."""
        return self._engine.facts.context - 1

    def _writes_greedily(self) -> bool:
        return False  # vLLM does, behind `_generate_tokens`

    def _loglikelihood_tokens(
        self, requests: list[Any], disable_tqdm: bool = True, override_bs: int | None = None
    ) -> list[tuple[float, bool]]:
        rows = []
        for pair, context, continuation in requests:
            whole = context + continuation
            if len(whole) > self.max_length + 1:
                self.cut.add(pair[0])
            rows.append((whole[-(self.max_length + 1) :], len(continuation)))
        with self._running.progress(len(rows), "log-likelihoods"):
            found = self._engine.scores(rows)
        return [(math.fsum(value for value, _ in pairs), all(rank == 1 for _, rank in pairs)) for pairs in found]

    def _generate_tokens(
        self, context: torch.Tensor, max_length: int, stops: list[str], settings: dict[str, Any]
    ) -> torch.Tensor:
        most, mask = max_length - context.shape[1], settings["attention_mask"].bool()
        rows = [(ids[kept].tolist(), most) for ids, kept in zip(context, mask)]
        asked = {"ends": sorted(self._meter.end_ids), "stops": stops, "sampling": self._sampling(settings)}
        answers = [torch.tensor(ids, dtype=context.dtype) for ids in self._engine.generate(rows, settings=asked)]
        answers = pad_sequence(answers, batch_first=True, padding_value=self.tokenizer.pad_token_id)
        return torch.cat([context, answers], dim=1)

    def _sampling(self, settings: dict[str, Any]) -> dict[str, Any]:
        """A request's settings in vLLM's terms; raises ValueError for one that vLLM does not have."""
        asked = {key: value for key, value in settings.items() if key not in ("attention_mask", "do_sample")}
        unknown = sorted(set(asked) - set(SAME_NAMES))
        if unknown:
            raise ValueError(f"vllm has no generation setting {unknown[0]} ({asked[unknown[0]]})")
        greedy = self._engine.facts.sampling()
        if not settings.get("do_sample"):
            return greedy | {key: value for key, value in asked.items() if key == "repetition_penalty"}
        # transformers samples at temperature 1 by default.
        return greedy | {"temperature": 1.0, "seed": SAMPLING_SEED} | asked
