"""Toy models made in a second: random weights, real architectures, a byte-level tokenizer and a chat template."""

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

# Two threads on a shared two-core machine run small models five times slower than one.
os.environ |= {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}


import pytest
from hypothesis import HealthCheck, settings

from loragrid.paths import ROOT
from loragrid.runtime.delegation.client import FORK_SERVER
from loragrid.runtime.delegation.fork_server import RESIDENT
from tests.fixtures.hub_server import HubServer, hub_server

# The same examples in each run and on each machine; the first ones import libraries, so no example has a deadline.
settings.register_profile(
    "suite",
    derandomize=True,
    deadline=None,
    max_examples=60,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)
settings.load_profile("suite")

REAL = ROOT.parent / "shared" / "real"
TEMPLATE = (
    "{{ bos_token }}{% for m in messages %}{{ '<|' + m['role'] + '|>' + m['content'] + '<|end|>' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>' }}{% endif %}"
)


@pytest.fixture(scope="session")
def root() -> Path:
    return ROOT


@pytest.fixture(scope="session")
def real() -> Path:
    """The folder of real models, chats and tasks; tests that need it are skipped where it is absent."""
    if not REAL.is_dir():
        pytest.skip(f"{REAL.relative_to(ROOT.parent)} is absent")
    return REAL


@pytest.fixture(scope="session")
def warm_place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a fork server for the jobs of all tests in this session that use `warm`."""
    folder = tmp_path_factory.mktemp("warm")
    (folder / "owner").write_text(str(os.getpid()))
    (folder / RESIDENT).touch()
    return folder


@pytest.fixture(scope="module")
def warm(warm_place: Path) -> Iterator[None]:
    """The workflows of a test file share one fork server, so the libraries are imported once and not at each call."""
    os.environ[FORK_SERVER] = str(warm_place)
    yield
    del os.environ[FORK_SERVER]


@pytest.fixture(scope="session")
def toy_llama(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random Llama of about 50,000 parameters."""
    from transformers import LlamaConfig, LlamaForCausalLM

    return _save_toy(LlamaForCausalLM, LlamaConfig, tmp_path_factory.mktemp("toy_llama"))


@pytest.fixture(scope="session")
def toy_gemma(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random Gemma 3 of about 50,000 parameters."""
    from transformers import Gemma3ForCausalLM, Gemma3TextConfig

    return _save_toy(Gemma3ForCausalLM, Gemma3TextConfig, tmp_path_factory.mktemp("toy_gemma"), head_dim=16)


def _save_toy(model_class: type, config_class: type, folder: Path, **options: int) -> Path:
    import torch

    tokenizer = _toy_tokenizer()
    config = config_class(
        vocab_size=len(tokenizer),
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=512,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        **options,
    )
    torch.manual_seed(0)
    model_class(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def _toy_tokenizer():
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    specials = ["<pad>", "<s>", "<|end|>", "<|user|>", "<|assistant|>", "<|system|>", "<|tool|>"]
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE(vocab={token: i for i, token in enumerate(specials + letters)}, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="<pad>",
        bos_token="<s>",
        eos_token="<|end|>",
        additional_special_tokens=specials[3:],
    )
    fast.chat_template = TEMPLATE
    return fast


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 400 KiB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=400k", "none", str(folder)]
    if subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("only root may mount a small tmpfs")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[HubServer]:
    """A stand-in for the hub on loopback, which huggingface_hub then talks to."""
    with hub_server() as server:
        server.use(monkeypatch)
        yield server
