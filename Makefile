# `make` alone lists the targets.
.DEFAULT_GOAL := help
SHELL := /bin/bash

.PHONY: help prerequisites build static image demo test test-outside bench lint fmt man clean

help: ## List the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 16

prerequisites: ## Install everything that any target needs from the system (Debian; says what to do elsewhere)
	@scripts/prerequisites.sh build test outside lint slurm image

build: ## Build target/release/dor
	@scripts/prerequisites.sh build
	cargo build --release --locked

static: ## Build dor for any Linux with glibc 2.31 or later, netCDF-C and HDF5 in it
	@scripts/prerequisites.sh build lint
	@scripts/static.sh

image: ## Build the container image without a container engine
	@scripts/prerequisites.sh build image
	@scripts/image.sh

demo: build ## Make a synthetic case, convert it, make the map stores, show what came out (in ./demo)
	target/release/dor demo demo

# Many tests wait for servers and timers, so there is one more than cores.
test: ## Run all Rust tests
	@scripts/prerequisites.sh build test
	RUST_TEST_THREADS=$$(($$(nproc) + 1)) cargo test --locked

test-outside: ## Convert, then read the result with xarray, netCDF4, ncdump, NCO, a CF checker, the libraries of the web page; MinIO and the image when they can be had
	@scripts/prerequisites.sh build outside
	@scripts/venv.sh
	[[ -n "$$DOR_BIN" ]] || cargo build --locked
	DOR_BIN="$${DOR_BIN:-$(CURDIR)/target/debug/dor}" .venv/bin/pytest --numprocesses logical --dist loadfile tests/outside

bench: build ## Compare with the Python way on full-size files and with s5cmd (needs 20 GB and some hours), then the kernels
	@scripts/prerequisites.sh build outside
	@scripts/venv.sh
	scripts/bench-convert.sh
	scripts/bench-s3.sh
	scripts/bench-vis.sh
	scripts/bench-run.sh
	scripts/bench-publish.sh
	cargo bench --locked

lint: ## rustfmt, clippy, rustdoc, cargo-deny, cargo-shear, shellcheck, hadolint, ruff
	@scripts/prerequisites.sh build lint
	@scripts/venv.sh .tools/lint scripts/lint-requirements.txt
	@scripts/lint.sh

fmt: ## Format the Rust and Python sources
	@scripts/prerequisites.sh build lint
	@scripts/venv.sh .tools/lint scripts/lint-requirements.txt
	cargo fmt
	.tools/lint/bin/ruff check --fix tests/outside benches/peers
	.tools/lint/bin/ruff format tests/outside benches/peers

man: build ## Write the man pages to target/man
	target/release/dor man target/man

clean: ## Remove what was built (not .tools and .venv, which take long)
	cargo clean
	rm -rf demo
