"""The optimizer of the base models' weight matrices: Muon, which needs about half as many steps as AdamW here.

Imports torch at the top, because the base class is needed there. Import this module in functions only.
"""

from collections.abc import Iterable
from typing import Any

import torch

# Coefficients of the quintic iteration of Jordan et al. (2024), https://kellerjordan.github.io/posts/muon/, which moves
# every singular value of a matrix close to 1 in five rounds.
QUINTIC = (3.4445, -4.7750, 2.0315)
ROUNDS = 5
MOMENTUM = 0.95
# Gives an update the size of AdamW's (Liu et al. 2025, arXiv:2502.16982), so that one schedule fits both optimizers.
ADAMW_SIZE = 0.2


class Muon(torch.optim.Optimizer):
    """Muon (Jordan et al. 2024) in fp32: Nesterov momentum, made orthogonal, with decoupled weight decay.

    torch.optim.Muon computes in bf16, which is slow on a CPU without bf16 units.
    """

    def __init__(self, matrices: Iterable[torch.Tensor], *, lr: float, weight_decay: float) -> None:
        super().__init__(matrices, {"lr": lr, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:
        """One update of every matrix from its gradient; takes no closure."""
        if closure is not None:
            raise ValueError("Muon takes no closure")
        for group in self.param_groups:
            by_shape: dict[torch.Size, list[torch.Tensor]] = {}
            for matrix in group["params"]:
                by_shape.setdefault(matrix.shape, []).append(matrix)
            # Matrices of one shape share their multiplications.
            for matrices in by_shape.values():
                updates = orthogonalised(torch.stack([self._momentum(matrix) for matrix in matrices]))
                for matrix, update in zip(matrices, updates, strict=True):
                    matrix.mul_(1 - group["lr"] * group["weight_decay"])
                    matrix.add_(update, alpha=-group["lr"] * ADAMW_SIZE * max(matrix.shape) ** 0.5)

    def _momentum(self, matrix: torch.Tensor) -> torch.Tensor:
        state = self.state[matrix]
        if not state:
            state["momentum"] = torch.zeros_like(matrix)
        average = state["momentum"].lerp_(matrix.grad, 1 - MOMENTUM)
        return matrix.grad.lerp(average, MOMENTUM)


def orthogonalised(matrices: torch.Tensor) -> torch.Tensor:
    """Nearly orthogonal matrices with the singular vectors of `matrices`: fp32 tensors [matrices, rows, columns]."""
    first, third, fifth = QUINTIC
    tall = matrices.shape[-2] > matrices.shape[-1]
    # The smaller side first, which makes the products below smaller.
    x = matrices.mT if tall else matrices
    x = x / (x.norm(dim=(-2, -1), keepdim=True) + 1e-7)
    for _ in range(ROUNDS):
        square = x @ x.mT
        x = first * x + (third * square + fifth * square @ square) @ x
    return x.mT if tall else x
