# SPDX-License-Identifier: MIT
"""The page and the report folder as a whole."""

from __future__ import annotations

import json
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import pytest

from adamwprune import files
from adamwprune.cli import main
from adamwprune.report import build, table
from adamwprune.report.page import command
from adamwprune.report.palette import INK
from adamwprune.report.plots import PLOTS
from adamwprune.training.config import RunConfig
from adamwprune.training.resolve import resolve


class Elements(HTMLParser):
    """Collects what a browser would load, the ids, the links, and whether all elements are closed."""

    VOID = ("meta", "link", "br", "img", "input", "hr")

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.open: list[str] = []
        self.attributes: list[tuple[str, str, str]] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += [(tag, name, value or "") for name, value in attrs]
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        self.handle_endtag(tag)

    def handle_endtag(self, tag: str) -> None:
        if tag not in self.VOID:
            assert self.open.pop() == tag

    def values(self, *names: str) -> list[str]:
        return [value for _, name, value in self.attributes if name in names]


OF_IMAGES = {plot.name for plot in PLOTS} - {"perplexity"}


@pytest.fixture(scope="module")
def built(tiny: Path) -> Path:
    build(tiny)
    return tiny


def test_every_file_of_the_report_is_there(built: Path) -> None:
    expected = {"index.html", "table.md", "table.txt"}
    expected |= {f"{plot}.{form}" for plot in OF_IMAGES for form in ("png", "svg")}
    assert {path.name for path in (built / "report").iterdir()} == expected
    assert (built / "report" / "table.txt").read_text() == table(built)


def test_same_input_same_bytes(built: Path) -> None:
    first = {path.name: path.read_bytes() for path in (built / "report").iterdir()}
    paths = build(built)
    again = {path.name: path.read_bytes() for path in (paths.page, paths.table_md, paths.table_txt, *paths.plots)}
    assert again == first


def test_page_loads_nothing_from_anywhere(built: Path) -> None:
    text = (built / "report" / "index.html").read_text()
    elements = Elements(text)
    assert elements.open == []
    assert not {"script", "link", "iframe", "img", "object", "embed", "base"} & set(elements.tags)
    assert not any("//" in value for value in elements.values("src", "href", "srcset", "xlink:href", "action"))
    assert "@import" not in text
    assert "url(http" not in text
    assert elements.tags.count("svg") == len(OF_IMAGES)


def test_ids_are_unique_and_inner_links_lead_somewhere(built: Path) -> None:
    elements = Elements((built / "report" / "index.html").read_text())
    ids = elements.values("id")
    assert len(ids) == len(set(ids))
    assert {value[1:] for value in elements.values("href") if value.startswith("#")} <= set(ids)


def test_outer_links_are_relative_and_exist(built: Path) -> None:
    elements = Elements((built / "report" / "index.html").read_text())
    links = [unquote(value) for value in elements.values("href") if not value.startswith("#")]
    assert any(link.startswith("../runs/") for link in links)
    assert [link for link in links if not (built / "report" / link).exists()] == [
        link for link in links if "-sgd-" in link and "-2-" in link
    ], "only the run that was not started has no folder"


def test_ink_follows_the_page_and_paper_is_gone(built: Path) -> None:
    text = (built / "report" / "index.html").read_text()
    svg = text[text.index("<svg") : text.rindex("</svg>")]
    assert "currentColor" in svg
    assert INK not in svg
    assert "#ffffff" not in svg


def test_names_are_escaped(folder: Any) -> None:
    directory = folder.add(status="failed")
    result = json.loads((directory / "result.json").read_text())
    (directory / "result.json").write_text(json.dumps(result | {"reason": "<script>alert('x')</script>"}))
    folder.add(data="a&b<i>")
    text = build(folder.write()).page.read_text()
    assert "<script" not in text
    assert "&lt;script&gt;" in text
    assert "a&amp;b&lt;i&gt;" in text


def test_a_language_model_is_shown_by_its_perplexity(spoken: Path) -> None:
    paths = build(spoken)
    assert {path.name for path in paths.plots if path.suffix == ".png"} == {
        "perplexity.png",
        "over-time.png",
        "bytes.png",
    }
    text = paths.page.read_text()
    assert "<td>4.000</td>" in text
    assert "accuracy" not in text.lower()


def test_a_matrix_without_a_finished_run_has_a_report(folder: Any) -> None:
    folder.add(status="unfinished")
    folder.add(seed=1, status="missing")
    paths = build(folder.write())
    assert paths.plots == ()
    assert "not started" in paths.page.read_text()
    assert "0 finished, 2 unfinished" in paths.table_txt.read_text()


def test_two_models_have_plots_of_their_own(folder: Any) -> None:
    folder.add(model="lenet5")
    build(folder.write())
    folder.add(model="resnet18", data="cifar10")
    paths = build(folder.write())
    assert len(paths.plots) == len(set(paths.plots)) == 2 * 2 * 2
    assert sorted(paths.page.parent.glob("*.[ps][nv]g")) == sorted(paths.plots), "no plot of the smaller matrix is left"
    elements = Elements(paths.page.read_text())
    assert len(elements.values("id")) == len(set(elements.values("id")))


def test_a_failed_write_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = files.write_text(tmp_path / "a" / "table.txt", "old")

    def broken(*_: object) -> None:
        raise OSError("disk full")

    monkeypatch.setattr(files.os, "replace", broken)
    with pytest.raises(OSError, match="disk full"):
        files.write_text(path, "new")
    assert path.read_text() == "old"
    assert [child.name for child in path.parent.iterdir()] == ["table.txt"]


def test_command_has_a_flag_for_every_field_that_has_a_value() -> None:
    config = {"model": "lenet5", "data_dir": "/x", "amsgrad": False, "augment": True, "score": None, "seed": 2}
    assert command(config | {"pattern": ""}) == "adamwprune train lenet5 --no-amsgrad --augment --seed 2"


def test_command_means_the_config_it_was_made_from(monkeypatch: pytest.MonkeyPatch) -> None:
    """Parsed by the command line itself, the printed command resolves to the same run."""
    resolved = resolve(
        RunConfig(optimizer="adamwprune", base="adamwspam", pruning_method="state", target_sparsity=0.9, seed=3)
    )
    understood: list[RunConfig] = []

    def record(network: str, fields: dict[str, Any], _: Path, **options: bool) -> int:
        understood.append(RunConfig(**{"model": network} | fields))
        return 0

    monkeypatch.setattr("adamwprune.experiment.commands.train", record)
    with pytest.raises(SystemExit):
        main(command(resolved.as_dict()).split()[1:])
    assert [resolve(config) for config in understood] == [resolved]
