# SPDX-License-Identifier: MIT
"""Tensors in every form that state is stored in, and what a step must make of them."""

from __future__ import annotations

import pytest
import torch

from adamwprune.kernels import Job, formats, native
from adamwprune.prune.masks import Mask

LAYOUTS = ("whole", "masked", "compact")
STEP = 6


def in_every_form(test):
    """Run a test with each form of state, types of weight and gradient that go together, and layout."""
    types = [
        (torch.float32, False, torch.float32),
        (torch.float32, False, torch.bfloat16),
        (torch.bfloat16, False, torch.bfloat16),
        (torch.bfloat16, False, torch.float32),
        (torch.bfloat16, True, torch.bfloat16),
    ]
    for names, values in (
        ("layout", LAYOUTS),
        (("dtype", "correction", "grad_dtype"), types),
        ("form", ["float32", "bfloat16", "8bit"]),
    ):
        test = pytest.mark.parametrize(names, values)(test)
    return test


class Problem:
    """A tensor in float32, dense, masked entries zero (but for the gradient's), and its stored form in a layout."""

    def __init__(self, size, sparsity, weight_dtype, state, correction=False, grad_dtype=None, seed=0):
        generator = torch.Generator().manual_seed(seed)
        self.keep = torch.rand(size, generator=generator) >= sparsity
        self.index = torch.arange(size)
        self.group, self.groups = self.index // formats.GROUP, -(-size // formats.GROUP)
        value = torch.randn(size, generator=generator)
        # Gradients of very different sizes: codes of small entries, and groups that are all zero.
        spread = 10.0 ** (torch.rand(size, generator=generator) * 8 - 8)
        self.grad = (torch.randn(size, generator=generator) * spread).to(grad_dtype or weight_dtype)
        self.grad[self.group == 1] = 0
        self.weight = value.to(weight_dtype)
        self.correction = torch.randint(-128, 128, (size,), generator=generator).to(torch.int8) if correction else None
        first, second = torch.randn(size, generator=generator) * spread, (spread * 0.1).square()
        first[self.group == 1], second[self.group == 1] = 0, 0
        self.weight[~self.keep] = 0
        if self.correction is not None:
            self.correction[~self.keep] = 0
        self.state = self.stored(first.masked_fill(~self.keep, 0), second.masked_fill(~self.keep, 0), state, None)
        self.form = state

    def stored(self, first, second, form, words):
        if form == "8bit":
            m, m_unit = formats.encode_first(first, self.group, self.groups, words and words[1])
            v, v_unit = formats.encode_second(second, self.group, self.groups, words and words[0])
            return {"exp_avg": m, "exp_avg_sq": v, "exp_avg_unit": m_unit, "exp_avg_sq_unit": v_unit}
        return {"exp_avg": first.to(torch.bfloat16 if form == "bfloat16" else torch.float32), "exp_avg_sq": second}

    def read(self):
        """Weight and moments as float32."""
        weight = self.weight.float().clone() if self.correction is None else formats.join(self.weight, self.correction)
        if self.form != "8bit":
            return weight, self.state["exp_avg"].float().clone(), self.state["exp_avg_sq"].clone()
        first = formats.decode_first(self.state["exp_avg"], self.state["exp_avg_unit"], self.group)
        return weight, first, formats.decode_second(self.state["exp_avg_sq"], self.state["exp_avg_sq_unit"], self.group)

    def expected(self, settings, scale=None, theta=None):
        """What a step leaves: decode, a plain float32 step, mask, encode."""
        weight, first, second = self.read()
        grad = self.grad.float() if scale is None else self.grad.float() * scale
        job = Job(
            weight, grad, {"exp_avg": first, "exp_avg_sq": second}, torch.tensor(float(STEP)), None, settings, theta
        )
        native.step([job], "scalar")
        weight, first, second = (x.masked_fill(~self.keep, 0) for x in (weight, first, second))
        words = formats.noise(self.index, STEP + 1)
        result = self.stored(first, second, self.form, words)
        if self.correction is not None:
            result["weight"], result["correction"] = formats.split(weight, words[2])
        else:
            result["weight"] = weight.to(self.weight.dtype)
        return result

    def job(self, layout, settings, scale=None, theta=None):
        state = dict(self.state) if self.correction is None else {**self.state, "correction": self.correction}
        state = {k: x[self.keep] if layout == "compact" and "unit" not in k else x.clone() for k, x in state.items()}
        mask = None if layout == "whole" else Mask.from_bool(self.keep)
        step = torch.tensor(float(STEP))
        return Job(self.weight.clone(), self.grad, state, step, mask, settings, theta, layout == "masked", scale)

    def check(self, job, layout, expected):
        for name, x in {**job.state, "weight": job.weight}.items():
            wanted = expected[name]
            if layout == "compact" and "unit" not in name and name != "weight":
                wanted = wanted[self.keep]
            same = x.eq(wanted) | (x.isnan() & wanted.isnan())
            assert bool(same.all()), name
