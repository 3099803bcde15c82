"""The grid: the cells of a study file, each with the identity that its files are named after."""

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
# Keys of `training` that do not change the finished adapter. `threads` is not one of them: with two
# threads a gradient is summed in another order than with one, and the adapters differ.
NOT_IDENTITY = ("save_steps", "save_minutes", "keep_checkpoints", "session_minutes", "report_to")
WHOLE_FILE_BYTES = 64 * 2**20


@dataclass(frozen=True)
class Cell:
    """One training run.

    `identity` holds all that determines its result; `departs` the axes that differ from the base
    case.
    """

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
    """The cells of a validated study file, each once; any first part of them is a usable study.

    The base case comes first, then the ends of each axis. In a factorial grid cells that differ
    from the base case on two axes follow, then those on three, and so on.
    """
    grid, base = settings["grid"], settings["base_case"]
    points = [base, *_departures(base, grid)]
    if grid["design"] == "factorial":
        values = (_ends_first(grid[axis], axis) for axis in AXES)
        product = [dict(zip(AXES, combination)) for combination in itertools.product(*values)]
        product.sort(key=lambda point: sum(point[axis] != base[axis] for axis in AXES))
        # The single departures keep their balanced order; the dictionary below drops their second
        # mention.
        points = [point for point in points if point in product] + product
    # Hashing a model's folder takes far longer than making a cell, so cells of one model share it.
    models = {point["model"] for point in points}
    identities = {model: _model_and_data(settings, model) for model in models}
    cells: dict[str, Cell] = {}
    for point in points:
        cell = _cell(settings, point, *identities[point["model"]])
        cells[cell.run] = cell
    return tuple(cells.values())


def _departures(base: dict[str, Any], grid: dict[str, Any]) -> list[dict[str, Any]]:
    """Every single departure from the base case.

    Axes take turns, so that any first part covers all of them equally.
    """
    by_axis = []
    for axis in AXES:
        values = [value for value in _ends_first(grid[axis], axis) if value != base[axis]]
        by_axis.append([base | {axis: value} for value in values])
    rounds = itertools.zip_longest(*by_axis)
    return [point for points in rounds for point in points if point is not None]


def _ends_first(values: list[Any], axis: str) -> list[Any]:
    """The values of an axis as smallest, largest, second smallest, …; models as in the file.

    The ends come first because they show most: whether the axis matters at all, and in which
    direction.
    """
    if axis == "batch":
        values = sorted(values, key=lambda batch: (batch[0] * batch[1], batch))
    elif axis != "model":
        values = sorted(values)
    ordered, remaining = [], list(values)
    while remaining:
        ordered.append(remaining.pop(0))
        remaining.reverse()  # The next value comes from the other end.
    return ordered


def _model_and_data(settings: Mapping[str, Any], model: str) -> tuple[dict[str, Any], str]:
    """The part of the identity that all cells of a model share, and its digest."""
    shared = {
        "model": model_identity(ModelEntry.read(settings["models"][model])),
        "data": data_identity(settings["data"]),
    }
    # Eight hexadecimal digits: readable in a file name, and in ten thousand ids a collision has a
    # chance of one in a hundred.
    return shared, sha256_json(shared)[:8]


def _cell(settings: Mapping[str, Any], point: dict[str, Any], shared: dict[str, Any], digest: str) -> Cell:
    model, (per_device, accumulation) = point["model"], point["batch"]
    training = {key: value for key, value in settings["training"].items() if key not in NOT_IDENTITY}
    # The resolved number, so that `rank` and an equal alpha written as a number are the same run.
    if training["alpha"] == "rank":
        training["alpha"] = point["rank"]
    identity = shared | {
        # As a float, because 1 and 1.0 are one learning rate but two texts in JSON.
        "learning_rate": float(point["learning_rate"]),
        "rank": point["rank"],
        "batch": {"per_device": per_device, "accumulation": accumulation},
        "seed": point["seed"],
        "training": training,
    }
    name = f"{model}_lr{scientific(point['learning_rate'])}_r{point['rank']}"
    name += f"_b{per_device}x{accumulation}_s{point['seed']}"
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
    """The shortest scientific form, so that 0.0002 and 2.0e-4 have one name: `2e-4`."""
    mantissa, exponent = f"{Decimal(repr(float(value))).normalize():e}".split("e")
    if "." in mantissa:
        mantissa = mantissa.rstrip("0").rstrip(".")
    return f"{mantissa}e{int(exponent)}"


def data_identity(data: dict[str, Any]) -> dict[str, Any]:
    """The data settings with a local file's path replaced by a digest of its content."""
    source = data["source"]
    if "path" in source:
        source = {"sha256": _content(source["path"])}
    return data | {"source": source}


def model_identity(entry: ModelEntry) -> dict[str, Any]:
    """The model entry, with local paths replaced by digests of their content."""
    identity: dict[str, Any] = {"precision": entry.precision}
    if entry.path is not None:
        identity["content"] = _folder_content(entry.path)
    else:
        identity |= {"hub": entry.hub, "revision": entry.revision}
    template = entry.chat_template
    identity["chat_template"] = None if template is None else _content(template)
    return identity


@cache
def _folder_content(folder: str) -> str:
    """Digest of a model's configuration, tokenizer, template and weights.

    Other files, such as a README, do not count.
    """
    kinds = {".json", ".safetensors", ".jinja", ".model", ".txt"}
    files = sorted(file for file in Path(folder).iterdir() if file.suffix in kinds)
    return sha256_json([[file.name, _content(str(file))] for file in files])


@cache
def _content(path: str) -> str:
    """Digest of a file; over 64 MiB, of its size and of 64 evenly spaced blocks."""
    size = Path(path).stat().st_size
    if size <= WHOLE_FILE_BYTES:
        return sha256_file(path)
    # This runs on every call of snakemake, where gigabytes of weights would take a minute. The
    # run's record holds their full digest.
    blocks = []
    with open(path, "rb") as file:
        for index in range(64):
            file.seek((size - 2**16) * index // 63)
            blocks.append(file.read(2**16).hex())
    return sha256_json([size, blocks])
