# SPDX-License-Identifier: MIT
"""The command line: flags for every field, readable help, and errors that are one line."""

from __future__ import annotations

import errno
import json
import runpy
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from adamwprune import cli
from adamwprune.experiment import commands
from adamwprune.experiment.errors import ExperimentError
from adamwprune.experiment.fields import field_types
from adamwprune.experiment.presets import project_root

ROOT = project_root().resolve()


def call(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    with pytest.raises(SystemExit) as raised:
        cli.main(arguments)
    captured = capsys.readouterr()
    return int(raised.value.code or 0), captured.out, captured.err


@pytest.fixture
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty current folder; Kconfig and presets are found beside the package."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_every_field_is_a_flag_with_help(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    code, out, _ = call(capsys, "train", "--help")
    assert code == 0
    for name, (kind, _) in field_types().items():
        assert f"--{name.replace('_', '-')} " in out
        assert (f"--no-{name.replace('_', '-')} " in out) == (kind is bool)
    assert "What is pruned, and when" in out
    assert "fraction of prunable weights removed" in out
    assert "default lenet5" in out


@pytest.mark.parametrize("command", [[], ["matrix", "run"], ["matrix", "continue"], ["data"], ["config"], ["report"]])
def test_help(capsys: pytest.CaptureFixture[str], command: list[str]) -> None:
    code, out, _ = call(capsys, *command, "--help")
    assert code == 0
    assert "Usage" in out


def value_for(name: str, kind: type) -> tuple[list[str], Any]:
    """Arguments that set a field to something else than its default, and that value."""
    flag = f"--{name.replace('_', '-')}"
    if kind is bool:
        return [f"--no-{name.replace('_', '-')}"], False
    value = {int: 7, float: 0.25, str: "something"}[kind]
    return [flag, str(value)], value


def test_every_flag_reaches_the_config(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    seen: list[dict[str, Any]] = []
    monkeypatch.setattr(commands, "train", lambda network, fields, path, **_: seen.append(fields) or 0)
    words = {name: value_for(name, kind) for name, (kind, _) in field_types().items()}
    call(capsys, "train", *(word for arguments, _ in words.values() for word in arguments))
    assert seen == [{name: value for name, (_, value) in words.items()}]
    call(capsys, "train")
    assert seen[1] == {}, "what is not given is the dataclass's default"


def test_what_is_for_several_ranks_is_refused_on_one(tmp_path: Path) -> None:
    with pytest.raises(ExperimentError, match="--kept-gradients has no effect on one process"):
        commands.train("lenet5", {"data": "digits"}, tmp_path / "folder", kept_gradients=True)
    assert not (tmp_path / "folder").exists()


def test_a_matrix_is_refused_on_several_ranks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    selection = commands.Selection(path=tmp_path / "folder", runs=[], jobs=1, supersede=False)
    with pytest.raises(ExperimentError, match="a matrix takes one process"):
        commands.run_selection(selection, retry_failed=False)
    assert not (tmp_path / "folder").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["trian"], "No such command"),
        (["train", "--optimzer", "adam"], "--optimizer"),
        (["train", "--epochs", "many"], "for '--epochs': 'many' is not a whole number"),
        (["train", "lenet6"], "unknown model 'lenet6'"),
        (["train", "lenet5", "--model", "resnet"], "given twice"),
        (["train", "--optimizer", "adamx"], "expected one of sgd, adam"),
        (["train", "--pruning-method", "state"], "target_sparsity"),
        (["train", "--pruning-method", "state", "--target-sparsity", "70"], "in [0, 1)"),
        (["train", "--optimizer", "sgd", "--pruning-method", "state", "--target-sparsity", "0.7"], "sgd keeps none"),
        (["matrix", "run", "EPOCH=3"], "did you mean EPOCHS?"),
        (["matrix", "run", "--preset", "digit"], "did you mean digits?"),
        (["matrix", "run", "--preset", "digits", "--config", "x"], "exclude each other"),
        (["matrix", "run", "--preset", "lenet5-sgd", "--spam-theta", "5"], "spam_theta=5.0 has no effect"),
        (["matrix", "run", "--arm", "optimizer=adamw", "EPOCHS=3"], "--arm describes the whole matrix"),
        (["matrix", "run", "--config", "missing"], "cannot read the configuration missing"),
        (["matrix", "continue"], "there is no matrix under results/"),
        (["matrix", "continue", "nowhere"], "nowhere is not a results folder of ours"),
        (["matrix", "list", "nowhere"], "nowhere is not a results folder of ours"),
        (["report", "nowhere"], "nowhere"),
        (["data", "fetch", "mnits"], "mnist"),
        (["config", "load", "digit"], "did you mean digits?"),
    ],
)
def test_bad_input_is_one_clear_message_and_nothing_is_written(
    capsys: pytest.CaptureFixture[str], elsewhere: Path, arguments: list[str], message: str
) -> None:
    code, out, err = call(capsys, *arguments)
    assert code == 2
    assert err.startswith("adamwprune: error: ")
    assert message in err
    assert err.count("\n") == 1
    assert "Traceback" not in out + err
    assert list(elsewhere.iterdir()) == []


