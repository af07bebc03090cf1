# SPDX-License-Identifier: MIT
"""The benchmarks' tables in the documents are those of the stored measurements."""

from __future__ import annotations

import re

import publish_benchmarks
import pytest
import record
import tables

PAGES = publish_benchmarks.documents()
STORED = sorted(record.RESULTS.glob("*.json"))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_tables_in_the_documents_are_the_measured_ones(page):
    text = page.read_text(encoding="utf-8")
    assert publish_benchmarks.fill(text) == text


def test_every_stored_file_is_in_a_table_that_a_document_shows():
    shown = {name for page in PAGES for _, name, _ in publish_benchmarks.BLOCK.findall(page.read_text())}
    used = {source["benchmark"] for name in shown for source in tables.TABLES[name]()[2]}
    assert {path.stem for path in STORED} == used


@pytest.mark.parametrize("path", STORED, ids=lambda path: path.stem)
def test_a_stored_file_says_what_was_measured_and_where(path):
    content = record.read(path.stem)
    assert content["benchmark"] == path.stem
    assert content["rows"]
    assert content["settings"]
    assert content["machine"]["processor"]
    assert re.fullmatch(r"[0-9a-f]{12}", content["commit"]), "measure a commit, with sources unchanged"
