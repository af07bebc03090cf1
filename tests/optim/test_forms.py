# SPDX-License-Identifier: MIT
"""State in fewer bits: the same bits dense, compact and resumed, true bytes, and a run that trains as well."""

from __future__ import annotations

import copy

import pytest
import torch
from lab import backward, gradients, prune, through_a_file, weights
from torch import nn

from adamwprune import AdamWPrune, Spam, attach, kernels
from adamwprune.kernels import formats, native
from adamwprune.optim.clip import kept_norm
from adamwprune.optim.slots import COMPACT_BELOW

#: Above and below the size from which state gets small; the large ones end in the middle of a group.
SHAPES = [(67, 77), (9, 5), (70,), (33, 32, 3, 3)]

RAMP = {"sparsity": 0.6, "schedule": "linear", "start": 2, "end": 10, "every": 2}

FORMS = {
    "float32": (torch.bfloat16, {"state": "float32"}),
    "float32 corrected": (torch.bfloat16, {"correction": True}),
    "bfloat16": (torch.float32, {"state": "bfloat16"}),
    "bfloat16 corrected": (torch.bfloat16, {"state": "bfloat16", "correction": True}),
    "8bit": (torch.float32, {"state": "8bit"}),
    "8bit corrected": (torch.bfloat16, {"state": "8bit", "correction": True}),
}
by_form = pytest.mark.parametrize("form", FORMS)


def make(form, named, pruning=None, **options):
    return AdamWPrune(named, lr=0.01, weight_decay=0.1, prune=pruning, **FORMS[form][1], **options)


def problem(form, shapes=SHAPES):
    return weights(shapes, FORMS[form][0])


def train(optimizer, named, first, last):
    for step in range(first, last + 1):
        optimizer.zero_grad()
        backward(named, gradients(named, step))
        optimizer.step()


def same(one, other):
    """Two (named weights, optimizer) pairs agree in every bit, live state included."""
    (named, optimizer), (twins, twin) = one, other
    for (_, p), (_, q) in zip(named, twins, strict=True):
        assert torch.equal(p, q)
        state, expected = optimizer.state[p], twin.state[q]
        assert state.keys() == expected.keys()
        for name, value in state.items():
            assert value.dtype == expected[name].dtype
            assert torch.equal(value, expected[name]), name


def dense_oracle(named, masks, steps, form):
    """Plain tensor code on whole tensors: moments and weights are rounded to their form after torch's own AdamW.

    ``masks`` is what the run under test kept after each step.
    """
    _, options = FORMS[form]
    tensors = [p.detach().clone() for _, p in named]
    state = [None] * len(tensors)
    for step in range(1, steps + 1):
        for i, (name, grad) in enumerate(zip((n for n, _ in named), gradients(named, step), strict=True)):
            w = tensors[i]
            corrected = options.get("correction") and w.dtype == torch.bfloat16
            index = torch.arange(w.numel())
            words = formats.noise(index, step)
            small = w.dim() < 2 or w.numel() < 4096
            keep = masks[step - 1].get(name, torch.ones_like(w, dtype=torch.bool))
            before = masks[step - 2].get(name, keep | True) if step > 1 else keep | True
            m, v, low, units = state[i] or (
                torch.zeros(w.shape),
                torch.zeros(w.shape),
                torch.zeros_like(w).char(),
                None,
            )
            p = nn.Parameter(formats.join(w, low) if corrected else w.float())
            p.grad = (grad * before).float()
            plain = torch.optim.AdamW([p], lr=0.01, weight_decay=0.1)
            plain.state[p] = {"step": torch.tensor(step - 1.0), "exp_avg": m, "exp_avg_sq": v}
            plain.step()
            new, group, groups = p.detach(), index // 256, -(-w.numel() // 256)
            if options.get("state") == "8bit" and not small:
                # the largest of a group is taken among the weights that the step before it kept
                m, v = m * before, v * before
                c, unit = formats.encode_first(m.flatten(), group, groups, words[1])
                m = (c.float() * c.float().abs() * unit[group]).view(w.shape)
                d, unit = formats.encode_second(v.flatten(), group, groups, words[0])
                v = (d.float() ** 2 * d.float() ** 2 * unit[group]).view(w.shape)
            elif options.get("state") == "bfloat16" and not small:
                m = m.bfloat16().float()
            if corrected:
                flat, low = formats.split(new.flatten(), words[2])
                w, low = flat.view(w.shape), low.view(w.shape) * keep
            else:
                w = new.to(w.dtype)
            tensors[i], state[i] = w * keep, (m * keep, v * keep, low, units)
    return tensors, state


