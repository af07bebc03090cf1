# SPDX-License-Identifier: MIT
"""The Makefile: variables act or are refused, and the bootstrap chooses the right torch. Nothing is installed here."""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from adamwprune.experiment.presets import project_root

ROOT = project_root().resolve()
needs_make = pytest.mark.skipif(shutil.which("make") is None, reason="make is not installed")


# What `make test` hands down would change what these calls do.
CLEAN = {name: value for name, value in os.environ.items() if name not in ("MAKEFLAGS", "MFLAGS", "MAKEOVERRIDES")}


def make(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["make", "-n", *arguments], cwd=ROOT, env=CLEAN, capture_output=True, text=True)


@needs_make
@pytest.mark.parametrize(
    ("arguments", "command"),
    [
        ([], "matrix run"),
        (["EPOCHS=3", "SPARSITIES=0.5 0.7"], r"SPARSITIES=0.5\ 0.7"),
        (["TORCH=cpu"], '--torch "cpu"'),
        (["RETRY_FAILED=1"], "matrix run --retry-failed"),
        (["plan", "SEEDS=1"], "matrix run --dry-run SEEDS=1"),
        (["continue", "JOBS=2", "RESULTS=results/x"], 'matrix continue "results/x"'),
        (["continue", "JOBS=2"], '--jobs "2"'),
        (["report", "RESULTS=results/x"], 'report "results/x"'),
        (["defconfig-lenet5", "EPOCHS=3"], 'config load "lenet5" EPOCHS=3'),
        (["defconfig", "DEFCONFIG=lenet5"], 'config load "lenet5"'),
        (["savedefconfig", "DEFCONFIG=mine"], 'config save "defconfigs/mine"'),
        (["list-defconfigs"], "config list"),
        (["menuconfig"], "menuconfig Kconfig"),
        (["test", "TESTS=tests/optim"], "pytest tests/optim"),
        (["check"], "mypy"),
    ],
)
def test_targets(arguments: list[str], command: str) -> None:
    done = make(*arguments)
    assert done.returncode == 0, done.stderr
    assert command in " ".join(done.stdout.split())


@needs_make
@pytest.mark.parametrize(
    ("arguments", "name"),
    [
        (["RESULTS=x"], "RESULTS"),
        (["TESTS=x", "EPOCHS=3"], "TESTS"),
        (["test", "EPOCHS=3"], "EPOCHS"),
        (["continue", "EPOCHS=3"], "EPOCHS"),
        (["continue", "SPARSITIES=0.5 0.7"], "SPARSITIES"),
        (["report", "JOBS=3"], "JOBS"),
        (["plan", "RETRY_FAILED=1"], "RETRY_FAILED"),
        (["clean", "SEEDS=1"], "SEEDS"),
        (["defconfig-lenet5", "DEFCONFIG=x"], "DEFCONFIG"),
    ],
)
def test_a_variable_that_would_not_act_is_refused(arguments: list[str], name: str) -> None:
    done = make(*arguments)
    assert done.returncode == 2
    assert f"{name} would have no effect" in done.stderr


@needs_make
def test_help_names_every_target() -> None:
    out = subprocess.run(["make", "help"], cwd=ROOT, env=CLEAN, capture_output=True, text=True, check=True).stdout
    for line in (ROOT / "Makefile").read_text().splitlines():
        if line.startswith(".PHONY") or (
            not line.startswith("\t") and ":" in line and "=" not in line and line[0] != "#"
        ):
            for target in line.partition(":")[0].split():
                if target.isidentifier() and target not in ("all", "help"):
                    assert f"make {target}" in out, target


@needs_make
def test_clean_keeps_results_data_and_configuration() -> None:
    for target in ("clean", "distclean"):
        assert not {"results", "data", "defconfigs"} & set(make(target).stdout.replace("/", " ").split())
    assert ".config" not in make("clean").stdout


