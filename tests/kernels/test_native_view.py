# SPDX-License-Identifier: MIT
"""Native mask updates: exact counts and ties against a sort, the reference's masks up to rounding, other paths."""

from __future__ import annotations

import dataclasses
import itertools

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from jobs import SETS
from views import made, scores_of, sorted_out

from adamwprune import AdamWPrune, NonFiniteScoreError, Prune, kernels
from adamwprune.kernels import formats, native
from adamwprune.kernels.known import SCORE_NAMES
from adamwprune.kernels.native_view import NativeView
from adamwprune.prune import SCORES, Mask
from adamwprune.prune.slices import View

pytestmark = pytest.mark.skipif(native.library() is None, reason="the native kernel is not built")


@pytest.mark.parametrize("name", SCORE_NAMES)
@pytest.mark.parametrize("sparsity", [0.0, 0.6])
@pytest.mark.parametrize("compact", [True, False])
@pytest.mark.parametrize(
    ("dtype", "state_dtype"),
    [(torch.float32, torch.float32), (torch.bfloat16, torch.bfloat16), (torch.bfloat16, torch.float32)],
)
def test_scores_are_the_references_up_to_rounding(name, sparsity, compact, dtype, state_dtype):
    for shape in ((1, 1), (7, 9), (40, 33), (3, 5, 11, 13)):
        ours, theirs = (made(kind, shape, sparsity, dtype, state_dtype, compact) for kind in (NativeView, View))
        torch.testing.assert_close(scores_of(ours, name), scores_of(theirs, name), rtol=1e-5, atol=0)


