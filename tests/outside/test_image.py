"""The image, built without an engine and run as clusters run it, and the memory of its program."""

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
    """What buildah has built, in a storage of its own."""

    storage: str

    @property
    def program(self) -> Path:
        return Path(self.storage).parent / "build/out/dor"

    def podman(self, *words: str) -> str:
        # Nothing here needs more than a container in a container may have.
        command = ["podman", "--runtime=runc", "--cgroup-manager=cgroupfs", *words]
        environment = os.environ | {"CONTAINERS_STORAGE_CONF": self.storage}
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def run(self, *words: str, options: tuple[str, ...] = ()) -> str:
        """With a read-only root, as a user that the image knows nothing of."""
        limits = ("--ulimit=nofile=1024:1024", "--ulimit=nproc=1024:1024", "--network=host")
        strict = ("--read-only", "--user=12345:12345", "--cap-drop=all", "--pull=never", "--rm")
        return self.podman("run", *limits, *strict, *options, "dor", *words)


@pytest.fixture(scope="module")
def image() -> Image:
    absent = [name for name in NEEDED if shutil.which(name) is None]
    if absent:
        said = f"no {' and no '.join(absent)}: run scripts/prerequisites.sh image"
        if os.environ.get("DOR_REQUIRE_IMAGE") == "1":
            pytest.fail(said)
        pytest.skip(said)
    script = REPOSITORY / "scripts/image.sh"
    built = subprocess.run([script], stdout=subprocess.PIPE, text=True, check=True)
    return Image(built.stdout.strip())


def test_it_is_small_and_not_roots(image):
    [about] = json.loads(image.podman("image", "inspect", "dor"))
    assert about["Size"] < 120e6
    assert about["Config"]["User"] == "10001:10001"
    assert about["Config"]["Entrypoint"] == ["/usr/local/bin/dor"]
    assert "HOME=/tmp" in about["Config"]["Env"]


def test_it_makes_an_atlas_as_any_user_on_a_read_only_root(image):
    said = image.run("demo", "/tmp/demo", "--plan", "--shape", "small", "--months", "2")
    assert said.count("1 of 2760 cases in the store") == 3
    assert image.run(options=("--entrypoint=id",)).startswith("uid=12345")


def test_it_knows_the_authorities_that_sign_for_servers(image):
    bundle = "/etc/ssl/certs/ca-certificates.crt"
    certificates = image.run(bundle, options=("--entrypoint=cat",))
    assert certificates.count("BEGIN CERTIFICATE") > 50


def test_full_size_files_stay_under_the_memory_given(image, tmp_path):
    """Eight at once would take 2.6 GB."""

    def dor(words: str) -> int:
        """Runs it, and gives the most memory that it had, in bytes."""
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
