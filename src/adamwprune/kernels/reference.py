# SPDX-License-Identifier: MIT
"""The one update in plain tensor code: AdamW on compact state. The oracle of every other kernel.

Adam is elementwise, so a kept weight's new value depends on nothing but its own entries. Gathering the kept weights,
running torch's own Adam on them and scattering them back therefore gives the bits of a dense, masked run.
"""

from __future__ import annotations

from collections.abc import Iterator, MutableMapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor
from torch.optim.adam import adam

from adamwprune.kernels import formats
from adamwprune.kernels.job import Hyper, Job
from adamwprune.prune.masks import Chunk, Mask, whole

#: torch's names of Adam's state tensors.
MOMENTS = ("exp_avg", "exp_avg_sq", "max_exp_avg_sq")


def clip_spikes(grad: Tensor, exp_avg_sq: Tensor, theta: float) -> None:
    """SPAM's clipping, in place: where g² > θ v, g becomes sign(g) √(θ v) (arXiv 2501.06842, algorithm 1).

    Elements whose v is zero pass unclipped. The published code clips them to zero, and as v then stays zero, a weight
    that saw no gradient in the first steps (a rare token's embedding) would never move again.
    """
    limit = exp_avg_sq.mul(theta).sqrt_()
    limit.masked_fill_(exp_avg_sq == 0, torch.inf)
    torch.clamp(grad, min=-limit, max=limit, out=grad)


def step(job: Job) -> None:
    """One Adam(W) update of the kept weights; masked ones are not read, and zero after it, whoever wrote them.

    The transient is a few copies of one chunk (:data:`adamwprune.prune.masks.CHUNK` weights), plus a row-major copy of
    weight and gradient where they are not contiguous.
    """
    weight, grad, state, mask, hyper = job.weight, job.grad, job.state, job.mask, job.hyper
    dtype = state["exp_avg_sq"].dtype if state["exp_avg_sq"].is_floating_point() else torch.float32
    coupled = bool(hyper.weight_decay) and not hyper.decoupled_weight_decay
    if coupled and formats.CORRECTION not in state:
        grad, hyper = _couple_decay(weight, _scaled(grad.to(dtype), job), hyper)
    flat, flat_grad = weight.detach().reshape(-1), grad.detach().reshape(-1)
    stored = {name: state[name].reshape(-1) for name in (*MOMENTS, formats.CORRECTION) if name in state}
    for chunk in _chunks(weight, mask):
        # Slices are updated in place; of dense state the kept entries are gathered, and put back.
        place = chunk.low + chunk.index if job.dense_state else slice(chunk.start, chunk.stop)
        part = {name: x[place] for name, x in stored.items()}
        moments = _widened(part, chunk, state, dtype)
        target = flat[chunk.low : chunk.high]
        w, g = target[chunk.index], flat_grad[chunk.low : chunk.high][chunk.index].to(dtype)
        w = formats.join(w, part[formats.CORRECTION]) if formats.CORRECTION in part else w.to(dtype)
        if not coupled:
            g = _scaled(g, job)
        elif formats.CORRECTION in part:
            g, hyper = _couple_decay(w, _scaled(g, job), job.hyper)
        if job.theta is not None:
            clip_spikes(g, moments["exp_avg_sq"], job.theta)
        largest = [moments["max_exp_avg_sq"]] if hyper.amsgrad else []
        steps = [job.step.clone()]
        adam([w], [g], [moments["exp_avg"]], [moments["exp_avg_sq"]], largest, steps, **hyper.torch_options())
        target[chunk.index] = _narrowed(w, moments, part, chunk, job)
        if job.dense_state:
            for name, x in stored.items():
                x[place] = part[name]
    if flat.data_ptr() != weight.data_ptr():
        weight.detach().copy_(flat.view(weight.shape))
    if mask is not None:
        zero_masked(weight, mask)
    for name, x in stored.items():
        if x.data_ptr() != state[name].data_ptr():
            state[name].copy_(x.view(weight.shape))


def _widened(
    part: dict[str, Tensor], chunk: Chunk, state: MutableMapping[str, Any], dtype: torch.dtype
) -> dict[str, Tensor]:
    """A chunk's moments as the update computes with them: the stored tensors themselves where they are of ``dtype``."""
    units = formats.Units.of(state)
    if units is None:
        return {name: part[name].to(dtype) for name in MOMENTS if name in part}
    units = units.chunk(chunk.low, chunk.high)
    return {name: units(name, part[name], chunk.index) for name in formats.UNITS}


