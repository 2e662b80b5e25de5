#!/usr/bin/env bash
# Prints the path of a MinIO server, building it once into .tools/bin when there is none (Go needed; takes minutes).
# Without Go: says what is skipped and prints nothing; with DOR_REQUIRE_MINIO=1 that is an error.
set -euo pipefail
cd "$(dirname "$0")/.."

version=v0.0.0-20260212201848-7aac2a2c5b7c
own=$PWD/.tools/bin/minio
gobin=${GOBIN:-${GOPATH:-$HOME/go}/bin}/minio

for candidate in "$own" "$(command -v minio || true)" "$gobin"; do
    if [[ -n $candidate && -x $candidate ]]; then
        echo "$candidate"
        exit 0
    fi
done

if command -v go >/dev/null; then
    echo "minio: building $version with go install (minutes, once)" >&2
    GOBIN=$PWD/.tools/bin go install "github.com/minio/minio@$version" >&2
    echo "$own"
elif [[ ${DOR_REQUIRE_MINIO:-} == 1 ]]; then
    echo "error: DOR_REQUIRE_MINIO=1, but there is neither a minio on PATH nor a go to build it with" >&2
    exit 1
else
    echo "SKIPPED: no minio and no go (https://go.dev/dl): the tests against MinIO will not run" >&2
fi
