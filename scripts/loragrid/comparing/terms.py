"""How differences are judged: the study file's `compare` section."""

from dataclasses import dataclass

from loragrid.statistics.sign_flips import Draws


@dataclass(frozen=True)
class Terms:
    """The study file's `compare` section, and the number of comparisons that it is applied to.

    `comparisons` bounds the size of a family: draws are raised until they can reach its level.
    """

    correction: str
    alpha: float
    power: float
    bootstrap_draws: int
    seed: int
    retention_margin: float
    comparisons: int = 1

    @property
    def confidence(self) -> float:
        """Coverage of the intervals, 1 - alpha."""
        return 1 - self.alpha

    @property
    def draws(self) -> Draws:
        """Number and seed of the random sign flips, and the level that they must reach."""
        return Draws(self.bootstrap_draws, self.seed, self.alpha / self.comparisons)