def test_a_folder_that_is_not_ours_is_refused(capsys: pytest.CaptureFixture[str], elsewhere: Path) -> None:
    photos = elsewhere / "results" / "train"
    photos.mkdir(parents=True)
    (photos / "cat.jpg").write_text("")
    code, _, err = call(capsys, "train", "lenet5", "--data", "digits")
    assert (code, [p.name for p in photos.iterdir()]) == (2, ["cat.jpg"])
    assert "it is not ours" in err


def test_missing_data_without_a_network_names_the_files(
    capsys: pytest.CaptureFixture[str], elsewhere: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import urllib.error

    def offline(*_: object, **__: object) -> None:
        raise urllib.error.URLError("no network")

    monkeypatch.setattr("urllib.request.urlopen", offline)
    code, _, err = call(capsys, "matrix", "run", "--preset", "lenet5-sgd")
    assert code == 2
    assert "train-images-idx3-ubyte.gz" in err
    assert "sha256" in err
    assert not (elsewhere / "results").exists()
    assert not any(path.is_file() for path in elsewhere.rglob("*"))


def test_listing_what_a_preset_would_run(capsys: pytest.CaptureFixture[str], elsewhere: Path) -> None:
    code, out, _ = call(capsys, "matrix", "run", "--dry-run", "SEEDS=1", "--epochs", "3")
    assert code == 0
    assert "14 runs in results/digits-epochs-3" in out
    assert out.count("waiting") == 14
    code, out, _ = call(capsys, "matrix", "run", "--dry-run", "--arm", "optimizer=sgd seed=0,1", "--name", "mine")
    assert "2 runs in results/mine" in out
    assert list(elsewhere.iterdir()) == []


def test_presets_and_config(capsys: pytest.CaptureFixture[str], elsewhere: Path) -> None:
    _, out, _ = call(capsys, "config", "list")
    assert [line.split()[0] for line in out.splitlines()] == sorted(p.name for p in (ROOT / "defconfigs").iterdir())
    code, out, _ = call(capsys, "config", "load", "lenet5-sgd", "EPOCHS=2", "SEEDS=1")
    assert (code, "1 runs" in out) == (0, True)
    assert 'CONFIG_EPOCHS="2"' in Path(".config").read_text()
    _, out, _ = call(capsys, "config", "check")
    assert "lenet5-sgd, 1 runs of lenet5" in out
    _, out, _ = call(capsys, "matrix", "run", "--dry-run")
    assert "1 runs in results/lenet5-sgd-epochs-2" in out
    call(capsys, "config", "save", "mine")
    assert 'CONFIG_EPOCHS="2"' in Path("mine").read_text()
    assert "CONFIG_BETA1" not in Path("mine").read_text()


def test_data_commands(capsys: pytest.CaptureFixture[str], elsewhere: Path) -> None:
    code, out, _ = call(capsys, "data", "list")
    assert code == 0
    assert "built in" in out
    assert "missing or corrupt: 4 of 4 files" in out
    code, out, _ = call(capsys, "data", "verify", "mnist")
    assert code == 1
    assert out.count("missing") == 4
    assert call(capsys, "data", "verify", "digits")[0] == 0
    assert "digits is complete" in call(capsys, "data", "fetch", "digits")[1]


def test_preparing_a_text(capsys: pytest.CaptureFixture[str], elsewhere: Path) -> None:
    notes = elsewhere / "notes"
    notes.mkdir()
    (notes / "a.txt").write_text("some words\n" * 50)
    told = {line.split()[0]: line for line in call(capsys, "data", "list")[1].splitlines()}
    assert told["text"].endswith("(not prepared)")
    assert told["imagenet"].endswith("(not here)")
    code, _, error = call(capsys, "data", "fetch", "text")
    assert code == 2
    assert "Run `adamwprune data prepare text`" in error
    code, out, _ = call(capsys, "data", "prepare", "text", "notes", "--tokenizer", "bytes", "--test-share", "0.1")
    assert code == 0
    assert "text is prepared in data/text: 496 tokens and 55 for tests" in out
    assert call(capsys, "data", "verify", "text")[0] == 0
    content = bytearray(Path("data/text/train.bin").read_bytes())
    content[0] ^= 1
    Path("data/text/train.bin").write_bytes(content)
    code, out, _ = call(capsys, "data", "verify", "text")
    assert code == 1
    assert "train.bin is corrupt" in out
    code, _, error = call(capsys, "data", "verify", "mnist", "--accept")
    assert code == 2
    assert "canonical form only" in error


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["bins", "--tokenizer", "nonsense"], "--tokenizer nonsense has no effect on a folder with train.bin"),
        (["bins", "--max-tokens", "10"], "--max-tokens 10 has no effect on a folder with train.bin"),
        (["bins", "--test-share", "7"], "--test-share 7.0 has no effect on a folder with train.bin"),
        (["notes", "--vocabulary", "3", "--tokenizer", "bytes"], "--vocabulary 3 has no effect on text"),
    ],
)
def test_preparing_refuses_what_does_not_apply_to_the_source(
    capsys: pytest.CaptureFixture[str], elsewhere: Path, options: list[str], message: str
) -> None:
    for folder, files in (("bins", ("train.bin", "val.bin")), ("notes", ("a.txt",))):
        (elsewhere / folder).mkdir()
        for name in files:
            (elsewhere / folder / name).write_text("words and words " * 50)
    code, _, err = call(capsys, "data", "prepare", "text", *options)
    assert code == 2
    assert err.startswith(f"adamwprune: error: {message}")
    assert not (elsewhere / "data").exists()


