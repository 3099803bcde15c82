"""Held-out losses and greedy answers of a GGUF file, by llama.cpp through llama-cpp-python."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from loragrid.exporting.questions import Measured, Question
from loragrid.models.passes.row_losses import IGNORED, Row
from loragrid.scoring.heldout.losses import read_rows, weighted_mean
from loragrid.scoring.running_task import RunningTask


def measure_gguf(
    file: Path, parquet: Path, questions: Sequence[Question], tokenizer: Any, *, running: RunningTask, threads: int
) -> Measured:
    """Measure a GGUF; `tokenizer`: the merged model's, which writes prompts as text and answers from tokens.

    The file's own tokenizer makes the tokens of the prompts, and its own end tokens end answers.
    """
    import llama_cpp

    _, rows = read_rows(parquet)
    texts = [None if one.text is None else _prompt_text(tokenizer, one.text) for one in questions]
    # No token of a prompt is shorter than a byte.
    asked = [one.most_tokens + len(one.ids or text.encode()) for one, text in zip(questions, texts, strict=True)]
    context = max(*asked, *(len(ids) for ids, _ in rows))
    model = llama_cpp.Llama(
        str(file), n_ctx=context, logits_all=True, n_gpu_layers=-1, n_threads=threads, n_threads_batch=threads,
        verbose=False,
    )  # fmt: skip
    losses, prompts, answers = [], [], []
    with running.progress(len(rows), "rows", tokens=sum(len(ids) for ids, _ in rows)) as progress:
        for row in rows:
            losses.append(_row_loss(model, row))
            progress.add(items=1, tokens=len(row[0]))
    with running.progress(len(questions), "answers") as progress:
        for one, text in zip(questions, texts, strict=True):
            ids = one.ids or model.tokenize(text.encode(), add_bos=False, special=True)
            prompts.append(list(ids))
            answers.append(tokenizer.decode(_greedy(model, ids, one.most_tokens), skip_special_tokens=True))
            progress.add(items=1)
    loss, _ = weighted_mean(losses)
    return Measured(loss, len(rows), answers, prompts, "llama.cpp")


def _prompt_text(tokenizer: Any, question: str) -> str:
    chat = [{"role": "user", "content": question}]
    return tokenizer.apply_chat_template(chat, tokenize=False, add_generation_prompt=True)


def _row_loss(model: Any, row: Row) -> tuple[float, int]:
    """The sum of a row's negative log-likelihoods, nats, and the number of its loss tokens."""
    import numpy as np

    ids, labels = row
    model.reset()
    model.eval(list(ids))
    logits = np.asarray(model.scores[: len(ids)], np.float64)
    total, count = 0.0, 0
    for place in range(1, len(labels)):
        if labels[place] != IGNORED:
            before = logits[place - 1]
            highest = before.max()
            total += highest + np.log(np.exp(before - highest).sum()) - before[labels[place]]
            count += 1
    return float(total), count


def _greedy(model: Any, ids: Sequence[int], most_tokens: int) -> list[int]:
    """The likeliest tokens up to the file's own end of generation, or `most_tokens`."""
    import llama_cpp

    vocabulary = llama_cpp.llama_model_get_vocab(model.model)
    model.reset()
    model.eval(list(ids))
    found: list[int] = []
    while len(found) < most_tokens:
        token = int(model.scores[model.n_tokens - 1].argmax())
        if llama_cpp.llama_vocab_is_eog(vocabulary, token):
            break
        found.append(token)
        model.eval([token])
    return found
