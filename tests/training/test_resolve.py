# SPDX-License-Identifier: MIT
"""Resolving: what a config becomes, what is refused, and what makes two runs the same run."""

from __future__ import annotations

import dataclasses
import subprocess
from pathlib import Path
from typing import Any

import pytest
import tiny

from adamwprune.optim import create_optimizer
from adamwprune.prune import SCORES, Prune
from adamwprune.training import ConfigError, RunConfig
from adamwprune.training import identity as identity_module
from adamwprune.training.config import BASES, METHODS, OPTIMIZERS, PRUNE_FIELDS, SPAM_FIELDS
from adamwprune.training.identity import identity, run_id, run_name
from adamwprune.training.recipes import RECIPES
from adamwprune.training.resolve import METHOD_SCORES, resolve, total_steps

STATE = {"optimizer": "adamwprune", "pruning_method": "state", "target_sparsity": 0.7}
ALL = [
    {
        "optimizer": optimizer,
        "base": base,
        "pruning_method": method,
        "target_sparsity": None if method == "none" else 0.5,
    }
    for optimizer in OPTIMIZERS
    for base in (BASES if optimizer == "adamwprune" else ("adamw",))
    for method in METHODS
    if (optimizer, method) != ("sgd", "state")
]


def label(changes: dict[str, Any]) -> str:
    return "-".join(str(value) for value in changes.values())


@pytest.mark.parametrize(("model", "data"), RECIPES)
@pytest.mark.parametrize("changes", ALL, ids=label)
def test_resolving_fills_all_that_applies_and_nothing_else(model: str, data: str, changes: dict[str, Any]) -> None:
    resolved = resolve(RunConfig(model=model, data=data, **changes))
    assert resolve(resolved) == resolved
    open_fields = {f.name for f in dataclasses.fields(resolved) if getattr(resolved, f.name) is None}
    expected: set[str] = set()
    family = changes["base"] if changes["optimizer"] == "adamwprune" else changes["optimizer"]
    expected |= {"init", "micro_batch", "train_examples", "resume_from", "target_accuracy", "target_loss"}
    expected |= {"beta1", "beta2", "eps", "amsgrad"} if family == "sgd" else {"momentum"}
    expected |= set() if family == "adamwspam" else set(SPAM_FIELDS)
    expected |= set(PRUNE_FIELDS) - {"target_sparsity"} if changes["pruning_method"] == "none" else set()
    text = model.startswith("gpt2")
    expected |= {"augment", "cutout", "channels_last"} if text else {"context", "dropout", "eval_tokens"}
    expected |= {"epochs", "eval_every"} if text or data == "imagenet" else {"iterations", "eval_steps"}
    assert open_fields == expected
    assert resolved.device != "auto"
    assert resolved.threads > 0
    assert resolved.amsgrad is (None if family == "sgd" else family == "adamwadv")
    assert resolved.clip_norm == (1.0 if family == "adamwadv" or text else 0.0)
    assert resolved.lr_schedule == "cosine"


@pytest.mark.parametrize("given", [{"iterations": 30}, {"eval_steps": 4}, {"epochs": 2, "eval_steps": 4}], ids=label)
def test_of_two_units_of_length_one_is_used(given: dict[str, Any]) -> None:
    resolved = resolve(RunConfig(**given))
    assert resolve(resolved) == resolved
    for pair in (("epochs", "iterations"), ("eval_every", "eval_steps")):
        wanted = [name for name in pair if name in given] or [pair[0]]
        assert [name for name in pair if getattr(resolved, name) is not None] == wanted
    assert total_steps(resolved) == given.get("iterations", 19 * given.get("epochs", 25))


def test_a_network_for_text_takes_its_own_context_unless_told() -> None:
    assert resolve(RunConfig(model="gpt2-tiny")).context == 128
    assert resolve(RunConfig(model="gpt2", context=64)).context == 64


