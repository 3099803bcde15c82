"""Predicted memory, against torch's own record of allocations on small models and public runs."""

from dataclasses import replace
from typing import Any

import pytest

from loragrid.models.batch_sizes import (
    HEAD_LOSS,
    LIGER_LOSS,
    TRL_CHUNK_ROWS,
    TRL_LOSS,
    liger_loss_bytes,
    rows_with_logits,
)
from loragrid.models.find_shape import find_shape
from loragrid.models.passes.row_losses import largest_pass
from loragrid.models.trained_weights import Trainable
from loragrid.planning.gpu_cards import planned_device
from loragrid.planning.job_memory import gpu_training_setup, on_each_gpu, requested_setup, training_setup
from loragrid.planning.memory_model import (
    CHUNKED_LOGIT_BYTES,
    FOUR_BIT_BYTES,
    LOGIT_BYTES,
    LOGIT_BYTES_FORWARD,
    Memory,
    TrainingSetup,
    training_memory,
    weight_bytes,
)
from loragrid.planning.scoring_memory import ScoringSetup, scoring_memory
from loragrid.study.study_file import load_study
from tests.fixtures.studies import changed
from tests.fixtures.tuned_llama import RANK, tuned_model


def peak_bytes(
    *,
    vocabulary: int,
    tokens: int,
    half: bool,
    train: bool,
    layers: int = 1,
    hidden: int = 32,
    inner: int = 64,
    checkpointing: bool = True,
    chunked: bool = False,
) -> int:
    """Largest sum of live allocations in one step by torch's own record; like the trainer, it keeps only the loss."""
    import contextlib

    import torch

    model, _ = tuned_model(
        checkpointing, vocab_size=vocabulary, hidden_size=hidden, intermediate_size=inner, num_hidden_layers=layers
    )
    model.config._attn_implementation = "sdpa"
    if chunked:
        # As SFTTrainer does for `chunked_nll`.
        from trl.trainer.sft_trainer import _patch_chunked_ce_lm_head

        model = model.get_base_model()
        _patch_chunked_ce_lm_head(model, TRL_CHUNK_ROWS)
    ids = torch.randint(0, vocabulary, (2, tokens // 2))
    autocast = torch.autocast("cpu", torch.bfloat16) if half else contextlib.nullcontext()
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True) as profile:
        with torch.set_grad_enabled(train), autocast:
            loss = model(input_ids=ids, labels=ids, use_cache=False).loss
        if train:
            loss.backward()
    events = [e for e in profile.profiler.kineto_results.events() if e.name() == "[memory]"]
    live = peak = 0
    for event in sorted(events, key=lambda e: e.start_ns()):
        live += event.nbytes()
        peak = max(peak, live)
    return peak


@pytest.mark.parametrize("half", [False, True])
@pytest.mark.parametrize("train", [False, True])
def test_bytes_per_logit_are_those_that_torch_allocates(half: bool, train: bool) -> None:
    known = (LOGIT_BYTES if train else LOGIT_BYTES_FORWARD)["half" if half else "fp32"]
    small, large = (peak_bytes(vocabulary=v, tokens=256, half=half, train=train) for v in (20_000, 40_000))
    assert (large - small) / (20_000 * 256) == pytest.approx(known, rel=0.05)


@pytest.mark.parametrize("half", [False, True])
def test_bytes_per_logit_of_a_chunk_are_those_that_torch_allocates(half: bool) -> None:
    small, large = (peak_bytes(vocabulary=v, tokens=514, half=half, train=True, chunked=True) for v in (5_000, 10_000))
    assert (large - small) / (5_000 * TRL_CHUNK_ROWS) == pytest.approx(CHUNKED_LOGIT_BYTES, rel=0.05)


@pytest.mark.parametrize("checkpointing", [False, True])
@pytest.mark.parametrize("half", [False, True])
def test_activations_are_those_that_torch_allocates(half: bool, checkpointing: bool) -> None:
    """A shape other than the one that gave the constants: four layers, an inner size 2.5 times the hidden one."""
    tokens, hidden, inner, layers = 1024, 384, 960, 4
    sizes = {"layers": layers, "hidden": hidden, "inner": inner, "checkpointing": checkpointing}
    real = peak_bytes(vocabulary=300, tokens=tokens, half=half, train=True, **sizes)
    _, shape = tuned_model(True, hidden_size=hidden, intermediate_size=inner, num_hidden_layers=layers)
    setup = TrainingSetup(
        precision="32bit",
        trainable=lora(RANK),
        optimizer="adamw_torch",
        per_device=2,
        max_length_tokens=tokens // 2,
        compute_dtype="bf16" if half else "fp32",
        backend="trl",
        checkpointing=checkpointing,
    )
    memory = training_memory(shape, setup)
    assert memory.activations * 2**20 == pytest.approx(real, rel=0.2)


def test_unsloths_loss_holds_an_eighth_of_the_logits_and_trls_all() -> None:
    assert rows_with_logits("unsloth", tokens=4096, vocab_size=128_256) == 512
    assert rows_with_logits("unsloth", tokens=8192, vocab_size=128_256) == 1024
    assert rows_with_logits("unsloth", tokens=300, vocab_size=128_256) == 300
    # 2 GiB of 8 bytes each are 1,024 rows of Gemma's vocabulary.
    assert rows_with_logits("unsloth", tokens=16_384, vocab_size=262_144) == 1024
    assert rows_with_logits("trl", tokens=4096, vocab_size=128_256) == 4096
    assert rows_with_logits("trl", tokens=4096, vocab_size=128_256, loss="chunked_nll") == 256


def test_trls_chunked_loss_takes_less_than_all_logits() -> None:
    """On a GPU TRL trains with it: 509 MiB in place of 24 GiB for eight rows of 2,048 tokens of Llama's vocabulary."""
    eight = {"backend": "trl", "per_device": 8}
    whole, chunked = (t4_memory("llama-1b", loss=loss, **eight).logits for loss in ("nll", "chunked_nll"))
    assert chunked == pytest.approx(16.25 * 256 * 128_256 / 2**20) and whole > 45 * chunked
    # With fewer rows the peak is that of a held-out pass, which has no activations to keep.
    one = t4_memory("llama-1b", loss="chunked_nll", backend="trl", per_device=1)
    assert one.activations + one.logits == pytest.approx(2048 * 128_256 * LOGIT_BYTES_FORWARD["half"] / 2**20)
    settings = load_study("t4").base_case
    assert gpu_training_setup(settings, bf16=False).loss == TRL_LOSS["cuda"] == "chunked_nll"


def test_ligers_loss_holds_as_many_logits_as_hidden_states() -> None:
    """Eight rows of 2,048 tokens of a Llama: 512 tokens at a time, and gradients of 2,048 numbers a token."""
    study = changed(load_study("t4"), base_case__backend="trl", training__liger_kernels=True)
    setup = replace(gpu_training_setup(study.base_case, bf16=False, liger=True), per_device=8)
    shape = find_shape(study.models["llama-1b"])
    assert requested_setup(study, study.base_case, shape, bf16=False).loss == setup.loss == LIGER_LOSS
    held = (512 * 128_256 * 4 + 8 * 2048 * 2048 * 4) / 2**20
    assert training_memory(shape, setup).logits == pytest.approx(held)
    assert liger_loss_bytes(tokens=3, vocab_size=1000, hidden_size=1000) == 3 * 1000 * 4 + 4 * 3 * 1000
    on_cpu = training_setup(study.base_case, replace(planned_device(study.plan), kind="cpu"), liger=True)
    assert on_cpu.loss == TRL_LOSS["cpu"]


def test_a_family_whose_logits_are_scaled_otherwise_has_all_of_them(monkeypatch: pytest.MonkeyPatch) -> None:
    settings = load_study("t4").base_case
    setup = replace(gpu_training_setup(settings, bf16=False), backend="trl", per_device=8)
    llama = find_shape(load_study("t4").models["llama-1b"])
    chunked = training_memory(llama, setup).logits
    monkeypatch.setattr("loragrid.planning.memory_model.OWN_SCALE", ("llama",))
    whole = training_memory(llama, setup).logits
    assert whole == training_memory(llama, replace(setup, loss="nll")).logits > 11 * chunked


def test_rows_that_are_known_to_be_shorter_take_less() -> None:
    longest = t4_memory("llama-1b", backend="trl", longest_tokens=1024)
    assert longest.logits == t4_memory("llama-1b", backend="trl", max_length_tokens=1024).logits
    assert t4_memory("llama-1b", longest_tokens=9000) == t4_memory("llama-1b")


def lora(rank: int) -> Trainable:
    return Trainable(method="lora", rank=rank, target_modules="all-linear")


def t4_memory(model: str, **changes: Any) -> Memory:
    asked = {
        "precision": "4bit",
        "trainable": lora(16),
        "optimizer": "adamw_8bit",
        "per_device": 2,
        "max_length_tokens": 2048,
        "compute_dtype": "fp16",
        "backend": "unsloth",
        "checkpointing": True,
    }
    shape = find_shape(load_study("t4").models[model])
    return training_memory(shape, TrainingSetup(**(asked | changes)))


def t4_scoring(model: str, **changes: Any) -> Memory:
    asked = {"precision": "4bit", "trainable": lora(16), "batch_size": 16, "max_length_tokens": 2048}
    shape = find_shape(load_study("t4").models[model])
    return scoring_memory(shape, ScoringSetup(**(asked | {"compute_dtype": "fp16"} | changes)))


def test_four_bit_weights_include_their_constants() -> None:
    """QLoRA, section 3: 0.127 bits per weight for the constants after double quantisation."""
    assert pytest.approx(4.127, abs=5e-4) == 8 * FOUR_BIT_BYTES
    shape = find_shape(load_study("t4").models["llama-1b"])
    embeddings = 128_256 * 2048
    assert weight_bytes(shape, "4bit", backend="unsloth") == pytest.approx(
        973_078_528 * 4.127 / 8 + 2 * embeddings, rel=1e-3
    )
    # PEFT's preparation of a 4-bit model turns the embeddings into float32.
    more = weight_bytes(shape, "4bit", backend="trl") - weight_bytes(shape, "4bit", backend="unsloth")
    assert more == pytest.approx(2 * embeddings, rel=1e-3)


def test_memory_grows_with_batch_rank_optimizer_and_vocabulary() -> None:
    base = t4_memory("llama-1b")
    by_trl = t4_memory("llama-1b", backend="trl")
    assert t4_memory("llama-1b", backend="trl", per_device=4).logits == pytest.approx(2 * by_trl.logits)
    assert by_trl.logits > 10 * base.logits and base.logits == pytest.approx(8 * 512 * 128_256 / 2**20)
    assert t4_memory("llama-1b", per_device=4).activations > 1.9 * base.activations
    assert t4_memory("llama-1b", trainable=lora(64)).adapters == pytest.approx(4 * base.adapters)
    assert t4_memory("llama-1b", optimizer="adamw_torch").optimizer == pytest.approx(8 * 11_272_192 / 2**20)
    assert base.optimizer == pytest.approx(8 * 11_272_192 / 2**20 / 4, rel=0.02)
    assert t4_memory("gemma-270m").logits > 2 * t4_memory("llama-1b").logits  # twice the vocabulary
    gemma = {"backend": "trl", "compute_dtype": "bf16"}
    assert t4_memory("gemma-270m", **gemma).logits > 2 * by_trl.logits
    assert t4_memory("llama-1b", precision="16bit").weights == pytest.approx(2 * 1_235_814_400 / 2**20)
    kept = t4_memory("llama-1b", checkpointing=False).activations
    assert 6 * base.activations < kept < 16 * base.activations


def test_each_method_takes_the_memory_of_what_it_trains() -> None:
    lora_memory = t4_memory("llama-1b", precision="16bit")
    for method, rank, modules in (("dora", 16, "all-linear"), ("vera", 256, "all-linear"), ("ia3", None, "mlp")):
        trainable = Trainable(method=method, rank=rank, target_modules=modules)
        memory = t4_memory("llama-1b", precision="16bit", trainable=trainable)
        assert memory.weights == lora_memory.weights
        # DoRA trains a magnitude more; the other two only vectors.
        assert (memory.gradients > lora_memory.gradients) == (method == "dora")
        # VeRA's shared matrices have no gradients.
        assert (memory.adapters > memory.gradients) == (method == "vera")
    full = Trainable(method="full", rank=None, target_modules=None)
    memory = t4_memory("llama-1b", precision="16bit", trainable=full, optimizer="adamw_torch", backend="trl")
    every = 4 * 1_235_814_400 / 2**20
    # Weights, gradients and Adam's two states, all in float32: 16 bytes a parameter.
    assert (memory.weights, memory.gradients, memory.optimizer) == pytest.approx((every, every, 2 * every))
    assert memory.adapters == 0


def test_scoring_memory_grows_with_the_batch() -> None:
    small, middle, large = (t4_scoring("llama-1b", batch_size=size) for size in (4, 16, 64))
    assert small.logits < middle.logits and small.weights == middle.weights == large.weights
    # Choices share no more logits than are allowed at once; from there on the answers' cache grows.
    assert middle.logits == pytest.approx(8 * 16 * 256 * 128_256 / 2**20, rel=0.05)
    assert large.activations > 64 * 2048 * 16 * 2 * 8 * 64 * 2 / 2**20 > middle.activations


def test_a_float32_base_is_kept_while_an_adapter_is_merged_into_it() -> None:
    on_cpu = {"precision": "32bit", "compute_dtype": "fp32", "device": "cpu"}
    vera = replace(lora(16), method="vera")
    whole, alone = (t4_scoring("llama-1b", **on_cpu, trainable=trainable).weights for trainable in (lora(16), vera))
    assert alone == 4 * 1_235_814_400 / 2**20
    # All its linear layers but the head.
    assert whole - alone == 4 * 973_078_528 / 2**20
    half = (t4_scoring("llama-1b", precision="16bit", trainable=trainable).weights for trainable in (lora(16), vera))
    assert len(set(half)) == 1
    # A training step of little more than one token takes less than the weights that a held-out pass keeps.
    short = t4_memory("llama-1b", **on_cpu, backend="trl", per_device=1, max_length_tokens=2)
    assert short.activations == whole - alone


def test_gemma_is_scored_in_float32_where_there_is_no_bf16() -> None:
    without, with_bf16 = (t4_scoring("gemma-270m", compute_dtype=dtype) for dtype in ("fp16", "bf16"))
    embeddings = 2 * 262_144 * 640 / 2**20
    assert without.weights - with_bf16.weights == pytest.approx(embeddings, rel=1e-2)
    llama = (t4_scoring("llama-1b", compute_dtype=dtype) for dtype in ("fp16", "bf16"))
    assert len(set(llama)) == 1


def test_measuring_the_heldout_loss_takes_no_more_than_training() -> None:
    """The batches that the trainer measures on are bounded by their logits, as the memory model assumes."""
    for model in ("llama-1b", "llama-3b", "gemma-270m"):
        vocabulary = find_shape(load_study("t4").models[model]).vocab_size
        longest = max(2048, largest_pass("cuda", vocabulary=vocabulary))
        by_trl = t4_memory(model, backend="trl")
        assert longest * vocabulary * LOGIT_BYTES_FORWARD["half"] / 2**20 <= by_trl.logits
    assert largest_pass("cpu", vocabulary=1000) == 1024


def test_a_cpu_trains_with_the_logits_of_a_part() -> None:
    device = replace(planned_device(load_study("demo").plan), kind="cpu")

    def setup(**base_case: object) -> TrainingSetup:
        settings = {f"base_case__{key}": value for key, value in base_case.items()}
        return training_setup(changed(load_study("demo"), **settings).base_case, device)

    assert (setup().loss, setup().device) == (HEAD_LOSS, "cpu")
    others = ({"compute_dtype": "bf16"}, {"precision": "16bit"}, {"target_modules": ["q_proj", "lm_head"]})
    for other in (*others, {"method": "full", "rank": None, "alpha": None, "target_modules": None}):
        assert setup(**other).loss == "nll", other
    assert on_each_gpu(setup(), changed(load_study("demo"), base_case__batch=[2, 1]).base_case, 2).loss == "nll"
    as_on_cpu = {"backend": "trl", "device": "cpu", "compute_dtype": "fp32", "checkpointing": False}
    parts, whole = (t4_memory("llama-1b", loss=loss, **as_on_cpu).logits for loss in (HEAD_LOSS, "nll"))
    # Of 128,256 words, 256 tokens at 4 bytes, and the gradients of all hidden states.
    assert parts == pytest.approx(4 * (256 * 128_256 + 4096 * 2048) / 2**20) and whole > 30 * parts
    capped = replace(find_shape(load_study("t4").models["llama-1b"]), model_type="gemma2")
    asked = replace(setup(), per_device=2, max_length_tokens=2048)
    assert training_memory(capped, asked).logits == training_memory(capped, replace(asked, loss="nll")).logits


def test_a_cpu_writes_many_answers_at_once() -> None:
    asked = {"batch_size": 4, "compute_dtype": "fp32", "max_length_tokens": 256}
    few, many = (t4_scoring("llama-1b", **asked, device=device) for device in ("cuda", "cpu"))
    # 2 GiB of cache: 16 rows of 2,048 tokens with keys and values of 16 layers, 8 heads of 64, 4 bytes.
    computed = 4 * (2 * 8192 + 4 * 2048) * 4 * 256
    assert many.activations == pytest.approx((2**31 + computed) / 2**20) and few.activations < many.activations / 4
