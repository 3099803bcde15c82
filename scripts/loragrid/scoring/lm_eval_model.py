"""lm-eval's Hugging Face model, extended to measure generated answers and note cut prompts.

Imports lm-eval and torch at the top, because the base class is needed there. Import this module in
functions only.
"""

import json
import logging
from array import array
from collections import deque
from typing import Any
from weakref import WeakKeyDictionary

import torch
from lm_eval.models.huggingface import HFLM
from lm_eval.models.utils import handle_stop_sequences, normalize_gen_kwargs, postprocess_generated_text
from torch.nn.utils.rnn import pad_sequence

from loragrid.models.batch_sizes import CHOICE_LOGITS_PER_PASS
from loragrid.models.chat_templates.adapting import adapt_roles
from loragrid.models.chat_templates.template import ChatTemplate
from loragrid.scoring.generation import AnswerMeasures, AnswerMeter, cut_at_end_token
from loragrid.scoring.hf_engine.greedy_decoding import Ends, Request, all_answers, decodes_greedily
from loragrid.scoring.hf_engine.log_likelihoods import log_likelihoods
from loragrid.scoring.hf_engine.shared_prefixes import passes_with_cache
from loragrid.scoring.running_task import NOTHING_KEPT, RunningTask

# Token ids of texts, by tokenizer: lm-eval encodes a question for each of its choices, and every subject of a base is
# asked the same. At some hundred tokens a text, of four bytes each, this many texts are some 50 MB.
KEPT_TEXTS = 50_000
_encoded: WeakKeyDictionary[Any, dict[tuple, array]] = WeakKeyDictionary()


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

    def start_task(self, running: RunningTask = NOTHING_KEPT) -> None:
        """Forget the answers and cut prompts of the previous task."""
        self._running = running
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

    def tok_encode(
        self, string: str, add_special_tokens: bool | None = None, left_truncate_len: int | None = None, **settings: Any
    ) -> list[int]:
        """HFLM's, once for each text."""
        if settings:
            return super().tok_encode(string, add_special_tokens, left_truncate_len, **settings)
        known = _encoded.setdefault(self.tokenizer, {})
        key = string, add_special_tokens, self.add_bos_token
        if key not in known:
            if len(known) == KEPT_TEXTS:
                known.clear()
            known[key] = array("i", super().tok_encode(string, add_special_tokens))
        return known[key].tolist()[-left_truncate_len if left_truncate_len else 0 :]

    def generate_until(self, requests: list[Any], disable_tqdm: bool = True) -> list[str]:
        """HFLM's answers, those with the same settings together, after noting the prompts that are cut on the left."""
        groups: dict[str, list[int]] = {}
        settings = [normalize_gen_kwargs(request.args[1], self.max_gen_toks) for request in requests]
        for place, request in enumerate(requests):
            if len(self.tok_encode(request.args[0])) > self.max_length - settings[place]["max_gen_toks"]:
                self.cut.add(request.args[0])
            groups.setdefault(json.dumps(settings[place], sort_keys=True), []).append(place)
        if not all(self._is_plain(one) for one in settings) or not self._writes_greedily():
            with self._running.progress(len(requests), "answers") as self._progress:
                return super().generate_until(requests, disable_tqdm=disable_tqdm)
        found: dict[int, str] = {}
        for places in groups.values():
            contexts = [requests[place].args[0] for place in places]
            found |= zip(places, self._greedy_texts(contexts, settings[places[0]]), strict=True)
        return [found[place] for place in range(len(requests))]

    def _is_plain(self, settings: dict[str, Any]) -> bool:
        """Whether a request asks for the likeliest answer and nothing else, and leaves room for a prompt."""
        other = set(settings) - {"do_sample", "temperature", "until", "max_gen_toks"}
        return not other and not settings.get("do_sample") and 0 < settings["max_gen_toks"] < self.max_length

    def _writes_greedily(self) -> bool:
        return decodes_greedily(self.model)

    def _greedy_texts(self, contexts: list[str], settings: dict[str, Any]) -> list[str]:
        """The answers to prompts with the same settings, which are measured too."""
        most = settings["max_gen_toks"]
        until = handle_stop_sequences(
            settings["until"], eos=self.tok_decode(self.eot_token_id, skip_special_tokens=False)
        )
        # An end token ends a row without its text being looked for.
        stops = [text for text in until if text and text not in self._meter.end_texts()]
        room = self.max_length - most
        requests = [Request(self.tok_encode(context, left_truncate_len=room), most) for context in contexts]
        answers = all_answers(
            self.model,
            requests,
            ends=Ends(frozenset(self._meter.end_ids), tuple(stops), self.tokenizer),
            batch_size=self.batch_size_per_gpu,
            running=self._running,
        )
        texts = []
        for context, tokens in zip(contexts, answers, strict=True):
            self.answers[context] = self._meter.measure(tokens, stops=stops)
            written, _ = cut_at_end_token(tokens, end_ids=self._meter.end_ids)
            text = self.tok_decode(written)
            texts.append(postprocess_generated_text(generation=text, stop=until, think_end_token=None))
        return texts

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
            return log_likelihoods(self.model, rows, batch_size=self.batch_size_per_gpu, running=self._running)
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
        out = self._kept_or_generated(context, max_length, stops, settings)
        self._stops = stops
        self._rows.extend(out[:, context.shape[1] :].tolist())
        self._progress.add(items=len(out))
        # lm-eval leaves out special tokens when it decodes, and some tokenizers do not flag the end of a turn as one.
        unflagged = self._meter.end_ids - set(self.tokenizer.all_special_ids)
        ends = torch.isin(out, torch.tensor(sorted(unflagged), device=out.device, dtype=out.dtype))
        ends[:, : context.shape[1]] = False
        return out.masked_fill(ends, self.tokenizer.pad_token_id)

    def _kept_or_generated(
        self, context: torch.Tensor, max_length: int, stops: list[str], settings: dict[str, Any]
    ) -> torch.Tensor:
        """`_generate_tokens`, but for a batch that an interrupted job has kept."""
        if settings.get("do_sample"):
            # The next answers depend on the random numbers of these.
            return self._generate_tokens(context, max_length, stops, settings)
        asked = {key: value for key, value in settings.items() if key != "attention_mask"}
        prompts = [row[mask].tolist() for row, mask in zip(context, settings["attention_mask"].bool(), strict=True)]
        names = [[prompt, max_length - context.shape[1], stops, asked] for prompt in prompts]
        kept = [self._running.kept.get(name) for name in names]
        if all(tokens is not None for tokens in kept):
            answers = [torch.tensor(tokens, dtype=context.dtype) for tokens in kept]
            answers = pad_sequence(answers, batch_first=True, padding_value=self.tokenizer.pad_token_id)
            return torch.cat([context, answers.to(context.device)], dim=1)
        out = self._generate_tokens(context, max_length, stops, settings)
        for name, tokens in zip(names, out[:, context.shape[1] :].tolist(), strict=True):
            self._running.kept.add(name, tokens)
        return out

    def _generate_tokens(
        self, context: torch.Tensor, max_length: int, stops: list[str], settings: dict[str, Any]
    ) -> torch.Tensor:
        """The context and what follows it: int64 tensor [rows, tokens], padded after a row's end."""
        settings = settings | {"eos_token_id": sorted(self._meter.end_ids)}
        return super()._model_generate(context, max_length, stops, **settings)

    def record_answer(self, prompt: str) -> None:
        """Measure the oldest unmeasured row as the answer to `prompt`."""
        self.answers[prompt] = self._meter.measure(self._rows.popleft(), stops=self._stops)


class _AnswerHook:
    """Takes the place of lm-eval's cache, which receives every answer in order. Caches nothing."""

    def __init__(self, model: LmEvalModel) -> None:
        self._model = model

    def add_partial(self, kind: str, request: tuple, _result: Any) -> None:
        """lm-eval's call for each answer; `request` is (prompt, settings)."""
        if kind == "generate_until":
            self._model.record_answer(request[0])
