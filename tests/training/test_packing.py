"""Packed rows: every sample is trained as if it were alone."""

import itertools
from pathlib import Path
from typing import Any

import pytest

from loragrid.models.passes.padding_free import enable_padding_free
from loragrid.models.passes.sample_attention import PER_SAMPLE
from loragrid.training.backends.recipe import make_recipe
from loragrid.training.backends.trl import training_rows
from tests.fixtures.train_toys import Toy, make_toy, rows_of

WINDOW = 6


@pytest.fixture(scope="module")
def toy(toy_llama: Path, tmp_path_factory: pytest.TempPathFactory) -> Toy:
    return make_toy(tmp_path_factory.mktemp("toy"), toy_llama, base_case__packing=True)


@pytest.fixture(scope="module")
def packed(toy: Toy) -> Any:
    """The training rows, packed: columns input_ids, labels, seq_lengths."""
    from loragrid.data.training_data import load_training_data

    return training_rows(load_training_data(toy.data).train, make_recipe(toy.study, toy.cell, device="cpu"))


def load(folder: Path, attention: str) -> Any:
    """The toy model with that attention; Gemma's local layers see `WINDOW` tokens, less than a sample."""
    from transformers import AutoConfig, AutoModelForCausalLM

    config = AutoConfig.from_pretrained(folder)
    if hasattr(config, "sliding_window"):
        config.sliding_window = WINDOW
        config.layer_types = ["sliding_attention", "full_attention"]
    return AutoModelForCausalLM.from_pretrained(folder, config=config, attn_implementation=attention).eval()


def token_losses(model: Any, ids: Any, labels: Any, **more: Any) -> Any:
    import torch

    with torch.no_grad():
        logits = model(input_ids=ids, use_cache=False, **more).logits
    return torch.nn.functional.cross_entropy(
        logits[0, :-1].double(), labels[0, 1:], ignore_index=-100, reduction="none"
    )


def samples_of(row: dict[str, list[int]]) -> list[tuple[list[int], list[int]]]:
    ends = [0, *itertools.accumulate(row["seq_lengths"])]
    return [(row["input_ids"][a:b], row["labels"][a:b]) for a, b in itertools.pairwise(ends)]


def test_packing_keeps_every_sample_whole(packed: Any, toy: Toy) -> None:
    from loragrid.data.training_data import load_training_data

    given = load_training_data(toy.data).train
    assert len(packed) < len(given) and max(map(len, packed["input_ids"])) <= 48
    samples = sorted(sample for row in packed for sample in samples_of(row))
    assert samples == sorted((row["input_ids"], row["labels"]) for row in given)


@pytest.mark.parametrize("attention", ["sdpa", "eager", PER_SAMPLE])
@pytest.mark.parametrize("family", ["toy_llama", "toy_gemma"])
def test_a_sample_in_a_packed_batch_has_the_losses_that_it_has_alone(
    packed: Any, family: str, attention: str, request: pytest.FixtureRequest
) -> None:
    """Token by token, in a batch of three packed rows from TRL's collator; and the check can fail."""
    import torch
    from trl.trainer.sft_trainer import DataCollatorForLanguageModeling

    model = load(request.getfixturevalue(family), attention.replace(PER_SAMPLE, "sdpa"))
    if attention == PER_SAMPLE:
        enable_padding_free(model)
    rows = [packed[index] for index in range(3)]
    batch = DataCollatorForLanguageModeling(pad_token_id=0, padding_free=True)(rows)
    assert set(batch) == {"input_ids", "labels", "position_ids"} and batch["input_ids"].shape[0] == 1
    together = token_losses(model, batch["input_ids"], batch["labels"], position_ids=batch["position_ids"])
    alone = []
    for ids, labels in (sample for row in rows for sample in samples_of(row)):
        # The first token of a sample is predicted from nothing, packed or alone.
        alone += [torch.zeros(1), token_losses(model, torch.tensor([ids]), torch.tensor([labels]))]
    assert torch.allclose(together, torch.cat(alone)[1:].to(together), atol=1e-5)
    assert (together > 0).sum() > 40
    one_sample = {"position_ids": torch.arange(batch["input_ids"].shape[1])[None]}
    leaking = token_losses(model, batch["input_ids"], batch["labels"], **one_sample)
    assert not torch.allclose(leaking, together, atol=1e-3)


def test_packed_and_unpacked_runs_record_what_makes_them_comparable(toy_llama: Path, tmp_path: Path) -> None:
    """At the same batch setting and equal tokens a packed run makes fewer, larger updates."""
    budget = {"base_case__budget": {"tokens": 2400}, "base_case__evaluations": 1}
    runs = [make_toy(tmp_path / str(on), toy_llama, base_case__packing=on, **budget) for on in (False, True)]
    loose, packed = (toy.train(tmp_path / str(on) / "run") for on, toy in zip((False, True), runs))
    assert packed.run != loose.run
    assert packed.tokens == pytest.approx(loose.tokens, rel=0.1) and packed.samples == pytest.approx(
        loose.samples, rel=0.1
    )
    assert packed.loss_tokens == pytest.approx(loose.loss_tokens, rel=0.1)
    assert packed.steps < 0.7 * loose.steps
    last = rows_of(tmp_path / "True" / "run")[-1]
    assert (int(last["samples"]), int(last["tokens"])) == (packed.samples, packed.tokens)


@pytest.mark.parametrize("packing", [True, False])
@pytest.mark.parametrize("padding_free", [True, False])
def test_a_paused_run_equals_an_undisturbed_one(
    toy_llama: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    padding_free: bool,
    packing: bool,
) -> None:
    """Packed or not, padding-free or, as a model that does not support it, padded."""
    from loragrid.errors import Paused
    from loragrid.training.progress import Progress

    if not padding_free:
        monkeypatch.setattr("loragrid.training.backends.trl.enable_padding_free", lambda *_, **__: None)
    toy = make_toy(tmp_path, toy_llama, base_case__packing=packing, base_case__budget={"steps": 6})
    toy.train(tmp_path / "whole")
    record_update = Progress.record_update

    def and_request(self: Progress, **update: Any) -> None:
        record_update(self, **update)
        self.stop.request("SIGTERM")

    with monkeypatch.context() as patch:
        patch.setattr(Progress, "record_update", and_request)
        for _ in range(3):
            with pytest.raises(Paused):
                toy.train(tmp_path / "parts")
    toy.train(tmp_path / "parts")
    files = [tmp_path / name / "adapter" / "adapter_model.safetensors" for name in ("whole", "parts")]
    assert files[0].read_bytes() == files[1].read_bytes()