@pytest.fixture(scope="module")
def bootstrap() -> ModuleType:
    spec = importlib.util.spec_from_file_location("bootstrap", ROOT / "scripts" / "bootstrap.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


class FakePip:
    """Stands for an environment: which requirements can be had, and what is installed."""

    python = Path("python")

    def __init__(self, module: ModuleType, monkeypatch: pytest.MonkeyPatch, *, offers: tuple[str, ...]) -> None:
        self.offers = offers
        self.installed: dict[str, str] | None = None
        self.calls: list[tuple[str, ...]] = []
        monkeypatch.setattr(module, "probe", lambda python: self.installed)
        monkeypatch.setattr(module, "link_outer_torch", lambda python: None)
        monkeypatch.setattr(module.platform, "system", lambda: "Linux")

    def can_have(self, *arguments: str) -> bool:
        index = next((a.rsplit("/", 1)[-1] for a in arguments if a.startswith("https://")), "local")
        return f"{index} {arguments[-1]}" in self.offers

    def install(self, *arguments: str) -> None:
        self.calls.append(arguments)
        version = arguments[-1].rpartition("=")[2]
        local = version.partition("+")[2] or "cu"
        build = "cpu" if local == "cpu" else "rocm" if local.startswith("rocm") else "cuda"
        self.installed = {"version": version, "build": build, "site": "/venv/site-packages/torch"}


CPU, CUDA, ROCM = "torch==2.13.0+cpu", "torch==2.13.0+cu130", "torch==2.13.0+rocm7.2"


@pytest.mark.parametrize(
    ("wanted", "machine", "offers", "installs"),
    [
        ("auto", "cpu", (f"local {CPU}", f"cpu {CPU}"), CPU),
        ("auto", "cpu", (f"cpu {CPU}",), CPU),
        ("auto", "cpu", (), "torch===2.13.0"),
        ("cpu", "cuda", (f"cpu {CPU}",), CPU),
        ("auto", "cuda", (f"cu130 {CUDA}",), CUDA),
        ("cuda", "cpu", (), "torch===2.13.0"),
        ("auto", "rocm", (f"rocm7.2 {ROCM}",), ROCM),
        ("torch==2.12.1", "cpu", (), "torch==2.12.1"),
    ],
)
def test_bootstrap_installs_the_build_that_fits(
    bootstrap: ModuleType, monkeypatch: pytest.MonkeyPatch, wanted: str, machine: str, offers: Any, installs: str
) -> None:
    pip = FakePip(bootstrap, monkeypatch, offers=offers)
    monkeypatch.setattr(bootstrap, "detect", lambda: machine)
    bootstrap.provide_torch(pip, wanted)
    assert [call[-1] for call in pip.calls] == [installs]
    local = f"local {installs}" in offers or installs.startswith("torch===") or wanted.startswith("torch")
    assert ("--extra-index-url" in pip.calls[0]) == (not local)


def test_bootstrap_keeps_a_torch_that_is_there(bootstrap: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    pip = FakePip(bootstrap, monkeypatch, offers=(f"local {CPU}",))
    with pytest.raises(bootstrap.BootstrapError, match="TORCH=keep"):
        bootstrap.provide_torch(pip, "keep")
    pip.installed = {"version": "2.11.1", "build": "cuda", "site": "/outer/torch"}
    for wanted in ("auto", "keep", "cuda"):
        assert bootstrap.provide_torch(pip, wanted) == pip.installed
    assert pip.calls == []
    assert bootstrap.provide_torch(pip, "cpu")["build"] == "cpu"
    pip.installed = {"version": "2.15.0", "build": "cpu", "site": "/outer/torch"}
    monkeypatch.setattr(bootstrap, "detect", lambda: "cpu")
    assert bootstrap.provide_torch(pip, "auto")["version"] == "2.13.0+cpu"


def test_bootstrap_refuses_what_was_not_asked_for(bootstrap: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    pip = FakePip(bootstrap, monkeypatch, offers=())
    for wanted in ("cpu", "rocm"):
        with pytest.raises(bootstrap.BootstrapError, match="can be had"):
            bootstrap.provide_torch(pip, wanted)
    with pytest.raises(bootstrap.BootstrapError, match="this project needs"):
        bootstrap.provide_torch(pip, "torch==2.9.0")


def test_bootstrap_does_nothing_twice(bootstrap: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    done: list[str] = []
    monkeypatch.setattr(bootstrap, "create", lambda venv: venv.mkdir(exist_ok=True))
    monkeypatch.setattr(
        bootstrap, "provide_torch", lambda *_: done.append("torch") or {"version": "2.12.0+cu130", "build": "cuda"}
    )
    monkeypatch.setattr(bootstrap.Pip, "install", lambda self, *arguments: done.append(arguments[-1]))
    monkeypatch.setattr(bootstrap, "compile_all", lambda python: None)
    for wanted in ("auto", "auto", "cuda"):
        bootstrap.environment(tmp_path / "venv", wanted)
    assert done == ["torch", f"{ROOT}[dev]"] * 2
    assert "torch==2.12.0+cu130\n" in (tmp_path / "venv" / "adamwprune-constraints.txt").read_text()


def test_an_old_python_is_refused(bootstrap: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(sys, "version_info", (3, 9, 2))
    with pytest.raises(bootstrap.BootstrapError, match=r"Python 3\.9\.2 is too old.*PYTHON="):
        bootstrap.environment(tmp_path, "auto")


def test_constraints_pin_what_the_project_asks_for() -> None:
    import tomllib

    lines = (ROOT / "constraints.txt").read_text().splitlines()
    pins = dict(line.split("==") for line in lines if "==" in line)
    pinned = {name.lower().replace("_", "-") for name in pins}
    assert pins["torch"] == "2.13.0"
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    for requirement in project["dependencies"] + extras["digits"] + extras["test"] + extras["lint"]:
        name = requirement.replace(">", "=").replace("<", "=").partition("=")[0].lower().replace("_", "-")
        assert name in pinned, name
