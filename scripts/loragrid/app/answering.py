"""Models that answer, one request at a time and token by token: adapters are switched on a base that stays loaded."""

import queue
import threading
import time
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from loragrid.app.catalogue import Catalogue, Subject
from loragrid.errors import UserError, first_line
from loragrid.models.loading import load_base, load_tokenizer, torch_device
from loragrid.scoring.generation import end_token_ids
from loragrid.scoring.prompts import render
from loragrid.study.sections import ModelEntry

# Bases and adapters kept loaded; the one unused longest gives way. Enough for every model of the shipped studies.
MAX_BASES = 3
MAX_ADAPTERS = 16
# A request's caps. A model that needs longer for an answer is not one to wait for in a browser.
MAX_SECONDS = 120.0
MAX_NEW_TOKENS = 2048
MIN_NEW_TOKENS = 16
TOP_P = 0.95


@dataclass(frozen=True)
class Sampling:
    """How an answer is drawn: `temperature` 0 takes the likeliest token each time, whatever the seed."""

    seed: int
    temperature: float
    max_new_tokens: int


@dataclass(frozen=True)
class Answer:
    """An answer so far. `ended` is "" while it is being written, then why it ended: "itself", "length" (token limit or
    context), "time" or "stopped" (by the user); `seconds` counts from the first token's computation."""

    text: str
    tokens: int
    seconds: float
    ended: str

    @property
    def tokens_per_second(self) -> float:
        return self.tokens / self.seconds if self.seconds > 0 else 0.0


class PromptTooLong(UserError):
    """The prompt leaves no room for an answer in the model's context."""


class Answerer:
    """Loads bases when they are first asked for, and answers. Requests take turns: a base wears one adapter at a time."""

    def __init__(self, catalogue: Catalogue) -> None:
        self.catalogue = catalogue
        self.device = torch_device()
        self._loaded: OrderedDict[str, LoadedBase] = OrderedDict()
        self._turn = threading.Lock()

    def is_loaded(self, subject: Subject) -> bool:
        """Whether the subject's base is in memory."""
        return subject.model in self._loaded

    def load(self, subject: Subject) -> "LoadedBase":
        """The subject's base with its adapter on, loaded if it is not yet."""
        if subject.model not in self._loaded:
            while len(self._loaded) >= MAX_BASES:
                self._loaded.popitem(last=False)
            self._loaded[subject.model] = LoadedBase(self.catalogue.models[subject.model], self.device)
        self._loaded.move_to_end(subject.model)
        base = self._loaded[subject.model]
        base.wear(subject)
        return base

    def stream(
        self, subject: Subject, prompt: str, sampling: Sampling, stop: threading.Event | None = None
    ) -> Iterator[Answer]:
        """The growing answer to `prompt`; the last one says why it ended. Setting `stop` ends it at the next token.

        The work is done in a thread that ends at `MAX_SECONDS` whatever becomes of the reader. Errors: `PromptTooLong`.
        """
        stop = stop or threading.Event()
        pieces: queue.SimpleQueue[Answer | BaseException] = queue.SimpleQueue()
        worker = threading.Thread(target=self._work, args=(subject, prompt, sampling, stop, pieces), daemon=True)
        worker.start()
        try:
            while True:
                piece = pieces.get()
                if isinstance(piece, BaseException):
                    raise piece
                yield piece
                if piece.ended:
                    return
        except GeneratorExit:  # the reader has gone: nobody waits for the rest
            stop.set()
            raise

    def _work(self, subject: Subject, prompt: str, sampling: Sampling, stop: threading.Event, pieces: Any) -> None:
        import torch

        try:
            with self._turn:
                torch.set_num_threads(self.catalogue.threads)
                self.load(subject).answer(subject, prompt, sampling, stop, pieces)
        except BaseException as error:  # handed to the reader, who raises it
            pieces.put(error)


