#!/usr/bin/env bash
# dor against the reference's way of converting (benches/peers/convert_peer.py): same input, same cores, alternately.
#
#   scripts/bench-convert.sh [FOLDER]      (default: target/bench-convert)
#
# Makes 12 full-size raw files with `dor demo raw` in FOLDER (about 5 GB, kept for the next run), then converts them
# from local disk to local disk, each side RUNS times (default 3) with WORKERS workers (default 2), and prints
# medians, ratios, peak memory and sizes. Every output is deleted before the next run. Close other programs.
#
# Peak memory: of dor, the process; of the peer, its largest worker (it runs WORKERS of them).
set -euo pipefail
cd "$(dirname "$0")/.."

folder=${1:-target/bench-convert}
runs=${RUNS:-3}
workers=${WORKERS:-2}
dor=$(realpath "${DOR_BIN:-target/release/dor}")
python=.venv/bin/python
mkdir -p "$folder"

if [[ ! -d $folder/raw ]]; then
    echo "making 12 full-size files in $folder/raw" >&2
    rm -rf "$folder/raw.partial"
    "$dor" demo raw "$folder/raw.partial" --case 112-04 --shape 384x320x60 --months 12
    mv "$folder/raw.partial" "$folder/raw"
fi

exec "$python" benches/peers/compare.py --dor "$dor" --folder "$folder" --runs "$runs" --workers "$workers"
