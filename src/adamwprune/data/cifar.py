# SPDX-License-Identifier: MIT
"""CIFAR-10 and CIFAR-100 (Krizhevsky 2009), verified by the checksums of their records."""

from __future__ import annotations

import dataclasses
import hashlib
from pathlib import Path

import numpy as np
import torch

from adamwprune.data import accepted
from adamwprune.data.cifar_files import Layout, forms
from adamwprune.data.dataset import DataError, DataFile, Dataset, DatasetInfo, Split
from adamwprune.data.files import explain

HOME = "https://www.cs.toronto.edu/~kriz/"
SHAPE = (3, 32, 32)

CIFAR10 = Layout(
    train={
        "data_batch_1": "cee916563c9f80d84e3cc88e17fdc0941787f1244f00a67874d45b261883ada5",
        "data_batch_2": "a591ca11fa1708a91ee40f54b3da4784ccd871ecf2137de63f51ada8b3fa57ed",
        "data_batch_3": "bbe8596564c0f86427f876058170b84dac6670ddf06d79402899d93ceea26f67",
        "data_batch_4": "014e562d6e23c72197cc727519169a60359f5eccd8945ad5a09d710285ff4e48",
        "data_batch_5": "755304fc0b379caeae8c14f0dac912fbc7d6cd469eb67a1029a08a39453a9add",
    },
    test={"test_batch": "8e2eb146ae340b09e24670f29cabc6326dba54da8789dab6768acf480273f65b"},
    labels=("labels",),
    archive="cifar-10-binary.tar.gz",
    folder="cifar-10-batches-bin",
    python_archive="cifar-10-python.tar.gz",
    python_folder="cifar-10-batches-py",
)
CIFAR100 = Layout(
    train={"train": "f31298fc616915fa142368359df1c4ca2ae984d6915ca468b998a5ec6aeebf29"},
    test={"test": "d8b1e6b7b3bee4020055f0699b111f60b1af1e262aeb93a0b659061746f8224a"},
    labels=("coarse_labels", "fine_labels"),
    archive="cifar-100-binary.tar.gz",
    folder="cifar-100-binary",
    python_archive="cifar-100-python.tar.gz",
    python_folder="cifar-100-python",
)


@dataclasses.dataclass(frozen=True, slots=True)
class Reader:
    """Reads and checks the data set of one layout."""

    layout: Layout

    def read(self, info: DatasetInfo, data_dir: Path) -> Dataset:
        """Training and test images of the first form whose every part has its checksum."""
        parts = self._verified(info, data_dir)
        if isinstance(parts, str):
            raise DataError(explain(info, data_dir, [parts]))
        return self._dataset(info, parts)

    def check(self, info: DatasetInfo, data_dir: Path) -> dict[str, str]:
        """What is wrong, under the archive that would put it right."""
        parts = self._verified(info, data_dir)
        return {info.files[0].path: parts} if isinstance(parts, str) else {}

    def digests(self, info: DatasetInfo, data_dir: Path) -> dict[str, str]:
        """Checksums of the parts that differ from the canonical ones, in the first form that is there.

        DataError where they are not a data set of this shape.
        """
        for form in forms(self.layout, data_dir):
            parts = form.parts()
            self._dataset(info, parts)  # what cannot be trained on is not accepted
            found = {part: hashlib.sha256(content).hexdigest() for part, content in parts.items()}
            return {part: digest for part, digest in found.items() if digest != self.layout.parts[part]}
        raise DataError(explain(info, data_dir, [f"{data_dir / self.layout.archive} is missing"]))

    def _dataset(self, info: DatasetInfo, parts: dict[str, bytes]) -> Dataset:
        train, test = (
            _split(b"".join(parts[name] for name in names), self.layout)
            for names in (self.layout.train, self.layout.test)
        )
        if len(train) != info.examples or not len(test):
            counts = f"{len(train)} training and {len(test)} test images"
            raise DataError(f"{info.name} has {counts}, expected {info.examples} and at least one")
        largest = int(max(train.labels.max(), test.labels.max()))
        if largest >= info.classes:
            raise DataError(f"{info.name} has the label {largest}, expected 0 to {info.classes - 1}")
        return Dataset(name=info.name, train=train, test=test)

    def _verified(self, info: DatasetInfo, data_dir: Path) -> dict[str, bytes] | str:
        """The parts of the first form that is whole; without one, what is wrong with each that is there."""
        reasons = []
        also = accepted.read(info.name, data_dir)
        for form in forms(self.layout, data_dir):
            try:
                parts = form.parts()
            except ValueError as error:
                reasons.append(str(error))
                continue
            wrong = [
                f"{form.place}: {part} is corrupt: sha256 {found}, expected {expected}"
                for part, expected in self.layout.parts.items()
                if (found := hashlib.sha256(parts[part]).hexdigest()) not in (expected, also.get(part))
            ]
            if not wrong:
                return parts
            reasons += [
                *wrong,
                f"to use other files than the canonical ones: adamwprune data verify {info.name} --accept",
            ]
        return "\n  ".join(reasons) or f"{data_dir / self.layout.archive} is missing"


def _split(content: bytes, layout: Layout) -> Split:
    table = np.frombuffer(content, np.uint8).reshape(-1, layout.record)
    images = np.ascontiguousarray(table[:, len(layout.labels) :]).reshape(-1, *SHAPE)
    labels = table[:, len(layout.labels) - 1].astype(np.int64)
    return Split(images=torch.from_numpy(images), labels=torch.from_numpy(labels))


def _info(
    layout: Layout, archive: DataFile, *, classes: int, mean: tuple[float, ...], std: tuple[float, ...]
) -> DatasetInfo:
    reader = Reader(layout)
    return DatasetInfo(
        name=f"cifar{classes}",
        summary=f"CIFAR-{classes}, 50,000 and 10,000 photographs of 32x32 in {classes} classes",
        shape=SHAPE,
        classes=classes,
        examples=50000,
        mean=mean,
        std=std,
        shift=4,
        flip=True,
        checksum=hashlib.sha256("\n".join(layout.parts.values()).encode()).hexdigest(),
        read=reader.read,
        check=reader.check,
        digests=reader.digests,
        files=(archive,),
    )


INFO10 = _info(
    CIFAR10,
    DataFile(
        path=CIFAR10.archive,
        urls=(HOME + CIFAR10.archive,),
        sha256="c4a38c50a1bc5f3a1c5537f2155ab9d68f9f25eb1ed8d9ddda3db29a59bca1dd",
        size=170052171,
    ),
    classes=10,
    mean=(0.4914, 0.4822, 0.4465),
    std=(0.2470, 0.2435, 0.2616),
)
INFO100 = _info(
    CIFAR100,
    DataFile(
        path=CIFAR100.python_archive,
        urls=(HOME + CIFAR100.python_archive,),
        sha256="85cd44d02ba6437773c5bbd22e183051d648de2e7d6b014e1ef29b855ba677a7",
        size=169001437,
    ),
    classes=100,
    mean=(0.5071, 0.4865, 0.4409),
    std=(0.2673, 0.2564, 0.2762),
)
