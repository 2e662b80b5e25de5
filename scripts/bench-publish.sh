#!/usr/bin/env bash
# dor publish against `s5cmd sync`: same trees, same MinIO on this machine, alternately, with 0, 20 and 80 ms of latency
# added by a proxy (benches/peers/publish.py); then the plan of a whole campaign (benches/peers/plan.py).
#
#   scripts/bench-publish.sh [FOLDER]      (default: target/bench-publish)
#
# RUNS=5, LATENCY="0 20 80", TREES="many large", SCALE=1 (of the number of objects). At SCALE=1 it takes 6 GB a tree
# for the source and twice as much for what both send; on a slow disk that takes hours (a FOLDER in /dev/shm: 18 GB of memory).
# Close other programs.
set -euo pipefail
cd "$(dirname "$0")/.."

folder=${1:-target/bench-publish}
dor=$(realpath "${DOR_BIN:-target/release/dor}")
minio=$(DOR_REQUIRE_MINIO=1 scripts/minio.sh)
scripts/venv.sh
# The real binary, without the Python that starts it.
s5cmd=$(echo "$PWD"/.venv/lib/python3*/site-packages/s5cmd/bin/s5cmd)
proxy=$PWD/.tools/bin/toxiproxy-server
if [[ ! -x $proxy ]]; then
    echo "toxiproxy: building with go install (once)" >&2
    GOBIN=$PWD/.tools/bin/toxiproxy go install github.com/Shopify/toxiproxy/v2/cmd/server@v2.12.0 >&2
    mv .tools/bin/toxiproxy/server "$proxy"
    rmdir .tools/bin/toxiproxy
fi

mkdir -p "$folder"
read -ra latency <<<"${LATENCY:-0 20 80}"
read -ra trees <<<"${TREES:-many large}"
.venv/bin/python benches/peers/publish.py "$folder" --dor "$dor" --s5cmd "$s5cmd" --minio "$minio" --toxiproxy "$proxy" \
    --latency "${latency[@]}" --trees "${trees[@]}" --runs "${RUNS:-5}" --scale "${SCALE:-1}"
.venv/bin/python benches/peers/plan.py "$folder/plan" --dor "$dor" --runs "${RUNS:-5}"
