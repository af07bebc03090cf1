# SPDX-License-Identifier: MIT
"""Checkpoints are torch.optim.AdamW's own: ours into torch's, torch's into ours, masks as -0.0, nothing narrowed."""

from __future__ import annotations

import copy

import pytest
import torch
from lab import equal, mlp, prune, through_a_file, train, twin, weights

from adamwprune import AdamWPrune, Spam, attach


def make(model, **settings):
    return AdamWPrune(model.named_parameters(), lr=0.01, prune=prune(**settings))


def half_way(steps=7, **settings):
    model = mlp()
    optimizer = make(model, **settings)
    train(model, optimizer, 1, steps)
    return model, optimizer


@pytest.mark.parametrize("amsgrad", [False, True])
@pytest.mark.parametrize("regrow", [0.0, 0.2])
def test_on_disk_the_state_is_adamws(amsgrad, regrow):
    model = mlp()
    optimizer = AdamWPrune(model.named_parameters(), prune=prune(regrow=regrow), amsgrad=amsgrad)
    train(model, optimizer, 1, 12)
    other = mlp()
    reference = torch.optim.AdamW(other.parameters(), amsgrad=amsgrad)
    train(other, reference, 1, 2)
    ours, theirs = optimizer.state_dict(), reference.state_dict()
    assert ours.keys() == theirs.keys()
    for number, state in theirs["state"].items():
        assert ours["state"][number].keys() == state.keys()
        for name, value in state.items():
            assert ours["state"][number][name].shape == value.shape
            assert ours["state"][number][name].dtype == value.dtype
    masks = optimizer.pruner.named_masks()
    for number, (name, _) in enumerate(model.named_parameters()):
        v = ours["state"][number]["exp_avg_sq"]
        marked = (v == 0) & v.signbit()
        assert torch.equal(~marked, masks.get(name, torch.ones_like(marked)))


def test_making_a_checkpoint_does_not_touch_the_run():
    a, first = half_way()
    b, second = half_way()
    first.state_dict()
    train(a, first, 8, 14)
    train(b, second, 8, 14)
    assert equal(a, b)
    one, two = first.state_dict(), first.state_dict()
    assert all(torch.equal(x, two["state"][k][n]) for k, s in one["state"].items() for n, x in s.items())


def test_a_saved_state_dict_does_not_change_as_training_goes_on():
    model, optimizer = half_way()
    saved = optimizer.state_dict()
    moments = {k: s["exp_avg_sq"].clone() for k, s in saved["state"].items()}
    masked = saved["param_groups"][0]["prune"]["masked"]
    train(model, optimizer, 8, 12)
    assert masked == saved["param_groups"][0]["prune"]["masked"]
    for number, p in enumerate(model.parameters()):
        if p.dim() == 2:
            assert torch.equal(saved["state"][number]["exp_avg_sq"], moments[number])


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64, torch.float32])
def test_marks_survive_casts_and_weights_only_loading(dtype):
    model, optimizer = half_way(12)
    saved = optimizer.state_dict()
    for state in saved["state"].values():
        for name in ("exp_avg", "exp_avg_sq"):
            state[name] = state[name].to(dtype)
    loaded = through_a_file(saved)
    other = copy.deepcopy(model)
    resumed = make(other)
    resumed.load_state_dict(loaded)
    masks, expected = resumed.pruner.named_masks(), optimizer.pruner.named_masks()
    assert masks.keys() == expected.keys()
    assert all(torch.equal(masks[name], expected[name]) for name in masks)
    train(other, resumed, 13, 14)
    assert resumed.pruner.at_target


@pytest.mark.parametrize("path", [{}, {"foreach": True}, {"fused": True}], ids=str)
def test_torchs_adamw_trains_on_from_ours_dense_and_erases_the_marks(path):
    pruned, optimizer = half_way(12)
    model = copy.deepcopy(pruned)
    dense = torch.optim.AdamW(model.named_parameters(), lr=0.01, **path)
    dense.load_state_dict(through_a_file(optimizer.state_dict()))
    before = (model[0].weight == 0).sum()
    train(model, dense, 13, 13)
    assert before == 48
    assert (model[0].weight == 0).sum() < 20
    for state in dense.state_dict()["state"].values():
        assert not ((state["exp_avg_sq"] == 0) & state["exp_avg_sq"].signbit()).any()
    train(model, dense, 14, 20)
    with pytest.raises(ValueError, match=r"weights are pruned, but its state marks 0: the marks were lost"):
        make(mlp()).load_state_dict(through_a_file(dense.state_dict()))