@pytest.mark.parametrize("name", ["hybrid", "scale-aware", "state", "fisher", "magnitude"])
@pytest.mark.parametrize("sparsity", [0.0, 0.6])
@pytest.mark.parametrize("compact", [True, False])
def test_scores_of_moments_in_codes_are_the_references_up_to_rounding(name, sparsity, compact):
    for shape in ((1, 1), (7, 9), (40, 33), (3, 5, 11, 13)):
        plain = made(View, shape, sparsity, compact=compact)
        numel = plain.weight.numel()
        kept = torch.arange(numel) if plain.mask is None else plain.mask.to_bool().nonzero().squeeze(1)
        places = kept if compact else torch.arange(numel)
        groups = -(-numel // formats.GROUP)
        first, first_unit = formats.encode_first(plain.exp_avg.reshape(-1), places // formats.GROUP, groups, None)
        second, second_unit = formats.encode_second(plain.exp_avg_sq.reshape(-1), places // formats.GROUP, groups, None)
        coded = {"exp_avg": first, "exp_avg_sq": second, "decode": formats.Units(first_unit, second_unit)}
        theirs = dataclasses.replace(plain, **coded)
        given = {field.name: getattr(theirs, field.name) for field in dataclasses.fields(theirs)}
        ours = NativeView(**given)
        assert ours._row(SCORES[name]) is not None
        torch.testing.assert_close(scores_of(ours, name), scores_of(theirs, name), rtol=1e-5, atol=0)


@pytest.mark.parametrize("instruction_set", native.INSTRUCTION_SETS)
def test_every_instruction_set_scores_and_marks_alike(instruction_set, monkeypatch):
    if native.INSTRUCTION_SETS.index(instruction_set) > native.INSTRUCTION_SETS.index(native.best_instruction_set()):
        pytest.skip("not on this processor")
    view = made(NativeView, (50, 61), dtype=torch.bfloat16)
    expected = {name: (scores_of(view, name), view.cut(SCORES[name], 400)) for name in SCORE_NAMES}
    masks = {name: view.keep_above(cut, SCORES[name]).to_bool() for name, (_, cut) in expected.items()}
    monkeypatch.setattr(native, "best_instruction_set", lambda: instruction_set)
    for name, (scores, cut) in expected.items():
        assert torch.equal(scores_of(view, name), scores)
        assert view.cut(SCORES[name], 400) == cut
        assert torch.equal(view.keep_above(cut, SCORES[name]).to_bool(), masks[name])


@given(
    st.sampled_from(SCORE_NAMES),
    st.integers(1, 60),
    st.integers(1, 60),
    st.sampled_from([0.0, 0.3, 0.9]),
    st.sampled_from([None, 1, 3]),
    st.integers(0, 2**31),
    st.floats(0, 1),
)
def test_cuts_are_exact_and_ties_fall_to_the_later_weight(name, rows, columns, sparsity, grid, seed, share):
    view = made(NativeView, (rows, columns), sparsity, seed=seed, grid=grid)
    scores = scores_of(view, name)
    count = int(share * len(scores))
    if not bool(scores.isfinite().all()):
        return
    cut = view.cut(SCORES[name], count)
    assert cut.count == count
    mask = view.keep_above(cut, SCORES[name])
    kept = range(rows * columns) if view.mask is None else view.mask.to_bool().nonzero().squeeze(1).tolist()
    assert torch.equal(mask.to_bool().nonzero().squeeze(1), sorted_out(scores.tolist(), list(kept), count))
    assert mask.kept == len(scores) - count


@pytest.mark.parametrize("share", [0.0, 1e-5, 0.3, 0.97, 1.0])
@pytest.mark.parametrize("drift", [False, True])
def test_sampling_finds_the_exact_rank_or_gives_way(share, drift):
    """``drift`` makes the sampled blocks say nothing about the others."""
    numel = 400_000
    weight = torch.randn(500, 800, generator=torch.Generator().manual_seed(1))
    if drift:
        weight.view(-1)[: numel // 2] *= torch.arange(numel // 2).div(1024, rounding_mode="floor") % 6 * 1000 + 1e-3
    view = NativeView("layer", weight, None, True)
    count = int(share * numel)
    cut = view.cut(SCORES["magnitude"], count)
    assert cut.count == count
    order = weight.view(-1).abs().argsort(stable=True)
    assert view.keep_above(cut, SCORES["magnitude"]).kept == numel - count
    if 0 < count < numel:
        assert cut.threshold == float(weight.view(-1).abs()[order[count - 1]])


@pytest.mark.parametrize("value", [torch.nan, torch.inf, -torch.inf])
@pytest.mark.parametrize("numel", [100, 100_000])
@pytest.mark.parametrize("count", [0, 10])
def test_scores_that_are_not_finite_are_refused(value, numel, count):
    weight = torch.randn(10, numel // 10)
    weight[3, 4] = value
    with pytest.raises(NonFiniteScoreError, match="1 of"):
        NativeView("layer", weight, None, True).cut(SCORES["magnitude"], count)


@given(st.integers(1, 5000), st.floats(0, 1), st.floats(0, 1), st.sampled_from([torch.float32, torch.bfloat16]))
def test_compaction_is_the_references(numel, first, second, dtype):
    generator = torch.Generator().manual_seed(numel)
    dense = torch.randn(numel, generator=generator).to(dtype)
    old = torch.rand(numel, generator=generator) >= first
    new = old & (torch.rand(numel, generator=generator) >= second)
    before, after = Mask.from_bool(old), Mask.from_bool(new)
    assert torch.equal(native.compact(dense.clone(), None, after), dense[new])
    assert torch.equal(native.compact(dense[old], before, after), dense[new])


@pytest.mark.parametrize("dtype", [torch.int8, torch.bfloat16, torch.float32, torch.float64])
@pytest.mark.parametrize("numel", [1, 63, 64, 1025, 200_003])
def test_compaction_is_the_same_on_all_instruction_sets_and_threads(numel, dtype, monkeypatch):
    generator = torch.Generator().manual_seed(numel)
    entries = torch.randint(-100, 100, (numel,), generator=generator).to(dtype)
    old = torch.rand(numel, generator=generator) < 0.7
    new = old & (torch.rand(numel, generator=generator) < 0.7)
    for name, threads in itertools.product(SETS, (1, 3)):
        monkeypatch.setattr(torch, "get_num_threads", lambda threads=threads: threads)
        masks = Mask.from_bool(old), Mask.from_bool(new)
        assert torch.equal(native.compact(entries, None, masks[1], name), entries[new])
        assert torch.equal(native.compact(entries[old], *masks, name), entries[new])


@pytest.mark.parametrize("name", ["state", "hybrid", "scale-aware", "fisher", "taylor", "movement", "magnitude"])
def test_cuts_mark_the_same_on_all_instruction_sets_and_threads(name, monkeypatch):
    score = SCORES[name]
    views = [made(NativeView, (100, columns), columns % 3 / 4, grid=30, seed=columns) for columns in (9, 301, 802)]
    counts = [scores_of(view, name).numel() * 2 // 5 for view in views]
    expected = [View.keep_above(view, View.cut(view, score, n), score) for view, n in zip(views, counts, strict=True)]
    for isa, threads in itertools.product(SETS, (1, 3)):
        monkeypatch.setattr(native, "best_instruction_set", lambda isa=isa: isa)
        monkeypatch.setattr(torch, "get_num_threads", lambda threads=threads: threads)
        cuts = kernels.cuts(views, score, counts)
        for view, cut, count, mask in zip(views, cuts, counts, expected, strict=True):
            found = view.keep_above(cut, score)
            assert cut.count == count
            assert torch.equal(found.bits, mask.bits)
            assert found.kept == mask.kept
            assert torch.equal(view.keep_above(view.cut(score, count), score).bits, mask.bits)


@pytest.mark.parametrize("share", [0.0, 0.4, 1.0])
def test_a_cut_through_many_tensors_is_the_radix_selections(share, monkeypatch):
    score = SCORES["state"]
    views = [made(NativeView, (100, columns), columns % 3 / 4, grid=30, seed=columns) for columns in (9, 301, 802)]
    count = int(share * sum(scores_of(view, "state").numel() for view in views))
    for isa in SETS:
        monkeypatch.setattr(native, "best_instruction_set", lambda isa=isa: isa)
        cut = kernels.cut_through(views, score, count)
        assert cut == View.cut_through(views, score, count)
        for view, (below, at) in zip(views, cut.parts, strict=True):
            scores, threshold = scores_of(view, "state"), cut.threshold
            assert (below, at) == (int((scores < threshold).sum()), int((scores == threshold).sum()))


def test_a_refusal_of_one_tensor_refuses_all():
    views = [made(NativeView, (100, columns)) for columns in (9, 301)]
    views[0].weight.view(-1)[int(views[0].mask.to_bool().nonzero()[0])] = torch.nan
    with pytest.raises(NonFiniteScoreError, match="1 of"):
        kernels.cuts(views, SCORES["state"], [100, 1000])


def test_what_the_library_does_not_know_goes_the_reference_way():
    for name in ("lamp", "random"):
        ours, theirs = (made(kind, (30, 40)) for kind in (NativeView, View))
        assert torch.equal(scores_of(ours, name), scores_of(theirs, name))
        cut = ours.cut(SCORES[name], 100)
        assert cut == theirs.cut(SCORES[name], 100)
        assert torch.equal(ours.keep_above(cut, SCORES[name]).bits, theirs.keep_above(cut, SCORES[name]).bits)
    strided = made(NativeView, (30, 40), 0.0).weight.t()
    assert NativeView("layer", strided, None, True).cut(SCORES["magnitude"], 7).count == 7
    double = made(NativeView, (30, 40), dtype=torch.float64)
    assert double.cut(SCORES["state"], 9).count == 9


@pytest.mark.parametrize("distribution", ["layer", "global", "erk", "fisher"])
@pytest.mark.parametrize("score", ["state", "magnitude", "movement", "taylor"])
def test_training_on_native_updates_reaches_every_target_exactly(score, distribution):
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(30, 50), torch.nn.ReLU(), torch.nn.Linear(50, 40))
    prune = Prune(sparsity=0.83, total_steps=60, score=score, distribution=distribution)
    optimizer = AdamWPrune(model.named_parameters(), lr=1e-2, prune=prune)
    x = torch.randn(64, 30)
    with kernels.use("native"):
        for _ in range(60):
            optimizer.zero_grad()
            model(x).square().mean().backward()
            optimizer.step()
    assert optimizer.pruner.at_target
    for name, mask in optimizer.pruner.named_masks().items():
        assert not model.get_parameter(name)[~mask].any()
        state = optimizer.state[model.get_parameter(name)]
        assert state["exp_avg"].shape == state["exp_avg_sq"].shape == (int(mask.sum()),)


@pytest.mark.parametrize("name", SCORE_NAMES)
@pytest.mark.parametrize("compact", [True, False])
def test_tensors_in_channels_last_are_cut_as_row_major_ones(name, compact, monkeypatch):
    view = made(NativeView, (40, 6, 3, 3), 0.6, compact=compact)
    other = made(NativeView, (7, 50, 2), 0.0)
    moved = [channels_last(view), channels_last(other)]
    assert not moved[0].weight.is_contiguous()
    score, counts = SCORES[name], [300, 100]
    expected = [cut.mask.bits for cut in NativeView.cuts([view, other], score, counts)]
    monkeypatch.setattr(View, "cut", None)  # the reference's way, which takes ten times as long
    found = [cut.mask.bits for cut in NativeView.cuts(moved, score, counts)]
    assert all(torch.equal(a, b) for a, b in zip(expected, found, strict=True))


def channels_last(view):
    """The same with channels next to each other in memory."""
    shape = view.weight.shape
    tensors = {name: getattr(view, name) for name in ("weight", "grad", "exp_avg", "exp_avg_sq")}
    filters = {name: x.view(shape) for name, x in tensors.items() if x.numel() == shape.numel()}
    return dataclasses.replace(view, **{k: x.movedim(1, -1).contiguous().movedim(-1, 1) for k, x in filters.items()})
