"""Generates answers token by token, one request at a time, with adapters switched on a base that stays loaded."""

import queue
import threading
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from loragrid.app.answer_streamer import Answer, AnswerStreamer
from loragrid.app.catalogue import AppModel, Catalogue
from loragrid.errors import UserError, first_line
from loragrid.models.attached_adapters import attach_adapter, detach_adapter, keep_dtypes
from loragrid.models.chat_templates.end_tokens import end_tokens
from loragrid.models.loading import load_base, load_tokenizer, torch_device
from loragrid.runtime.atomic_files import read_json
from loragrid.scoring.prompts import prompt_ids
from loragrid.study.sections import ModelEntry

# Bases and adapters kept in memory, enough for every model of the shipped studies. The least recently used is dropped.
MAX_BASES = 3
MAX_ADAPTERS = 16
MAX_NEW_TOKENS = 2048
MIN_NEW_TOKENS = 16
TOP_P = 0.95


@dataclass(frozen=True)
class Sampling:
    """Sampling settings of an answer. `temperature` 0 always takes the likeliest token, independent of the seed."""

    seed: int
    temperature: float
    max_new_tokens: int


class PromptTooLong(UserError):
    """The prompt leaves too little of the model's context for an answer."""


class Answerer:
    """Loads bases on first use and generates answers, one at a time: a base has only one active adapter."""

    def __init__(self, catalogue: Catalogue) -> None:
        self.catalogue = catalogue
        self.device = torch_device()
        self._loaded: OrderedDict[str, LoadedBase] = OrderedDict()
        # Another request must not switch the adapter in the middle of an answer.
        self._lock = threading.Lock()

    def is_loaded(self, subject: AppModel) -> bool:
        """Whether the subject's base is in memory."""
        return subject.model in self._loaded

    def load(self, subject: AppModel) -> "LoadedBase":
        """The subject's base with the subject's adapter attached, loaded on first use."""
        if subject.model not in self._loaded:
            # Drop before loading, so that memory never holds more than MAX_BASES.
            while len(self._loaded) >= MAX_BASES:
                self._loaded.popitem(last=False)
            self._loaded[subject.model] = LoadedBase(self.catalogue.models[subject.model], self.device)
        self._loaded.move_to_end(subject.model)
        base = self._loaded[subject.model]
        base.attach_adapter(subject)
        return base

    def stream(
        self, subject: AppModel, prompt: str, sampling: Sampling, stop: threading.Event | None = None
    ) -> Iterator[Answer]:
        """The growing answer to `prompt`; the last one has `ended`. Setting `stop` ends it at the next token.

        A thread generates, and ends after `MAX_SECONDS` even if nobody reads its answers. Errors: `PromptTooLong`.
        """
        stop = stop or threading.Event()
        answers: queue.SimpleQueue[Answer | BaseException] = queue.SimpleQueue()
        arguments = (subject, prompt, sampling, stop, answers)
        # Gradio may abandon this generator at any time. In a thread of its own the model always reaches a limit, and
        # the lock is released.
        worker = threading.Thread(target=self._generate, args=arguments, daemon=True)
        worker.start()
        try:
            while True:
                answer = answers.get()
                if isinstance(answer, BaseException):
                    raise answer
                yield answer
                if answer.ended:
                    return
        except GeneratorExit:  # nobody reads the rest
            stop.set()
            raise

    def _generate(
        self, subject: AppModel, prompt: str, sampling: Sampling, stop: threading.Event, answers: Any
    ) -> None:
        import torch

        try:
            with self._lock:
                # torch counts threads per calling thread, so each worker has to set its own.
                torch.set_num_threads(self.catalogue.threads)
                self.load(subject).answer(subject, prompt, sampling, stop, answers)
        except BaseException as error:  # `stream` raises it in the reader's thread
            answers.put(error)


