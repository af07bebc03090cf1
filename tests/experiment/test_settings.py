# SPDX-License-Identifier: MIT
"""Every symbol acts, every preset line takes effect, and whatever would be dropped is an error with file and line."""

from __future__ import annotations

import dataclasses
import re
import shutil
from pathlib import Path
from typing import Any

import kconfiglib
import pytest

from adamwprune.experiment import settings
from adamwprune.experiment.errors import ExperimentError
from adamwprune.experiment.fields import AXES, RANKS, common_fields
from adamwprune.experiment.kconfig import Kconfig
from adamwprune.experiment.presets import presets, project_root
from adamwprune.experiment.settings import Settings
from adamwprune.training.config import OPTIMIZERS, RunConfig

ROOT = project_root()
PRESETS = [item.name for item in presets(ROOT)]
TREE = kconfiglib.Kconfig(str(ROOT / "Kconfig"), warn_to_stderr=False)
PROMPTED = sorted(s.name for s in TREE.unique_defined_syms if any(node.prompt for node in s.nodes))

FULL = [f"OPTIMIZER_{name.upper()}=y" for name in OPTIMIZERS] + ["ADAMW_STATE=y"]
"""With these every symbol is visible."""

TEXTS = {
    "EXPERIMENT": "other",
    "WIDTH": "0.5",
    "DATA_DIR": "elsewhere",
    "INIT": "weights.pt",
    "RESULTS_DIR": "elsewhere",
    "SPARSITIES": "0.8",
    "SMALL_WIDTHS": "0.5",
    "STATE_SCORES": "fisher hybrid",
    "MAGNITUDE_SCORES": "lamp",
    "DISTRIBUTIONS": "global erk",
    "PATTERN": "2:4",
}
"""Values for the symbols that are neither a number nor a bool; every other text symbol is given the number 1."""


def load(*overrides: str) -> Settings:
    return settings.load(ROOT, None, overrides)


def effect(value: Settings) -> Any:
    """All that a configuration can change: the runs, and how and where they run."""
    return value.runs(), value.jobs, value.results_dir, value.experiment


@pytest.mark.parametrize("name", PROMPTED)
def test_every_symbol_changes_something(name: str) -> None:
    symbol = TREE.syms[name]
    before = [*FULL, "ADAMWPRUNE_BASE_ADAM=y"] if name.startswith("ADAMWPRUNE_BASE") else FULL
    if symbol.choice:
        group = symbol.choice.name
        others = [member for member in symbol.choice.syms if member is not symbol]
        if not others:
            assert load(*before).common.model == "lenet5"
            return
        a = [*before, f"{group}={_value(group, name)}"]
        b = [*before, f"{group}={_value(group, others[0].name)}"]
    elif symbol.orig_type == kconfiglib.BOOL:
        # An optimizer keeps another method when this one is switched off.
        optimizer, _, method = name.rpartition("_")
        keep = [f"{optimizer}_MOVEMENT=y"] if method in ("NONE", "STATE") else []
        a, b = [*before, *keep, f"{name}=y"], [*before, *keep, f"{name}=n"]
    else:
        a, b = before, [*before, f"{name}={TEXTS.get(name, '7' if symbol.orig_type == kconfiglib.INT else '1')}"]
    assert effect(load(*a)) != effect(load(*b))


def _value(group: str, member: str) -> str:
    return member.removeprefix(f"{group}_").lower().replace("_", "-")


def test_every_field_of_a_run_can_be_configured() -> None:
    kconfig = Kconfig(ROOT)
    assert not [name for name in common_fields() if not kconfig.has(name.upper())]
    assert {*common_fields(), *AXES, *RANKS} == {field.name for field in dataclasses.fields(RunConfig)}


def test_hidden_symbols_are_used_by_others() -> None:
    text = "".join(path.read_text() for path in (ROOT / "kconfig").iterdir())
    for symbol in TREE.unique_defined_syms:
        if symbol.name not in PROMPTED:
            assert re.search(rf"(depends on .*|default y if .*){symbol.name}\b", text), symbol.name
            assert symbol.nodes[0].help, "the help text says in errors what is missing"


def test_choices_offer_what_the_program_has() -> None:
    from adamwprune.data import DATASETS
    from adamwprune.models import MODELS
    from adamwprune.prune import SCHEDULES
    from adamwprune.training.device import PRECISIONS
    from adamwprune.training.schedule import LR_SCHEDULES

    for group, names in (
        ("MODEL", MODELS),
        ("DATA", DATASETS),
        ("SCHEDULE", SCHEDULES),
        ("LR_SCHEDULE", LR_SCHEDULES),
        ("PRECISION", PRECISIONS),
    ):
        members = {_value(group, member.name) for member in TREE.named_choices[group].syms} - {"recipe"}
        assert members == set(names), group


