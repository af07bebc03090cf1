# SPDX-License-Identifier: MIT
"""Tiny Shakespeare (Karpathy 2015): 1.1 million characters of plays, the first nine tenths of them for training."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import AnyStr

import numpy as np
import torch

from adamwprune.data import bpe, files
from adamwprune.data.dataset import DataFile, TokenData, TokenInfo
from adamwprune.data.tokens import Tokens

FILE = DataFile(
    path="shakespeare/input.txt",
    urls=("https://raw.githubusercontent.com/karpathy/char-rnn/master/data/tinyshakespeare/input.txt",),
    sha256="86c4e6aa9db7c042ec79f339dcb96d42b0075e16b8fc2e86bf0ca57e2dc565ed",
    size=1115394,
    also=("shakespeare_char/input.txt", "tinyshakespeare.txt"),
)


def split(text: AnyStr) -> tuple[AnyStr, AnyStr]:
    """Training and test text, cut where nanoGPT cuts."""
    cut = int(len(text) * 0.9)
    return text[:cut], text[cut:]


def read(info: TokenInfo, data_dir: Path) -> TokenData:
    """A character a token: its number among the characters that occur, sorted."""
    [text] = files.read(info, data_dir)
    characters = sorted(set(text))
    number = np.zeros(256, np.uint8)
    number[characters] = np.arange(len(characters))
    train, test = (Tokens(torch.from_numpy(number[np.frombuffer(part, np.uint8)])) for part in split(text))
    return TokenData(name=info.name, train=train, test=test, vocabulary=len(characters))


def identify(info: TokenInfo, data_dir: Path) -> str:
    """The files decide it, wherever they lie."""
    return hashlib.sha256("\n".join([info.name, *(file.sha256 for file in info.files)]).encode()).hexdigest()


def read_bpe(info: TokenInfo, data_dir: Path) -> TokenData:
    """GPT-2's tokens of each split."""
    text = files.read(info, data_dir)[0].decode()
    encoder = bpe.gpt2(data_dir)
    train, test = (Tokens(torch.from_numpy(ids.view(np.int16))) for ids in encoder.encode(split(text)))
    return TokenData(name=info.name, train=train, test=test, vocabulary=encoder.vocabulary)


INFO = TokenInfo(
    name="shakespeare",
    summary="tiny Shakespeare, 1.1 million characters, each of 65 a token",
    read=read,
    identify=identify,
    files=(FILE,),
)

INFO_BPE = TokenInfo(
    name="shakespeare-bpe",
    summary="tiny Shakespeare, 338 thousand GPT-2 tokens",
    read=read_bpe,
    identify=identify,
    files=(FILE, *bpe.FILES),
)
