"""The container image: built without a container engine, run as on clusters, and its memory use."""

import json
import os
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest
from support.program import REPOSITORY

NEEDED = ("buildah", "mmdebstrap", "podman")


@dataclass(frozen=True)
class Image:
    """The image that buildah built, in its own storage."""

    storage: str

    @property
    def program(self) -> Path:
        return Path(self.storage).parent / "build/out/dor"

    def podman(self, *words: str) -> str:
        # These options work in a container too.
        command = ["podman", "--runtime=runc", "--cgroup-manager=cgroupfs", *words]
        environment = os.environ | {"CONTAINERS_STORAGE_CONF": self.storage}
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def run(self, *words: str, options: tuple[str, ...] = ()) -> str:
        """Runs `dor` with a read-only root, as a user that the image does not define."""
        limits = ("--ulimit=nofile=1024:1024", "--ulimit=nproc=1024:1024", "--network=host")
        strict = ("--read-only", "--user=12345:12345", "--cap-drop=all", "--pull=never", "--rm")
        return self.podman("run", *limits, *strict, *options, "dor", *words)


@pytest.fixture(scope="module")
def image() -> Image:
    missing = [name for name in NEEDED if shutil.which(name) is None]
    if missing:
        printed = f"no {' and no '.join(missing)}: run scripts/prerequisites.sh image"
        if os.environ.get("DOR_REQUIRE_IMAGE") == "1":
            pytest.fail(printed)
        pytest.skip(printed)
    script = REPOSITORY / "scripts/image.sh"
    built = subprocess.run([script], stdout=subprocess.PIPE, text=True, check=True)
    return Image(built.stdout.strip())


def test_the_image_is_small_and_does_not_run_as_root(image):
    [about] = json.loads(image.podman("image", "inspect", "dor"))
    assert about["Size"] < 120e6
    assert about["Config"]["User"] == "10001:10001"
    assert about["Config"]["Entrypoint"] == ["/usr/local/bin/dor"]
    assert "HOME=/tmp" in about["Config"]["Env"]


def test_the_demo_runs_as_any_user_with_a_read_only_root(image):
    printed = image.run("demo", "/tmp/demo", "--plan", "--shape", "small", "--months", "2")
    assert printed.count("1 of 2760 cases in the store") == 3
    assert image.run(options=("--entrypoint=id",)).startswith("uid=12345")


def test_the_image_has_certificate_authorities(image):
    bundle = "/etc/ssl/certs/ca-certificates.crt"
    certificates = image.run(bundle, options=("--entrypoint=cat",))
    assert certificates.count("BEGIN CERTIFICATE") > 50


def test_a_run_of_full_size_files_stays_below_its_memory_budget(image, tmp_path):
    """Eight files at a time would need 2.6 GB; the budget is 2 GB."""

    def dor(words: str) -> int:
        """Runs the program; returns its peak memory in bytes."""
        process = subprocess.Popen([image.program, *words.split()], cwd=tmp_path)
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        assert process.returncode == 0, words
        return usage.ru_maxrss * 1024

    dor("demo raw . --shape full --months 6 --ssh")
    for n in (1, 2, 3):
        dor(f"vis create-template-store{n} -o store{n}.zarr")
    stores = "--store1 store1.zarr --store2 store2.zarr --store3 store3.zarr"
    inputs = "-d archive --grid grid.nc --ssh ssh.nc --centers centers.csv --allow-missing"
    dor(f"plan -o plan.json --output-dir research {stores} {inputs}")
    assert dor("run --plan plan.json --shards 1 --shard 0 --memory 2GB --workers 8") < 2e9
    dor("finalize --plan plan.json")
