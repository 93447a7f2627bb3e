"""The yardstick of training: a plain GPT as big as a Gato."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from gato.config import ModelConfig
from gato.network.model import Gato, TensorBatch


class BareBlock(nn.Module):
    """Causal attention, then GELU between two products."""

    def __init__(self, width: int, num_heads: int, hidden: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv, self.out = (
            nn.Linear(width, 3 * width, bias=False),
            nn.Linear(width, width, bias=False),
        )
        self.up, self.down = nn.Linear(width, hidden), nn.Linear(hidden, width)

    def forward(self, x: Tensor) -> Tensor:
        B, L, D = x.shape
        q, k, v = self.qkv(self.norm1(x)).view(B, L, 3, self.num_heads, -1).permute(2, 0, 3, 1, 4)
        x = x + self.out(
            F.scaled_dot_product_attention(q, k, v, is_causal=True).transpose(1, 2).reshape(B, L, D)
        )
        return x + self.down(F.gelu(self.up(self.norm2(x))))


class BareGPT(nn.Module):
    """The yardstick: as deep and wide as `config`, its hidden layer made as wide as equal size
    asks."""

    def __init__(self, config: ModelConfig, num_parameters: int) -> None:
        super().__init__()
        width, layers = config.width, config.num_layers
        self.table = nn.Embedding(config.layout.vocab_size, width)
        self.position = nn.Parameter(torch.randn(config.context_tokens, width) * 0.02)
        nn.init.normal_(self.table.weight, std=0.02)
        fixed = (
            self.table.weight.numel()
            + self.position.numel()
            + 2 * width
            + layers * (4 * width**2 + 5 * width)
        )
        # A hidden unit has two rows of weights and a bias; a multiple of 16, so that no product is
        # an odd size.
        hidden = round((num_parameters - fixed) / (layers * (2 * width + 1)) / 16) * 16
        self.blocks = nn.Sequential(
            *[BareBlock(width, config.num_heads, hidden) for _ in range(layers)]
        )
        self.norm = nn.LayerNorm(width)

    def loss(self, batch: TensorBatch) -> Tensor:
        """Mean cross-entropy at the batch's targets."""
        hidden = self.norm(self.blocks(self.table(batch.ids) + self.position[: batch.ids.shape[1]]))
        before = hidden.flatten(0, 1).index_select(0, batch.target_at - 1)
        logits = before @ self.table.weight.to(before.dtype).T
        return F.cross_entropy(logits.float(), batch.ids.flatten()[batch.target_at])


def passed_parameters(config: ModelConfig) -> int:
    """Parameters of Gato without its patch embedding."""
    with torch.device("meta"):
        gato = Gato(config)
    return gato.num_parameters() - sum(p.numel() for p in gato.embedding.patch.parameters())
