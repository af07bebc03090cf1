# SPDX-License-Identifier: MIT
"""What the commands do. Whatever needs torch is imported inside."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from adamwprune.experiment import settings as settings_module
from adamwprune.experiment.errors import ExperimentError
from adamwprune.experiment.kconfig import Kconfig
from adamwprune.experiment.matrix import parse_arm, require_used
from adamwprune.experiment.presets import DEFAULT, folder_name, preset, presets, project_root
from adamwprune.training.config import RunConfig

if TYPE_CHECKING:
    from adamwprune.experiment.plan import Run
    from adamwprune.experiment.store import ResultsFolder


@dataclass(frozen=True, kw_only=True)
class Request:
    """Which runs are wanted, as the command line says it."""

    assignments: Sequence[str] = ()
    preset: str | None = None
    config: Path | None = None
    arms: Sequence[str] = ()
    fields: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Selection:
    """The runs that a request means, and where and how they run."""

    path: Path
    runs: list[Run]
    jobs: int
    supersede: bool


def select(request: Request, *, name: str | None, results_dir: Path | None, jobs: int | None) -> Selection:
    """Turns a request into runs; everything is validated here, before anything is written."""
    from adamwprune.experiment.plan import plan

    if request.arms:
        if request.preset or request.config or request.assignments:
            raise ExperimentError("--arm describes the whole matrix: leave out --preset, --config and NAME=VALUE")
        # One thread a run, as in Kconfig: runs share the cores, and torch's threads would fight over them.
        common = RunConfig(**{"threads": 1, **request.fields})
        configs = [config for arm in request.arms for config in parse_arm(arm, common)]
        require_used(common, configs)
        path = (results_dir or Path("results")) / (name or "matrix")
        return Selection(path=path, runs=plan(configs), jobs=jobs or 0, supersede=False)
    root = project_root()
    settings = settings_module.load(root, _config_of(root, request), request.assignments)
    settings = settings.replace(common=settings.common.replace(**request.fields))
    folder = name or folder_name(root, settings)
    path = (results_dir or settings.results_dir) / folder
    return Selection(path=path, runs=plan(settings.runs()), jobs=jobs or settings.jobs, supersede=True)


def run_selection(selection: Selection, retry_failed: bool) -> int:
    """Runs it; the exit code says whether all is well."""
    from adamwprune.experiment.session import run_matrix
    from adamwprune.training import ranks

    if ranks.size() > 1:
        raise ExperimentError(
            f"a matrix takes one process, and torchrun started {ranks.size()}: start it without torchrun, or train "
            "one run on all of them with `adamwprune train`"
        )
    return run_matrix(
        selection.path,
        selection.runs,
        jobs=selection.jobs,
        retry_failed=retry_failed,
        supersede=selection.supersede,
    )


def list_selection(selection: Selection) -> int:
    """Prints the runs and what is there of them."""
    from adamwprune.experiment.store import ResultsFolder

    folder = ResultsFolder.open_or_create(selection.path, selection.path.name)
    _print_runs(folder, selection.runs)
    print(f"{len(selection.runs)} runs in {selection.path}")
    return 0


def train(
    network: str | None,
    fields: dict[str, Any],
    path: Path,
    *,
    kept_gradients: bool = False,
    retry_failed: bool = False,
) -> int:
    """One run, as a matrix of its own or one more in the folder's; on several ranks where torchrun started them."""
    if network is not None and fields.setdefault("model", network) != network:
        raise ExperimentError(f"the network is given twice: {network} and --model {fields['model']}")
    from adamwprune.experiment.on_ranks import run_on_ranks
    from adamwprune.experiment.plan import begun_otherwise, plan
    from adamwprune.experiment.session import run_matrix
    from adamwprune.training import ranks

    runs = plan([RunConfig(**fields)])
    if ranks.rank() == 0:
        for note in begun_otherwise(runs[0], path):
            print(note)
    if ranks.size() > 1:
        return run_on_ranks(path, runs[0], kept_gradients=kept_gradients, retry_failed=retry_failed)
    if kept_gradients:
        raise ExperimentError("--kept-gradients has no effect on one process: start several ranks with torchrun")
    return run_matrix(path, runs, jobs=1, retry_failed=retry_failed)


def report(directory: Path | None, results_dir: Path) -> None:
    """Writes a matrix's report again."""
    from adamwprune import report as room
    from adamwprune.experiment.store import latest

    path = directory or latest(results_dir)
    paths = room.build(path)
    print(room.table(path))
    print(f"plots: {paths.page.parent}/*.png   page: {paths.page}")


def list_matrices(directory: Path | None, results_dir: Path) -> None:
    """One line for each matrix, or for each run of one."""
    from adamwprune.experiment.store import ResultsFolder, folders

    if directory is not None:
        folder = ResultsFolder.open(directory)
        _print_runs(folder, folder.runs)
        return
    for path in folders(results_dir):
        folder = ResultsFolder.open(path)
        counts = Counter(folder.state(run).status for run in folder.runs)
        print(
            f"{path}: {len(folder.runs)} runs, " + ", ".join(f"{number} {status}" for status, number in counts.items())
        )


