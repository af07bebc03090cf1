# SPDX-License-Identifier: MIT
"""Norms over all ranks, against torch's own over the batch in one process."""

from __future__ import annotations

import torch
from torch import nn
from workers import Workers

from adamwprune.models.resnet import RESNET20, ResNet
from adamwprune.training.batch_norm import GlobalBatchNorm2d, over_ranks

RANKS, SHARE, CHANNELS = 3, 2, 4


def pieces() -> tuple[nn.BatchNorm2d, torch.Tensor, torch.Tensor]:
    torch.manual_seed(0)
    norm = nn.BatchNorm2d(CHANNELS)
    nn.init.normal_(norm.weight)
    nn.init.normal_(norm.bias)
    batch = 5 + 3 * torch.randn(RANKS * SHARE, CHANNELS, 3, 5)
    return norm, batch, torch.randn_like(batch)


def one_share(rank: int) -> dict[str, torch.Tensor]:
    """Output, gradients and running statistics of a rank."""
    norm, batch, weight = pieces()
    over_ranks(norm)
    x = batch[rank * SHARE :][:SHARE].clone().requires_grad_()
    y = norm(x)
    (y * weight[rank * SHARE :][:SHARE]).sum().backward()
    half = norm(x.detach().bfloat16())
    assert half.dtype == torch.bfloat16
    torch.testing.assert_close(half.float(), y.detach(), rtol=0.02, atol=0.05)
    norm.eval()
    torch.testing.assert_close(norm(x), nn.BatchNorm2d.forward(norm, x))
    assert norm.num_batches_tracked == 2
    seen = {"y": y, "x": x.grad, "weight": norm.weight.grad, "bias": norm.bias.grad, "mean": norm.running_mean}
    return {name: value.detach() for name, value in seen.items()}


def test_ranks_normalise_as_one_process_does(ranks: Workers) -> None:
    norm, batch, weight = pieces()
    x = batch.clone().requires_grad_()
    y = norm(x)
    (y * weight).sum().backward()
    norm(x)
    shares = ranks(RANKS, one_share)
    for name, expected in (("y", y), ("x", x.grad)):
        torch.testing.assert_close(
            torch.cat([share[name] for share in shares]), expected.detach(), rtol=1e-4, atol=1e-5
        )
    for name, p in (("weight", norm.weight), ("bias", norm.bias)):
        torch.testing.assert_close(sum(share[name] for share in shares), p.grad, rtol=1e-4, atol=1e-4)
    for share in shares:
        torch.testing.assert_close(share["mean"], norm.running_mean, rtol=1e-3, atol=1e-3)


def test_alone_it_is_torchs_own() -> None:
    norm, batch, _ = pieces()
    other, _, _ = pieces()
    over_ranks(other)
    torch.testing.assert_close(other(batch), norm(batch), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(other.state_dict(), norm.state_dict())


def test_every_norm_of_a_network_is_taken() -> None:
    network = ResNet(RESNET20, (3, 32, 32), 10, 0.25)
    names = list(network.state_dict())
    over_ranks(network)
    norms = [module for module in network.modules() if isinstance(module, nn.BatchNorm2d)]
    assert norms
    assert all(isinstance(norm, GlobalBatchNorm2d) for norm in norms)
    assert list(network.state_dict()) == names