class LoadedBase:
    """A base model with its tokenizer and its loaded adapters."""

    def __init__(self, entry: ModelEntry, device: str) -> None:
        self._entry, self._device = entry, device
        self.tokenizer = load_tokenizer(entry)
        self.model = load_base(entry, device=device)
        self._kind: str | None = None
        # PEFT puts adapter names into module paths, so the run names, which may have dots, cannot be used.
        self._names: OrderedDict[str, str] = OrderedDict()
        self._count = 0

    def attach_adapter(self, subject: AppModel) -> None:
        """Make the subject's adapter active, read from disk on first use. An untrained base needs no change: `answer`
        disables the adapters."""
        if subject.adapter is None:
            return
        if subject.name not in self._names:
            self._read_adapter(subject)
        self._names.move_to_end(subject.name)
        self.model.set_adapter(self._names[subject.name])

    def _read_adapter(self, subject: AppModel) -> None:
        from peft import PeftModel

        if not (Path(subject.adapter) / "adapter_model.safetensors").is_file():
            raise UserError(
                f"{subject.adapter}: the adapter folder has no adapter_model.safetensors. Fix: train the run again."
            )
        kind = read_json(Path(subject.adapter) / "adapter_config.json").get("peft_type")
        if self._names and kind != self._kind:
            # PEFT holds adapters of one kind at a time.
            self.model = detach_adapter(self.model) or load_base(self._entry, device=self._device)
            self._names.clear()
        self._kind = kind
        name = f"adapter{self._count}"
        self._count += 1
        try:
            # The first adapter wraps the base; wrapping twice would stack the adapters.
            if isinstance(self.model, PeftModel):
                self.model.load_adapter(subject.adapter, adapter_name=name)
            else:
                self.model = attach_adapter(self.model, subject.adapter, adapter_name=name)
        except (ValueError, RuntimeError, KeyError, TypeError) as error:
            raise UserError(
                f"{subject.adapter}: the adapter does not fit {subject.model} ({first_line(error)}). "
                "Fix: give its own base model."
            ) from None
        self.model.eval()
        keep_dtypes(self.model)
        self._names[subject.name] = name
        while len(self._names) > MAX_ADAPTERS:
            _, oldest = self._names.popitem(last=False)
            self.model.delete_adapter(oldest)

    def answer(self, subject: AppModel, prompt: str, sampling: Sampling, stop: threading.Event, answers: Any) -> None:
        """Generate in this thread and put growing `Answer`s into the queue `answers`, the last with `ended`."""
        import torch

        ids = torch.tensor([prompt_ids(self.tokenizer, prompt)], device=self.model.device)
        free_tokens = self.free_tokens(ids.shape[1])
        ends = end_tokens(self.model, self.tokenizer)
        streamer = AnswerStreamer(self.tokenizer, set(ends), stop, answers)
        adapters = nullcontext()
        if subject.adapter is None and self._names:
            adapters = self.model.disable_adapter()
        with torch.inference_mode(), adapters:
            # Seeded under the lock: the same seed gives the same answer however many users ask.
            torch.manual_seed(sampling.seed)
            self.model.generate(
                input_ids=ids,
                attention_mask=torch.ones_like(ids),
                max_new_tokens=min(free_tokens, sampling.max_new_tokens, MAX_NEW_TOKENS),
                pad_token_id=self.tokenizer.pad_token_id,
                eos_token_id=list(ends),
                streamer=streamer,
                stopping_criteria=[streamer.should_end],
                **_sampling_arguments(sampling),
            )
        streamer.finish()

    def free_tokens(self, prompt_tokens: int) -> int:
        """The tokens of the model's context that the prompt leaves for an answer. Errors: `PromptTooLong`."""
        context = self.model.config.get_text_config().max_position_embeddings
        free = context - prompt_tokens
        if free < MIN_NEW_TOKENS:
            limit = context - MIN_NEW_TOKENS
            raise PromptTooLong(
                f"The prompt is {prompt_tokens} tokens long, but this model reads at most {limit}. Please shorten it."
            )
        return free


def _sampling_arguments(sampling: Sampling) -> dict[str, Any]:
    if sampling.temperature <= 0:
        # None overrides the model's own generation settings, about which transformers would warn.
        return {"do_sample": False, "temperature": None, "top_p": None, "top_k": None}
    return {"do_sample": True, "temperature": sampling.temperature, "top_p": TOP_P, "top_k": 0}
