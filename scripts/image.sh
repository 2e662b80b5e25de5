#!/usr/bin/env bash
# Builds the image of infra/Dockerfile without a container engine and without a registry of images, and prints the settings
# with which buildah and podman find it under the name `dor`. Debian's packages give the base, scripts/static.sh the program.
set -euo pipefail
cd "$(dirname "$0")/.."

base=docker.io/library/debian:bookworm-slim
store=$PWD/.tools/image
mkdir -p "$store/build/out"
cat >"$store/storage.conf" <<END
[storage]
driver = "vfs"
graphroot = "$store/graph"
runroot = "$store/run"
END
export CONTAINERS_STORAGE_CONF=$store/storage.conf

if ! buildah inspect --type image "$base" >/dev/null 2>&1; then
    echo "image: making $base of Debian's packages" >&2
    # As slim as the image that it stands for: no documentation, no translations.
    mmdebstrap --quiet --variant=minbase --hook-dir=/usr/share/mmdebstrap/hooks/merged-usr --include=usr-is-merged \
        --dpkgopt='path-exclude=/usr/share/doc/*' --dpkgopt='path-exclude=/usr/share/info/*' \
        --dpkgopt='path-exclude=/usr/share/locale/*' --dpkgopt='path-exclude=/usr/share/man/*' \
        bookworm "$store/base.tar" >&2
    container=$(buildah from scratch)
    buildah add --quiet "$container" "$store/base.tar" / >/dev/null
    buildah commit --quiet --rm "$container" "$base" >/dev/null
    rm "$store/base.tar"
fi

cp "$(scripts/static.sh)" /etc/ssl/certs/ca-certificates.crt "$store/build/out"
buildah build --isolation chroot --pull-never --build-context "build=$store/build" -f infra/Dockerfile -t dor . >&2
echo "$CONTAINERS_STORAGE_CONF"
