"""The grid: a study file becomes cells, and each cell has one identity that everything else is named after."""

import itertools
from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal
from functools import cache
from pathlib import Path
from typing import Any

from loragrid.runtime.atomic_files import sha256_file, sha256_json
from loragrid.study.sections import ModelEntry

AXES = ("learning_rate", "rank", "batch", "model", "seed")
# Keys of `training` that do not change the finished adapter: when it is saved, how long a session lasts, who watches. Not
# `threads`: two add up a gradient in another order than one, and their adapters differ.
NOT_IDENTITY = ("save_steps", "save_minutes", "keep_checkpoints", "session_minutes", "report_to")
WHOLE_FILE_BYTES = 64 * 2**20


@dataclass(frozen=True)
class Cell:
    """One training run. `identity` is all that determines its result; `departs` the axes on which it leaves the base case."""

    run: str
    model: str
    learning_rate: float
    rank: int
    batch: tuple[int, int]
    seed: int
    data: str
    base: str
    identity: dict[str, Any]
    departs: dict[str, Any]


def expand(settings: Mapping[str, Any]) -> tuple[Cell, ...]:
    """The cells of a checked study file, each once, in an order whose every prefix is a usable study.

    The base case comes first, then each axis' ends; of a factorial grid then what leaves the base case on two axes, and so on."""
    grid, base = settings["grid"], settings["base_case"]
    points = [base, *_departures(base, grid)]
    if grid["design"] == "factorial":
        ends_first = (_ends_first(grid[axis], axis) for axis in AXES)
        product = [dict(zip(AXES, values)) for values in itertools.product(*ends_first)]
        product.sort(key=lambda point: sum(point[axis] != base[axis] for axis in AXES))
        points = [point for point in points if point in product] + product
    identities = {model: _model_and_data(settings, model) for model in {point["model"] for point in points}}
    cells = {cell.run: cell for cell in (_cell(settings, point, *identities[point["model"]]) for point in points)}
    return tuple(cells.values())


def _departures(base: dict[str, Any], grid: dict[str, Any]) -> list[dict[str, Any]]:
    """Every single departure from the base case; axes take turns, each giving the values at its ends first."""
    by_axis = [
        [base | {axis: value} for value in _ends_first(grid[axis], axis) if value != base[axis]] for axis in AXES
    ]
    return [point for turn in itertools.zip_longest(*by_axis) for point in turn if point is not None]


def _ends_first(values: list[Any], axis: str) -> list[Any]:
    """An axis' values: least, largest, next to least …; models as they are written."""
    if axis != "model":
        values = sorted(values, key=lambda value: (value[0] * value[1], value) if axis == "batch" else value)
    return [values[i // 2] if i % 2 == 0 else values[-1 - i // 2] for i in range(len(values))]


def _model_and_data(settings: Mapping[str, Any], model: str) -> tuple[dict[str, Any], str]:
    """The part of their identity that cells of one model share, and its digest."""
    shared = {
        "model": model_identity(ModelEntry.read(settings["models"][model])),
        "data": data_identity(settings["data"]),
    }
    return shared, sha256_json(shared)[:8]


def _cell(settings: Mapping[str, Any], point: dict[str, Any], shared: dict[str, Any], digest: str) -> Cell:
    model = point["model"]
    training = {key: value for key, value in settings["training"].items() if key not in NOT_IDENTITY}
    alpha = point["rank"] if training["alpha"] == "rank" else training["alpha"]
    identity = shared | {
        "learning_rate": float(point["learning_rate"]),
        "rank": point["rank"],
        "batch": {"per_device": point["batch"][0], "accumulation": point["batch"][1]},
        "seed": point["seed"],
        "training": training | {"alpha": alpha},
    }
    per_device, accumulation = point["batch"]
    name = (
        f"{model}_lr{scientific(point['learning_rate'])}_r{point['rank']}_b{per_device}x{accumulation}_s{point['seed']}"
    )
    return Cell(
        run=f"{name}_{sha256_json(identity)[:8]}",
        model=model,
        learning_rate=float(point["learning_rate"]),
        rank=point["rank"],
        batch=(per_device, accumulation),
        seed=point["seed"],
        data=f"{model}-{digest}",
        base=f"base-{model}-{digest}",
        identity=identity,
        departs={axis: point[axis] for axis in AXES if point[axis] != settings["base_case"][axis]},
    )


def scientific(value: float) -> str:
    """Shortest scientific form, so that 0.0002 and 2.0e-4 are one name: `2e-4`."""
    mantissa, exponent = f"{Decimal(repr(float(value))).normalize():e}".split("e")
    mantissa = mantissa.rstrip("0").rstrip(".") if "." in mantissa else mantissa
    return f"{mantissa}e{int(exponent)}"


def data_identity(data: dict[str, Any]) -> dict[str, Any]:
    """The data settings with a local file's path replaced by its content, so that moving a file changes nothing."""
    source = data["source"]
    if "path" in source:
        source = {"sha256": _content(source["path"])}
    return data | {"source": source}


def model_identity(entry: ModelEntry) -> dict[str, Any]:
    """The model entry with local paths replaced by content."""
    identity: dict[str, Any] = {"precision": entry.precision}
    if entry.path is not None:
        identity["content"] = _folder_content(entry.path)
    else:
        identity |= {"hub": entry.hub, "revision": entry.revision}
    identity["chat_template"] = None if entry.chat_template is None else _content(entry.chat_template)
    return identity


@cache
def _folder_content(folder: str) -> str:
    """Digest of the files that make a model: configuration, tokenizer, template, weights; not of READMEs beside them."""
    kinds = {".json", ".safetensors", ".jinja", ".model", ".txt"}
    files = sorted(file for file in Path(folder).iterdir() if file.suffix in kinds)
    return sha256_json([[file.name, _content(str(file))] for file in files])


@cache
def _content(path: str) -> str:
    """Digest of a file. Over 64 MiB: of its size and 64 evenly spaced blocks, since this runs whenever the workflow is read;
    the training record holds the full digest of the weights."""
    size = Path(path).stat().st_size
    if size <= WHOLE_FILE_BYTES:
        return sha256_file(path)
    blocks = []
    with open(path, "rb") as file:
        for index in range(64):
            file.seek((size - 2**16) * index // 63)
            blocks.append(file.read(2**16).hex())
    return sha256_json([size, blocks])
