"""From which difference on two held-out losses differ: a share of what there was to win.

A fixed number of nats means nothing by itself: where tuning can win 0.05 nats, 0.02 are nearly half of
it, and where it can win 2, they are nothing.
"""

from dataclasses import dataclass
from typing import Any

# ASSUME: a twentieth of what there was to win is a difference worth a word.
SHARE_OF_WIN = 0.05
# ASSUME: losses of two runs differ when they are two standard deviations of a difference between seeds apart.
SEED_DEVIATIONS = 2.0
# ASSUME: the same adapter on another machine or in another precision measures up to 0.002 nats more or less.
NOISE_NATS = 0.002
# ASSUME: where no run won anything, or the untrained loss is unknown, 3% and 0.02 nats.
LOSS_SHARE, LOSS_NATS = 0.03, 0.02
# What a margin is made of, as codes.
OF_WIN, OF_SEEDS, OF_NOISE, OF_LOSS = "share_of_win", "seeds", "noise", "share_of_loss"


@dataclass(frozen=True)
class LossMargin:
    """The margin of held-out losses, in nats.

    `to_win`: how far the untrained loss is above the lowest that any run on the same base and rows
    reached; None if unknown. `seed_sd`: standard deviation of a run's final loss between seeds; None if
    no setting has two.
    """

    to_win: float | None = None
    seed_sd: float | None = None

    def in_run(self, reference: float, share: float = SHARE_OF_WIN) -> dict[str, Any]:
        """The margin of two losses of one run, as the threshold of a cause: `nats`, and what they are made of."""
        if self.to_win is None or self.to_win <= NOISE_NATS:
            # Both parts: 3% alone is noise at a loss of 0.1, and 0.02 nats alone is noise at a loss of 3.
            nats = max(LOSS_NATS, LOSS_SHARE * abs(reference))
            return {"nats": nats, "made_of": OF_LOSS, "loss_share": LOSS_SHARE, "loss_nats": LOSS_NATS}
        nats = share * self.to_win
        if nats < NOISE_NATS:
            return {"nats": NOISE_NATS, "made_of": OF_NOISE}
        return {"nats": nats, "made_of": OF_WIN, "share": share, "to_win": self.to_win}

    def between_runs(self, reference: float) -> dict[str, Any]:
        """The margin of two runs' losses: as in one run, but at least what two seeds of one setting differ by."""
        margin = self.in_run(reference)
        if self.seed_sd is None:
            return margin
        of_seeds = SEED_DEVIATIONS * 2**0.5 * self.seed_sd
        if of_seeds <= margin["nats"]:
            return margin
        return {"nats": of_seeds, "made_of": OF_SEEDS, "seed_sd": self.seed_sd}
