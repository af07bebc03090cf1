# SPDX-License-Identifier: MIT
"""Triton's mask updates: exact counts and ties against a sort, the native kernel's scores, other paths."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from stored import Problem
from views import made, scores_of, sorted_out

from adamwprune import NonFiniteScoreError
from adamwprune.kernels import formats, layout, native
from adamwprune.kernels.known import SCORE_NAMES
from adamwprune.kernels.native_view import NativeView
from adamwprune.prune import SCORES, Mask
from adamwprune.prune.slices import View

pytest.importorskip("triton")

from adamwprune.kernels import triton_select, triton_view
from adamwprune.kernels.triton_view import TritonView

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")


def there(kind, *arguments, **options):
    """A view of random tensors on the device that Triton uses."""
    view = made(kind, *arguments, **options)
    fields = {field.name: getattr(view, field.name) for field in dataclasses.fields(View)}
    moved = {name: x.to(DEVICE) for name, x in fields.items() if isinstance(x, torch.Tensor | Mask)}
    return dataclasses.replace(view, **moved)


def test_scores_have_the_native_kernels_numbers():
    constants = [getattr(triton_select, name.upper().replace("-", "_")).value for name in SCORE_NAMES]
    assert constants == list(range(len(SCORE_NAMES)))


@pytest.mark.skipif(native.library() is None, reason="the native kernel is not built")
@pytest.mark.parametrize("name", SCORE_NAMES)
@pytest.mark.parametrize(("sparsity", "compact"), [(0.0, True), (0.6, True), (0.6, False)])
@pytest.mark.parametrize(("dtype", "state_dtype"), [(torch.float32, torch.float32), (torch.bfloat16, torch.float32)])
def test_scores_are_the_native_kernels(name, sparsity, compact, dtype, state_dtype):
    for shape in ((1, 1), (3, 5, 11, 13)):
        ours = there(TritonView, shape, sparsity, dtype, state_dtype, compact)
        theirs = made(NativeView, shape, sparsity, dtype, state_dtype, compact)
        assert torch.equal(scores_of(ours, name).cpu(), scores_of(theirs, name))
        assert torch.equal(ours.dense_scores(SCORES[name]).cpu(), theirs.dense_scores(SCORES[name]))


CASES = [
    *((name, None, 0.7, True, (400,)) for name in SCORE_NAMES),
    ("state", 2, 0.0, True, (0, 500, 1517)),
    ("magnitude", 2, 0.2, False, (1, 900)),
    ("movement", 1, 0.5, True, (300,)),
]


@pytest.mark.parametrize(("name", "grid", "sparsity", "compact", "counts"), CASES)
def test_cuts_are_exact_and_ties_fall_to_the_later_weight(name, grid, sparsity, compact, counts):
    view = there(TritonView, (37, 41), sparsity, compact=compact, grid=grid)
    scores = scores_of(view, name)
    kept = range(37 * 41) if view.mask is None else view.mask.to_bool().nonzero().squeeze(1).tolist()
    for count in counts:
        cut = view.cut(SCORES[name], count)
        assert cut == View.cut(view, SCORES[name], count)
        mask = view.keep_above(cut, SCORES[name])
        wanted = sorted_out(scores.tolist(), list(kept), count)
        assert torch.equal(mask.to_bool().nonzero().squeeze(1).cpu(), wanted)
        assert mask.kept == len(wanted)
        assert torch.equal(mask.starts, layout.block_starts(mask.bits))


def test_tensors_are_ranked_together(monkeypatch):
    views = [there(TritonView, (rows, 50), 0.5, seed=rows) for rows in (1, 30, 70)]
    views += [there(TritonView, (20, 20), 0.0, seed=9), there(View, (20, 20), 0.5, seed=8)]
    counts = [3, 500, 0, 111, 20]
    monkeypatch.setattr(triton_view, "BLOCKS_EACH", 2)
    found = TritonView.cuts(views, SCORES["state"], counts)
    for view, count, cut in zip(views, counts, found, strict=True):
        assert cut == View.cut(view, SCORES["state"], count)


@pytest.mark.parametrize("compact", [True, False])
@pytest.mark.parametrize("name", ["hybrid", "state"])
def test_codes_are_decoded_as_they_are_scored(name, compact):
    problem = Problem(2100, 0.4, torch.bfloat16, "8bit")
    state = {key: x[problem.keep] if compact and "unit" not in key else x for key, x in problem.state.items()}
    state = {key: x.to(DEVICE) for key, x in state.items()}
    moments = {key: state[key] for key in formats.UNITS}
    mask = Mask.from_bool(problem.keep).to(DEVICE)
    ours, theirs = (
        kind("layer", problem.weight.to(DEVICE), mask, compact, **moments, decode=formats.Units.of(state), age=7)
        for kind in (TritonView, View)
    )
    torch.testing.assert_close(scores_of(ours, name), scores_of(theirs, name), rtol=1e-5, atol=0)
    other = dataclasses.replace(ours, decode=lambda *slices: formats.Units.of(state)(*slices))
    assert torch.equal(scores_of(other, name), scores_of(theirs, name))


def test_what_the_gradient_is_owed_counts():
    factor = torch.tensor(0.25, device=DEVICE)
    ours = dataclasses.replace(there(TritonView, (30, 40)), grad_factor=factor)
    theirs = dataclasses.replace(there(View, (30, 40)), grad_factor=factor)
    assert torch.equal(scores_of(ours, "taylor"), scores_of(theirs, "taylor"))
    assert not torch.equal(scores_of(ours, "taylor"), scores_of(there(TritonView, (30, 40)), "taylor"))


@pytest.mark.parametrize("value", [torch.nan, torch.inf, -torch.inf])
@pytest.mark.parametrize("count", [0, 10])
def test_scores_that_are_not_finite_are_refused(value, count):
    weight = torch.randn(10, 300, device=DEVICE)
    weight[3, 4] = value
    with pytest.raises(NonFiniteScoreError, match="1 of 3000"):
        TritonView("layer", weight, None, True).cut(SCORES["magnitude"], count)


def test_what_the_kernels_do_not_know_goes_the_reference_way():
    for name in ("lamp", "random"):
        ours, theirs = (there(kind, (30, 40)) for kind in (TritonView, View))
        assert torch.equal(scores_of(ours, name), scores_of(theirs, name))
        assert torch.equal(ours.dense_scores(SCORES[name]), theirs.dense_scores(SCORES[name]))
        cut = ours.cut(SCORES[name], 100)
        assert cut == theirs.cut(SCORES[name], 100)
        assert torch.equal(ours.keep_above(cut, SCORES[name]).bits, theirs.keep_above(cut, SCORES[name]).bits)
    double = there(TritonView, (30, 40), dtype=torch.float64)
    assert double.cut(SCORES["state"], 9) == there(View, (30, 40), dtype=torch.float64).cut(SCORES["state"], 9)