@by_form
def test_a_pruned_run_equals_plain_dense_tensor_code(form):
    named = problem(form)
    start = copy.deepcopy(named)
    optimizer = make(form, named, prune(**RAMP))
    masks = []
    for step in range(1, 13):
        train(optimizer, named, step, step)
        masks.append(optimizer.pruner.named_masks())
    assert optimizer.pruner.at_target
    tensors, state = dense_oracle(start, masks, 12, form)
    saved = optimizer.state_dict()["state"]
    for number, ((_, p), w, (m, v, low, _)) in enumerate(zip(named, tensors, state, strict=True)):
        assert torch.equal(p.detach(), w)
        assert torch.equal(saved[number]["exp_avg"].float(), m)
        assert torch.equal(saved[number]["exp_avg_sq"].float(), v)
        if "correction" in saved[number]:
            assert torch.equal(saved[number]["correction"], low)


@by_form
@pytest.mark.parametrize("pruning", [{}, {"score": "movement"}, {"score": "hybrid", "distribution": "global"}], ids=str)
def test_compact_state_has_the_bits_of_dense_state(form, pruning, monkeypatch):
    runs = []
    for limit in (COMPACT_BELOW, 0.0):
        monkeypatch.setattr("adamwprune.optim.slots.COMPACT_BELOW", limit)
        named = problem(form)
        optimizer = make(form, named, prune(**RAMP, **pruning))
        train(optimizer, named, 1, 12)
        runs.append((named, optimizer.state_dict()["state"], optimizer.state[named[0][1]]["exp_avg"].dim()))
    (named, state, compact), (twins, expected, dense) = runs
    assert (compact, dense) == (1, 2)
    assert all(torch.equal(p, q) for (_, p), (_, q) in zip(named, twins, strict=True))
    for key, entry in state.items():
        for name, value in entry.items():
            assert torch.equal(value, expected[key][name]), name


@by_form
@pytest.mark.parametrize("pruning", [None, RAMP, {**RAMP, "regrow": 0.3}, {**RAMP, "score": "movement"}], ids=str)
@pytest.mark.parametrize("stop", [1, 4, 11])
def test_resumed_equals_never_stopped(form, pruning, stop):
    """Through a file and back, twice over; at step 4 masked state is still dense."""
    settings = None if pruning is None else prune(**pruning)
    named = problem(form)
    optimizer = make(form, named, settings)
    train(optimizer, named, 1, stop)
    twins, twin = named, optimizer
    for _ in range(2):
        saved = through_a_file(twin.state_dict())
        twins = [(name, nn.Parameter(p.detach().clone())) for name, p in twins]
        twin = make(form, twins, settings)
        twin.load_state_dict(saved)
    same((named, optimizer), (twins, twin))
    train(optimizer, named, stop + 1, 12)
    train(twin, twins, stop + 1, 12)
    same((named, optimizer), (twins, twin))


@by_form
def test_a_checkpoint_is_adamws_own(form):
    """Dense floats of the values in use, which torch's AdamW takes; what it trained comes back rounded once."""
    named = problem(form)
    optimizer = make(form, named, prune(**RAMP))
    train(optimizer, named, 1, 11)
    saved = through_a_file(optimizer.state_dict())
    masks = optimizer.pruner.named_masks()
    entries = [saved["state"][number] for number in range(len(named))]
    for (name, p), entry in zip(named, entries, strict=True):
        assert entry["exp_avg"].shape == entry["exp_avg_sq"].shape == p.shape
        assert entry["exp_avg_sq"].dtype == torch.float32
        marks = (entry["exp_avg_sq"] == 0) & entry["exp_avg_sq"].signbit()
        assert torch.equal(marks, ~masks.get(name, torch.ones_like(p, dtype=torch.bool)))
    twins = [(name, nn.Parameter(p.detach().float())) for name, p in named]
    plain = torch.optim.AdamW(twins, lr=0.01)
    plain.load_state_dict(saved)
    for (_, p), entry in zip(twins, entries, strict=True):
        assert torch.equal(plain.state[p]["exp_avg_sq"], entry["exp_avg_sq"])
    for step in (12, 13, 14):
        plain.zero_grad()
        backward(twins, [10 * g for g in gradients(twins, step)])
        plain.step()
    again = problem(form)
    back = make(form, again)
    back.load_state_dict(through_a_file(plain.state_dict()))
    loaded = back.state_dict()["state"]
    for number, ((_, p), (_, q)) in enumerate(zip(twins, again, strict=True)):
        entry = loaded[number]
        m, v = plain.state[p]["exp_avg"], plain.state[p]["exp_avg_sq"]
        # a code's step is 2 c of c² for the first moment and 4 c³ of c⁴ for the second, of a group's largest
        torch.testing.assert_close(entry["exp_avg"].float(), m, rtol=2**-8, atol=float(m.abs().max()) / 127)
        torch.testing.assert_close(entry["exp_avg_sq"], v, rtol=0.02, atol=float(v.max()) / 63)
        assert back.state[q]["step"] == 14