@pytest.mark.parametrize("name", PRESETS)
def test_every_preset_line_takes_effect(name: str) -> None:
    path = ROOT / "defconfigs" / name
    loaded = settings.load(ROOT, path)
    assert loaded.experiment == name
    tree = kconfiglib.Kconfig(str(ROOT / "Kconfig"), warn_to_stderr=False)
    tree.warn_assign_undef = True
    tree.load_config(str(path))
    assert not tree.warnings
    lines = path.read_text().splitlines()
    assert lines[0].startswith("# "), "the first line says what the preset is for"
    for line in lines[1:]:
        symbol, value = re.fullmatch(r"CONFIG_(\w+)=(.*)|# CONFIG_(\w+) is not set", line).group(1, 2)  # type: ignore[union-attr]
        if symbol:
            assert tree.syms[symbol].str_value == value.strip('"'), line


@pytest.mark.parametrize("name", PRESETS)
def test_every_run_of_a_preset_can_be_resolved(name: str) -> None:
    from adamwprune.training.resolve import resolve

    resolved = [resolve(run) for run in settings.load(ROOT, ROOT / "defconfigs" / name).runs()]
    assert len(set(map(repr, resolved))) == len(resolved)


def test_sizes_of_the_presets() -> None:
    sizes = {name: len(settings.load(ROOT, ROOT / "defconfigs" / name).runs()) for name in PRESETS}
    # lenet5: SGD 7, four of the Adam family 10 each, AdamWPrune 4 on each of four bases; times three seeds.
    assert sizes == {
        "digits": 42,
        "lenet5": 3 * (7 + 4 * 10 + 4 * 4),
        "lenet5-compare": 3 * (5 * 7 + 4),
        "lenet5-adamwprune": 3 * (4 + 1 + 2 * 3),
        "lenet5-sgd": 3,
        # A dense row, and magnitude and state at three sparsities; times three seeds.
        **dict.fromkeys(("resnet20", "gpt2-tiny", "gpt2-shakespeare"), 3 * (1 + 2 * 3)),
        **dict.fromkeys(("resnet18", "resnet50"), 3 * (2 + 2 * 3)),
        # Small dense networks beside a dense row, magnitude and state; movement in those that are not MNIST's.
        "mnist-sparse": 3 * (1 + 2 + 2 * 2),
        **dict.fromkeys(("shakespeare-short", "wikipedia-short", "cifar10-short"), 3 * (1 + 3 + 3 * 3)),
        "resnet18-subset": 3 * (1 + 1 + 3 * 3),
        "resnet50-original": 3 * (1 + 2 * 3),
        "gpt2": 3,
        "gpt2-original": 3,
        "gpt2-original-bitter2": 1,
    }


def test_the_defaults_are_the_default_preset() -> None:
    assert load() == settings.load(ROOT, ROOT / "defconfigs" / "digits")


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("CONFIG_EPOCS=3", "there is no CONFIG_EPOCS; did you mean EPOCHS?"),
        ("# CONFIG_NO_SUCH is not set", "there is no CONFIG_NO_SUCH"),
        ("CONFIG_SEEDS=three", "not 'three'; its type is int"),
        ("CONFIG_SEEDS=3  # as in the paper", "not '3  # as in the paper'; its type is int"),
        ("CONFIG_SEEDS=0", "expected a whole number from 1 on"),
        ("CONFIG_EPOCHS=3", 'CONFIG_EPOCHS is text: write CONFIG_EPOCHS="3"'),
        ('CONFIG_EPOCHS="many"', "CONFIG_EPOCHS: 'many' is not a whole number"),
        ('CONFIG_SPARSITIES="50 70"', "'50' is not a sparsity in [0, 1): write 70 % as 0.7"),
        ('CONFIG_SPARSITIES="half"', "'half' is not a sparsity in [0, 1)"),
        ('CONFIG_SMALL_WIDTHS="0.5 2"', "CONFIG_SMALL_WIDTHS: '2' is not a width in (0, 1): half as wide is 0.5"),
        ("CONFIG_ADAM_STATE=y", "has no effect: it needs CONFIG_OPTIMIZER_ADAM"),
        ("CONFIG_SGD_STATE=y", "there is no CONFIG_SGD_STATE"),
        ("CONFIG_OPTIMIZER_SGD=m", "expected y or n"),
        ('CONFIG_MOMENTUM="0.8"', "has no effect: it needs CONFIG_OPTIMIZER_SGD"),
        ("EPOCHS=3", "is not CONFIG_NAME=value, nor a comment"),
        ("CONFIG_FIRST_SEED=0", "was already set in line 1"),
        ("CONFIG_DATA_MNIST=y\nCONFIG_DATA_DIGITS=y", "has no effect: the choice is DATA_DIGITS"),
        ('CONFIG_EXPERIMENT="../x"', "names a folder"),
    ],
)
def test_a_line_that_would_not_act_is_an_error_with_its_place(tmp_path: Path, line: str, message: str) -> None:
    path = tmp_path / "some.config"
    path.write_text(f"CONFIG_FIRST_SEED=0\n\n# a comment\n{line}\n")
    with pytest.raises(ExperimentError) as raised:
        settings.load(ROOT, path)
    text = str(raised.value)
    assert f"{path}:4: " in text
    assert message in text