class LoadedBase:
    """A base model with tokenizer in memory, and the adapters that were put on it so far."""

    def __init__(self, entry: ModelEntry, device: str) -> None:
        self.tokenizer = load_tokenizer(entry)
        self.model = load_base(entry, device=device)
        # PEFT keeps adapters under names that become parts of module paths: no dots, so not the runs' own names.
        self._names: OrderedDict[str, str] = OrderedDict()
        self._count = 0

    def wear(self, subject: Subject) -> None:
        """Switch to the subject's adapter, read from disk the first time. For an untrained base nothing is to be done:
        `answer` turns the adapters off."""
        if subject.adapter is None:
            return
        if subject.name not in self._names:
            self._add(subject)
        self._names.move_to_end(subject.name)
        self.model.set_adapter(self._names[subject.name])

    def _add(self, subject: Subject) -> None:
        from peft import PeftModel

        if not (Path(subject.adapter) / "adapter_model.safetensors").is_file():
            raise UserError(f"adapter folder {subject.adapter} has no adapter_model.safetensors: train the run again")
        name = f"adapter{self._count}"
        self._count += 1
        try:
            if isinstance(self.model, PeftModel):
                self.model.load_adapter(subject.adapter, adapter_name=name)
            else:
                self.model = PeftModel.from_pretrained(self.model, subject.adapter, adapter_name=name)
        except (ValueError, RuntimeError, KeyError, TypeError) as error:
            raise UserError(f"adapter {subject.adapter} does not fit {subject.model} ({first_line(error)})") from None
        self.model.eval()
        self._names[subject.name] = name
        while len(self._names) > MAX_ADAPTERS:
            _, oldest = self._names.popitem(last=False)
            self.model.delete_adapter(oldest)

    def answer(self, subject: Subject, prompt: str, sampling: Sampling, stop: threading.Event, pieces: Any) -> None:
        """Generate in this thread; put growing `Answer`s into `pieces`, the last with `ended`."""
        import torch

        ids = torch.tensor([render(self.tokenizer, prompt)], device=self.model.device)
        room = self.room(ids.shape[1])
        writer = _Writer(self.tokenizer, end_token_ids(self.model, self.tokenizer), stop, pieces)
        off = self.model.disable_adapter() if subject.adapter is None and self._names else nullcontext()
        with torch.inference_mode(), off:
            torch.manual_seed(sampling.seed)
            self.model.generate(
                input_ids=ids,
                attention_mask=torch.ones_like(ids),
                max_new_tokens=min(room, sampling.max_new_tokens, MAX_NEW_TOKENS),
                pad_token_id=self.tokenizer.pad_token_id,
                streamer=writer,
                stopping_criteria=[writer.should_end],
                **_drawing(sampling),
            )
        writer.finish()

    def room(self, prompt_tokens: int) -> int:
        """Tokens that an answer may have in the model's context."""
        context = self.model.config.get_text_config().max_position_embeddings
        room = context - prompt_tokens
        if room < MIN_NEW_TOKENS:
            most = context - MIN_NEW_TOKENS
            raise PromptTooLong(
                f"The text is {prompt_tokens} tokens long, this model reads {most} at most: shorten it."
            )
        return room


def _drawing(sampling: Sampling) -> dict[str, Any]:
    if sampling.temperature <= 0:
        return {"do_sample": False, "temperature": None, "top_p": None, "top_k": None}
    return {"do_sample": True, "temperature": sampling.temperature, "top_p": TOP_P, "top_k": 0}


class _Writer:
    """Takes tokens from `generate` (as its streamer), puts the text so far into a queue, and says when to end."""

    def __init__(self, tokenizer: Any, end_ids: set[int], stop: threading.Event, pieces: Any) -> None:
        self._tokenizer, self._end_ids, self._stop, self._pieces = tokenizer, end_ids, stop, pieces
        self._tokens: list[int] = []
        self._ended = "length"
        self._prompt_seen = False
        self._start = time.monotonic()

    def put(self, value: Any) -> None:
        """The prompt first, then one token at a time."""
        if not self._prompt_seen:
            self._prompt_seen = True
            return
        self._tokens += [token for token in value.flatten().tolist() if token not in self._end_ids]
        if value.flatten()[-1].item() in self._end_ids:
            self._ended = "itself"
        else:
            self._pieces.put(self._answer(""))

    def end(self) -> None:
        """`generate` calls it; why it ended is known to `finish`."""

    def should_end(self, input_ids: Any, scores: Any, **_: Any) -> Any:
        """A stopping criterion: the user's stop, or the time limit."""
        import torch

        stopped, late = self._stop.is_set(), time.monotonic() - self._start > MAX_SECONDS
        if (stopped or late) and self._ended == "length":
            self._ended = "stopped" if stopped else "time"
        return torch.full((input_ids.shape[0],), stopped or late, device=input_ids.device, dtype=torch.bool)

    def finish(self) -> None:
        """Put the whole answer, with why it ended."""
        self._pieces.put(self._answer(self._ended))

    def _answer(self, ended: str) -> Answer:
        text = self._tokenizer.decode(self._tokens, skip_special_tokens=True)
        # A character of several tokens shows as U+FFFD until its last token is there.
        text = text if ended else text.rstrip("\ufffd")
        return Answer(text, len(self._tokens), time.monotonic() - self._start, ended)
