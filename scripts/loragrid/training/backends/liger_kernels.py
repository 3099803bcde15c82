"""liger's fused kernels in the training steps of the backend trl (Hsu et al. 2024, https://arxiv.org/abs/2410.10989).

liger replaces a family's norms, MLPs, rotary embeddings and loss, in the model and in its module. Here they are in
place during a training step and at no other time: held-out losses and scores are computed by the model's own code, as
those of a run without liger. Attention stays as it is, so samples stay apart in a batch without padding.
"""

import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from inspect import signature
from typing import Any

from loragrid.errors import UserError, first_line
from loragrid.models.find_shape import find_config
from loragrid.records.failures import out_of_memory
from loragrid.runtime.provenance import versions
from loragrid.study.sections import ModelEntry
from loragrid.training.backends.chunked_loss import FLOAT32_TOLERANCE, HALF_TOLERANCE, PROBE

KEY = "training.liger_kernels"
FUSED_LOSS = "fused_linear_cross_entropy"
HALF_TYPES = {"bf16": "bfloat16", "fp16": "float16"}  # the study file's names and torch's


def check_family(entry: ModelEntry) -> None:
    """Raise `UserError` if liger has no kernels for a base; one whose configuration is not here yet passes."""
    found = find_config(entry)
    if found is not None:
        family_kernels(str(found[0].get("model_type")))


def family_kernels(model_type: str) -> tuple[str, ...]:
    """liger's names of the kernels that it has for a family (transformers' `model_type`), by its own table.

    Raises `UserError` if it has none, or no fused loss, and if liger cannot be imported.
    """
    try:
        from liger_kernel.transformers import monkey_patch
    except Exception as error:
        # By the missing driver or library it raises errors of any class.
        fix = "pip install -r requirements-gpu.txt, or set it to false"
        raise UserError(f"{KEY}: liger_kernel cannot be imported ({first_line(error)}). Fix: {fix}.") from error
    table = monkey_patch.MODEL_TYPE_TO_APPLY_LIGER_FN
    if model_type not in table:
        raise UserError(f"{KEY}: liger has no kernels for this family ({model_type}). Fix: set it to false.")
    parameters = signature(table[model_type]).parameters.values()
    kernels = tuple(one.name for one in parameters if one.default is True)
    if FUSED_LOSS not in kernels:
        raise UserError(f"{KEY}: liger has no fused loss for this family ({model_type}). Fix: set it to false.")
    return kernels


class LigerKernels:
    """liger's kernels for one network, which are in place within `in_place` only, except its loss.

    That one takes over where the network is given labels and trains; otherwise it computes logits as before.
    """

    def __init__(self, network: Any, *, compute_dtype: str) -> None:
        """Raises `UserError` if liger cannot compute the network, or computes another loss than the network itself.

        `compute_dtype`: what training computes in, "fp32", "bf16" or "fp16".
        """
        kind = network.config.model_type
        kernels = family_kernels(kind)
        self.note = f"trained with liger {versions().get('liger_kernel')}: {', '.join(kernels)}"
        expected = _probe_loss(network, compute_dtype)
        names, before = vars(sys.modules[type(network).__module__]), _own_forwards(network)
        named_before = dict(names)
        try:
            _apply(network)
        except (TypeError, NotImplementedError, AttributeError) as error:
            raise UserError(
                f"{KEY}: liger cannot take this {kind} ({first_line(error)}). Fix: set it to false."
            ) from None
        replaced = {name: value for name, value in named_before.items() if names[name] is not value}
        # Classes are for models that are loaded later; this model's layers are replaced one by one.
        functions = {name: names[name] for name, value in replaced.items() if not isinstance(value, type)}
        names.update(replaced)
        self._names, self._replaced, self._functions = names, replaced, functions
        self._forwards = [
            (layer, own, vars(layer)["forward"])
            for layer, own in before.items()
            if vars(layer).get("forward") is not own
        ]
        self._take_out()
        self._check_loss(network, expected, compute_dtype=compute_dtype)

    @contextmanager
    def in_place(self) -> Iterator[None]:
        """Within the block, the network's layers are computed by the kernels."""
        for layer, _, forward in self._forwards:
            vars(layer)["forward"] = forward
        self._names.update(self._functions)
        try:
            yield
        finally:
            self._take_out()

    def _take_out(self) -> None:
        self._names.update(self._replaced)
        for layer, own, _ in self._forwards:
            vars(layer).pop("forward", None)
            if own is not None:
                vars(layer)["forward"] = own

    def _check_loss(self, network: Any, expected: float, *, compute_dtype: str) -> None:
        kind = network.config.model_type
        try:
            with self.in_place():
                found = _probe_loss(network, compute_dtype, skip_logits=True)
        except Exception as error:
            if out_of_memory(error) is not None:
                raise
            # Triton raises errors of many classes, by the card and the compiler.
            problem = f"liger's kernels fail on this {kind} here ({first_line(error)})"
            raise UserError(f"{KEY}: {problem}. Fix: set it to false.") from error
        exact = compute_dtype == "fp32" and not getattr(network, "is_loaded_in_4bit", False)
        tolerance = FLOAT32_TOLERANCE if exact else HALF_TOLERANCE
        # Negated, so that NaN counts as different.
        if not abs(found - expected) <= tolerance * abs(expected):
            problem = f"liger computes another loss for this {kind} ({found:.5g}, and {expected:.5g} without it)"
            raise UserError(f"{KEY}: {problem}. Fix: set it to false.")


def _apply(network: Any) -> None:
    from liger_kernel.transformers import _apply_liger_kernel_to_instance

    # Not by TRL's `use_liger_kernel`, which replaces them when training starts: too late to try them, and for good.
    _apply_liger_kernel_to_instance(model=network, cross_entropy=False, **{FUSED_LOSS: True})


def _own_forwards(network: Any) -> Mapping[Any, Callable | None]:
    """The layers of a network, each with the forward pass that was put on it alone."""
    return {layer: vars(layer).get("forward") for layer in network.modules() if layer is not network}


def _probe_loss(network: Any, compute_dtype: str, **more: Any) -> float:
    """Mean loss of a row of tokens that any vocabulary has, without dropout; `more`: further arguments."""
    import torch

    device = network.get_input_embeddings().weight.device
    row = torch.tensor([PROBE], device=device)
    # With positions, because an attention without padding refuses a row without them.
    inputs = {"input_ids": row, "labels": row, "position_ids": torch.arange(len(PROBE), device=device)[None]}
    half = HALF_TYPES.get(compute_dtype)
    training = network.training
    # Dropout would draw random numbers, and other ones in each pass.
    network.eval()
    try:
        # As in training: the weights may have more bits.
        with torch.no_grad(), torch.autocast(device.type, getattr(torch, half or "bfloat16"), enabled=half is not None):
            return float(network(**inputs, use_cache=False, **more).loss)
    finally:
        network.train(training)
