#!/usr/bin/env bash
# Draws the pictures of the documentation anew, with the program, in docs/pictures. Takes minutes.
#
#   DOR_BIN=PROGRAM scripts/pictures.sh      (default: target/release/dor)
set -euo pipefail
cd "$(dirname "$0")/.."

program=$(realpath "${DOR_BIN:-target/release/dor}")
pictures=$PWD/docs/pictures
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

# Neither a dor.toml nor a variable of the user may change what is drawn.
dor() {
    (cd "$work" && env -i HOME="$work" PATH="$PATH" "$program" "$@")
}

# The case of docs/from-nothing.md: the same shape, the same variables and steps.
dor demo raw . --shape small --ssh
inputs=(-p 112 -m 4 -d archive)
for store in store1 store2; do
    dor vis "create-template-$store" -o "$store.zarr" >/dev/null
done
dor vis populate-store1 -o store1.zarr "${inputs[@]}"
dor vis populate-store2 -o store2.zarr "${inputs[@]}" --grid grid.nc --ssh ssh.nc
for store in store1 store2; do
    dor vis finalize "$store.zarr" >/dev/null
done

mkdir -p "$pictures"
dor vis plot store2.zarr --variable DIC_SURF -p 112 -m 4 --step 11 --overwrite -o "$pictures/map.png"
dor vis plot store1.zarr --series -p 112 -m 4 --overwrite -o "$pictures/efficiency.png"

# What `make demo` leaves.
dor demo demo >/dev/null
cp "$work/demo/map.png" "$pictures/demo-map.png"

# A picture in a repository stays small.
for picture in "$pictures"/*.png; do
    bytes=$(wc -c <"$picture")
    echo "$picture: $bytes bytes"
    ((bytes < 100000)) || { echo "error: $picture has more than 100 kB" >&2 && exit 1; }
done
