"""LoRA's layers on a CPU, with fewer passes over the activations than PEFT's own.

PEFT adds the low-rank product as a tensor of its own: it is scaled, added, and its gradient scaled and added again,
each as large as the layer's output. Here the second product is added into the first one's result. The sums are the
same up to float32 rounding (tests/training/test_lora_layers.py).
"""

from functools import cache
from types import MethodType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch


def speed_up_lora(model: Any) -> None:
    """Let all plain LoRA layers of a model in float32 on a CPU compute that way; the others stay as they are."""
    from peft.tuners.lora import Linear

    for layer in model.modules():
        if type(layer) is Linear and _is_plain(layer):
            layer.forward = MethodType(_forward, layer)


def _is_plain(layer: Any) -> bool:
    """Whether all that the layer does is base(x) + scaling * B(A(x)), in float32 on a CPU."""
    import torch

    name = layer.active_adapters[0]
    base, parts = layer.get_base_layer(), (layer.lora_A[name], layer.lora_B[name])
    return (
        list(layer.lora_A) == layer.active_adapters
        and not layer.lora_variant
        and not layer.fan_in_fan_out
        and isinstance(layer.lora_dropout[name], torch.nn.Identity)
        and all(type(linear) is torch.nn.Linear for linear in (base, *parts))
        and all(linear.bias is None for linear in parts)
        and not any(one.requires_grad for one in base.parameters())
        and all(one.dtype == torch.float32 and one.device.type == "cpu" for one in layer.parameters())
    )


def _forward(self: Any, x: "torch.Tensor", *arguments: Any, **named: Any) -> "torch.Tensor":
    """Replaces `forward` of PEFT's `Linear`, which still does everything out of the ordinary."""
    import torch

    unusual = arguments or named or self.disable_adapters or self.merged or len(self.lora_A) > 1
    if unusual or x.dtype != torch.float32 or torch.is_autocast_enabled("cpu"):
        return type(self).forward(self, x, *arguments, **named)
    name = self.active_adapters[0]
    return _products().apply(x, self.base_layer, self.lora_A[name].weight, self.lora_B[name].weight, self.scaling[name])


@cache
def _products() -> Any:
    """The layer as one operation of autograd; made on first use, as torch takes seconds to import."""
    import torch

    class LoraProducts(torch.autograd.Function):
        """x W' + bias + scaling (x A') B'; A is (rank, inputs), B (outputs, rank). W and bias are `base`'s, frozen."""

        @staticmethod
        def forward(
            ctx: Any, x: "torch.Tensor", base: Any, a: "torch.Tensor", b: "torch.Tensor", scaling: float
        ) -> "torch.Tensor":
            rows = x.reshape(-1, x.shape[-1])
            low = rows @ a.T
            result = torch.nn.functional.linear(rows, base.weight, base.bias)
            result.addmm_(low, b.T, alpha=scaling)
            ctx.save_for_backward(rows, low, base.weight, a, b)
            ctx.scaling = scaling
            return result.view(*x.shape[:-1], -1)

        @staticmethod
        def backward(ctx: Any, gradient: "torch.Tensor") -> tuple["torch.Tensor | None", ...]:
            rows, low, weight, a, b = ctx.saved_tensors
            gradient_rows = gradient.reshape(-1, gradient.shape[-1])
            # Scaled here, where a row has as many numbers as the rank.
            low_gradient = (gradient_rows @ b).mul_(ctx.scaling)
            x_gradient = None
            # The first layer's input is the frozen embedding's output.
            if ctx.needs_input_grad[0]:
                x_gradient = (gradient_rows @ weight).addmm_(low_gradient, a)
                x_gradient = x_gradient.view(*gradient.shape[:-1], -1)
            b_gradient = (gradient_rows.T @ low).mul_(ctx.scaling)
            return x_gradient, None, low_gradient.T @ rows, b_gradient, None

    return LoraProducts