def test_eight_bits_load_into_float32_and_the_other_way():
    named = problem("8bit")
    optimizer = make("8bit", named)
    train(optimizer, named, 1, 5)
    saved = through_a_file(optimizer.state_dict())
    wide = AdamWPrune(weights(SHAPES), prune=None)
    wide.load_state_dict(saved)
    entries = wide.state_dict()["state"]
    for key, entry in saved["state"].items():
        assert set(entries[key]) == {"step", "exp_avg", "exp_avg_sq"}
        assert all(torch.equal(entries[key][name], entry[name]) for name in entries[key])
    again = make("8bit", problem("8bit"))
    again.load_state_dict(wide.state_dict())
    for key, entry in again.state_dict()["state"].items():
        assert torch.equal(entry["exp_avg"], saved["state"][key]["exp_avg"])
        assert torch.equal(entry["exp_avg_sq"], saved["state"][key]["exp_avg_sq"])


def test_small_tensors_and_vectors_keep_float32():
    for form, first in (("8bit", torch.int8), ("bfloat16 corrected", torch.bfloat16)):
        named = problem(form)
        optimizer = make(form, named)
        train(optimizer, named, 1, 1)
        types = [optimizer.state[p]["exp_avg"].dtype for _, p in named]
        assert types == [first, torch.float32, torch.float32, first]
        corrected = [optimizer.state[p].get("correction", torch.tensor(0)).dtype == torch.int8 for _, p in named]
        assert corrected == [form.endswith("corrected")] * 4


@pytest.mark.parametrize(("sparsity", "bound"), [(0.5, 5.7), (0.9, 4.5)])
@pytest.mark.parametrize("backend", ["reference", "native"])
def test_bytes_of_a_prunable_weight(sparsity, bound, backend):
    """Weights, gradients, state and masks, all of them, for bfloat16 weights; the native kernel keeps block starts."""
    if backend == "native" and native.library() is None:
        pytest.skip("the native kernel is not built")
    with kernels.use(backend):
        named = weights([(256, 300), (300, 256)], torch.bfloat16)
        optimizer = make("8bit corrected", named, prune(sparsity=sparsity, score="magnitude"))
        train(optimizer, named, 1, 11)
    report = optimizer.pruner.report()
    total = sum(tensor["weights"] for tensor in report["tensors"].values())
    alive = [x for _, p in named for x in (p, p.grad, *optimizer.state[p].values())]
    storage = sum(x.untyped_storage().nbytes() for x in alive)
    assert sum(report["bytes"].values()) == storage + report["bytes"]["mask"]
    assert report["bytes"]["mask"] >= total / 8
    assert sum(report["bytes"].values()) / total <= bound


def test_state_is_small_from_the_first_step_on():
    named = weights([(256, 300)], torch.bfloat16)
    optimizer = make("8bit corrected", named, prune())
    train(optimizer, named, 1, 1)
    assert optimizer.pruner.report()["bytes"]["state"] / (256 * 300) < 3.1


def test_a_correction_keeps_updates_that_bfloat16_loses():
    """Forty steps of 1e-4 on weights near 1, where bfloat16's spacing is 2⁻⁷."""
    moved = {}
    for corrected in (False, True):
        p = nn.Parameter(torch.ones(64, 64, dtype=torch.bfloat16))
        optimizer = AdamWPrune([("w", p)], lr=1e-4, weight_decay=0.0, state="float32", correction=corrected)
        for _ in range(40):
            p.grad = torch.ones_like(p)
            optimizer.step()
        low = optimizer.state[p].get("correction", torch.zeros(64, 64, dtype=torch.int8))
        moved[corrected] = 1 - formats.join(p.detach(), low)
    assert not moved[False].count_nonzero()
    torch.testing.assert_close(moved[True].mean(), torch.tensor(40e-4), rtol=0.01, atol=0)


def test_eight_bit_training_follows_float32():
    """Least squares on 64 features: both reach the same loss within a few per cent."""
    losses = {}
    for state in (None, "8bit"):
        torch.manual_seed(0)
        model, target = nn.Linear(64, 64, bias=False), torch.randn(64, 64) / 8
        optimizer = AdamWPrune(model.named_parameters(), lr=3e-3, weight_decay=0.0, state=state)
        for _ in range(200):
            x = torch.randn(32, 64)
            loss = (model(x) - x @ target + 0.1 * torch.randn(32, 64)).square().mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        losses[state] = float((model.weight.detach().T - target).square().sum(0).mean())
    assert losses["8bit"] < 1.1 * losses[None]
    assert losses[None] < 0.1


