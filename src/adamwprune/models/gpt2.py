# SPDX-License-Identifier: MIT
"""GPT-2 (Radford et al. 2019): a decoder of pre-norm blocks, learned positions, and a head tied to the embedding."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

#: Standard deviation of all initial weights but those that write into the residual stream.
INITIAL_DEVIATION = 0.02

#: In bfloat16 on a CPU the backward pass of torch's fused attention is slower than the plain form up to this length.
PLAIN_ATTENTION = 256


@dataclass(frozen=True, kw_only=True, slots=True)
class Shape:
    """What tells one GPT-2 from another."""

    blocks: int
    heads: int
    #: Size of a token's vector; a multiple of ``heads``.
    width: int
    context: int = 1024
    vocabulary: int = 50257
    dropout: float = 0.0
    #: Keep only each block's input for the backward pass, and compute the rest again: less memory, a third more time.
    checkpointing: bool = False

    def __post_init__(self) -> None:
        if self.width % self.heads:
            raise ValueError(f"gpt2: width={self.width} must be a multiple of heads={self.heads}")
        if not 0.0 <= self.dropout < 1.0:
            raise ValueError(f"gpt2: dropout={self.dropout}: expected a share in [0, 1)")

    def scaled(self, width: float) -> Shape:
        """The same shape with heads of another size, at least one entry each."""
        return dataclasses.replace(self, width=self.heads * max(1, round(self.width // self.heads * width)))


SHAPES = {
    "gpt2": Shape(blocks=12, heads=12, width=768),
    "gpt2-medium": Shape(blocks=24, heads=16, width=1024),
    "gpt2-large": Shape(blocks=36, heads=20, width=1280),
    "gpt2-xl": Shape(blocks=48, heads=25, width=1600),
    # For a CPU.
    "gpt2-tiny": Shape(blocks=4, heads=4, width=96, context=128, vocabulary=256),
    "gpt2-mini": Shape(blocks=4, heads=6, width=192, context=256, vocabulary=256),
    # For minutes of a GPU: 30 million parameters with GPT-2's vocabulary.
    "gpt2-30m": Shape(blocks=6, heads=6, width=384, context=512),
}


def padded(vocabulary: int) -> int:
    """Rows of the embedding: a large vocabulary is filled up to a multiple of 64, which GPUs multiply faster."""
    return vocabulary if vocabulary < 1024 else -(-vocabulary // 64) * 64


class Attention(nn.Module):
    """Causal self-attention of several heads."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.heads, self.dropout = shape.heads, shape.dropout
        self.c_attn = nn.Linear(shape.width, 3 * shape.width)
        self.c_proj = nn.Linear(shape.width, shape.width)

    def forward(self, x: Tensor) -> Tensor:
        batch, length, width = x.shape
        # query, key, value: (batch, heads, length, width / heads)
        q, k, v = self.c_attn(x).view(batch, length, 3, self.heads, -1).permute(2, 0, 3, 1, 4)
        dropout = self.dropout if self.training else 0.0
        if q.device.type == "cpu" and q.dtype == torch.bfloat16 and length <= PLAIN_ATTENTION:
            y = plain_attention(q, k, v, dropout)
        else:
            y = functional.scaled_dot_product_attention(q, k, v, dropout_p=dropout, is_causal=True)
        out: Tensor = self.c_proj(y.transpose(1, 2).reshape(batch, length, width))
        return out


def plain_attention(q: Tensor, k: Tensor, v: Tensor, dropout: float) -> Tensor:
    """Causal attention spelled out, with the scale and the mask inside of the first product."""
    batch, heads, length, size = q.shape
    future = torch.full((length, length), -math.inf, dtype=q.dtype, device=q.device).triu(1)
    q, k, v = (part.reshape(batch * heads, length, size) for part in (q, k, v))
    scores = torch.baddbmm(future.expand(batch * heads, -1, -1), q, k.transpose(1, 2), alpha=1 / math.sqrt(size))
    weights = functional.dropout(scores.softmax(-1), dropout)
    return (weights.to(v.dtype) @ v).view(batch, heads, length, size)


class Mlp(nn.Module):
    """Two linear layers with GELU in its tanh form between them."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.c_fc = nn.Linear(shape.width, 4 * shape.width)
        self.c_proj = nn.Linear(4 * shape.width, shape.width)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.c_proj(functional.gelu(self.c_fc(x), approximate="tanh"))
        return out


class Block(nn.Module):
    """Attention and MLP, each behind a norm and added to the stream."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.ln_1 = nn.LayerNorm(shape.width)
        self.attn = Attention(shape)
        self.ln_2 = nn.LayerNorm(shape.width)
        self.mlp = Mlp(shape)
        self.dropout = nn.Dropout(shape.dropout)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.dropout(self.attn(self.ln_1(x)))
        out: Tensor = x + self.dropout(self.mlp(self.ln_2(x)))
        return out


class GPT2(nn.Module):
    """Tokens (batch, length) to logits (batch, length, vocabulary). The head is the token embedding ``wte``."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.shape = shape
        self.wte = nn.Embedding(shape.vocabulary, shape.width)
        self.wpe = nn.Embedding(shape.context, shape.width)
        self.dropout = nn.Dropout(shape.dropout)
        self.h = nn.ModuleList(Block(shape) for _ in range(shape.blocks))
        self.ln_f = nn.LayerNorm(shape.width)
        for name, p in self.named_parameters():
            self._initialize(name, p)

    def _initialize(self, name: str, p: nn.Parameter) -> None:
        """As GPT-2: what writes into the residual stream is scaled down by the number of such writes."""
        if name.endswith("c_proj.weight"):
            nn.init.normal_(p, std=INITIAL_DEVIATION / math.sqrt(2 * self.shape.blocks))
        elif p.dim() >= 2:
            nn.init.normal_(p, std=INITIAL_DEVIATION)
        elif name.endswith("bias"):
            nn.init.zeros_(p)

    def forward(self, tokens: Tensor) -> Tensor:
        length = tokens.shape[1]
        if length > self.shape.context:
            raise ValueError(f"gpt2: {length} tokens, its context holds {self.shape.context}: pass shorter sequences")
        x = self.dropout(self.wte(tokens) + self.wpe.weight[:length])
        again = self.shape.checkpointing and self.training
        for block in self.h:
            x = checkpoint(block, x, use_reentrant=False) if again else block(x)
        return functional.linear(self.ln_f(x), self.wte.weight)