def _print_runs(folder: ResultsFolder, runs: Iterable[Run]) -> None:
    for run in runs:
        state = folder.state(run)
        print(f"{run.run_id}  {state.status:11}  {run.name}" + (f"  ({state.reason})" if state.reason else ""))


def doctor(data_dir: Path) -> None:
    """One line for each thing that is there, or is not."""
    from adamwprune.experiment.doctor import examine

    for topic, finding in examine(data_dir):
        print(f"{topic:21}{finding}")


def list_data(data_dir: Path) -> None:
    """One line for each data set."""
    from adamwprune.data import DATASETS, TokenInfo, files

    for name, info in DATASETS.items():
        if info.built_in:
            where = "built in"
        else:
            problems = files.problems(info, data_dir)
            lacking = "not prepared" if isinstance(info, TokenInfo) else "not here"
            if info.files:
                lacking = f"missing or corrupt: {len(problems)} of {len(info.files)} files"
            where = lacking if problems else "here"
        print(f"{name:16}{info.summary}  ({where})")


def fetch_data(name: str, data_dir: Path) -> None:
    """Downloads and verifies."""
    from adamwprune.data import fetch
    from adamwprune.experiment.display import Downloads, create

    fetch.ensure(name, data_dir, Downloads(create()))
    print(f"{name} is complete in {data_dir}")


def prepare_data(name: str, data_dir: Path, sources: Sequence[Path], **options: Any) -> None:
    """Fetches the tokenizer where it is needed, prepares, and says what came of it. Options not given are None."""
    from adamwprune.data import bpe, corpora, fetch
    from adamwprune.experiment.display import Downloads, Preparation, create

    display = create()
    adopts = len(sources) == 1 and (sources[0] / "train.bin").is_file()
    given = {option: value for option, value in options.items() if value is not None}
    for option in given:
        if adopts != (option == "vocabulary"):
            kind = "a folder with train.bin, which holds ids" if adopts else "text, whose vocabulary is its tokenizer's"
            flag = f"--{option.replace('_', '-')} {given[option]}"
            raise ExperimentError(f"{flag} has no effect on {kind}: leave it out")
    if given.get("tokenizer", "gpt2") == "gpt2" and not adopts:
        fetch.ensure_files(bpe.SOURCE, data_dir, Downloads(display))
    manifest = corpora.prepare(name, data_dir, sources, progress=Preparation(display), **given)
    tokens = {split: facts["tokens"] for split, facts in manifest["splits"].items()}
    print(f"{name} is prepared in {data_dir / name}: {tokens['train']:,} tokens and {tokens['test']:,} for tests")


def verify_data(name: str, data_dir: Path, accept: bool = False) -> int:
    """Says what is wrong with each file; exit code 1 if anything is. ``accept`` takes the files as they are."""
    from adamwprune.data import fetch

    if accept:
        for part in fetch.accept(name, data_dir):
            print(f"{name}: {part} is accepted as it is; runs on it have an identity of their own")
    problems = fetch.verify(name, data_dir)
    for reason in problems.values():
        print(reason)
    if not problems:
        print(f"{name} in {data_dir}: every file has its checksum")
    return 1 if problems else 0


def list_presets() -> None:
    """One line for each preset, with the number of its runs."""
    root = project_root()
    for item in presets(root):
        runs = len(settings_module.load(root, item.path).runs())
        print(f"{item.name:20}{runs:4} runs  {item.summary}")


def load_preset(name: str, assignments: Sequence[str], target: Path) -> None:
    """Writes a preset as the full .config."""
    root = project_root()
    path = preset(root, name).path
    runs = settings_module.load(root, path, assignments).runs()
    kconfig = Kconfig(root)
    kconfig.load(path)
    kconfig.override(assignments)
    kconfig.write(target)
    print(f"{target}: {name}, {len(runs)} runs; `make` runs them")


def save_preset(target: Path, source: Path) -> None:
    """Writes the .config as a preset."""
    kconfig = Kconfig(project_root())
    kconfig.load(source)
    settings_module.read(kconfig)
    kconfig.write(target, minimal=True)
    print(f"{target}: what {source} changes against the defaults")


def check_config(assignments: Sequence[str], source: Path) -> None:
    """Says what a .config describes."""
    settings = settings_module.load(project_root(), source, assignments)
    print(f"{source}: {settings.experiment}, {len(settings.runs())} runs of {settings.common.model}")


def _config_of(root: Path, request: Request) -> Path:
    if request.preset and request.config:
        raise ExperimentError("--preset and --config exclude each other")
    if request.config:
        return request.config
    if request.preset is None and Path(".config").is_file():
        return Path(".config")
    return preset(root, request.preset or DEFAULT).path
