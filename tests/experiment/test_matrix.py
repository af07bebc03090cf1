# SPDX-License-Identifier: MIT
"""From a configuration to the list of runs, and to the folder they are stored in."""

from __future__ import annotations

from collections import Counter

import pytest

from adamwprune.experiment import settings
from adamwprune.experiment.errors import ExperimentError
from adamwprune.experiment.fields import field_types, group_of, parse
from adamwprune.experiment.matrix import Arm, expand, parse_arm, require_used
from adamwprune.experiment.plan import plan
from adamwprune.experiment.presets import folder_name, preset, project_root
from adamwprune.training.config import RunConfig

ROOT = project_root()
DIGITS = ROOT / "defconfigs" / "digits"


def test_the_default_experiment() -> None:
    runs = settings.load(ROOT, DIGITS).runs()
    assert len(runs) == 42
    arms = Counter((run.optimizer, run.base, run.pruning_method) for run in runs)
    assert arms == {
        ("adamw", "adamw", "none"): 3,
        ("adamw", "adamw", "magnitude"): 9,
        ("adamw", "adamw", "movement"): 9,
        ("adamwspam", "adamw", "none"): 3,
        ("adamwprune", "adamw", "state"): 9,
        ("adamwprune", "adamwspam", "state"): 9,
    }
    assert {run.target_sparsity for run in runs if run.pruning_method != "none"} == {0.5, 0.7, 0.9}
    assert [run.seed for run in runs] == sorted(run.seed for run in runs), "a matrix cut short compares all its arms"
    planned = plan(runs)
    assert len({run.run_id for run in planned}) == 42
    assert len({run.folder for run in planned}) == 42
    assert [run.run_id for run in plan(run.config for run in planned)] == [run.run_id for run in planned]


def test_settings_reach_only_the_runs_that_use_them() -> None:
    common = RunConfig(momentum=0.8, beta1=0.8, spam_theta=50.0, prune_end=0.8)
    arms = [
        Arm(optimizer="sgd"),
        Arm(optimizer="adamw", method="magnitude"),
        Arm(optimizer="adamwprune", base="adamwspam", method="state", score="fisher"),
    ]
    sgd, magnitude, spam = expand(common, arms, sparsities=[0.5], seeds=[0])
    assert (sgd.momentum, sgd.beta1, sgd.spam_theta, sgd.prune_end) == (0.8, None, None, None)
    assert (magnitude.momentum, magnitude.beta1, magnitude.spam_theta, magnitude.prune_end) == (None, 0.8, None, 0.8)
    assert (spam.momentum, spam.spam_theta, spam.score, spam.target_sparsity) == (None, 50.0, "fisher", 0.5)


def test_a_setting_that_reaches_no_run_is_refused() -> None:
    with pytest.raises(ExperimentError, match=r"spam_theta=50.0 has no effect"):
        expand(RunConfig(spam_theta=50.0), [Arm(optimizer="adamw")], sparsities=[], seeds=[0])


def test_distributions_and_scores_are_axes() -> None:
    runs = settings.load(ROOT, DIGITS, ["DISTRIBUTIONS=layer erk", "STATE_SCORES=state fisher", "SEEDS=1"]).runs()
    # Dense 2; magnitude and movement 2 x 3 x 2; state on two bases with two scores 2 x 2 x 3 x 2.
    assert len(runs) == 2 + 12 + 24


def test_small_dense_networks_are_runs_of_the_dense_arms() -> None:
    runs = settings.load(ROOT, DIGITS, ["SMALL_WIDTHS=0.7 0.3", "SEEDS=1"]).runs()
    assert len(runs) == 14 + 2 * 2
    small = [run for run in runs if run.width != 1.0]
    assert {(run.optimizer, run.pruning_method, run.width) for run in small} == {
        (optimizer, "none", width) for optimizer in ("adamw", "adamwspam") for width in (0.7, 0.3)
    }


def test_arms_without_kconfig() -> None:
    arm = "optimizer=adamw pruning-method=magnitude,movement target-sparsity=0.5,0.9 seed=0,1,2"
    runs = parse_arm(arm, RunConfig(epochs=3, spam_theta=50.0))
    assert len(runs) == 12
    assert {run.epochs for run in runs} == {3}
    assert {run.spam_theta for run in runs} == {None}
    with pytest.raises(ExperimentError, match="spam_theta"):
        require_used(RunConfig(spam_theta=50.0), runs)
    for text, message in (
        ("optimiser=adamw", r"did you mean optimizer\?"),
        ("optimizer", "is not field=value"),
        ("epochs=two", "epochs: 'two' is not a whole number"),
    ):
        with pytest.raises(ExperimentError, match=message):
            parse_arm(text, RunConfig())


def test_values_from_text() -> None:
    assert parse("epochs", "") is None
    assert parse("epochs", " 3 ") == 3
    assert parse("learning_rate", "1e-3") == 0.001
    assert parse("amsgrad", "on") is True
    assert parse("deterministic", "n") is False
    assert parse("pattern", "2:4") == "2:4"
    for name, text in (("epochs", "1.5"), ("eps", "tiny"), ("amsgrad", "maybe"), ("threads", "")):
        with pytest.raises(ExperimentError):
            parse(name, text)


def test_every_field_has_a_group() -> None:
    assert {name: group_of(name) for name in field_types()}["spam_zscore"].startswith("SPAM")
    assert len({group_of(name) for name in field_types()}) == 5
    with pytest.raises(KeyError):
        group_of("no_such_field")


@pytest.mark.parametrize(
    ("overrides", "name"),
    [
        ([], "digits"),
        (["SEEDS=5", "SPARSITIES=0.5", "SGD_NONE=y"], "digits"),
        (["JOBS=2", "DATA_DIR=/data", "CHECKPOINT_EVERY=5"], "digits"),
        (["EPOCHS=3"], "digits-epochs-3"),
        (["EPOCHS=3", "LEARNING_RATE=1e-3", "AUGMENT=off"], "digits-epochs-3-learning-rate-0.001-augment-off"),
        (["EXPERIMENT=mine", "EPOCHS=3"], "mine"),
        (["PATTERN=2:4"], "digits-pattern-2_4"),
        (["DATA=recipe"], "digits-data-recipe"),
    ],
)
def test_folder_names_tell_other_settings_apart(overrides: list[str], name: str) -> None:
    enabled = ["OPTIMIZER_SGD=y"] if "SGD_NONE=y" in overrides else []
    assert folder_name(ROOT, settings.load(ROOT, DIGITS, enabled + overrides)) == name


def test_many_changes_become_a_hash() -> None:
    changes = ["EPOCHS=3", "BATCH_SIZE=32", "EPS=1e-7", "LR_WARMUP=0"]
    name = folder_name(ROOT, settings.load(ROOT, DIGITS, changes))
    assert len(name) == len("digits-12345678")
    assert name != folder_name(ROOT, settings.load(ROOT, DIGITS, ["EPOCHS=4", *changes[1:]]))


def test_unknown_preset_lists_the_others() -> None:
    with pytest.raises(ExperimentError, match=r"did you mean digits\?"):
        preset(ROOT, "digit")
