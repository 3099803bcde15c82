"""lm-eval's Hugging Face model, extended to measure generated answers and note cut prompts.

Imports lm-eval and torch at the top, because the base class is needed there. Import this module in
functions only.
"""

import logging
from collections import deque
from typing import Any

import torch
from lm_eval.models.huggingface import HFLM
from lm_eval.models.utils import normalize_gen_kwargs

from loragrid.models.batch_sizes import CHOICE_LOGITS_PER_PASS
from loragrid.models.chat_templates.adapting import adapt_roles
from loragrid.models.chat_templates.template import ChatTemplate
from loragrid.scoring.generation import AnswerMeasures, AnswerMeter
from loragrid.scoring.hf_engine.greedy_decoding import Ends, decodes_greedily, greedy_answers
from loragrid.scoring.hf_engine.log_likelihoods import log_likelihoods
from loragrid.scoring.hf_engine.shared_prefixes import passes_with_cache


class LmEvalModel(HFLM):
    """`HFLM` around a loaded model and the chat template it was trained with; answers as HFLM does.

    In addition it keeps, for the current task, `answers` (prompt → tokens and `AnswerMeasures` of
    each generated answer) and `cut` (prompts cut on the left to fit the context).
    """

    def __init__(self, model: Any, template: ChatTemplate, *, batch_size: int) -> None:
        # HFLM warns that the model was loaded by the caller, which is intended here.
        logger = logging.getLogger("lm_eval.models.huggingface")
        level = logger.level
        logger.setLevel(logging.ERROR)
        try:
            super().__init__(pretrained=model, backend="causal", tokenizer=template.tokenizer, batch_size=batch_size)
        finally:
            logger.setLevel(level)
        self._template = template
        self._meter = AnswerMeter(model, template.tokenizer)
        self.start_task()
        self.set_cache_hook(_AnswerHook(self))

    def start_task(self) -> None:
        """Forget the answers and cut prompts of the previous task."""
        self.answers: dict[str, tuple[list[int], AnswerMeasures]] = {}
        self.cut: set[str] = set()
        # Generated rows that were not measured yet, and the stop texts they were generated with.
        self._rows: deque[list[int]] = deque()
        self._stops: list[str] = []

    def apply_chat_template(self, chat_history: list[dict[str, str]], add_generation_prompt: bool = True) -> str:
        """HFLM's, with the turns in roles that the template supports, as in training.

        HFLM drops the task's description if the template has no system role.
        """
        return super().apply_chat_template(adapt_roles(self._template, chat_history), add_generation_prompt)

    def generate_until(self, requests: list[Any], disable_tqdm: bool = True) -> list[str]:
        """HFLM's, after noting the prompts that it will cut on the left."""
        for request in requests:
            context, settings = request.args
            room = self.max_length - normalize_gen_kwargs(settings, self.max_gen_toks)["max_gen_toks"]
            if len(self.tok_encode(context)) > room:
                self.cut.add(context)
        return super().generate_until(requests, disable_tqdm=disable_tqdm)

    def loglikelihood(self, requests: list[Any], disable_tqdm: bool = True) -> list[tuple[float, bool]]:
        """HFLM's without progress bars, which would fill a job's log."""
        return super().loglikelihood(requests, disable_tqdm=disable_tqdm)

    def loglikelihood_rolling(self, requests: list[Any], disable_tqdm: bool = True) -> list[float]:
        """HFLM's without progress bars."""
        return super().loglikelihood_rolling(requests, disable_tqdm=disable_tqdm)

    def _loglikelihood_tokens(
        self, requests: list[Any], disable_tqdm: bool = True, override_bs: int | None = None
    ) -> list[tuple[float, bool]]:
        for pair, context, continuation in requests:
            if len(context) + len(continuation) > self.max_length + 1:
                self.cut.add(pair[0])
        if requests and passes_with_cache(self.model):
            # As HFLM cuts: the last token is only predicted.
            rows = [((before + after)[-(self.max_length + 1) :], len(after)) for _, before, after in requests]
            return log_likelihoods(self.model, rows, batch_size=self.batch_size_per_gpu)
        # HFLM keeps the logits of a whole batch, so long choices get a smaller one.
        configured = self.batch_size_per_gpu
        longest = max((len(context) + len(continuation) for _, context, continuation in requests), default=1)
        positions = CHOICE_LOGITS_PER_PASS // self.model.config.get_text_config().vocab_size
        self.batch_size_per_gpu = max(1, min(configured, positions // longest))
        try:
            return super()._loglikelihood_tokens(requests, disable_tqdm=True, override_bs=override_bs)
        finally:
            self.batch_size_per_gpu = configured

    def _model_generate(self, context: torch.Tensor, max_length: int, stop: list[str], **settings: Any) -> torch.Tensor:
        # generate() ends a row at an end token without help. If its text stays among the stops,
        # lm-eval decodes the whole batch after every token to look for it, which doubles the time
        # of a small model.
        stops = [text for text in stop if text and text not in self._meter.end_texts()]
        out = self._generate_tokens(context, max_length, stops, settings)
        self._stops = stops
        self._rows.extend(out[:, context.shape[1] :].tolist())
        # lm-eval leaves out special tokens when it decodes, and some tokenizers do not flag the end of a turn as one.
        unflagged = self._meter.end_ids - set(self.tokenizer.all_special_ids)
        ends = torch.isin(out, torch.tensor(sorted(unflagged), device=out.device, dtype=out.dtype))
        ends[:, : context.shape[1]] = False
        return out.masked_fill(ends, self.tokenizer.pad_token_id)

    def _generate_tokens(
        self, context: torch.Tensor, max_length: int, stops: list[str], settings: dict[str, Any]
    ) -> torch.Tensor:
        """The context and what follows it: int64 tensor [rows, tokens], padded after a row's end."""
        if _is_greedy(settings) and decodes_greedily(self.model):
            return greedy_answers(
                self.model,
                context,
                settings["attention_mask"],
                max_new_tokens=max_length - context.shape[1],
                ends=Ends(frozenset(self._meter.end_ids), tuple(stops), self.tokenizer),
                pad=self.tokenizer.pad_token_id,
            )
        settings = settings | {"eos_token_id": sorted(self._meter.end_ids)}
        return super()._model_generate(context, max_length, stops, **settings)

    def record_answer(self, prompt: str) -> None:
        """Measure the oldest unmeasured row as the answer to `prompt`."""
        self.answers[prompt] = self._meter.measure(self._rows.popleft(), stops=self._stops)


def _is_greedy(settings: dict[str, Any]) -> bool:
    """Whether lm-eval's settings of a request ask for the likeliest answer and nothing else."""
    return set(settings) <= {"attention_mask", "do_sample", "temperature"} and not settings.get("do_sample")


class _AnswerHook:
    """Takes the place of lm-eval's cache, which receives every answer in order. Caches nothing."""

    def __init__(self, model: LmEvalModel) -> None:
        self._model = model

    def add_partial(self, kind: str, request: tuple, _result: Any) -> None:
        """lm-eval's call for each answer; `request` is (prompt, settings)."""
        if kind == "generate_until":
            self._model.record_answer(request[0])
