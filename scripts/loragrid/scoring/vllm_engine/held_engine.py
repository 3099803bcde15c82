"""vLLM's engine for a job of scoring: a new one, or the one that a resident worker holds since an earlier job.

An engine reads the adapter of a later job when the first request for it comes. It is ended, with its processes,
for a model or an adapter that it cannot serve, for any other base in this process, when the pool needs the memory,
and when the worker ends.
"""

import sys
from dataclasses import dataclass, field
from pathlib import Path

from loragrid.models.model_files import files_state
from loragrid.runtime.delegation.residency import is_resident, on_release, release_all
from loragrid.scoring.vllm_engine.process import VllmProcess, engine_versions, interpreter
from loragrid.scoring.vllm_engine.served_adapters import ServedAdapters


@dataclass(frozen=True)
class EngineModel:
    """What an engine loads: the folder of a model, the type that it computes in, and tokens of its context."""

    folder: Path
    dtype: str
    context: int


@dataclass(eq=False)
class Engine:
    """A running engine, what it was started from, the adapters that it serves, and the numbers of those it has read."""

    process: VllmProcess
    source: tuple
    served: ServedAdapters
    _numbers: dict[tuple, int] = field(default_factory=dict)

    def request(self, adapter: Path | None) -> tuple[int, str] | None:
        """The (number, folder) of an adapter; None for the base alone.

        vLLM reads no folder again for a number that it knows, so files that were written again get a new one.
        """
        if adapter is None:
            return None
        number = self._numbers.setdefault(files_state(adapter), len(self._numbers) + 1)
        return number, str(adapter.resolve())


_held: Engine | None = None


def take_engine(model: EngineModel, served: ServedAdapters) -> Engine:
    """An engine with this model for these adapters, which takes about a minute to start; raises `Failed`."""
    global _held
    source = (model, files_state(model.folder), interpreter(), tuple(sorted(engine_versions().items())))
    if _held is not None and _held.source == source:
        if _held.process.runs and _held.served.include(served):
            return _held
        # So that jobs which take turns do not start an engine each.
        served = served.joined(_held.served)
    _free_the_card()
    settings = {"model": str(model.folder), "dtype": model.dtype, "context": model.context}
    engine = Engine(VllmProcess(settings | served.settings()), source, served)
    if is_resident():
        _held = engine
    return engine


def give_back(engine: Engine) -> None:
    """End an engine, unless it is held for the next job."""
    if engine is not _held:
        engine.process.close()


@on_release
def release_engine() -> None:
    """End the held engine and its processes."""
    global _held
    if _held is not None:
        engine, _held = _held, None
        engine.process.close()


def _free_the_card() -> None:
    """Free this process's memory on the card: vLLM takes nearly all of it."""
    release_all()
    if (torch := sys.modules.get("torch")) is not None and torch.cuda.is_initialized():
        torch.cuda.empty_cache()
