"""A MinIO server of our own on a free port of the loopback interface."""

import json
import os
import shutil
import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
import s3fs

from support.program import REPOSITORY

KEY = "dor-tests"
SECRET = "dor-tests-secret"


@dataclass(frozen=True)
class Minio:
    endpoint: str

    def files(self) -> s3fs.S3FileSystem:
        """A new client each time: what `dor` wrote meanwhile must not hide behind a cache."""
        return s3fs.S3FileSystem(
            key=KEY, secret=SECRET, endpoint_url=self.endpoint, skip_instance_cache=True
        )

    def make_public(self, bucket: str) -> str:
        """A new bucket that anyone may list and read; its URL."""
        anyone = {"Effect": "Allow", "Principal": {"AWS": ["*"]}}
        statements = [
            anyone | {"Action": ["s3:GetObject"], "Resource": [f"arn:aws:s3:::{bucket}/*"]},
            anyone | {"Action": ["s3:ListBucket"], "Resource": [f"arn:aws:s3:::{bucket}"]},
        ]
        policy = json.dumps({"Version": "2012-10-17", "Statement": statements})
        files = self.files()
        files.mkdir(bucket)
        files.call_s3("put_bucket_policy", Bucket=bucket, Policy=policy)
        return f"{self.endpoint}/{bucket}"

    def environment(self) -> dict[str, str]:
        return {"AWS_ACCESS_KEY_ID": KEY, "AWS_SECRET_ACCESS_KEY": SECRET}

    def options(self) -> tuple[str, ...]:
        return ("--profile", "minio", "--endpoint-url", self.endpoint)


def find() -> str | None:
    gobin = os.environ.get("GOBIN", Path(os.environ.get("GOPATH", Path.home() / "go")) / "bin")
    places = [REPOSITORY / ".tools" / "bin", os.environ.get("PATH", ""), gobin]
    return shutil.which("minio", path=os.pathsep.join(map(str, places)))


def required() -> str:
    """The program, without which the test that asks is skipped, or fails with DOR_REQUIRE_MINIO."""
    binary = find()
    if binary is None:
        absent = "no minio on PATH, in .tools/bin or ~/go/bin: run scripts/minio.sh"
        if os.environ.get("DOR_REQUIRE_MINIO") == "1":
            pytest.fail(absent)
        pytest.skip(absent)
    return binary


@contextmanager
def serve(binary: str, folder: Path) -> Iterator[Minio]:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{probe.getsockname()[1]}"
    environment = os.environ | {
        "MINIO_ROOT_USER": KEY,
        "MINIO_ROOT_PASSWORD": SECRET,
        "MINIO_BROWSER": "off",
        "MINIO_UPDATE": "off",
    }
    with (folder / "minio.log").open("w") as log:
        server = subprocess.Popen(
            [binary, "server", "--address", address, str(folder / "data")],
            env=environment,
            stdout=log,
            stderr=subprocess.STDOUT,
        )
        try:
            _wait(server, f"http://{address}/minio/health/live", folder / "minio.log")
            yield Minio(f"http://{address}")
        finally:
            server.terminate()
            server.wait(timeout=30)


def _wait(server: subprocess.Popen, url: str, log: Path) -> None:
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        if server.poll() is not None:
            break
        try:
            with urllib.request.urlopen(url, timeout=1):
                return
        except (urllib.error.URLError, OSError):
            time.sleep(0.1)
    raise RuntimeError(f"minio did not start:\n{log.read_text()}")
