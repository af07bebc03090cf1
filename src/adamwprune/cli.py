# SPDX-License-Identifier: MIT
"""The command line. Commands import what they need when they run: ``--help`` must not wait for torch."""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Optional

import typer

from adamwprune.experiment import commands
from adamwprune.experiment.options import all_fields, matrix_fields, with_fields

app = typer.Typer(
    name="adamwprune",
    help="Prunes neural networks while they train, steered by the optimizer's own state.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
matrix = typer.Typer(help="Runs a matrix of runs and compares them.", no_args_is_help=True)
data = typer.Typer(help="Looks after the data sets.", no_args_is_help=True)
config = typer.Typer(help="Presets and the .config file, as `make` uses them.", no_args_is_help=True)
app.add_typer(matrix, name="matrix")
app.add_typer(data, name="data")
app.add_typer(config, name="config")

Jobs = Annotated[Optional[int], typer.Option(min=1, help="Runs at a time.", show_default="as many as fit")]  # noqa: UP045
ResultsDir = Annotated[Path, typer.Option(help="Folder for results.")]
RetryFailed = Annotated[bool, typer.Option("--retry-failed", help="Try failed runs again.")]
DataDir = Annotated[Path, typer.Option(help="Folder that holds the data sets.")]
DataName = Annotated[str, typer.Argument(metavar="NAME", help="A data set; `adamwprune data list` shows them.")]
Assignments = Annotated[
    Optional[list[str]],  # noqa: UP045
    typer.Argument(metavar="[NAME=VALUE]...", help="Changes to the configuration, as EPOCHS=3.", show_default=False),
]
ConfigFile = Annotated[Path, typer.Option("--config", help="The .config file.")]


@app.command()
@with_fields(all_fields(), defaults=True)
def train(
    fields: dict[str, Any],
    network: Annotated[
        Optional[str],  # noqa: UP045
        typer.Argument(metavar="[MODEL]", help="Network to train; the same as --model.", show_default=False),
    ] = None,
    results_dir: ResultsDir = Path("results"),
    name: Annotated[str, typer.Option(help="Folder under the results that this run is added to.")] = "train",
    kept_gradients: Annotated[
        bool, typer.Option("--kept-gradients", help="Under torchrun, exchange the gradients of kept weights only.")
    ] = False,
    retry_failed: RetryFailed = False,
) -> None:
    """Train one network; a setting that shows no default is the recipe's.

    For example: adamwprune train lenet5 --optimizer adamwprune --pruning-method state --target-sparsity 0.7
    """
    code = commands.train(network, fields, results_dir / name, kept_gradients=kept_gradients, retry_failed=retry_failed)
    raise typer.Exit(code)


@matrix.command("run")
@with_fields(matrix_fields(), defaults=False)
def matrix_run(
    fields: dict[str, Any],
    assignments: Assignments = None,
    preset: Annotated[Optional[str], typer.Option(help="A preset instead of the .config.")] = None,  # noqa: UP045
    config_file: Annotated[
        Optional[Path],  # noqa: UP045
        typer.Option("--config", help="A .config file.", show_default=".config; without one, the preset digits"),
    ] = None,
    arm: Annotated[
        Optional[list[str]],  # noqa: UP045
        typer.Option(
            help='Runs described here, without Kconfig: "optimizer=adamw pruning-method=magnitude,movement '
            'target-sparsity=0.5,0.9 seed=0,1,2". May be repeated; several values of a field are combined.',
            show_default=False,
        ),
    ] = None,
    name: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option(help="Folder under the results.", show_default="the experiment's name"),
    ] = None,
    results_dir: Annotated[
        Optional[Path],  # noqa: UP045
        typer.Option(help="Folder for results.", show_default="from the configuration"),
    ] = None,
    jobs: Jobs = None,
    retry_failed: RetryFailed = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only list the runs.")] = False,
) -> None:
    """Run what is missing of a matrix, then print its table and write plots and a page."""
    request = commands.Request(
        assignments=assignments or [], preset=preset, config=config_file, arms=arm or [], fields=fields
    )
    selection = commands.select(request, name=name, results_dir=results_dir, jobs=jobs)
    raise typer.Exit(commands.list_selection(selection) if dry_run else commands.run_selection(selection, retry_failed))


@matrix.command("continue")
def matrix_continue(
    directory: Annotated[
        Optional[Path],  # noqa: UP045
        typer.Argument(metavar="[DIR]", help="A matrix's folder.", show_default="the latest"),
    ] = None,
    results_dir: ResultsDir = Path("results"),
    jobs: Jobs = None,
    data_dir: Annotated[
        Optional[Path],  # noqa: UP045
        typer.Option(help="Folder that holds the data sets.", show_default="as stored"),
    ] = None,
    retry_failed: RetryFailed = False,
) -> None:
    """Go on with a stored matrix from its checkpoints; the present .config plays no part."""
    from adamwprune.experiment.session import continue_matrix

    changes = {} if data_dir is None else {"data_dir": str(data_dir)}
    code = continue_matrix(
        directory, results_dir=results_dir, changes=changes, jobs=jobs or 0, retry_failed=retry_failed
    )
    raise typer.Exit(code)


