#!/usr/bin/env bash
# Makes or refreshes a Python virtual environment with pinned packages; quick when it is up to date.
#
#   scripts/venv.sh [FOLDER] [REQUIREMENTS]      (default: .venv tests/outside/requirements.txt)
set -euo pipefail
cd "$(dirname "$0")/.."

folder=${1:-.venv}
requirements=${2:-tests/outside/requirements.txt}

if ! cmp -s "$requirements" "$folder/installed.txt"; then
    python3 -m venv --clear "$folder"
    "$folder/bin/pip" install --quiet --disable-pip-version-check -r "$requirements"
    cp "$requirements" "$folder/installed.txt"
fi
