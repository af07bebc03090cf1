# SPDX-License-Identifier: MIT
"""What is changed beside the score is changed, and nothing else; fine-tuning begins at the end of the dense run."""

import dataclasses
import importlib
import json
import sys
from functools import partial
from pathlib import Path

import pytest
import torch

import adamwprune as ap

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "experiments"))
branching, search, fine_tuning, when_state_pays = map(
    importlib.import_module, ("branching", "search", "fine_tuning", "when_state_pays")
)
STATE, MAGNITUDE = branching.ARMS["75-90/state-global"], branching.ARMS["75-90/magnitude-global"]


@pytest.fixture(scope="module")
def text():
    """Text, and a training short enough for a test."""
    with pytest.MonkeyPatch.context() as patch:
        for name, value in {"STEPS": 20, "BATCH": 2, "LENGTH": 8, "WARMUP": 4}.items():
            patch.setattr(when_state_pays, name, value)
        for name, value in {"STEPS": 10, "EVERY": 2, "WARMUP": 2}.items():
            patch.setattr(fine_tuning, name, value)
        yield torch.randint(97, 107, (2000,), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


def setting(text, kind=when_state_pays.Characters):
    return dataclasses.replace(when_state_pays.setting(text, kind), every=1)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("states")


@pytest.fixture(scope="module")
def states(text, folder):
    return branching.dense_states(setting(text), 0, folder)[0]


class Plain(search.OwnScore):
    """The named score, computed outside."""


def test_a_score_that_is_computed_outside_prunes_as_the_library_does(text, states):
    assert branching.pruned(setting(text, Plain), 0, STATE, 0.8, states) == branching.pruned(
        setting(text), 0, STATE, 0.8, states
    )


def test_lamp_of_magnitude_is_lamp(text, states):
    ours = branching.pruned(setting(text, search.Normalized), 0, MAGNITUDE, 0.8, states)
    assert ours == branching.pruned(setting(text), 0, branching.ARMS["75-90/lamp"], 0.8, states)


def test_sums_of_scores_grow(text, states):
    run = search.Averaged(text, 0, ap.Prune(sparsity=0.0, total_steps=8, start=0, end=4, every=1, score="magnitude"))
    p, v = torch.tensor([1.0, -2.0]), torch.zeros(2)
    assert run.scores(p, v).tolist() == [1.0, 2.0]
    assert run.scores(p, v).tolist() == [2.0, 4.0]


def test_averages_are_those_of_the_dense_run(text, states, folder):
    found = search.averages(text, 0, folder)
    run, squares, weights = setting(text).train(0, None), [], []
    branching.load(run, states[10])
    name, p = next((n, p) for n, p in run.model.named_parameters() if n.endswith("c_attn.weight"))
    run.optimizer.register_step_post_hook(
        lambda *_: (squares.append(p.grad.square()), weights.append(p.detach().clone()))
    )
    run.go(10, 15)
    decay = search.SQUARES_DECAY
    mean = sum((1 - decay) * decay ** (4 - i) * g for i, g in enumerate(squares)) / (1 - decay**5)
    torch.testing.assert_close(found["squares"][name], mean, rtol=1e-4, atol=1e-12)
    average = weights[0]
    for w in weights[1:]:
        average = 0.99 * average + 0.01 * w
    torch.testing.assert_close(found["weights"][name], average, rtol=1e-5, atol=1e-6)


def test_a_student_of_itself_learns_as_from_the_text_alone(text, states, folder):
    run = search.Distilled(text, 0, folder=folder)
    run.teacher.load_state_dict(run.model.state_dict())
    rows = text[: 2 * 9].view(2, 9).long()
    with torch.autocast("cpu", torch.bfloat16):
        logits = run.model(rows[:, :-1]).float().flatten(0, 1)
    own = torch.nn.functional.cross_entropy(logits, rows[:, 1:].flatten())
    assert run.loss(logits, rows).item() == pytest.approx(own.item(), abs=1e-5)
    assert run.loss(logits.flip(1), rows) > torch.nn.functional.cross_entropy(logits.flip(1), rows[:, 1:].flatten())


@pytest.mark.parametrize("start", fine_tuning.KEEPS_STATE)
def test_fine_tuning_begins_at_the_end(text, states, folder, start):
    path = fine_tuning.finished(setting(text), 0, folder)
    ours = fine_tuning.tuning(setting(text), start)
    control, _ = branching.pruned(ours, 0, fine_tuning.ARMS[f"{start}/dense"], 0.0, {0: path})
    straight = setting(text).train(0, None)
    straight.go(0, 20)
    if start == "fresh":
        straight.optimizer.state.clear()
    for step in range(10):
        for group in straight.optimizer.param_groups:
            group["lr"] = when_state_pays.LR / 4 * fine_tuning.FineTuning.lr_factor(straight, step)
        straight.take_step(20 + step)
    assert control == straight.validation()
    reached, tensors = branching.pruned(ours, 0, fine_tuning.ARMS[f"{start}/movement-global"], 0.8, {0: path})
    assert reached["loss"] != control["loss"]
    assert max(tensors.values()) > 0.8


def test_a_way_has_rows_of_its_own(text, states, tmp_path, monkeypatch):
    (tmp_path / "text").write_bytes(bytes(text.tolist()))
    arguments = "--ways lamp averaged --arms 75-90/state-global --sparsities 0.5 --seeds 0"
    results = tmp_path / "x.jsonl"
    tmp_path.joinpath("x.states").mkdir()
    line = ["search.py", "--text", str(tmp_path / "text"), "--results", str(results), *arguments.split()]
    monkeypatch.setattr(sys, "argv", line)
    search.main()
    rows = [json.loads(row) for row in results.read_text().splitlines()]
    assert [row["arm"] for row in rows] == ["75-90-lamp/state-global", "75-90-averaged/state-global"]


def test_a_long_memory_ranks_by_its_own_squares(text, states, folder):
    kind = partial(search.Long, folder=folder)
    prune = ap.Prune(sparsity=0.5, total_steps=10, start=0, end=4, every=1, include=when_state_pays.MATRICES)
    run = kind(text, 0, prune)
    branching.load(run, states[15])
    before = {name: square.clone() for name, square in run.squares.items()}
    run.go(15, 16)
    for p, name in run.names.items():
        if name.endswith("c_fc.weight"):
            assert not torch.equal(before[name], run.squares[name])
            expected = p.detach().abs() * run.squares[name].sqrt().sqrt()
            torch.testing.assert_close(run.scores(p, torch.zeros_like(p)), expected)
