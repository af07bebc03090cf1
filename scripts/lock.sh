#!/bin/sh
# SPDX-License-Identifier: MIT
# Writes constraints.txt: the newest versions that install together now (torch stays as it is), from a fresh
# environment with core, digits, test and lint.
set -eu
cd "$(dirname "$0")/.."
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
torch=$(grep '^torch==' constraints.txt)
python3 -m venv "$folder"
"$folder/bin/pip" install --quiet --no-compile "$torch" ".[dev]"
head -n 1 constraints.txt >"$folder/constraints.txt"
{ "$folder/bin/pip" freeze --exclude adamwprune --exclude torch; echo "$torch"; } | sort -f >>"$folder/constraints.txt"
mv "$folder/constraints.txt" constraints.txt