def test_arms_are_checked_with_their_place(tmp_path: Path) -> None:
    path = tmp_path / "c"
    path.write_text("CONFIG_OPTIMIZER_ADAM=y\n# CONFIG_ADAM_NONE is not set\n")
    with pytest.raises(ExperimentError, match=re.escape(f"{path}:1: CONFIG_OPTIMIZER_ADAM=y without a method")):
        settings.load(ROOT, path)
    path.write_text("# CONFIG_ADAMWPRUNE_BASE_ADAMW is not set\n# CONFIG_ADAMWPRUNE_BASE_ADAMWSPAM is not set\n")
    with pytest.raises(ExperimentError, match="set a base"):
        settings.load(ROOT, path)
    path.write_text("".join(f"# CONFIG_OPTIMIZER_{name} is not set\n" for name in ("ADAMW", "ADAMWSPAM", "ADAMWPRUNE")))
    with pytest.raises(ExperimentError, match="no optimizer is chosen"):
        settings.load(ROOT, path)
    with pytest.raises(ExperimentError, match="arms that prune need CONFIG_SPARSITIES"):
        load("SPARSITIES=")
    with pytest.raises(ExperimentError, match="CONFIG_SMALL_WIDTHS has no effect: no optimizer trains dense"):
        load("SMALL_WIDTHS=0.5", "ADAMW_NONE=n", "OPTIMIZER_ADAMWSPAM=n")
    with pytest.raises(ExperimentError, match="cannot read the configuration"):
        settings.load(ROOT, tmp_path / "missing")


def test_a_symbol_that_no_code_reads_is_an_error(tmp_path: Path) -> None:
    shutil.copy(ROOT / "Kconfig", tmp_path)
    shutil.copytree(ROOT / "kconfig", tmp_path / "kconfig")
    settings.load(tmp_path)
    with (tmp_path / "kconfig" / "runner").open("a") as file:
        file.write('config UNREAD\n\tbool "Does nothing"\n')
    with pytest.raises(ExperimentError, match=r"kconfig/runner:\d+: no code reads CONFIG_UNREAD"):
        settings.load(tmp_path)


@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("EPOCH=3", "EPOCH=3: there is no CONFIG_EPOCH; did you mean EPOCHS?"),
        ("EPOCHS=x", "EPOCHS=x: CONFIG_EPOCHS: 'x' is not a whole number"),
        ("SEEDS=x", "SEEDS=x has no effect"),
        ("LR_SCHEDULE=cosin", "expected one of recipe constant cosine linear"),
        ("BETA1=0.8", "it needs an optimizer of the Adam family"),
        ("AMSGRAD=on", "it needs an optimizer of the Adam family"),
        ("SPARSITIES=0.5", "it needs an optimizer that prunes"),
        ("SPAM_THETA=50", "it needs AdamWSPAM, or AdamWPrune on its SPAM base"),
        ("nonsense", "is not NAME=VALUE"),
    ],
)
def test_an_override_acts_or_is_an_error(word: str, message: str) -> None:
    with pytest.raises(ExperimentError, match=re.escape(message)):
        settings.load(ROOT, ROOT / "defconfigs" / "lenet5-sgd", [word])


def test_overrides_act() -> None:
    changed = load("EPOCHS=3", "LR_SCHEDULE=linear", "SPARSITIES=0.5 0.95", "CONFIG_SEEDS=2", "AUGMENT=off", "JOBS=4")
    assert (changed.common.epochs, changed.common.lr_schedule, changed.common.augment) == (3, "linear", False)
    assert changed.sparsities == (0.5, 0.95)
    assert changed.seeds == (10, 11)
    assert changed.jobs == 4
    assert load("DETERMINISTIC=n").common.deterministic is False


def test_saving_and_loading_gives_the_same_matrix(tmp_path: Path) -> None:
    kconfig = Kconfig(ROOT)
    kconfig.load(ROOT / "defconfigs" / "lenet5-compare")
    kconfig.override(["EPOCHS=3", "DATA=digits"])
    kconfig.write(tmp_path / "full")
    kconfig.write(tmp_path / "minimal", minimal=True)
    full, minimal = settings.load(ROOT, tmp_path / "full"), settings.load(ROOT, tmp_path / "minimal")
    assert full == minimal
    assert full.common.epochs == 3
    assert len((tmp_path / "minimal").read_text().splitlines()) < 20
