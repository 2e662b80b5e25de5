"""Fixtures: cases and map stores that are made once and read by all tests."""

import tarfile

import pytest
from support import atlas as stores
from support import minio as minio_server
from support.atlas import Atlas
from support.program import SHARED, Case, Dor


@pytest.fixture(scope="session")
def dor() -> Dor:
    return Dor()


def _convert(dor: Dor, raw, output) -> Case:
    case = Case.below(raw, output)
    dor.process_case(case.archive, case.output, case.grid)
    return case


@pytest.fixture(scope="session")
def synthetic_case(dor, tmp_path_factory) -> Case:
    raw = tmp_path_factory.mktemp("synthetic")
    dor.make_raw(raw)
    return _convert(dor, raw, tmp_path_factory.mktemp("synthetic-research"))


@pytest.fixture(scope="session")
def mini_case(dor, tmp_path_factory) -> Case:
    raw = tmp_path_factory.mktemp("mini")
    unpack("mini-case.tar.gz", raw)
    return _convert(dor, raw, tmp_path_factory.mktemp("mini-research"))


@pytest.fixture(scope="session")
def expected(tmp_path_factory):
    """The files that the reference wrote from the mini case."""
    folder = tmp_path_factory.mktemp("expected")
    unpack("mini-expected.tar.gz", folder)
    return {path.stem.rsplit(".", 1)[1]: path for path in folder.rglob("*.nc")}


@pytest.fixture(scope="session", params=["synthetic_case", "mini_case"])
def case(request) -> Case:
    return request.getfixturevalue(request.param)


@pytest.fixture(scope="session")
def atlas(dor, tmp_path_factory) -> Atlas:
    return stores.make(dor, tmp_path_factory.mktemp("atlas"))


@pytest.fixture(scope="session")
def minio(tmp_path_factory):
    binary = minio_server.required()
    with minio_server.serve(binary, tmp_path_factory.mktemp("minio")) as server:
        yield server


def unpack(name: str, folder) -> None:
    """Unpacks an archive of the reference's data; skips the test where it is missing."""
    archive = SHARED / "data" / name
    if not archive.exists():
        pytest.skip(f"no {archive}: set DOR_SHARED to the folder that holds data/{name}")
    with tarfile.open(archive) as tar:
        tar.extractall(folder, filter="data")


def pytest_unconfigure(config) -> None:
    """Prints the number of passed, failed and skipped tests."""
    reporter = config.pluginmanager.get_plugin("terminalreporter")
    if reporter is None:
        return
    count = {kind: len(reports) for kind, reports in reporter.stats.items()}
    failed = count.get("failed", 0) + count.get("error", 0)
    print(f"{count.get('passed', 0)} passed, {failed} failed, {count.get('skipped', 0)} skipped")
