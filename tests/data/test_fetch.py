# SPDX-License-Identifier: MIT
"""Downloads, against servers on the loopback interface."""

from __future__ import annotations

import dataclasses
import re
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import idx_files
import pytest

from adamwprune.data import DATASETS, DataError, DatasetInfo, fetch


class Server(ThreadingHTTPServer):
    """Serves ``contents``; ``cut`` ends each answer early, ``ranges`` honours Range."""

    daemon_threads = True

    def __init__(self, contents: dict[str, bytes], *, ranges: bool = True, cut: int | None = None) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.contents, self.ranges, self.cut = contents, ranges, cut
        self.requests: list[tuple[str, str | None]] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class Handler(BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        name, wanted = self.path.lstrip("/"), self.headers["Range"]
        self.server.requests.append((name, wanted))
        if name not in self.server.contents:
            self.send_error(404)
            return
        content = self.server.contents[name]
        start = int(re.fullmatch(r"bytes=(\d+)-", wanted)[1]) if wanted and self.server.ranges else 0
        body = content[start:]
        self.send_response(206 if start else 200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body[: self.server.cut])

    def log_message(self, *_: object) -> None:
        pass


@contextmanager
def serving(server: Server) -> Iterator[Server]:
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def unused() -> str:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{probe.getsockname()[1]}"


def assert_complete(info: DatasetInfo, contents: dict[str, bytes], folder: Path) -> None:
    for file in info.files:
        assert (folder / file.path).read_bytes() == contents[Path(file.path).name]
    assert sorted(path.name for path in (folder / "mnist").iterdir()) == sorted(contents)


def test_fetches_what_is_missing_and_reports_progress(tmp_path: Path) -> None:
    _, contents = idx_files.make()
    seen: dict[str, list[int]] = {}
    with serving(Server(contents)) as server:
        info, _ = idx_files.make((server.url,))
        idx_files.write({"train-images.gz": contents["train-images.gz"]}, tmp_path / "mnist")
        fetch.ensure_files(info, tmp_path, lambda path, done, total: seen.setdefault(path, []).append(done))
        assert [name for name, _ in server.requests] == ["train-labels.gz", "test-images.gz", "test-labels.gz"]
        fetch.ensure_files(info, tmp_path)
        assert len(server.requests) == 3
    assert_complete(info, contents, tmp_path)
    assert {path: done[-1] for path, done in seen.items()} == {file.path: file.size for file in info.files[1:]}


@pytest.mark.parametrize("ranges", [True, False])
def test_a_partial_file_is_resumed(tmp_path: Path, ranges: bool) -> None:
    _, contents = idx_files.make()
    half = len(contents["train-images.gz"]) // 2
    idx_files.write({"train-images.gz.part": contents["train-images.gz"][:half]}, tmp_path / "mnist")
    with serving(Server(contents, ranges=ranges)) as server:
        info, _ = idx_files.make((server.url,))
        fetch.ensure_files(info, tmp_path)
        assert server.requests[0] == ("train-images.gz", f"bytes={half}-")
    assert_complete(info, contents, tmp_path)


def test_a_broken_transfer_leaves_what_came_and_goes_on_later(tmp_path: Path) -> None:
    _, contents = idx_files.make()
    with serving(Server(contents, cut=50)) as server:
        info, _ = idx_files.make((server.url,))
        with pytest.raises(DataError, match=r"closed the connection after 50 of|IncompleteRead"):
            fetch.ensure_files(info, tmp_path)
    assert (tmp_path / "mnist/train-images.gz.part").read_bytes() == contents["train-images.gz"][:50]
    with serving(Server(contents)) as server:
        info, _ = idx_files.make((server.url,))
        fetch.ensure_files(info, tmp_path)
        assert server.requests[0] == ("train-images.gz", "bytes=50-")
    assert_complete(info, contents, tmp_path)


def test_a_corrupt_partial_file_is_fetched_again(tmp_path: Path) -> None:
    _, contents = idx_files.make()
    idx_files.write({"train-images.gz.part": b"x" * 99, "test-images.gz.part": b"y" * 10**6}, tmp_path / "mnist")
    with serving(Server(contents)) as server:
        info, _ = idx_files.make((server.url,))
        fetch.ensure_files(info, tmp_path)
    assert_complete(info, contents, tmp_path)


def test_corrupt_content_is_never_put_in_place(tmp_path: Path) -> None:
    _, contents = idx_files.make()
    wrong = {name: content[:-1] + b"?" for name, content in contents.items()}
    with serving(Server(wrong)) as server:
        info, _ = idx_files.make((server.url,))
        with pytest.raises(DataError) as error:
            fetch.ensure_files(info, tmp_path)
    assert list((tmp_path / "mnist").iterdir()) == []
    for file in info.files:
        assert re.search(rf"{re.escape(file.urls[0])}: got sha256 \w+, expected {file.sha256}", str(error.value))


def test_the_next_mirror_is_tried(tmp_path: Path) -> None:
    _, contents = idx_files.make()
    wrong = {name: content[::-1] for name, content in contents.items()}
    with serving(Server({})) as empty, serving(Server(wrong)) as corrupt, serving(Server(contents)) as good:
        info, _ = idx_files.make((unused(), empty.url, corrupt.url, good.url))
        fetch.ensure_files(info, tmp_path)
    assert_complete(info, contents, tmp_path)


def test_without_a_network_everything_needed_is_said(tmp_path: Path) -> None:
    info, _ = idx_files.make((unused(), unused()))
    with pytest.raises(DataError) as error:
        fetch.ensure_files(info, tmp_path)
    for file in info.files:
        for part in (str(tmp_path / file.path), file.sha256, *file.urls):
            assert part in str(error.value)
    assert not any(tmp_path.rglob("*")), "nothing was written"


def test_without_a_network_it_is_said_what_is_wrong_with_the_files_that_are_there(tmp_path: Path) -> None:
    info = DATASETS["cifar10"]
    unreachable = dataclasses.replace(info.files[0], urls=("http://127.0.0.1:9/none",))
    info = dataclasses.replace(info, check=lambda info, data_dir: {unreachable.path: "that one"}, files=(unreachable,))
    with pytest.raises(DataError, match=re.escape("cannot be used:\n  that one\n  http://127.0.0.1:9/none: ")):
        fetch.ensure_files(info, tmp_path)


def test_a_corrupt_file_is_replaced(tmp_path: Path) -> None:
    _, contents = idx_files.make()
    idx_files.write({**contents, "test-labels.gz": b"broken"}, tmp_path / "mnist")
    with serving(Server(contents)) as server:
        info, _ = idx_files.make((server.url,))
        fetch.ensure_files(info, tmp_path)
        assert server.requests == [("test-labels.gz", None)]
    assert_complete(info, contents, tmp_path)


def test_by_name(tmp_path: Path) -> None:
    assert fetch.verify("digits", tmp_path) == {}
    fetch.ensure("digits", tmp_path)
    assert set(fetch.verify("mnist", tmp_path)) == {file.path for file in fetch.find("mnist").files}
    with pytest.raises(ValueError, match="unknown data set 'emnist': expected one of digits, mnist"):
        fetch.ensure("emnist", tmp_path)
