"""Keys and values of rows that are decoded together, each row in a slot of its own, and the passes over them.

transformers' cache copies all keys and values for every token, repeats them for each head of a group, and pads short
rows. Here a token is written in place, a group's heads read the same keys, what all rows begin with is held once, and
prompts are read side by side without padding.
"""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from loragrid.models.passes.row_losses import network_of

if TYPE_CHECKING:
    import torch

# Widths of a step are multiples of it: sums over them then take the same order whatever the other rows' lengths are.
WIDTH_STEP = 16


@dataclass
class _Layer:
    """A layer's keys and values: [slots, heads, capacity, head size], and [heads, prefix, head size] of the prefix."""

    keys: "torch.Tensor"
    values: "torch.Tensor"
    prefix_keys: "torch.Tensor | None" = None
    prefix_values: "torch.Tensor | None" = None


class SlotCache:
    """The cache of up to `rows` rows of `capacity` tokens behind a prefix that all rows share.

    `ends`: the tokens of each row in use, the prefix not counted; row i is in slot i. Its passes need
    `slot_attention.slots_in_use`.
    """

    def __init__(self, model: Any, *, rows: int, capacity: int) -> None:
        self._model, self._rows = model, rows
        self._capacity = -(-capacity // WIDTH_STEP) * WIDTH_STEP
        self.ends: list[int] = []
        self.prefix = 0
        self._layers: dict[int, _Layer] = {}
        # Of the pass in progress: lengths of the rows that are read (none while tokens are written), and masks.
        self._reading: list[int] = []
        self._reads_prefix = False
        self._masks: dict[int | None, torch.Tensor] = {}

    def read_prefix(self, ids: Sequence[int]) -> None:
        """Read what all rows begin with; before the first row."""
        self._reads_prefix = True
        self._read([ids])
        self._reads_prefix, self.prefix = False, len(ids)

    def read(self, rows: Sequence[Sequence[int]]) -> "torch.Tensor":
        """Read rows, given without the prefix, into the next slots; logits [rows, vocabulary] after them."""
        logits = self._read(rows)
        self.ends += map(len, rows)
        return logits

    def write(self, tokens: Sequence[int]) -> "torch.Tensor":
        """Add one token to every row; logits [rows, vocabulary] after them."""
        self._reading, self._masks = [], {}
        places = [[self.prefix + end] for end in self.ends]
        logits = self._pass([[token] for token in tokens], places)[:, -1]
        self.ends = [end + 1 for end in self.ends]
        return logits

    def drop(self, slot: int) -> None:
        """Free a slot: the last row moves into it."""
        import torch

        last = len(self.ends) - 1
        if slot < last:
            length = self.ends[last]
            with torch.inference_mode():
                for layer in self._layers.values():
                    layer.keys[slot, :, :length] = layer.keys[last, :, :length]
                    layer.values[slot, :, :length] = layer.values[last, :, :length]
        self.ends[slot] = self.ends[last]
        self.ends.pop()

    def attend(self, layer: int, states: Sequence["torch.Tensor"], *, scale: float, window: int | None) -> Any:
        """A layer's attention in the pass in progress; `states`: query, key, value as transformers gives them."""
        _, key, value = states
        if layer not in self._layers:
            self._layers[layer] = self._new_layer(key, value)
        if self._reading:
            return self._attend_read(self._layers[layer], states, scale=scale, window=window)
        return self._attend_write(self._layers[layer], states, scale=scale, window=window)

    def _new_layer(self, key: "torch.Tensor", value: "torch.Tensor") -> _Layer:
        # Zeros and not whatever is in memory: a place that no row has reached is multiplied by a weight of zero.
        # The system gives the memory only when a place is written.
        shape = self._rows, key.shape[1], self._capacity
        return _Layer(key.new_zeros(*shape, key.shape[-1]), value.new_zeros(*shape, value.shape[-1]))

    def _read(self, rows: Sequence[Sequence[int]]) -> "torch.Tensor":
        self._reading, self._masks = [len(row) for row in rows], {}
        ids = list(itertools.chain.from_iterable(rows))
        places = [self.prefix + place for row in rows for place in range(len(row))]
        lasts = [end - 1 for end in itertools.accumulate(self._reading)]
        return self._pass([ids], [places], keep=lasts)[0, -len(rows) :]

    def _pass(self, ids: Any, places: Any, *, keep: Sequence[int] | None = None) -> "torch.Tensor":
        import torch

        device, options = self._model.device, {}
        if keep is not None and network_of(self._model)._supports_logits_to_keep():
            options["logits_to_keep"] = torch.tensor(keep, device=device)
        with torch.inference_mode():
            logits = self._model(
                input_ids=torch.tensor(ids, device=device),
                position_ids=torch.tensor(places, device=device),
                use_cache=False,
                slot_cache=self,
                **options,
            ).logits
        if keep is not None and not options:
            logits = logits[:, list(keep)]
        return logits

    def _attend_read(self, layer: _Layer, states: Any, *, scale: float, window: int | None) -> Any:
        """Each prompt of the only row sees the prefix and itself: [1, tokens, heads, head size]."""
        import torch
        from torch.nn.functional import scaled_dot_product_attention

        found = []
        for number, (query, key, value) in enumerate(zip(*(one.split(self._reading, dim=2) for one in states))):
            if self._reads_prefix:
                layer.prefix_keys, layer.prefix_values = key[0].clone(), value[0].clone()
            else:
                slot, length = len(self.ends) + number, key.shape[2]
                layer.keys[slot, :, :length], layer.values[slot, :, :length] = key[0], value[0]
                if self.prefix:
                    key = torch.cat([layer.prefix_keys[None], key], dim=2)
                    value = torch.cat([layer.prefix_values[None], value], dim=2)
            band = _band(query.shape[2], key.shape[2], window, device=query.device)
            options = {"is_causal": True} if band is None else {"attn_mask": band}
            grouped = query.shape[1] != key.shape[1]
            found.append(scaled_dot_product_attention(query, key, value, scale=scale, enable_gqa=grouped, **options))
        return torch.cat(found, dim=2).transpose(1, 2)

    def _attend_write(self, layer: _Layer, states: Any, *, scale: float, window: int | None) -> Any:
        """Each row's new token sees the prefix and its row: [rows, 1, heads, head size]."""
        import torch

        query, key, value = states
        rows, heads, groups = len(query), key.shape[1], query.shape[1] // key.shape[1]
        slots, ends = torch.arange(rows, device=query.device), torch.tensor(self.ends, device=query.device)
        layer.keys[slots, :, ends], layer.values[slots, :, ends] = key[:, :, 0], value[:, :, 0]
        width = self._width()
        keys, values = layer.keys[:rows, :, :width], layer.values[:rows, :, :width]
        query = (query * scale).view(rows, heads, groups, -1)
        scores = query @ keys.transpose(-1, -2)
        if self.prefix:
            scores = torch.cat([_all_rows(query, layer.prefix_keys.transpose(-1, -2)), scores], dim=-1)
        weights = (scores + self._mask(ends, window)).softmax(-1, dtype=torch.float32).to(value.dtype)
        found = weights[..., self.prefix :] @ values
        if self.prefix:
            found = found + _all_rows(weights[..., : self.prefix], layer.prefix_values)
        return found.reshape(rows, 1, heads * groups, -1)

    def _width(self) -> int:
        return -(-(max(self.ends) + 1) // WIDTH_STEP) * WIDTH_STEP

    def _mask(self, ends: "torch.Tensor", window: int | None) -> "torch.Tensor":
        """0 where a row's new token sees, minus infinity elsewhere: [rows, 1, 1, prefix + width]."""
        import torch

        # One for all layers with this window.
        if window not in self._masks:
            places = torch.arange(self.prefix + self._width(), device=ends.device)
            newest = self.prefix + ends[:, None]
            seen = places <= newest
            if window is not None:
                seen &= places > newest - window
            mask = torch.zeros(seen.shape, device=ends.device).masked_fill_(~seen, float("-inf"))
            self._masks[window] = mask[:, None, None]
        return self._masks[window]


def _all_rows(states: "torch.Tensor", prefix: "torch.Tensor") -> "torch.Tensor":
    """The product of all rows [rows, heads, groups, n] with a prefix [heads, n, m], in one product a head."""
    rows, heads, groups, n = states.shape
    found = states.transpose(0, 1).reshape(heads, rows * groups, n) @ prefix
    return found.view(heads, rows, groups, -1).transpose(0, 1)


def _band(queries: int, keys: int, window: int | None, *, device: Any) -> "torch.Tensor | None":
    """Mask of a prompt's tokens over the prefix and themselves; None for plain causal attention."""
    import torch

    before = keys - queries
    if before == 0 and (window is None or keys <= window):
        return None
    band = torch.ones(queries, keys, dtype=torch.bool, device=device).tril(before)
    return band if window is None else band.triu(before + 1 - window)
