"""What the cells of the study `t4` do on a T4, up to their first batches; the models are tiny.

test_stand_in_t4.py runs this in a process for each backend, which the environment names.
"""

import gc
import os
import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from tests.fixtures.stand_in_t4 import import_late_kernels, install

install()
BACKEND = os.environ["LORAGRID_STAND_IN"]
if BACKEND == "unsloth":
    from loragrid.training.backends.unsloth_loading import import_unsloth

    import_unsloth(compute_dtype="fp16")  # before anything imports transformers
    import_late_kernels()
    # It would take a second for each base.
    gc.collect = lambda generation=2: 0

import bitsandbytes  # noqa: E402
import torch  # noqa: E402

from loragrid.data.training_data import TrainingData, load_training_data  # noqa: E402
from loragrid.errors import UserError  # noqa: E402
from loragrid.models.loading import torch_device  # noqa: E402
from loragrid.models.target_modules import language_model  # noqa: E402
from loragrid.study.grid import Cell  # noqa: E402
from loragrid.study.study_file import Study  # noqa: E402
from loragrid.training.backends.factory import choose_backend  # noqa: E402
from loragrid.training.backends.recipe import Recipe, make_recipe  # noqa: E402
from prepare_data import prepare_data  # noqa: E402
from tests.fixtures.t4_models import t4_study  # noqa: E402

ON_UNSLOTH = BACKEND == "unsloth"
# How the chat templates of the tiny models write a reply.
REPLY = {"llama": r"<\|start\|>assistant<\|head\|>\n\n(.*?<\|eot\|>)", "gemma": r"<turn>model\n(.*?<end>)"}
ATTENTION_LAYERS = {"q_proj", "k_proj", "v_proj", "o_proj"}
ALL_LAYERS = ATTENTION_LAYERS | {"gate_proj", "up_proj", "down_proj"}


@dataclass(frozen=True)
class Prepared:
    """A cell with its trainer, which has not started."""

    cell: Cell
    recipe: Recipe
    trainer: Any
    tokenizer: Any
    gemma: bool


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Study:
    """With unsloth as it is, so that `auto` must choose it."""
    changes = {} if ON_UNSLOTH else {"backend": "trl"}
    return t4_study(tmp_path_factory.mktemp("t4"), **changes)


@pytest.fixture(scope="module")
def data(study: Study) -> dict[str, TrainingData]:
    found = {}
    for data_id in study.data_sets:
        prepare_data(study=study, data_id=data_id, out=study.path.parent / data_id)
        found[data_id] = load_training_data(study.path.parent / data_id)
    return found


def test_every_setting_up_to_its_first_batches(study: Study, data: dict[str, TrainingData], tmp_path: Path) -> None:
    """With rows as they are and packed, without padding."""
    bases: dict[str, Any] = {}
    # A further seed changes the draws and no setting.
    cells = [cell for cell in study.cells if cell.settings.seed == study.base_case.seed]
    assert {cell.model for cell in cells} == set(study.models) and len(cells) == 9
    for cell in cells:
        recipe = make_recipe(study, cell, device=torch_device())
        backend = choose_backend(cell.settings.backend, device=recipe.device, method=cell.settings.method)
        assert backend.name == BACKEND and recipe.compute_dtype == "fp16"
        base = bases.get(cell.model) or backend.load(study.base_entry(cell), recipe=recipe)
        model = backend.adapt(base, recipe=recipe)
        for packing in (False, True):
            settled = replace(recipe, packing=packing)
            trainer = backend.trainer(model, base=base, recipe=settled, data=data[cell.data], folder=tmp_path)
            prepared = Prepared(cell, settled, trainer, base.tokenizer, cell.model == "gemma-270m")
            check_precision(prepared)
            check_adapter(prepared)
            check_settings(prepared)
            check_batches(prepared)
        bases[cell.model] = backend.release(base, model)


def check_precision(prepared: Prepared) -> None:
    """4-bit layers, nothing in bfloat16, and fp16 with the check of its range; float32 for Gemma 3, which overflows it."""
    trainer, gemma = prepared.trainer, prepared.gemma
    layers = [module for module in trainer.model.modules() if isinstance(module, bitsandbytes.nn.Linear4bit)]
    assert len(layers) == 7 * trainer.model.config.num_hidden_layers
    # unsloth leaves Gemma's layers in float16 and computes around them.
    computes = torch.float32 if gemma and not ON_UNSLOTH else torch.float16
    if not ON_UNSLOTH:
        # A forward pass in float32 changes what the layers themselves say.
        assert trainer.model.config.quantization_config.bnb_4bit_compute_dtype == computes
    for layer in layers:
        state = layer.weight.quant_state
        assert (layer.weight.quant_type, state.nested, state.dtype) == ("nf4", True, computes)
    for name, value in trainer.model.named_parameters():
        assert value.dtype != torch.bfloat16, name
        assert not value.requires_grad or value.dtype == torch.float32, name
    assert trainer.args.fp16 == (not gemma) and not trainer.args.bf16
    assert (trainer.float16_check is None) == gemma
    assert any("float32 where fp16 was asked for" in note for note in trainer.notes) == gemma


def check_adapter(prepared: Prepared) -> None:
    settings, network = prepared.cell.settings, prepared.trainer.model
    (config,) = network.peft_config.values()
    assert (config.r, config.lora_alpha, config.lora_dropout) == (settings.rank, settings.alpha, settings.dropout)
    adapted = {name.rpartition(".")[2] for name, module in network.named_modules() if hasattr(module, "lora_A")}
    assert adapted == (ALL_LAYERS if settings.target_modules == "all-linear" else ATTENTION_LAYERS)