def _narrowed(w: Tensor, moments: dict[str, Tensor], part: dict[str, Tensor], chunk: Chunk, job: Job) -> Tensor:
    """Store a chunk's updated moments and correction in ``part``, in their form; the weights in theirs."""
    units = formats.Units.of(job.state)
    corrected = formats.CORRECTION in part
    if units is not None or corrected:
        words = formats.noise(chunk.low + chunk.index, formats.seed(int(job.step) + 1, job.first))
    if units is not None:
        units = units.chunk(chunk.low, chunk.high)
        for name, target, word in (("exp_avg", units.first, words[1]), ("exp_avg_sq", units.second, words[0])):
            part[name].copy_(formats.encode(name, moments[name], chunk.index, target, word))
    else:
        for name, x in moments.items():
            if x is not part[name]:
                part[name].copy_(x)
    if not corrected:
        return w.to(job.weight.dtype)
    rounded, correction = formats.split(w, words[2])
    part[formats.CORRECTION].copy_(correction)
    return rounded


def _scaled(grad: Tensor, job: Job) -> Tensor:
    return grad if job.scale is None else grad * job.scale


def _couple_decay(weight: Tensor, grad: Tensor, hyper: Hyper) -> tuple[Tensor, Hyper]:
    """Adam's coupled decay, added as torch adds it: over the whole tensor, where the weights are all there is of it.

    The one operation of the step whose rounding depends on position: in half precision torch's ``add`` with ``alpha``
    rounds differently in vector lanes and in the tail.
    """
    signed = grad.neg() if hyper.maximize else grad
    decayed = signed.add(weight.detach().to(grad.dtype), alpha=hyper.weight_decay)
    return decayed, replace(hyper, weight_decay=0.0, maximize=False)


def accumulate_movement(
    movement: Tensor,
    weight: Tensor,
    grad: Tensor,
    mask: Mask | None,
    compact: bool,
    scale: float = 1.0,
    factor: Tensor | None = None,
) -> None:
    """``movement -= scale * w * factor * g`` over the kept weights; float32, compact or flat of the weight's size."""
    flat, flat_grad = weight.detach().reshape(-1), grad.detach().reshape(-1)
    for chunk in _chunks(weight, mask):
        w, g = (x[chunk.low : chunk.high][chunk.index].float() for x in (flat, flat_grad))
        if factor is not None:
            g = g * factor
        # One rounding an operation: a fused one may round by where an entry lies, which differs between layouts.
        moved = w.mul_(g).mul_(scale)
        if compact and mask is not None:
            movement[chunk.start : chunk.stop] -= moved
        else:
            movement[chunk.low : chunk.high].index_add_(0, chunk.index, moved, alpha=-1)


def zero_masked(tensor: Tensor, mask: Mask) -> None:
    """Set the masked entries of a tensor of the parameter's shape to zero, in place."""
    tensor.detach().masked_fill_(~mask.to_bool(tensor.shape), 0)


def kept_square_sum(grad: Tensor, mask: Mask) -> Tensor:
    """Sum of the squares of a gradient's kept entries, a float64 scalar; a chunk at a time."""
    flat = grad.detach().reshape(-1)
    total = torch.zeros((), dtype=torch.float64, device=grad.device)
    for chunk in mask.chunks():
        total += flat[chunk.low : chunk.high][chunk.index].double().square().sum()
    return total


def compact(dense: Tensor, old: Mask | None, new: Mask) -> Tensor:
    """The entries of ``new``'s kept weights, out of a tensor compacted by ``old`` (of the weight's shape if None).

    Entries move down in place, chunk by chunk (a kept weight's slot never rises), and then the storage shrinks.
    """
    flat = dense.view(-1) if old else dense.reshape(-1)
    stop = 0
    for chunk in old.chunks() if old else whole(new.numel, dense.device):
        keep = new.slice(chunk.low, chunk.high)[chunk.index]
        part = flat[chunk.start : chunk.stop][keep]
        flat[stop : stop + part.numel()] = part
        stop += part.numel()
    return flat[:stop].clone()


def expand(compacted: Tensor, mask: Mask, shape: torch.Size, fill: float = 0.0) -> Tensor:
    """The inverse of :func:`compact`: a tensor of ``shape`` with ``fill`` at masked weights."""
    flat = torch.full((mask.numel,), fill, dtype=compacted.dtype, device=compacted.device)
    for chunk in mask.chunks():
        flat[chunk.low : chunk.high].index_copy_(0, chunk.index, compacted[chunk.start : chunk.stop])
    return flat.view(shape)


def _chunks(weight: Tensor, mask: Mask | None) -> Iterator[Chunk]:
    return mask.chunks() if mask is not None else whole(weight.numel(), weight.device)