def test_bin_files_are_taken_with_their_vocabulary(capsys: pytest.CaptureFixture[str], elsewhere: Path) -> None:
    (elsewhere / "bins").mkdir()
    for name in ("train.bin", "val.bin"):
        (elsewhere / "bins" / name).write_bytes(bytes([1, 0, 4, 0]))
    code, _, err = call(capsys, "data", "prepare", "text", "bins", "--vocabulary", "4")
    assert (code, "beyond its vocabulary of 4" in err) == (2, True)
    assert call(capsys, "data", "prepare", "text", "bins", "--vocabulary", "5")[0] == 0


@pytest.mark.parametrize(
    "arguments",
    [
        ["train", "lenet5", "--data", "digits", "--results-dir", "taken"],
        ["data", "prepare", "text", "notes", "--tokenizer", "bytes", "--data-dir", "taken"],
    ],
)
def test_a_file_where_a_folder_is_needed_is_said(
    capsys: pytest.CaptureFixture[str], elsewhere: Path, arguments: list[str]
) -> None:
    (elsewhere / "taken").write_text("")
    (elsewhere / "notes").mkdir()
    (elsewhere / "notes" / "a.txt").write_text("words and words " * 50)
    code, _, err = call(capsys, *arguments)
    assert code == 2
    assert err == (
        "adamwprune: error: taken is a file where a folder is needed: move it away, or choose another folder\n"
    )


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (
            PermissionError(errno.EACCES, "Permission denied", "a.txt"),
            "a.txt: Permission denied; change its permissions",
        ),
        (OSError(errno.ENOSPC, "No space left on device", "x.pt"), "x.pt: No space left on device; free some space"),
        (OSError(errno.ENAMETOOLONG, "File name too long", "xx"), "xx: File name too long; choose another path"),
        (OSError("no name"), "no name"),
    ],
)
def test_what_the_system_refuses_is_one_line(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, error: OSError, message: str
) -> None:
    def fail(data_dir: Path) -> None:
        raise error

    monkeypatch.setattr(commands, "doctor", fail)
    code, _, err = call(capsys, "doctor")
    assert (code, err.count("\n")) == (2, 1)
    assert err.startswith(f"adamwprune: error: {message}")


def test_the_command_line_does_not_import_torch() -> None:
    code = "import sys, adamwprune.cli; print(json.dumps(['torch' in sys.modules, 'matplotlib' in sys.modules]))"
    out = subprocess.run([sys.executable, "-c", f"import json; {code}"], capture_output=True, text=True, check=True)
    assert json.loads(out.stdout) == [False, False]


@pytest.mark.parametrize("model", ["lenet5", "resnet18", "resnet50", "gpt2"])
def test_train_script_forwards(
    elsewhere: Path, model: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    script = str(ROOT / model / "train.py")
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.setattr(sys, "argv", [script, "--model", "other"])
    with pytest.raises(SystemExit) as left:
        runpy.run_path(script, run_name="__main__")
    assert left.value.code == 2
    assert f"the network is given twice: {model} and --model other" in capsys.readouterr().err


def test_train_script_says_what_to_do_without_the_package(tmp_path: Path) -> None:
    script = tmp_path / "lenet5" / "train.py"
    for name in ("lenet5/train.py", "scripts/forward.py"):
        (tmp_path / name).parent.mkdir()
        (tmp_path / name).write_text((ROOT / name).read_text())
    done = subprocess.run([sys.executable, "-S", "-E", str(script)], capture_output=True, text=True)
    assert done.returncode == 1
    assert "run `make environment`" in done.stderr