def check_settings(prepared: Prepared) -> None:
    settings, trainer = prepared.cell.settings, prepared.trainer
    arguments = trainer.args
    rows = arguments.per_device_train_batch_size * arguments.gradient_accumulation_steps
    assert rows == settings.per_device * settings.accumulation and arguments.n_gpu == 1
    optimizer = trainer.create_optimizer()
    assert isinstance(optimizer, bitsandbytes.optim.AdamW) and optimizer.args.optim_bits == 8
    assert {group["lr"] for group in optimizer.param_groups} == {settings.learning_rate}
    assert {group["weight_decay"] for group in optimizer.param_groups} == {0.01, 0.0}
    assert (str(arguments.lr_scheduler_type.value), arguments.seed) == ("linear", settings.seed)
    # A T4 has no kernel of variable lengths.
    assert trainer.attention == ("unsloth, sdpa" if ON_UNSLOTH else "per_sample")
    assert len(trainer.train_dataset) == (36 if not prepared.recipe.packing else 2)


def check_batches(prepared: Prepared) -> None:
    """Two batches as the trainer is given them: samples side by side, loss on replies only."""
    trainer, packing = prepared.trainer, prepared.recipe.packing
    # A page-locked copy would need a card.
    assert trainer.args.dataloader_pin_memory
    trainer.args.dataloader_pin_memory = False
    per_device, batches = trainer.args.per_device_train_batch_size, iter(trainer.get_train_dataloader())
    for _ in range(1 if packing else 2):
        batch = next(batches)
        samples = side_by_side(batch)
        assert len(samples) == (36 if packing else per_device)
        for ids, labels in samples:
            replies = re.findall(REPLY["gemma" if prepared.gemma else "llama"], prepared.tokenizer.decode(ids), re.S)
            trained = [token for token, label in zip(ids, labels, strict=True) if label != -100]
            assert replies and prepared.tokenizer.decode(trained) == "".join(replies)
            assert trained == [label for label in labels if label != -100]
    # unsloth's rotary positions for Llama need a card. One cell of each model is enough.
    if set(prepared.cell.departs) <= {"model"} and (prepared.gemma or not ON_UNSLOTH):
        check_separation(prepared, batch)


@torch.no_grad()
def check_separation(prepared: Prepared, batch: dict[str, Any]) -> None:
    """The first two samples side by side have the hidden states of each alone: neither sees the other."""
    _, decoder = language_model(prepared.trainer.model.get_base_model())

    def hidden(**inputs: Any) -> Any:
        return decoder(**inputs, use_cache=False).last_hidden_state.float()

    samples = [torch.tensor([ids]) for ids, _ in side_by_side(batch)[:2]]
    alone, both = torch.cat([hidden(input_ids=ids) for ids in samples], dim=1), torch.cat(samples, dim=1)
    one_text = hidden(input_ids=both)
    inputs = {"input_ids": both, "position_ids": batch["position_ids"][:, : both.shape[1]]}
    if ON_UNSLOTH:
        inputs["packed_seq_lengths"] = batch["packed_seq_lengths"][:2]
    found = hidden(**inputs)
    assert (found - alone).abs().max() < (one_text - alone).abs().max() / 50


def side_by_side(batch: dict[str, Any]) -> list[tuple[list[int], list[int]]]:
    """Tokens and labels of each sample of the batch's only row, by its position ids and by unsloth's lengths."""
    assert batch["input_ids"].shape[0] == 1 and "attention_mask" not in batch
    positions = batch["position_ids"][0].tolist()
    starts = [index for index, position in enumerate(positions) if position == 0]
    lengths = [end - start for start, end in zip(starts, [*starts[1:], len(positions)], strict=True)]
    assert positions == [position for length in lengths for position in range(length)]
    if ON_UNSLOTH:
        assert batch["packed_seq_lengths"].tolist() == lengths
    columns = (batch[name][0].split(lengths) for name in ("input_ids", "labels"))
    return [(ids.tolist(), labels.tolist()) for ids, labels in zip(*columns, strict=True)]


def test_a_second_card_is_refused_before_the_base_is_loaded(study: Study, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    with pytest.raises(UserError, match="one job sees 2 GPUs, which would multiply its batch by 2"):
        make_recipe(study, study.cells[0], device=torch_device())


def test_bfloat16_is_refused(study: Study) -> None:
    """A T4 has it by emulation only."""
    settings = replace(study.cells[0].settings, compute_dtype="bf16")
    with pytest.raises(UserError, match="compute_dtype: this GPU has no bf16"):
        make_recipe(study, replace(study.cells[0], settings=settings), device="cuda")


@pytest.mark.skipif(not ON_UNSLOTH, reason="of unsloth")
def test_unsloth_compiles_no_blocks_and_only_on_a_local_disk(study: Study) -> None:
    from loragrid.runtime.local_folders import is_remote

    folder = Path(os.environ["UNSLOTH_COMPILE_LOCATION"])
    assert os.environ["UNSLOTH_BLOCK_COMPILE"] == "0" and not is_remote(folder)
    assert folder.stat().st_mode & 0o77 == 0 and any(folder.glob("Unsloth*.py"))
    assert not Path("unsloth_compiled_cache").exists()
