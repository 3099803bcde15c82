"""A check of a run in float16: do the activations of its first updates stay below float16's largest number?"""

import math
from functools import partial
from typing import Any

from loragrid.errors import UserError
from loragrid.models.float16_range import LIMIT, float16_family
from loragrid.models.target_modules import language_model

# An overflow of the base shows in the first batch; the others are for rows that are unlike it.
CHECKED_UPDATES = 3


class Float16Check:
    """Records the largest activation of each layer until the first updates are made.

    The values stay on the device until `verify` reads them all at once.
    """

    def __init__(self, model: Any, *, model_type: str) -> None:
        """`model`: the network, without the adapter's wrapper."""
        _, decoder = language_model(model)
        self.model_type = model_type
        self._peaks: dict[int, Any] = {}
        layers = getattr(decoder, "layers", ())
        self._hooks = [
            layer.register_forward_hook(partial(self._record, index)) for index, layer in enumerate(layers, start=1)
        ]

    def verify(self, *, step: int, loss: float) -> None:
        """Raise `UserError` if a layer, or the loss of the unchanged base, left float16's range.

        `step`: updates so far. The last check removes the hooks.
        """
        import torch

        if not self._hooks:
            return
        # The loss of the first update is the base's own: a learning rate cannot be its reason.
        if step <= 1 and not math.isfinite(loss):
            self._refuse(f"the loss is {loss}", step)
        layers = list(self._peaks)
        peaks = torch.stack([self._peaks.pop(layer) for layer in layers]).tolist() if layers else []
        for layer, peak in zip(layers, peaks, strict=True):
            if not math.isfinite(peak):
                self._refuse(f"layer {layer} reached {peak}", step)
        if step >= CHECKED_UPDATES:
            self.remove()

    def remove(self) -> None:
        """Stop recording."""
        for hook in self._hooks:
            hook.remove()
        self._hooks = []

    def _record(self, layer: int, module: Any, inputs: Any, output: Any) -> None:
        import torch

        hidden = output[0] if isinstance(output, tuple) else output
        peak = hidden.detach().abs().amax().float()
        if hidden.dtype == torch.float16:
            # Some kernels saturate there instead of overflowing.
            peak = torch.where(peak >= LIMIT, math.inf, peak)
        known = self._peaks.get(layer)
        # NaN stays NaN in both.
        self._peaks[layer] = peak if known is None else torch.maximum(known, peak)

    def _refuse(self, found: str, step: int) -> None:
        self.remove()
        family = float16_family(self.model_type)
        known = f"; reported before: {family.source}" if family else ""
        raise UserError(
            f"compute_dtype: fp16 cannot hold the numbers of this {self.model_type} ({found} at update {step}; float16 "
            f"ends at {LIMIT:.0f}{known}). Fix: set compute_dtype to fp32, or to bf16 on a GPU that has it."
        )
