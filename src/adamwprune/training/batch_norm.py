# SPDX-License-Identifier: MIT
"""Batch normalisation over the batch of all ranks, so that several ranks normalise as one process does."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from adamwprune.training import ranks


def over_ranks(model: nn.Module) -> None:
    """Let a network's norms see the whole batch; names and values of its parameters and buffers stay."""
    for module in model.modules():
        if type(module) is nn.BatchNorm2d:
            module.__class__ = GlobalBatchNorm2d


class GlobalBatchNorm2d(nn.BatchNorm2d):
    """Normalises by mean and variance over all ranks, which hold equal shares of a batch.

    torch's own ``SyncBatchNorm`` does so on GPUs, and refuses tensors on a CPU.
    """

    def forward(self, x: Tensor) -> Tensor:
        if not self.training:
            return super().forward(x)
        wide = x.float()  # statistics are float32 at every precision, as in torch's own norms
        own = torch.stack(torch.var_mean(wide, (0, 2, 3), correction=0))
        variances, means = _Gathered.apply(own).unbind(1)  # type: ignore[no-untyped-call]
        mean = means.mean(0)
        variance = (variances + (means - mean).square()).mean(0)
        self._remember(mean.detach(), variance.detach(), x.numel() // x.shape[1] * ranks.size())
        scale = self.weight * torch.rsqrt(variance + self.eps)
        shift = self.bias - mean * scale
        return torch.addcmul(shift[:, None, None], wide, scale[:, None, None]).to(x.dtype)

    @torch.no_grad()
    def _remember(self, mean: Tensor, variance: Tensor, count: int) -> None:
        """The running statistics, whose variance is the unbiased one."""
        assert self.num_batches_tracked is not None
        self.num_batches_tracked += 1
        for running, new in ((self.running_mean, mean), (self.running_var, variance * (count / max(1, count - 1)))):
            assert running is not None
            assert self.momentum is not None
            running.lerp_(new, self.momentum)


class _Gathered(torch.autograd.Function):
    """What all ranks hold, one after another. Each rank's loss depends on it, so gradients are added up."""

    @staticmethod
    def forward(ctx: Any, own: Tensor) -> Tensor:
        return torch.stack(ranks.collected(own))

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        return ranks.total(gradients[0].contiguous())[ranks.rank()]