def test_spam_resets_codes_with_their_units():
    spam = Spam(interval=6, min_age=2, warmup=2, theta=50.0, zscore=1.0, history=10)
    named = problem("8bit")
    optimizer = make("8bit", named, prune(**RAMP), base="adamwspam", spam=spam)
    train(optimizer, named, 1, 5)
    optimizer.zero_grad()
    clock = optimizer.spam_clock
    clock.tend(optimizer.state, lambda: kept_norm(optimizer), None)
    assert clock.last_reset == 5
    for _, p in named:
        state = {name: value for name, value in optimizer.state[p].items() if name != "step"}
        assert not any(value.count_nonzero() for value in state.values())
    train(optimizer, named, 6, 12)
    assert optimizer.pruner.at_target


def test_a_soft_reset_multiplies_the_moments():
    spam = Spam(interval=0, zscore=1.0, history=10, soft_reset=(0.5, 0.25))
    named = problem("8bit")
    optimizer = make("8bit", named, base="adamwspam", spam=spam)
    train(optimizer, named, 1, 10)
    before = copy.deepcopy(optimizer.state_dict()["state"])
    optimizer.spam_clock.norms = [1e-9, 2e-9] * 5
    optimizer.spam_clock.tend(optimizer.state, lambda: kept_norm(optimizer), None)
    for key, entry in optimizer.state_dict()["state"].items():
        torch.testing.assert_close(entry["exp_avg"], 0.5 * before[key]["exp_avg"])
        torch.testing.assert_close(entry["exp_avg_sq"], 0.25 * before[key]["exp_avg_sq"])


def test_channels_last_weights():
    """State is row-major whatever the weights' strides."""
    plain, strided = problem("8bit"), problem("8bit")
    strided[3][1].data = strided[3][1].data.to(memory_format=torch.channels_last)
    runs = [(named, make("8bit", named, prune(**RAMP))) for named in (plain, strided)]
    for named, optimizer in runs:
        train(optimizer, named, 1, 12)
    same(*runs)


REFUSED = {
    "state='4bit': expected None": lambda: AdamWPrune(weights(), state="4bit"),
    "does not go with amsgrad": lambda: AdamWPrune(weights(), state="8bit", amsgrad=True),
    "8bit.*does not go with amsgrad": lambda: AdamWPrune(weights(), state="8bit", base="adamwadv"),
    "for bfloat16 weights, and there are none": lambda: AdamWPrune(weights(), correction=True),
    "at most 32 bits.*float64": lambda: AdamWPrune(weights(dtype=torch.float64), state="8bit"),
    "real weights.*complex64": lambda: AdamWPrune(weights(dtype=torch.complex64), state="float32"),
    "differentiable=True needs torch's own state": lambda: AdamWPrune(weights(), state="8bit", differentiable=True),
    "state='8bit' keeps": lambda: attach(AdamWPrune(weights(), state="8bit"), prune()),
}


@pytest.mark.parametrize("message", REFUSED)
def test_what_cannot_be_is_refused(message):
    with pytest.raises(ValueError, match=message):
        REFUSED[message]()


def test_a_refused_group_is_not_added():
    optimizer = AdamWPrune(weights(), state="8bit")
    extra = [("late.weight", nn.Parameter(torch.zeros(4, 4, dtype=torch.float64)))]
    with pytest.raises(ValueError, match="at most 32 bits"):
        optimizer.add_param_group({"params": extra})
    assert len(optimizer.param_groups) == 1


def test_an_amsgrad_checkpoint_is_refused_and_changes_nothing():
    source = AdamWPrune(weights(SHAPES), amsgrad=True)
    train(source, [*zip("abcd", source.param_groups[0]["params"], strict=True)], 1, 2)
    named = problem("8bit")
    optimizer = make("8bit", named)
    train(optimizer, named, 1, 3)
    before = copy.deepcopy((optimizer.state_dict(), [p.detach().clone() for _, p in named]))
    with pytest.raises(ValueError, match="does not go with amsgrad"):
        optimizer.load_state_dict(source.state_dict())
    after = optimizer.state_dict()
    assert before[0]["param_groups"] == after["param_groups"]
    for key, entry in before[0]["state"].items():
        assert all(torch.equal(value, after["state"][key][name]) for name, value in entry.items())
