"""lm-eval's Hugging Face model, watched: how each answer ended, and which prompts did not fit.

This module imports lm-eval and torch at its top (a base class must be there): import it inside functions only.
"""

import logging
from collections import deque
from typing import Any

import torch
from lm_eval.models.huggingface import HFLM
from lm_eval.models.utils import normalize_gen_kwargs

from loragrid.models.batch_sizes import CHOICE_LOGITS_PER_PASS
from loragrid.models.chat_template import ChatTemplate, adapt_roles
from loragrid.scoring.generation import AnswerMeter, Evidence


class WatchedLM(HFLM):
    """`HFLM` around a loaded model and the chat template it was trained in. It answers as HFLM does.

    Beside that it keeps, per prompt text, `answers` (tokens and `Evidence` of each generated answer) and `cut` (prompts
    cut on the left to fit the context).
    """

    def __init__(self, model: Any, template: ChatTemplate, *, batch_size: int) -> None:
        logger = logging.getLogger("lm_eval.models.huggingface")
        before = logger.level
        logger.setLevel(logging.ERROR)  # it warns that the model was loaded by the caller, which is the purpose
        try:
            super().__init__(pretrained=model, backend="causal", tokenizer=template.tokenizer, batch_size=batch_size)
        finally:
            logger.setLevel(before)
        self._template = template
        self._meter = AnswerMeter(model, template.tokenizer)
        self.forget()
        self.set_cache_hook(_Hook(self))

    def forget(self) -> None:
        """Start a new task: nothing seen yet."""
        self.answers: dict[str, tuple[list[int], Evidence]] = {}
        self.cut: set[str] = set()
        self._rows: deque[list[int]] = deque()

    def apply_chat_template(self, chat_history: list[dict[str, str]], add_generation_prompt: bool = True) -> str:
        """HFLM's, with the turns put into the roles that the template knows, as in training: where it knows no system
        turn HFLM would leave out the task's description."""
        return super().apply_chat_template(adapt_roles(self._template, chat_history), add_generation_prompt)

    def generate_until(self, requests: list[Any], disable_tqdm: bool = True) -> list[str]:
        """HFLM's, after noting the prompts that leave too little room and will be cut on the left."""
        for request in requests:
            context, settings = request.args
            room = self.max_length - normalize_gen_kwargs(settings, self.max_gen_toks)["max_gen_toks"]
            if len(self.tok_encode(context)) > room:
                self.cut.add(context)
        return super().generate_until(requests, disable_tqdm=disable_tqdm)

    def loglikelihood(self, requests: list[Any], disable_tqdm: bool = True) -> list[tuple[float, bool]]:
        """HFLM's, without progress bars: a job's log is read, not watched."""
        return super().loglikelihood(requests, disable_tqdm=disable_tqdm)

    def loglikelihood_rolling(self, requests: list[Any], disable_tqdm: bool = True) -> list[float]:
        """HFLM's, without progress bars."""
        return super().loglikelihood_rolling(requests, disable_tqdm=disable_tqdm)

    def _loglikelihood_tokens(
        self, requests: list[Any], disable_tqdm: bool = True, override_bs: int | None = None
    ) -> list[tuple[float, bool]]:
        for pair, context, continuation in requests:
            if len(context) + len(continuation) > self.max_length + 1:
                self.cut.add(pair[0])
        asked, longest = self.batch_size_per_gpu, max((len(c) + len(more) for _, c, more in requests), default=1)
        positions = CHOICE_LOGITS_PER_PASS // self.model.config.get_text_config().vocab_size
        self.batch_size_per_gpu = max(1, min(asked, positions // longest))
        try:
            return super()._loglikelihood_tokens(requests, disable_tqdm=True, override_bs=override_bs)
        finally:
            self.batch_size_per_gpu = asked

    def _model_generate(self, context: torch.Tensor, max_length: int, stop: list[str], **settings: Any) -> torch.Tensor:
        # generate() ends a row at an end token by itself. Without its text among the stops, lm-eval need not decode
        # the whole batch after every token to look for it, which for a small model takes as long as the model.
        stops = [text for text in stop if text and text not in self._meter.end_texts()]
        out = super()._model_generate(context, max_length, stops, **settings)
        self._stops = stops
        self._rows.extend(out[:, context.shape[1] :].tolist())
        return out

    def note(self, prompt: str) -> None:
        """Called once per answer in the order in which the batch was generated: measure the next row as its."""
        self.answers[prompt] = self._meter.measure(self._rows.popleft(), stops=self._stops)


class _Hook:
    """Stands where lm-eval puts its cache: it is told each answer as soon as it is there. Nothing is cached."""

    def __init__(self, model: WatchedLM) -> None:
        self._model = model

    def add_partial(self, kind: str, request: tuple, _result: Any) -> None:
        if kind == "generate_until":
            self._model.note(request[0])
