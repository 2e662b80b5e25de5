#!/usr/bin/env bash
# Installs what a target needs from the system, or says what to install. Quick and silent when nothing is missing.
#
#   scripts/prerequisites.sh [build] [test] [outside] [lint] [slurm] [image]      (default: build)
#
#   build    C compiler, pkg-config, netCDF-C and HDF5 with headers
#   test     build + ncdump, and tmux for the tests in a terminal
#   outside  test + NCO, Python 3.11 or later with venv, Node 18 or later with npm, MinIO (from source, when Go is there)
#   lint     build + Python with venv
#   slurm    Slurm and munge, for the tests that send jobs to a real one on this machine
#   image    build + what makes and runs the container image: buildah, mmdebstrap, podman
set -euo pipefail
cd "$(dirname "$0")/.."

declare -A debian=(
    [cc]=build-essential [pkg-config]=pkg-config [netcdf]=libnetcdf-dev [hdf5]=libhdf5-dev
    [ncdump]=netcdf-bin [ncks]=nco [python3]=python3 [venv]=python3-venv
    [node]=nodejs [npm]=npm [sbatch]=slurm-wlm [munged]=munge
    [buildah]=buildah [mmdebstrap]=mmdebstrap [podman]=podman [runc]=runc [tmux]=tmux
)
declare -A fedora=(
    [cc]=gcc [pkg-config]=pkgconf-pkg-config [netcdf]=netcdf-devel [hdf5]=hdf5-devel
    [ncdump]=netcdf [ncks]=nco [python3]=python3 [venv]=python3
    [node]=nodejs [npm]=nodejs-npm [sbatch]="slurm slurm-slurmctld slurm-slurmd" [munged]=munge
    [buildah]=buildah [mmdebstrap]=mmdebstrap [podman]=podman [runc]=runc [tmux]=tmux
)
declare -A homebrew=(
    [cc]="(xcode-select --install)" [pkg-config]=pkgconf [netcdf]=netcdf [hdf5]=hdf5
    [ncdump]=netcdf [ncks]=nco [python3]=python [venv]=python
    [node]=node [npm]=node [sbatch]="(Slurm: on Linux only)" [munged]=munge
    [buildah]="(buildah: on Linux only)" [mmdebstrap]="" [podman]=podman [runc]="" [tmux]=tmux
)

have() {
    case $1 in
        netcdf) pkg-config --exists netcdf 2>/dev/null ;;
        hdf5) pkg-config --exists hdf5 2>/dev/null || [[ -n ${HDF5_DIR:-} ]] ;;
        venv) python3 -c 'import ensurepip, venv' 2>/dev/null ;;
        python3) python3 -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null ;;
        node) node -e 'process.exit(Number(parseInt(process.versions.node) < 18))' 2>/dev/null ;;
        # Daemons are not on everybody's PATH.
        *) PATH=$PATH:/usr/sbin command -v "$1" >/dev/null ;;
    esac
}

missing_of() {
    local need
    for need in "$@"; do
        have "$need" || echo "$need"
    done
}

as_root() {
    if [[ $(id -u) -eq 0 ]]; then
        "$@"
    elif command -v sudo >/dev/null; then
        sudo "$@"
    else
        echo "error: not root and no sudo; run as root: $*" >&2
        exit 1
    fi
}

needs=(cc pkg-config netcdf hdf5)
minio=no
for group in "${@:-build}"; do
    case $group in
        build) ;;
        test) needs+=(ncdump tmux) ;;
        outside)
            needs+=(ncdump tmux ncks python3 venv node npm)
            minio=yes
            ;;
        lint) needs+=(python3 venv) ;;
        slurm) needs+=(sbatch munged) ;;
        image) needs+=(python3 venv buildah mmdebstrap podman runc) ;;
        *)
            echo "error: unknown group '$group'; there are build, test, outside, lint, slurm and image" >&2
            exit 2
            ;;
    esac
done

if ! command -v cargo >/dev/null; then
    echo "error: cargo is not on PATH; install Rust 1.95 or later from https://rustup.rs" >&2
    exit 1
fi

mapfile -t missing < <(missing_of "${needs[@]}")
if [[ ${#missing[@]} -gt 0 ]]; then
    if command -v apt-get >/dev/null; then
        packages=()
        for need in "${missing[@]}"; do packages+=("${debian[$need]}"); done
        echo "prerequisites: installing ${packages[*]}" >&2
        as_root apt-get update -qq
        as_root env DEBIAN_FRONTEND=noninteractive \
            apt-get install -y -qq --no-install-recommends "${packages[@]}" >/dev/null
        mapfile -t missing < <(missing_of "${needs[@]}")
        if [[ ${#missing[@]} -gt 0 ]]; then
            echo "error: still missing after apt-get: ${missing[*]}" >&2
            exit 1
        fi
    else
        {
            echo "error: missing: ${missing[*]}. Install them and run this again:"
            on_fedora=()
            on_mac=()
            for need in "${missing[@]}"; do
                on_fedora+=("${fedora[$need]}")
                on_mac+=("${homebrew[$need]}")
            done
            echo "  Fedora, RHEL:   sudo dnf install ${on_fedora[*]}"
            echo "  macOS:          brew install ${on_mac[*]}"
            echo "  HPC:            module load cray-hdf5 cray-netcdf (or your site's names for HDF5, netCDF-C, NCO)"
            echo "  anywhere:       conda install -c conda-forge compilers pkg-config libnetcdf hdf5 nco python nodejs"
            echo "  or build netCDF-C and HDF5 into the program (CMake 3.26 or later): cargo build --features static"
        } >&2
        exit 1
    fi
fi

if [[ $minio == yes ]]; then
    scripts/minio.sh >/dev/null
fi
