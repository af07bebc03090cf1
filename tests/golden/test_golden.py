# SPDX-License-Identifier: MIT
"""Files that earlier versions wrote are still read, and mean what they meant."""

from __future__ import annotations

import shutil
from pathlib import Path

import make_golden
import pytest
import torch

from adamwprune import report
from adamwprune.experiment.store import ResultsFolder

HERE = Path(__file__).parent


@pytest.mark.parametrize("name", make_golden.OPTIMIZERS)
def test_a_checkpoint_goes_on_as_it_did(name):
    golden = torch.load(HERE / f"{name}-v1.pt", weights_only=True)
    model = make_golden.network()
    optimizer = make_golden.OPTIMIZERS[name](model)
    model.load_state_dict(golden["model"])
    optimizer.load_state_dict(golden["optimizer"])
    masks = optimizer.pruner.named_masks()
    assert masks.keys() == golden["masks"].keys()
    assert all(torch.equal(mask, golden["masks"][key]) for key, mask in masks.items())
    assert optimizer.pruner.step == make_golden.BEFORE
    make_golden.train(model, optimizer, make_golden.BEFORE, make_golden.AFTER)
    for key, expected in golden["after"].items():
        # torch's own rounding may differ from release to release, what is pruned may not
        torch.testing.assert_close(model.state_dict()[key], expected, rtol=1e-5, atol=1e-7)
        assert torch.equal(model.state_dict()[key] == 0, expected == 0)


def test_a_checkpoint_is_torchs_own_adamw_with_marks():
    golden = torch.load(HERE / "adamwprune-v1.pt", weights_only=True)
    squares = [entry["exp_avg_sq"] for entry in golden["optimizer"]["state"].values()]
    marked = sum(int(((x == 0) & x.signbit()).sum()) for x in squares)
    assert marked == sum(int((~mask).sum()) for mask in golden["masks"].values()) > 0
    optimizer = torch.optim.AdamW(make_golden.network().named_parameters())
    optimizer.load_state_dict(golden["optimizer"])
    assert all(torch.equal(a["exp_avg_sq"], b) for a, b in zip(optimizer.state.values(), squares, strict=True))


def test_a_results_folder_is_read_and_reported(tmp_path):
    folder = tmp_path / "golden"
    shutil.copytree(HERE / "results-v1", folder)
    stored = ResultsFolder.open(folder)
    assert [stored.state(run).status for run in stored.runs] == ["finished", "finished"]
    table = report.build(folder).table_txt.read_text()
    for run in stored.runs:
        assert f"{100 * stored.state(run).result['final']['test_accuracy']:.2f}" in table