def test_torchs_first_step_from_ours_is_a_dense_adamw_step_on_the_masked_values():
    pruned, optimizer = half_way(12)
    model, kept = copy.deepcopy(pruned), copy.deepcopy(pruned)
    dense = torch.optim.AdamW(model.named_parameters(), lr=0.01)
    dense.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    masked = ~optimizer.pruner.named_masks()["0.weight"]
    other = make(kept)
    other.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    train(model, dense, 13, 13)
    train(kept, other, 13, 13)
    assert torch.equal(model[0].weight[~masked], kept[0].weight[~masked])
    assert model[0].weight[masked].count_nonzero()


def test_a_dense_checkpoint_starts_the_schedule_at_zero():
    model = mlp()
    dense = torch.optim.AdamW(model.named_parameters(), lr=0.01)
    train(model, dense, 1, 30)
    other, optimizer = twin(make, model, dense)
    assert optimizer.pruner.step == 0
    assert optimizer.pruner.report()["sparsity"] == 0
    assert all(float(state["step"]) == 30 for state in optimizer.state.values())
    train(model, dense, 31, 31)
    train(other, optimizer, 31, 31)
    assert equal(model, other)
    train(other, optimizer, 32, 40)
    assert optimizer.pruner.at_target


def test_checkpoints_of_torch_without_names_and_of_older_releases_load():
    model = mlp()
    dense = torch.optim.AdamW(model.parameters(), lr=0.01)
    train(model, dense, 1, 3)
    saved = copy.deepcopy(dense.state_dict())
    for group in saved["param_groups"]:
        del group["decoupled_weight_decay"]
    for state in saved["state"].values():
        state["step"] = float(state["step"])
    other = copy.deepcopy(model)
    optimizer = make(other)
    optimizer.load_state_dict(copy.deepcopy(saved))
    assert optimizer.param_groups[0]["decoupled_weight_decay"] is True
    train(model, dense, 4, 4)
    train(other, optimizer, 4, 4)
    assert equal(model, other)


def test_bfloat16_weights_keep_float32_state():
    """torch's own load would cast the state to the weights' dtype."""
    wide = mlp()
    optimizer = make(wide)
    train(wide, optimizer, 1, 7)
    saved = through_a_file(optimizer.state_dict())
    narrow = copy.deepcopy(wide).to(torch.bfloat16)
    resumed = make(narrow)
    resumed.load_state_dict(saved)
    for p in narrow.parameters():
        assert resumed.state[p]["exp_avg"].dtype == torch.float32
    again = resumed.state_dict()
    for number, state in saved["state"].items():
        for name, value in state.items():
            assert torch.equal(again["state"][number][name], value)
            assert again["state"][number][name].dtype == value.dtype
    for step in range(8, 15):
        resumed.zero_grad()
        batch = torch.randn(4, 8, generator=torch.Generator().manual_seed(step), dtype=torch.bfloat16)
        narrow(batch).float().square().mean().backward()
        resumed.step()
    assert resumed.pruner.at_target
    assert all(resumed.state[p]["exp_avg"].dtype == torch.float32 for p in narrow.parameters())
    assert (narrow[0].weight == 0).sum() == 48


def test_wide_state_without_pruning():
    model = mlp()
    optimizer = AdamWPrune(model.parameters(), lr=0.01)
    train(model, optimizer, 1, 3)
    narrow = copy.deepcopy(model).to(torch.bfloat16)
    resumed = AdamWPrune(narrow.parameters(), lr=0.01)
    resumed.load_state_dict(through_a_file(optimizer.state_dict()))
    p, w = narrow[0].weight, narrow[0].weight.detach().float()
    state = {k: v.clone() for k, v in resumed.state[p].items()}
    g = torch.randn(12, 8).to(torch.bfloat16)
    p.grad = g.clone()
    resumed.step()
    reference = torch.nn.Parameter(w)
    dense = torch.optim.AdamW([reference], lr=0.01)
    dense.state[reference] = state
    reference.grad = g.float()
    dense.step()
    assert torch.equal(p.detach(), reference.detach().to(torch.bfloat16))
    assert torch.equal(resumed.state[p]["exp_avg_sq"], state["exp_avg_sq"])


