#!/usr/bin/env bash
# All products of a case in one pass (dor run) against the separate commands, alternately, on the same raw files.
#
#   scripts/bench-run.sh [FOLDER]      (default: target/bench-run)
#
# Makes MONTHS (default 12) full-size raw files with `dor demo raw` in FOLDER (0.4 GB each, kept for the next run), then makes the
# research-grade files and the three stores from them RUNS times (default 3) each way, with WORKERS workers (default 2), local
# disk to local disk, all files in the page cache. Prints seconds and seconds of processors of each run, and the ratio of
# the medians. The empty stores are made beforehand. Close other programs.
set -euo pipefail
cd "$(dirname "$0")/.."

folder=${1:-target/bench-run}
months=${MONTHS:-12}
workers=${WORKERS:-2}
dor=$(realpath "${DOR_BIN:-target/release/dor}")
mkdir -p "$folder"
cd "$folder"
raw=raw-$months
if [[ ! -d $raw ]]; then
    echo "making $months full-size files in $folder/$raw" >&2
    rm -rf "$raw.partial"
    "$dor" demo raw "$raw.partial" --case 112-04 --shape full --months "$months" --ssh
    mv "$raw.partial" "$raw"
fi

inputs=(--data-dir "$raw/archive" --allow-missing)
grid=(--grid "$raw/grid.nc")
research() { "$dor" research-data process-case 112-04 "${inputs[@]}" "${grid[@]}" -o out/research --workers "$workers"; }
store() { "$dor" vis "populate-store$1" -p 112 -m 4 "${inputs[@]}" -o "out/store$1" --workers "$workers" "${@:2}"; }
separate() {
    research
    store 1
    store 2 "${grid[@]}" --ssh "$raw/ssh.nc"
    store 3 "${grid[@]}" --centers "$raw/centers.csv"
}
one_pass() { "$dor" run --plan out/plan.json --shards 1 --workers "$workers"; }

prepare() {
    rm -rf out
    for n in 1 2 3; do
        "$dor" vis "create-template-store$n" -o "out/store$n"
    done
    "$dor" plan -o out/plan.json "${inputs[@]}" "${grid[@]}" --output-dir out/research --store1 out/store1 --store2 out/store2 \
        --store3 out/store3 --ssh "$raw/ssh.nc" --centers "$raw/centers.csv"
    # No run pays for flushing what the one before wrote, and all find their input cached.
    sync
    find "$raw/archive" -name '*.nc' -exec cat {} + >/dev/null
}

TIMEFORMAT='%R %U %S'
rm -f ./*.times
for ((run = 0; run < ${RUNS:-3}; run++)); do
    for way in separate one_pass; do
        prepare >&2
        { time "$way" >"$way.log" 2>&1; } 2>>"$way.times"
        echo "$way: $(tail -1 "$way.times") s (elapsed, user, system)"
    done
done
rm -rf out
median() { sort -n "$1.times" | awk '{ value[NR] = $1 } END { print value[int((NR + 1) / 2)] }'; }
echo "one pass / separate commands: $(echo "scale=3; $(median one_pass) / $(median separate)" | bc)"
