#!/usr/bin/env bash
# dor writing to MinIO on loopback against dor writing to local disk: same input, alternately.
#
#   scripts/bench-s3.sh [FOLDER]      (default: target/bench-convert; scripts/bench-convert.sh makes its raw files)
#
# RUNS (default 3) runs each with WORKERS (default 2) workers; prints every time and the ratio of the medians.
# The server shares the machine, its cores and its disk with dor.
set -euo pipefail
cd "$(dirname "$0")/.."

folder=$(realpath "${1:-target/bench-convert}")
runs=${RUNS:-3}
dor=$(realpath "${DOR_BIN:-target/release/dor}")
minio=$(scripts/minio.sh)
export MINIO_ROOT_USER=bench MINIO_ROOT_PASSWORD=bench-secret
export AWS_ACCESS_KEY_ID=$MINIO_ROOT_USER AWS_SECRET_ACCESS_KEY=$MINIO_ROOT_PASSWORD
port=$(python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])')
mkdir -p "$folder/minio/bucket"
"$minio" server --quiet --address "127.0.0.1:$port" --console-address 127.0.0.1:0 "$folder/minio" &
server=$!
trap 'kill $server; wait $server || true; rm -rf "$folder/minio" "$folder/output"' EXIT

archive=$(realpath "$folder/raw")
convert() {
    sync
    find -L "$archive/archive" -name '*.nc' -exec cat {} + >/dev/null
    local begin end
    begin=$(date +%s.%N)
    "$dor" research-data process-case 112-04 --allow-missing -d "$archive/archive" --grid "$archive/grid.nc" \
        -w "${WORKERS:-2}" --profile minio --endpoint-url "http://127.0.0.1:$port" -o "$1" >/dev/null
    end=$(date +%s.%N)
    awk -v a="$begin" -v b="$end" 'BEGIN { printf "%.1f\n", b - a }'
}
median() { sort -n | awk '{ v[NR] = $1 } END { print v[int((NR + 1) / 2)] }'; }

for run in $(seq "$runs"); do
    rm -rf "$folder/output"
    disk+=("$(convert "$folder/output")")
    s3+=("$(convert "s3://bucket/run-$run")")
    rm -rf "$folder/minio/bucket/run-$run"
    echo "run $run: disk ${disk[-1]} s, MinIO ${s3[-1]} s"
done
d=$(printf '%s\n' "${disk[@]}" | median)
m=$(printf '%s\n' "${s3[@]}" | median)
awk -v d="$d" -v m="$m" 'BEGIN { printf "MinIO has %.2f of the rate of the disk (medians %s s and %s s)\n", d / m, m, d }'
