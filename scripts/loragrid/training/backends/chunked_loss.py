"""TRL's loss of a few tokens at a time: which models it computes rightly, and removing what was put on a network."""

from typing import Any

from loragrid.models.passes.padding_free import is_padding_free

# Token ids that any vocabulary has.
PROBE = [1, 5, 2, 7, 3, 6]
# Largest difference of the probe's logits that is rounding, as a share of the largest logit.
FLOAT32_TOLERANCE, HALF_TOLERANCE = 1e-4, 0.05


def supports_chunks(network: Any) -> bool:
    """Whether the network's logits are what TRL's `chunked_nll` makes of its last hidden states.

    TRL multiplies them with the head's weights, one scale and one cap, and knows no other steps (Granite divides
    its logits). Without this check such a model would train on another loss, without an error.
    """
    import torch

    head = network.get_output_embeddings()
    # An adapted or quantized head has weights that are not the whole of what it does.
    if type(head) is not torch.nn.Linear:
        return False
    inputs = {"input_ids": torch.tensor([PROBE], device=head.weight.device)}
    if is_padding_free(network):
        # Its attention refuses a row without them.
        inputs["position_ids"] = torch.arange(len(PROBE), device=head.weight.device)[None]
    training = network.training
    # Dropout would draw random numbers, and other ones in each pass.
    network.eval()
    with torch.no_grad():
        expected = network(**inputs, use_cache=False).logits.float()
        hidden = network.base_model(**inputs, use_cache=False).last_hidden_state
    network.train(training)
    found = _trl_logits(hidden, head, network.config.get_text_config())
    tolerance = FLOAT32_TOLERANCE if expected.dtype == hidden.dtype == head.weight.dtype else HALF_TOLERANCE
    # Negated, so that NaN counts as different.
    return not bool(((found - expected).abs().max() > tolerance * expected.abs().max()) | found.isnan().any())


def _trl_logits(hidden: Any, head: Any, text_config: Any) -> Any:
    """The logits of `chunked_nll` in trl 1.14.2, float32."""
    import torch

    scale = getattr(text_config, "logit_scale", None)
    if scale is None:
        scale = getattr(text_config, "output_multiplier", None)
    bias = None if head.bias is None else head.bias.to(hidden.dtype)
    logits = torch.nn.functional.linear(hidden, head.weight.to(hidden.dtype), bias).float()
    if scale is not None:
        logits = logits * scale
    cap = getattr(text_config, "final_logit_softcapping", None)
    return logits if cap is None else cap * torch.tanh(logits / cap)


def unpatch(network: Any) -> None:
    """Remove the forward pass that TRL or liger puts on a network for its loss: the next user wants logits."""
    forward = vars(network).get("forward")
    name, module = getattr(forward, "__name__", ""), getattr(forward, "__module__", None) or ""
    if name == "_chunked_ce_forward" or module.startswith("liger_kernel."):
        del network.forward
