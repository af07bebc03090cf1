# SPDX-License-Identifier: MIT
"""The public optimizers: one class with its settings spelled out, three names."""

from __future__ import annotations

from typing import Any

from torch.optim.optimizer import ParamsT

from adamwprune.optim.adam import AdamFamily
from adamwprune.optim.spam import Spam


class AdamWPrune(AdamFamily):
    """AdamW that prunes while it trains, and stops storing state for what is gone.

    >>> model = torch.nn.Sequential(torch.nn.Linear(64, 64), torch.nn.ReLU(), torch.nn.Linear(64, 10))
    >>> optimizer = AdamWPrune(model.named_parameters(), lr=1e-3, prune=Prune(sparsity=0.5, total_steps=1000))

    Defaults and flags are those of :class:`torch.optim.AdamW`, and with ``prune=None`` or sparsity 0 so is every bit of
    the result.

    Args:
        params: ``model.named_parameters()`` or :func:`adamwprune.param_groups`; with ``prune=None`` as in torch.
        amsgrad: None lets the base decide (on for ``adamwadv``).
        prune: what to prune and when; None prunes nothing.
        base: the optimizer that pruning augments: ``adam`` (coupled weight decay), ``adamw``, ``adamwadv`` (AMSGrad and
            clipping) or ``adamwspam`` (SPAM).
        spam: settings of the SPAM base.
        clip_norm: clip the gradient norm over kept weights inside the step; None lets the base decide, 0 never clips.
        state: how the moments are stored, from the first step on. None: as torch, in the weight's type. ``"float32"``:
            also under narrower weights. ``"bfloat16"``: the first moment; the second in float32. ``"8bit"``: both in
            8-bit codes, 2 bytes a kept weight instead of 8; not with AMSGrad. Vectors and tensors of fewer than 4096
            weights keep float32. Unlike compaction, which follows pruning, this lowers a run's peak memory, too.
        correction: keep what bfloat16 weights lack of 24 bits in one more byte, so that small updates are not lost;
            ``state=None`` then means ``"float32"``. Where a weight is read elsewhere, its bfloat16 value is used.
        release_gradients: step each parameter during backward, as soon as its gradient is there, and free the gradient.
            ``step()`` then counts and updates masks. One step to a backward: no gradient accumulation, no clipping, no
            closure, no GradScaler, no regrowth, no score that ranks by gradients, one process.

    ``foreach`` and ``fused`` choose torch's implementation for the tensors that torch steps; masked tensors and those
    whose state has another type than the weight are stepped by :mod:`adamwprune.kernels`.

    ``optimizer.pruner`` is the :class:`adamwprune.Pruner`, or None.
    """


class AdamWSPAM(AdamFamily):
    """AdamW with spike-aware clipping and momentum reset (Huang et al., ICLR 2025, arXiv 2501.06842).

    >>> optimizer = AdamWSPAM(model.parameters(), lr=1e-3, spam=Spam(interval=500, warmup=150))

    The learning rate of the groups is never written: the warm-up after a reset multiplies a copy of it.
    """

    def __init__(self, params: ParamsT, lr: Any = 1e-3, *args: Any, spam: Spam | None = None, **kwargs: Any) -> None:
        super().__init__(params, lr, *args, base="adamwspam", spam=spam, **kwargs)


class AdamWAdv(AdamFamily):
    """The "advanced" AdamW: AMSGrad, and the gradient norm clipped to 1 inside the step. Its recipes use a cosine."""

    def __init__(
        self, params: ParamsT, lr: Any = 1e-3, *args: Any, clip_norm: float | None = None, **kwargs: Any
    ) -> None:
        super().__init__(params, lr, *args, base="adamwadv", clip_norm=clip_norm, **kwargs)
