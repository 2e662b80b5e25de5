#!/usr/bin/env bash
# Every check that reads the sources and runs nothing of the program. Fails on the first finding.
set -euo pipefail
cd "$(dirname "$0")/.."
PATH=$PWD/.tools/lint/bin:$PATH

step() {
    echo "lint: $*" >&2
    "$@"
}

step cargo fmt --check
step cargo clippy --locked --all-targets --quiet -- -D warnings
RUSTDOCFLAGS='-D warnings' step cargo doc --locked --no-deps --quiet
step cargo shear
step cargo deny --log-level error check licenses bans sources
# The advisories come from GitHub; a machine that reaches only package registries cannot have them.
if timeout 30 git ls-remote --quiet https://github.com/RustSec/advisory-db HEAD >/dev/null 2>&1; then
    step cargo deny --log-level error check advisories
else
    echo "SKIPPED: cargo deny check advisories: https://github.com/RustSec/advisory-db cannot be reached" >&2
fi
step typos
step mdbook build --dest-dir "$PWD/target/book" docs
step scripts/links.py
step shellcheck scripts/*.sh .ci/run
step hadolint infra/Dockerfile
step ruff check tests/outside benches/peers scripts
step ruff format --check tests/outside benches/peers scripts
echo "lint: clean" >&2
