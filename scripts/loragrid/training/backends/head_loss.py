"""The training loss on a CPU: logits of a few tokens at a time, which become gradients while they are in the cache.

transformers makes five tensors of the size of all logits: they, their log-softmax, two gradients and zeros to begin
with. Here each part of the logits is used up at once, in the same memory. Loss and gradients are the same up to float32
rounding (tests/training/test_head_loss.py).
"""

from functools import cache
from typing import TYPE_CHECKING, Any

from loragrid.models.batch_sizes import head_loss_rows
from loragrid.models.passes.padding_free import PROBE, is_padding_free, loss_only

if TYPE_CHECKING:
    import torch

# Largest difference of the probe's losses that is rounding, as a share of the loss.
TOLERANCE = 1e-5


def supports_head_loss(network: Any) -> bool:
    """Whether the network's loss is the cross-entropy of its frozen head on its last hidden states, in float32.

    It is tried on two samples in one row: some families scale or cap their logits (Granite, Gemma 2).
    """
    import torch

    head = network.get_output_embeddings()
    if type(head) is not torch.nn.Linear or head.bias is not None or head.weight.requires_grad:
        return False
    if not is_padding_free(network) or head.weight.dtype != torch.float32 or head.weight.device.type != "cpu":
        return False
    labels = torch.tensor([[label for sample in PROBE for label in (-100, *sample[1:])]])
    inputs = {
        "input_ids": torch.tensor([[token for sample in PROBE for token in sample]]),
        "position_ids": torch.tensor([[place for sample in PROBE for place in range(len(sample))]]),
        **loss_only(labels),
    }
    training = network.training
    # Dropout would draw random numbers.
    network.eval()
    try:
        with torch.no_grad():
            expected = network(**inputs, labels=labels, use_cache=False).loss
            found = head_loss(network, inputs, items=inputs["shift_labels"].numel())
    except Exception:
        # Each architecture raises its own errors for a call that it does not expect.
        return False
    finally:
        network.train(training)
    # False for NaN.
    return bool((found - expected).abs() <= TOLERANCE * expected.abs())


def head_loss(network: Any, inputs: dict[str, Any], *, items: Any) -> "torch.Tensor":
    """The loss of a row of samples, summed over its loss tokens and divided by `items`.

    `inputs`: input_ids and position_ids, (1, tokens), and what `loss_only` returns.
    """
    decoded = network.base_model(
        input_ids=inputs["input_ids"], position_ids=inputs["position_ids"], use_cache=False
    ).last_hidden_state
    hidden = decoded[0, inputs["logits_to_keep"]]
    weight = network.get_output_embeddings().weight
    return _cross_entropy().apply(hidden, weight, inputs["shift_labels"][0]) / items


@cache
def _cross_entropy() -> Any:
    """The summed loss as one operation of autograd; made on first use, as torch takes seconds to import."""
    import torch

    class HeadCrossEntropy(torch.autograd.Function):
        """Cross-entropy of hidden W' with the targets, summed; hidden is (tokens, width), W (vocabulary, width)."""

        @staticmethod
        def forward(
            ctx: Any, hidden: "torch.Tensor", weight: "torch.Tensor", targets: "torch.Tensor"
        ) -> "torch.Tensor":
            rows = max(1, head_loss_rows(len(hidden), vocab_size=weight.shape[0]))
            memory = hidden.new_empty(rows, weight.shape[0])
            gradient = torch.empty_like(hidden) if ctx.needs_input_grad[0] else None
            total = hidden.new_zeros(())
            for start in range(0, len(hidden), rows):
                part = slice(start, start + rows)
                wanted = targets[part]
                logits = torch.mm(hidden[part], weight.T, out=memory[: len(wanted)])
                logits.sub_(logits.amax(dim=1, keepdim=True))
                of_targets = logits.gather(1, wanted[:, None])
                sums = logits.exp_().sum(dim=1, keepdim=True)
                total += (sums.log() - of_targets).sum()
                if gradient is not None:
                    # Divided here, where a row is as long as the hidden state and not as the vocabulary.
                    torch.mm(logits, weight, out=gradient[part]).div_(sums).sub_(weight[wanted])
            ctx.save_for_backward(gradient)
            return total

        @staticmethod
        def backward(ctx: Any, outer: "torch.Tensor") -> tuple["torch.Tensor", None, None]:
            (gradient,) = ctx.saved_tensors
            return gradient * outer, None, None

    return HeadCrossEntropy
