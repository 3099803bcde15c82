"""The backend that a study names."""

from loragrid.runtime.optional_packages import ON_GPU, require
from loragrid.study.methods import METHODS
from loragrid.training.backends.interface import Backend


def choose_backend(name: str, *, device: str, method: str = "lora", gpus: int = 1) -> Backend:
    """The backend of that name; `auto` is unsloth on one CUDA GPU for a method that it trains, else trl.

    Raises `UserError` if unsloth is not installed.
    """
    if name == "auto":
        name = "unsloth" if device == "cuda" and gpus == 1 and METHODS[method].unsloth else "trl"
    if name == "unsloth":
        # No fallback to trl: the two backends' adapters differ, and a run has one identity.
        require(
            "unsloth",
            "backend (auto means unsloth on a CUDA GPU)",
            install=ON_GPU,
            otherwise="set backend to trl",
        )
        from loragrid.training.backends.unsloth import UnslothBackend

        return UnslothBackend()
    from loragrid.training.backends.trl import TrlBackend

    return TrlBackend()