def test_arms_differ_in_little() -> None:
    dense = resolve(RunConfig())
    pruned = resolve(RunConfig(**STATE))
    differing = {f.name for f in dataclasses.fields(dense) if getattr(dense, f.name) != getattr(pruned, f.name)}
    assert differing == {"optimizer", "pruning_method", *PRUNE_FIELDS}
    magnitude = resolve(RunConfig(optimizer="adamw", pruning_method="magnitude", target_sparsity=0.7))
    differing = {f.name for f in dataclasses.fields(dense) if getattr(magnitude, f.name) != getattr(pruned, f.name)}
    assert differing == {"optimizer", "pruning_method", "score"}


def test_what_is_given_stays() -> None:
    given = {"epochs": 3, "learning_rate": 0.5, "weight_decay": 0.0, "prune_every": 7, "prune_start": 0.1, "eps": 1e-6}
    resolved = resolve(RunConfig(**STATE, **given))
    assert {name: getattr(resolved, name) for name in given} == given


@pytest.mark.parametrize("name", [*METHODS[1:]])
def test_each_method_has_its_scores(name: str) -> None:
    for score in METHOD_SCORES[name]:
        assert resolve(RunConfig(pruning_method=name, target_sparsity=0.5, score=score)).score == score
    assert resolve(RunConfig(pruning_method=name, target_sparsity=0.5)).score == METHOD_SCORES[name][0]
    for foreign in set(SCORES) - set(METHOD_SCORES[name]):
        with pytest.raises(ConfigError, match=f"score='{foreign}' is not for pruning_method '{name}': expected one of"):
            resolve(RunConfig(pruning_method=name, target_sparsity=0.5, score=foreign))


def test_aliases_are_resolved() -> None:
    for alias, method, score in (
        ("bitter0", "state", "hybrid"),
        ("bitter1", "magnitude", "magnitude"),
        ("bitter2", "state", "scale-aware"),
    ):
        config = resolve(RunConfig(pruning_method=method, target_sparsity=0.5, score=alias, distribution=alias))
        assert (config.score, config.distribution) == (score, score)


@pytest.mark.parametrize(
    ("start", "chosen"), [(None, "magnitude"), (0.5, "magnitude"), (0.75, "state"), (0.8, "state")]
)
def test_auto_becomes_the_method_and_score_that_it_stands_for(start: float | None, chosen: str) -> None:
    window = {} if start is None else {"prune_start": start, "prune_end": 0.9}
    auto = resolve(RunConfig(pruning_method="state", score="auto", target_sparsity=0.5, **window))
    named = resolve(RunConfig(pruning_method=chosen, target_sparsity=0.5, **window))
    assert auto == named == resolve(auto)
    assert (auto.pruning_method, auto.score) == (chosen, chosen)


def test_auto_ranks_trained_weights_by_the_state_wherever_the_window_begins() -> None:
    config = RunConfig(pruning_method="state", score="auto", target_sparsity=0.5, prune_start=0.1, init="trained.pt")
    assert resolve(config).score == "state"


def test_auto_is_a_choice_of_the_state_method_only() -> None:
    with pytest.raises(ConfigError, match="unknown score 'auto'"):
        resolve(RunConfig(pruning_method="magnitude", score="auto", target_sparsity=0.5))
    with pytest.raises(ConfigError, match="sgd keeps none"):
        resolve(RunConfig(pruning_method="state", score="auto", optimizer="sgd", target_sparsity=0.5))


@pytest.mark.parametrize("epochs", [1, 5, 25, 400])
def test_cadence_and_resets_scale_with_the_length(epochs: int) -> None:
    config = resolve(RunConfig(**STATE, base="adamwspam", epochs=epochs))
    steps = total_steps(config)
    assert config.prune_every is not None
    assert (0.5 * steps) // config.prune_every >= min(20, 0.5 * steps - 1)
    assert config.prune_every <= 50
    assert config.spam_interval is not None
    assert config.spam_interval <= 500
    assert steps // config.spam_interval >= 8 or config.spam_interval == 20
    assert config.spam_warmup == round(0.3 * config.spam_interval)
    assert config.spam_min_age is not None
    assert 0 < config.spam_min_age < config.spam_interval
    if epochs == 400:
        assert (config.prune_every, config.spam_interval, config.spam_warmup, config.spam_min_age) == (50, 500, 150, 20)