@matrix.command("list")
def matrix_list(
    directory: Annotated[
        Optional[Path],  # noqa: UP045
        typer.Argument(metavar="[DIR]", help="A matrix's folder.", show_default="all of them"),
    ] = None,
    results_dir: ResultsDir = Path("results"),
) -> None:
    """Show the matrices, or one matrix's runs and what became of each."""
    commands.list_matrices(directory, results_dir)


@app.command()
def report(
    directory: Annotated[
        Optional[Path],  # noqa: UP045
        typer.Argument(metavar="[DIR]", help="A matrix's folder.", show_default="the latest"),
    ] = None,
    results_dir: ResultsDir = Path("results"),
) -> None:
    """Write tables, plots and the page of a matrix again, and print the table."""
    commands.report(directory, results_dir)


@app.command()
def doctor(data_dir: DataDir = Path("data")) -> None:
    """Show versions, devices, the kernels in use, and which data are there."""
    commands.doctor(data_dir)


@data.command("list")
def data_list(data_dir: DataDir = Path("data")) -> None:
    """Show the data sets and whether their files are there."""
    commands.list_data(data_dir)


@data.command("fetch")
def data_fetch(name: DataName, data_dir: DataDir = Path("data")) -> None:
    """Download what is missing of a data set and verify it."""
    commands.fetch_data(name, data_dir)


@data.command("prepare")
def data_prepare(
    name: Annotated[str, typer.Argument(metavar="NAME", help="text, openwebtext or fineweb-edu.")],
    sources: Annotated[
        Optional[list[Path]],  # noqa: UP045
        typer.Argument(
            metavar="[SOURCE]...",
            help="Text files, Parquet files or folders of them, or a folder with train.bin and val.bin.",
            show_default="the hub",
        ),
    ] = None,
    data_dir: DataDir = Path("data"),
    tokenizer: Annotated[Optional[str], typer.Option(help="gpt2 or bytes.", show_default="gpt2")] = None,  # noqa: UP045
    test_share: Annotated[
        Optional[float],  # noqa: UP045
        typer.Option(help="Share of the documents for testing.", show_default="0.005"),
    ] = None,
    max_tokens: Annotated[
        Optional[int],  # noqa: UP045
        typer.Option(min=1, help="Stop at the end of the document that reaches this.", show_default="all of it"),
    ] = None,
    vocabulary: Annotated[
        Optional[int],  # noqa: UP045
        typer.Option(min=1, help="Bound of the ids in .bin files.", show_default="50257"),
    ] = None,
) -> None:
    """Turn documents into token ids once, so that training can map them.

    For example: adamwprune data prepare text my-notes/ --tokenizer bytes
    """
    commands.prepare_data(
        name,
        data_dir,
        sources or [],
        tokenizer=tokenizer,
        test_share=test_share,
        max_tokens=max_tokens,
        vocabulary=vocabulary,
    )


@data.command("verify")
def data_verify(
    name: DataName,
    data_dir: DataDir = Path("data"),
    accept: Annotated[
        bool, typer.Option("--accept", help="Take files that are whole but not the canonical ones, from now on.")
    ] = False,
) -> None:
    """Check the files of a data set against their checksums."""
    raise typer.Exit(commands.verify_data(name, data_dir, accept))


@config.command("list")
def config_list() -> None:
    """Show the presets."""
    commands.list_presets()


@config.command("load")
def config_load(
    name: Annotated[str, typer.Argument(metavar="PRESET", help="Name of the preset.")],
    assignments: Assignments = None,
    config_file: ConfigFile = Path(".config"),
) -> None:
    """Write a preset to the .config."""
    commands.load_preset(name, assignments or [], config_file)


@config.command("save")
def config_save(
    target: Annotated[Path, typer.Argument(metavar="FILE", help="Where to write it.")],
    config_file: ConfigFile = Path(".config"),
) -> None:
    """Save the .config as a preset: only what differs from the defaults."""
    commands.save_preset(target, config_file)


@config.command("check")
def config_check(
    assignments: Assignments = None,
    config_file: ConfigFile = Path(".config"),
) -> None:
    """Check that every line of the .config acts, and say what it describes."""
    commands.check_config(assignments or [], config_file)


def main(arguments: Sequence[str] | None = None) -> None:
    """Entry point: errors that a user can act on are one line and exit code 2."""
    try:
        code = app(list(sys.argv[1:] if arguments is None else arguments), standalone_mode=False)
    except ValueError as error:
        _fail(str(error))
    except KeyboardInterrupt:
        code = 130
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = 1
    except OSError as error:
        _fail(_refused(error))
    except Exception as error:
        if not hasattr(error, "format_message"):
            raise
        _fail(error.format_message() or "see --help")
    sys.exit(code if isinstance(code, int) else 0)


def _refused(error: OSError) -> str:
    """What the system did not allow, and what to do about it."""
    if error.filename is None:
        return str(error)
    path = Path(str(error.filename))
    if isinstance(error, FileExistsError | NotADirectoryError):
        file = next((place for place in (path, *path.parents) if place.is_file()), path)
        return f"{file} is a file where a folder is needed: move it away, or choose another folder"
    fix = "free some space, or choose another disk" if error.errno == errno.ENOSPC else "choose another path"
    if isinstance(error, PermissionError):
        fix = "change its permissions, or choose another path"
    return f"{path}: {error.strerror}; {fix}"


def _fail(message: str) -> None:
    print(f"adamwprune: error: {message}", file=sys.stderr)
    sys.exit(2)