@pytest.mark.parametrize("compact_first", [True, False])
def test_ours_and_attached_exchange_checkpoints(compact_first):
    def theirs(model):
        optimizer = torch.optim.AdamW(model.named_parameters(), lr=0.01)
        attach(optimizer, prune())
        return optimizer

    first, second = (make, theirs) if compact_first else (theirs, make)
    model = mlp()
    optimizer = first(model)
    train(model, optimizer, 1, 7)
    other, resumed = twin(second, model, optimizer)
    train(model, optimizer, 8, 14)
    train(other, resumed, 8, 14)
    assert equal(model, other)


def test_a_group_without_any_state_yet():
    optimizer = AdamWPrune(weights(), prune=prune())
    fresh = AdamWPrune(weights(), prune=prune())
    fresh.load_state_dict(through_a_file(optimizer.state_dict()))
    assert fresh.pruner.step == 0


def test_wide_state_of_a_weight_that_is_not_contiguous():
    """float32 state under bfloat16 channels-last weights, updated in place with its own strides."""
    conv = torch.nn.Conv2d(4, 6, 3).to(torch.bfloat16, memory_format=torch.channels_last)
    start = conv.weight.detach().float()
    optimizer = AdamWPrune(conv.named_parameters(), lr=0.01)
    state = {"step": torch.tensor(3.0), "exp_avg": torch.randn_like(start), "exp_avg_sq": torch.rand_like(start)}
    saved = optimizer.state_dict()
    saved["state"] = {0: {name: value.clone() for name, value in state.items()}}
    optimizer.load_state_dict(saved)
    g = torch.randn(6, 4, 3, 3).to(torch.bfloat16)
    conv.weight.grad = g.to(memory_format=torch.channels_last)
    optimizer.step()
    reference = torch.nn.Parameter(start)
    dense = torch.optim.AdamW([reference], lr=0.01)
    dense.state[reference] = state
    reference.grad = g.float()
    dense.step()
    assert torch.equal(conv.weight.detach(), reference.detach().to(torch.bfloat16))
    for name in ("exp_avg", "exp_avg_sq"):
        assert torch.equal(optimizer.state[conv.weight][name], state[name])
        assert optimizer.state[conv.weight][name].dtype == torch.float32


def test_a_dense_checkpoint_starts_the_clock_of_spam_too():
    model = mlp()
    dense = torch.optim.AdamW(model.named_parameters(), lr=0.01)
    train(model, dense, 1, 3)
    spam = Spam(interval=5, min_age=2)
    used = AdamWPrune(model.named_parameters(), base="adamwspam", spam=spam, prune=prune())
    train(model, used, 1, 8)
    used.load_state_dict(copy.deepcopy(dense.state_dict()))
    assert (used.spam_clock.step, used.spam_clock.last_reset) == (0, 0)
    assert used.moment_age(model[0].weight) == 3


def test_only_some_tensors_have_a_mask_yet():
    """Under one threshold the tensor with large weights is still whole."""
    model = mlp()
    model[4].weight.data += 10.0

    def build(m):
        return make(m, score="magnitude", distribution="global", sparsity=0.3)

    optimizer = build(model)
    train(model, optimizer, 1, 6)
    assert optimizer.pruner.report()["tensors"]["4.weight"]["masked"] == 0
    other, resumed = twin(build, model, optimizer)
    train(model, optimizer, 7, 14)
    train(other, resumed, 7, 14)
    assert equal(model, other)


def test_movement_waits_for_its_first_gradient_after_a_dense_checkpoint():
    """State that came from elsewhere says nothing of movement."""
    model = mlp()
    dense = torch.optim.AdamW(model.named_parameters(), lr=0.01)
    train(model, dense, 1, 3)
    optimizer = make(model, score="movement", start=0, every=1)
    optimizer.load_state_dict(copy.deepcopy(dense.state_dict()))
    optimizer.zero_grad()
    (model[0].weight * 0.1).sum().backward()
    optimizer.step()
    tensors = optimizer.pruner.report()["tensors"]
    assert tensors["0.weight"]["masked"] > 0
    assert tensors["2.weight"]["masked"] == 0
    assert "2.weight" in optimizer.pruner.report()["left_out"]