def test_steps_are_those_that_the_engine_takes() -> None:
    assert total_steps(resolve(tiny.config())) == tiny.STEPS


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model": "lenet6"}, "unknown model 'lenet6': expected one of lenet5"),
        ({"data": "emnist"}, "unknown data set 'emnist': expected one of digits, mnist"),
        ({"optimizer": "lion"}, "unknown optimizer 'lion': expected one of sgd, adam, adamw, adamwadv"),
        ({"base": "sgd", "optimizer": "adamwprune"}, "unknown base 'sgd': expected one of adam, adamw"),
        ({"base": "adamwspam"}, "base='adamwspam' has no effect on optimizer 'adamw'"),
        ({"pruning_method": "bitter"}, "unknown pruning_method 'bitter': expected one of none, magnitude"),
        ({"pruning_method": "state", "optimizer": "sgd", "target_sparsity": 0.5}, "sgd keeps none"),
        ({"pruning_method": "magnitude", "optimizer": "sgd", "target_sparsity": 0.5, "distribution": "fisher"}, "sgd"),
        ({"pruning_method": "state"}, "needs target_sparsity"),
        ({**STATE, "target_sparsity": 1.0}, r"target_sparsity=1.0: expected .* \[0, 1\)"),
        ({**STATE, "target_sparsity": -0.1}, "target_sparsity=-0.1"),
        ({**STATE, "target_sparsity": float("nan")}, "target_sparsity=nan"),
        ({**STATE, "target_sparsity": 0.999}, "min_density"),
        ({**STATE, "score": "magnitude"}, "it belongs to pruning_method 'magnitude'"),
        ({**STATE, "score": "best"}, "unknown score 'best': expected one of magnitude, hybrid"),
        ({**STATE, "prune_start": 0.8}, "prune_start=0.8 must lie before prune_end=0.75"),
        ({**STATE, "prune_start": 0.5, "prune_end": 0.5}, "must lie before"),
        ({**STATE, "prune_end": 1.5}, "prune_end=1.5: expected"),
        ({**STATE, "schedule": "sudden"}, "unknown schedule 'sudden': expected one of cubic"),
        ({**STATE, "distribution": "fair"}, "unknown distribution 'fair': expected one of layer"),
        ({**STATE, "pattern": "2:4"}, "set sparsity=0.5"),
        ({**STATE, "pattern": "two"}, "pattern"),
        ({**STATE, "prune_every": -1}, "prune_every=-1"),
        ({"learning_rate": 0.0}, "learning_rate=0.0: expected"),
        ({"learning_rate": float("inf")}, "learning_rate=inf"),
        ({"epochs": 0}, "epochs=0"),
        ({"seed": -1}, "seed=-1"),
        ({"width": 0.0}, "width=0.0"),
        ({"batch_size": 5000}, "batch_size=5000 is more than the 1222 training examples of 'digits'"),
        ({"lr_schedule": "step"}, "unknown lr_schedule 'step': expected one of constant, cosine, linear"),
        ({"val_fraction": 0.0}, "val_fraction=0.0"),
        ({"val_fraction": 0.0001}, "val_fraction=0.0001 of the images of 'digits' is none: raise it"),
        ({"model": "gpt2-tiny", "context": 32, "eval_tokens": 31}, "eval_tokens=31 is less than .* context=32 tokens"),
        ({"device": "tpu"}, "device='tpu': expected auto or one of cuda, xpu, mps, cpu"),
        ({"precision": "int8"}, "unknown precision 'int8': expected one of fp32, bf16, fp16"),
        ({"epochs": 3, "iterations": 100}, "epochs and iterations exclude each other"),
        ({"eval_every": 3, "eval_steps": 100}, "eval_every and eval_steps exclude each other"),
        ({"accumulate": 3}, "accumulate=3 must divide batch_size=64 into equal parts"),
        ({"ema": 1.0}, r"ema=1.0: expected a number in \[0, 1\)"),
        ({"model": "gpt2-tiny", "epochs": 3}, "epochs=3: .* give iterations instead"),
        ({"model": "resnet50", "data": "imagenet", "epochs": 3}, "epochs=3: .* give iterations instead"),
        ({"model": "gpt2-tiny", "data": "digits"}, "gpt2-tiny trains on stdlib or shakespeare"),
        ({"model": "gpt2-tiny", "cutout": 8}, "cutout=8 has no effect: gpt2-tiny has no such setting"),
        ({"model": "gpt2-tiny", "augment": False}, "augment=False has no effect: gpt2-tiny has no such setting"),
        ({"model": "gpt2-tiny", "cutout": 0}, "cutout=0 has no effect: gpt2-tiny has no such setting"),
        ({"dropout": 0.0}, "dropout=0.0 has no effect: lenet5 has no such setting"),
        ({"augment": False, "cutout": 8}, "cutout=8 has no effect: with augment=False"),
        ({"lr_schedule": "constant", "lr_floor": 0.5}, "lr_floor=0.5 has no effect: with lr_schedule='constant'"),
        ({"model": "resnet50", "data": "imagenet", "augment": False}, "augment=False, .* on random crops alone"),
        (
            {"model": "resnet50", "data": "imagenet", "cutout": 8},
            "cutout=8: 'imagenet' is trained on random crops alone",
        ),
        ({"context": 8}, "context=8 has no effect: lenet5 has no such setting"),
        ({"activation_checkpointing": True}, "activation_checkpointing=True has no effect: lenet5 has no such setting"),
        ({"optimizer": "adamwspam", "spam_interval": 0, "spam_warmup": 5}, "spam_warmup=5 has no effect"),
        (
            {"optimizer": "adamwspam", "spam_interval": 10, "spam_min_age": 10},
            "min_age=10 must be less than interval=10",
        ),
    ],
    ids=lambda value: label(value) if isinstance(value, dict) else "",
)
def test_what_is_wrong_is_said(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        resolve(RunConfig(**changes))


@pytest.mark.parametrize(
    "changes",
    [
        {"model": "resnet18", "data": "cifar10", "augment": False},
        {"model": "gpt2-tiny", "lr_schedule": "constant"},
        {"augment": False, "cutout": 0},
    ],
    ids=label,
)
def test_what_the_recipe_says_may_stay_where_it_does_not_act(changes: dict[str, Any]) -> None:
    """A resolved config holds it, and is resolved again when its run goes on."""
    resolved = resolve(RunConfig(**changes))
    assert resolve(resolved) == resolved


GIVEN = {
    "score": "state",
    "target_sparsity": 0.5,
    "prune_start": 0.1,
    "prune_end": 0.9,
    "prune_every": 5,
    "schedule": "linear",
    "distribution": "global",
    "pattern": "2:4",
    "regrow": 0.1,
    "min_density": 0.1,
    "spam_theta": 50.0,
    "spam_interval": 100,
    "spam_warmup": 10,
    "spam_min_age": 5,
    "spam_zscore": 3.0,
}


@pytest.mark.parametrize(("name", "value"), GIVEN.items())
def test_a_field_without_effect_is_refused(name: str, value: Any) -> None:
    assert set(GIVEN) == {*PRUNE_FIELDS, *SPAM_FIELDS}
    with pytest.raises(ConfigError, match=f"{name}={value!r} has no effect"):
        resolve(RunConfig(**{name: value}))


@pytest.mark.parametrize(
    ("optimizer", "name", "value"),
    [
        ("adamw", "momentum", 0.9),
        ("sgd", "beta1", 0.9),
        ("sgd", "beta2", 0.99),
        ("sgd", "eps", 1e-8),
        ("sgd", "amsgrad", True),
        ("sgd", "amsgrad", False),
    ],
)
def test_a_setting_of_another_optimizer_is_refused(optimizer: str, name: str, value: Any) -> None:
    with pytest.raises(ConfigError, match=f"{name}={value!r} has no effect: {optimizer} has no such setting"):
        resolve(RunConfig(optimizer=optimizer, **{name: value}))


def test_a_device_that_is_not_there_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.xpu.is_available", lambda: False)
    with pytest.raises(
        ConfigError, match=r"device='xpu' is not available to this torch: expected auto or one of .*cpu"
    ):
        resolve(RunConfig(device="xpu"))


def test_the_library_refuses_sgd_with_state_too() -> None:
    from adamwprune.models.lenet5 import LeNet5

    with pytest.raises(ValueError, match="moments"):
        create_optimizer("sgd", LeNet5((1, 28, 28), 10), lr=0.1, prune=Prune(sparsity=0.5, total_steps=10))


# ---- identity ----------------------------------------------------------------------------------------------------


def test_names() -> None:
    for changes, expected in (
        ({}, "lenet5-digits-adamw-none-s0"),
        ({"width": 0.5, "seed": 2, "data": "mnist"}, "lenet5_w0.5-mnist-adamw-none-s2"),
        ({"data": "mnist", "train_examples": 4000}, "lenet5-mnist_4000-adamw-none-s0"),
        (STATE, "lenet5-digits-adamwprune-state-70-s0"),
        ({**STATE, "base": "adamwspam"}, "lenet5-digits-adamwprune_adamwspam-state-70-s0"),
        ({**STATE, "score": "bitter0", "target_sparsity": 0.975}, "lenet5-digits-adamwprune-state_hybrid-97.5-s0"),
        (
            {**STATE, "pattern": "2:4", "target_sparsity": 0.5, "distribution": "erk"},
            "lenet5-digits-adamwprune-state_erk_2of4-50-s0",
        ),
    ):
        assert run_name(resolve(RunConfig(**changes))) == expected


def test_budgets_by_the_ranking_score_have_a_name_of_their_own() -> None:
    """A matrix takes runs of one name and two identities for an older and a newer version of one run."""
    configs = [RunConfig(**STATE, score="fisher", distribution=distribution) for distribution in ("layer", "fisher")]
    assert len({run_name(resolve(config)) for config in configs}) == 2


def test_the_commit_is_that_of_our_own_checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And not of a project that has the package installed in a folder of its own."""

    def git(*words: str) -> str:
        who = ["-c", "user.name=x", "-c", "user.email=x@example.org"]
        return subprocess.run(["git", "-C", str(tmp_path), *who, *words], capture_output=True, text=True).stdout.strip()

    file = tmp_path / "package" / "__init__.py"
    file.parent.mkdir()
    file.touch()
    monkeypatch.setattr("adamwprune.__file__", str(file))
    git("init")
    git("commit", "--allow-empty", "--message", "theirs")
    assert identity_module._commit.__wrapped__() is None
    git("add", "package")
    git("commit", "--message", "ours")
    assert identity_module._commit.__wrapped__() == git("rev-parse", "HEAD") != ""


def test_every_scientific_field_and_nothing_else_changes_the_id(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("adamwprune.training.weights.checksum", lambda path: f"content of {path}")
    monkeypatch.setattr("adamwprune.training.identity.origin", lambda path: f"run in {path}")
    config = resolve(RunConfig(**STATE, base="adamwspam"))
    reference = run_id(identity(config, "data"))
    for f in dataclasses.fields(config):
        value = getattr(config, f.name)
        changed = config.replace(**{f.name: not value if isinstance(value, bool) else f"{value}x"})
        if f.name == "device":  # its own entry too, and the kernels that run on it
            assert run_id(identity(config.replace(device="cuda"), "data")) != reference
        else:
            assert (run_id(identity(changed, "data")) != reference) == f.metadata["science"], f.name
    assert {f.name for f in dataclasses.fields(config) if not f.metadata["science"]} == {
        *("data_dir", "checkpoint_every", "activation_checkpointing", "target_accuracy", "target_loss"),
    }


def test_data_and_component_versions_change_the_id(monkeypatch: pytest.MonkeyPatch) -> None:
    config = resolve(RunConfig())
    seen = {run_id(identity(config, "data")), run_id(identity(config, "other data"))}
    components = ("data", "kernels", "models", "optim", "prune")
    for component in components:
        with monkeypatch.context() as patch:
            patch.setattr(f"adamwprune.{component}.VERSION", 10**6)
            seen.add(run_id(identity(config, "data")))
    monkeypatch.setattr(identity_module, "VERSION", 10**6)
    seen.add(run_id(identity(config, "data")))
    assert len(seen) == 3 + len(components)
