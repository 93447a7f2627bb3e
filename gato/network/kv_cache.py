"""The context of N environments as keys and values: a ring buffer that all rows write together, and
one prompt.

Shape letters: N environments, M of them, H heads, K width of a head, C slots of the ring buffer,
W = 2 C, S new tokens, Q the last of them, which are the queries, P tokens of the prompt.

All environments write the same slots at the same time, so the distance from a slot to a new token
is the same in all rows, whenever their episodes began. One table of distances in the order of slots
therefore serves all rows, by slicing.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float, Int
from torch import Tensor

from gato.network.block_weights import BlockWeights

SCORES_AT_ONCE = 1 << 18
"""Scores that are computed and used together, of one head at least: as float32 they fit a core's
second-level cache."""


@dataclass(slots=True, kw_only=True)
class LayerCache:
    """What one layer remembers. Heads come first: one product for each head serves all rows."""

    keys: Float[Tensor, "H N C K"]
    values: Float[Tensor, "H N C K"]
    distances: Float[Tensor, "H K W"] | None = None
    """Column j is the projected encoding of distance (C - 1 - j) mod C: see `in_slot_order`. None
    if positions are rotary."""
    biases: Float[Tensor, "2 H 1 1 K"] | None = None
    """Of queries, scaled: for content and for distance. None if positions are rotary."""
    prompt_keys: Float[Tensor, "H P K"] | None = None
    """Of one prompt that all environments share."""
    prompt_values: Float[Tensor, "H P K"] | None = None
    weights: BlockWeights | None = None
    """Of the layer's block, if its steps are NumPy's (`gato.network.numpy_step`)."""

    def write(
        self, first_slot: int, keys: Float[Tensor, "H N S K"], values: Float[Tensor, "H N S K"]
    ) -> None:
        """Overwrite S slots."""
        slots = slice(first_slot, first_slot + keys.shape[2])
        self.keys[:, :, slots] = keys
        self.values[:, :, slots] = values

    def heads(self, part: slice) -> LayerCache:
        """A view of some heads."""
        distances, prompt_keys, prompt_values = self.distances, self.prompt_keys, self.prompt_values
        biases = self.biases
        return replace(
            self,
            keys=self.keys[part],
            values=self.values[part],
            distances=None if distances is None else distances[part],
            biases=None if biases is None else biases[:, part],
            prompt_keys=None if prompt_keys is None else prompt_keys[part],
            prompt_values=None if prompt_values is None else prompt_values[part],
        )

    def gather(self, rows: Int[Tensor, " M"]) -> LayerCache:
        """The cache of some environments, copied."""
        return replace(self, keys=self.keys[:, rows], values=self.values[:, rows])

    def turned(self, num_slots: int) -> LayerCache:
        """The same context, with what was in slot j in slot j + `num_slots`, modulo C."""
        return replace(
            self, keys=self.keys.roll(num_slots, 2), values=self.values.roll(num_slots, 2)
        )

    def joined(self, others: Sequence[LayerCache]) -> LayerCache:
        """The environments of all; the prompt is this one's."""
        return replace(
            self,
            keys=torch.cat([self.keys, *(other.keys for other in others)], dim=1),
            values=torch.cat([self.values, *(other.values for other in others)], dim=1),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class CachedStep:
    """Where S new tokens of N environments go, and what they may see: 0, or -inf where not."""

    first_slot: int
    """They go to this slot and those after it, never past the ring buffer's end."""
    position: Int[Tensor, "N S"]
    """Tokens since each environment's episode began; the prompt's are negative."""
    mask: Float[Tensor, "N S C"]
    prompt_distance: Int[Tensor, "N S P"] | None = None
    """Tokens between each new token and each of the prompt's. None: no row sees the prompt."""
    prompt_mask: Float[Tensor, "N S P"] | None = None
    rotations: Float[Tensor, "N S K"] | None = None
    """Of the new tokens, if positions are rotary: computed once for all layers."""

    @property
    def last_slot(self) -> int:
        return self.first_slot + self.position.shape[1] - 1


def in_slot_order(distances: Float[Tensor, "H K C"]) -> Float[Tensor, "H K W"]:
    """Encodings of the distances 0..C-1 in an order that a slice can serve: the C columns from
    column C-1-p on belong to slots 0..C-1 as seen from slot p."""
    # Seen from slot p, slot j was written (p - j) mod C tokens ago. Flipped, distances fall as
    # slots rise; written twice, the modulo becomes an offset.
    turned = distances.flip(-1)
    return torch.cat([turned, turned], dim=-1)


def distance_terms(
    queries: Float[Tensor, "H N Q K"], distances: Float[Tensor, "H K W"], last_slot: int
) -> Float[Tensor, "H N Q C"]:
    """Products of each query with the encoding of its distance to each slot.

    The queries are in the Q slots that end with `last_slot`.
    """
    H, N, Q, K = queries.shape
    C = distances.shape[-1] // 2
    # One product over C + Q - 1 columns has the terms of all Q queries, each at its own offset.
    begin = C - 1 - last_slot
    wide = queries.reshape(H, N * Q, K) @ distances[..., begin : begin + C + Q - 1]
    if Q == 1:
        return wide.view(H, N, 1, C)
    # Query i of Q is Q-1-i slots before the last: its C terms begin as many columns later. A stride
    # that is one shorter for each query reads them: [H, N, Q, C] as a view, no copy.
    wide = wide.view(H, N, Q, C + Q - 1)
    by_head, by_row, by_query, _ = wide.stride()
    return wide.as_strided(
        (H, N, Q, C), (by_head, by_row, by_query - 1, 1), wide.storage_offset() + Q - 1
    )


def attend(
    cache: LayerCache,
    step: CachedStep,
    for_content: Float[Tensor, "H N Q K"],
    for_distance: Float[Tensor, "H N Q K"] | None = None,
) -> Float[Tensor, "H N Q K"]:
    """What the last Q new tokens read: softmax(content + distance) over all that each may see.

    The work has the same shape at every step, and is less once no row sees the prompt any more.

    Args:
        cache: With the new tokens already written.
        step: What each new token may see.
        for_content: Queries for the keys, scaled.
        for_distance: Queries for the distances, scaled; None if positions are rotary.
    """
    num_heads, N, Q, _ = for_content.shape
    at_once = max(1, SCORES_AT_ONCE // (N * Q * cache.keys.shape[2]))
    if at_once >= num_heads:
        return _attend(cache, step, for_content, for_distance)
    parts = [slice(begin, begin + at_once) for begin in range(0, num_heads, at_once)]
    far = [None if for_distance is None else for_distance[part] for part in parts]
    near = [for_content[part] for part in parts]
    return torch.cat(
        [
            _attend(cache.heads(part), step, c, d)
            for part, c, d in zip(parts, near, far, strict=True)
        ]
    )


def _attend(
    cache: LayerCache,
    step: CachedStep,
    for_content: Float[Tensor, "H N Q K"],
    for_distance: Float[Tensor, "H N Q K"] | None,
) -> Float[Tensor, "H N Q K"]:
    H, N, Q, K = for_content.shape
    # Mask and distance term are added to the content's scores within the product: [H, N, Q, C].
    mask = step.mask[:, -Q:]
    if for_distance is None:
        bias = mask.expand(H, -1, -1, -1)
    else:
        assert cache.distances is not None
        bias = distance_terms(for_distance, cache.distances, step.last_slot) + mask
    keys, values = cache.keys.flatten(0, 1), cache.values.flatten(0, 1)
    scores = torch.baddbmm(
        bias.reshape(H * N, Q, -1), for_content.reshape(H * N, Q, K), keys.transpose(1, 2)
    )
    if step.prompt_distance is None or step.prompt_mask is None:
        return (scores.softmax(-1) @ values).view(H, N, Q, K)
    assert cache.prompt_keys is not None
    assert cache.prompt_values is not None
    # The prompt's scores, [H, N, Q, P]: its keys are shared, so rows and queries are one dimension.
    C, P = cache.keys.shape[2], cache.prompt_keys.shape[1]
    of_prompt = (for_content.reshape(H, N * Q, K) @ cache.prompt_keys.transpose(1, 2)).view(
        H, N, Q, P
    )
    if for_distance is not None:
        assert cache.distances is not None
        # Rows are at different distances from the prompt: all C terms are computed, and each row
        # gathers the P that are its own.
        column = (C - 1 - step.prompt_distance[:, -Q:]).expand(H, N, Q, P)
        by_distance = (for_distance.reshape(H, N * Q, K) @ cache.distances[..., :C]).view(
            H, N, Q, C
        )
        of_prompt = of_prompt + by_distance.gather(-1, column)
    of_prompt = of_prompt + step.prompt_mask[:, -Q:]
    # One softmax over prompt and context: [H, N, Q, P + C].
    weights = torch.cat([of_prompt, scores.view(H, N, Q, C)], dim=-1).softmax(-1)
    from_prompt = (weights[..., :P].reshape(H, N * Q, P) @ cache.prompt_values).view(H, N, Q, K)
    return from_prompt + weights[..., P:] @ cache.values


def hidden_from(
    distance: Int[Tensor, "#*S C"], reach: Int[Tensor, "*S"], dtype: torch.dtype
) -> Float[Tensor, "*S C"]:
    """A mask: 0 if a distance is within reach, -inf if it is beyond."""
    is_beyond = distance > reach[..., None]
    mask = torch.zeros(is_beyond.shape, dtype=dtype, device=distance.device)
    return mask.masked_fill_(is_beyond, -math.inf)


def slot_distances(num_slots: int, device: torch.device) -> Int[Tensor, " W"]:
    """The distance (p - j) mod C of slot j as seen from slot p is in place C - 1 - p + j."""
    turned = torch.arange(num_slots - 1, -1, -1, device=device)
    return torch.cat([turned, turned])


def distances_from(
    distances: Int[Tensor, " W"], first_slot: int, num_tokens: int
) -> Int[Tensor, "S C"]:
    """How long ago each slot was written as seen from S tokens, the last token first: a view of
    `slot_distances`."""
    C = len(distances) // 2
    return distances.as_strided((num_tokens, C), (1, 1), C - first_slot - num_tokens)
