#!/usr/bin/env bash
# Installs the lint tools under .tools: cargo-deny, cargo-machete and mdbook; hadolint, ruff, shellcheck and typos from PyPI.
set -euo pipefail
cd "$(dirname "$0")/.."

# Unoptimised: the tools run for seconds, and this halves the minutes they take to compile.
install() {
    if ! ".tools/bin/$1" --version 2>/dev/null | grep -qwF "$2"; then
        echo "lint-tools: building $1 $2" >&2
        CARGO_PROFILE_DEV_DEBUG=0 \
            cargo install --quiet --locked --debug --force --root .tools "$1@$2" "${@:3}"
    fi
}

install cargo-deny 0.20.2
install cargo-machete 0.9.2
install mdbook 0.5.4 --no-default-features
scripts/venv.sh .tools/lint scripts/lint-requirements.txt
