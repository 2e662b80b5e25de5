#!/usr/bin/env bash
# Builds dor for any Linux with glibc 2.31 or later, netCDF-C and HDF5 in it, and prints where it is.
# Zig's linker knows the symbols of older C libraries; Python brings it, and a CMake that HDF5 is content with.
set -euo pipefail
cd "$(dirname "$0")/.."

glibc=2.31
target=$(uname -m)-unknown-linux-gnu
scripts/venv.sh .tools/static scripts/static-requirements.txt
PATH=$PWD/.tools/static/bin:$PATH
cargo zigbuild --release --locked --features static --target "$target.$glibc" >&2

dor=$PWD/target/$target/release/dor
newest=$(objdump -T "$dor" | grep -o 'GLIBC_[0-9.]*' | sed s/GLIBC_// | sort -uV | tail -1)
if [[ $(printf '%s\n' "$glibc" "$newest" | sort -V | tail -1) != "$glibc" ]]; then
    echo "error: $dor needs glibc $newest" >&2
    exit 1
fi
echo "$dor"
