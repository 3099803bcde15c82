"""Optuna's samplers, created for each trial so that a killed search continues unchanged."""

from collections.abc import Mapping
from hashlib import sha256
from typing import TYPE_CHECKING, Any

from loragrid.study.search.search_space import Space, distributions, settings_at
from loragrid.study.sections import Tune

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution
    from optuna.samplers import BaseSampler
    from optuna.trial import Trial


def make_sampler(tune: Tune, *, slot: int) -> "BaseSampler":
    """The study's sampler for one slot, seeded by it."""
    from optuna.samplers import GPSampler, RandomSampler, TPESampler

    # Its random state depends on the slot and not on what this process did before.
    seed = int.from_bytes(sha256(f"{tune.seed} {slot}".encode()).digest()[:4], "big")
    if tune.sampler == "random":
        return RandomSampler(seed=seed)
    if tune.sampler == "gp":
        # Settings that not every method has are drawn by another sampler, which is intended.
        return GPSampler(seed=seed, n_startup_trials=tune.startup_trials, warn_independent_sampling=False)
    return TPESampler(seed=seed, n_startup_trials=tune.startup_trials)


def draw(trial: "Trial", space: Space, method: str) -> None:
    """Draw a trial's method, then the settings that it has; `method` is that of a space without methods."""
    every = distributions(space)
    if "method" in every:
        method = _suggest(trial, "method", every["method"])
    for name in settings_at(space, method):
        _suggest(trial, name, every[name])


def is_drawn(params: Mapping[str, Any], space: Space, method: str) -> bool:
    """Whether a trial has all of its settings: its worker may have been killed while they were drawn."""
    if "method" in space and "method" not in params:
        return False
    return params.keys() == set(settings_at(space, params.get("method", method)))


def _suggest(trial: "Trial", name: str, distribution: "BaseDistribution") -> Any:
    """Draw a value by a distribution."""
    from optuna.distributions import CategoricalDistribution, IntDistribution

    if isinstance(distribution, CategoricalDistribution):
        return trial.suggest_categorical(name, distribution.choices)
    suggest = trial.suggest_int if isinstance(distribution, IntDistribution) else trial.suggest_float
    return suggest(name, distribution.low, distribution.high, log=distribution.log)
