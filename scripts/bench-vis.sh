#!/usr/bin/env bash
# dor against the reference's way of filling the map's stores, plainly in dask (benches/peers/store2_dask.py,
# series_dask.py) and with dask kept out of the way (store2_tuned.py, series_tuned.py): same input, same cores,
# alternately; and dor writing the pyramid's chunks to MinIO on loopback against the disk.
#
#   scripts/bench-vis.sh [FOLDER] [--months N]      (default: target/bench-vis, 24 months)
#
# Makes N full-size raw files with `dor demo raw`, converts them, and deletes them; what they became is kept in FOLDER
# for the next run. At most 0.6 GB a month while it makes them, 0.16 GB after: all 180 take 100 GB, or 36 GB with
# FIELDS=4 (the stores read two three-dimensional fields, whatever else there is). Then each side fills the stores RUNS
# times (default 3) with WORKERS workers (default 2); medians, ratios and peak memory are printed, and the last results
# of both are compared. SHAPE=small tries the script out. Close other programs.
#
# Not timed on either side: making the empty stores. Nor, of the peers: starting Python and reading the weights.
# Peak memory: of dor, the process; of a peer, its largest worker (it runs WORKERS of them).
set -euo pipefail
cd "$(dirname "$0")/.."

folder=target/bench-vis
months=24
while (($#)); do
    case $1 in
    --months)
        months=${2:?"--months needs a number"}
        shift 2
        ;;
    -*)
        echo "usage: scripts/bench-vis.sh [FOLDER] [--months N]" >&2
        exit 2
        ;;
    *)
        folder=$1
        shift
        ;;
    esac
done
dor=$(realpath "${DOR_BIN:-target/release/dor}")
shape=${SHAPE:-full}
workers=${WORKERS:-2}
scripts/venv.sh .tools/peers benches/peers/requirements.txt
mkdir -p "$folder/$shape"
folder=$(realpath "$folder/$shape")
research=$folder/research-$months${FIELDS:+-fields-$FIELDS}

if [[ ! -d $research ]]; then
    echo "making $months files ($shape) in $research" >&2
    rm -rf "$folder/raw" "$research.partial"
    "$dor" demo raw "$folder/raw" --case 112-04 --shape "$shape" --months "$months" --ssh ${FIELDS:+--fields "$FIELDS"}
    "$dor" research-data process-case 112-04 --allow-missing -d "$folder/raw/archive" --grid "$folder/raw/grid.nc" \
        -o "$research.partial" -w "$workers"
    mv "$folder"/raw/{grid.nc,centers.csv,ssh.nc} "$folder"
    rm -rf "$folder/raw"
    mv "$research.partial" "$research"
fi

minio=$(scripts/minio.sh)
server=
if [[ -n $minio ]]; then
    export MINIO_ROOT_USER=bench MINIO_ROOT_PASSWORD=bench-secret
    export AWS_ACCESS_KEY_ID=$MINIO_ROOT_USER AWS_SECRET_ACCESS_KEY=$MINIO_ROOT_PASSWORD
    port=$(python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])')
    rm -rf "$folder/minio"
    mkdir -p "$folder/minio/bucket"
    "$minio" server --quiet --address "127.0.0.1:$port" --console-address 127.0.0.1:0 "$folder/minio" &
    server=$!
    trap 'kill $server; wait $server || true; rm -rf "$folder/minio"' EXIT
    # Until it answers.
    for _ in $(seq 100); do
        (exec 3<>"/dev/tcp/127.0.0.1/$port") 2>/dev/null && break
        sleep 0.1
    done
fi

.tools/peers/bin/python benches/peers/compare_vis.py --dor "$dor" --folder "$folder" --research "$research" \
    --runs "${RUNS:-3}" --workers "$workers" ${minio:+--minio "http://127.0.0.1:$port"}
