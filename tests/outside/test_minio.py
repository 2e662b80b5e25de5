"""Conversion to a bucket of MinIO: xarray over s3fs reads the same values as from disk."""

import os
import subprocess
import sys

import netCDF4
import pytest
import xarray as xr
from support.contract import JOINING, open_bits
from support.program import MONTH, POLYGON, SHARED

BUCKET = "dor-outside"
PREFIX = f"{BUCKET}/research"


@pytest.fixture(scope="module")
def bucket(minio):
    minio.files().mkdir(BUCKET)
    return minio


@pytest.fixture(scope="module")
def case(request):
    """The mini case if it is available, else the synthetic case: these tests are slow."""
    has_mini_case = (SHARED / "data" / "mini-case.tar.gz").exists()
    return request.getfixturevalue("mini_case" if has_mini_case else "synthetic_case")


@pytest.fixture(scope="module")
def uploaded(dor, case, bucket) -> str:
    """Converts the case to the bucket; returns its folder there."""
    target = f"s3://{PREFIX}"
    dor.process_case(case.archive, target, case.grid, *bucket.options(), **bucket.environment())
    return f"{PREFIX}/{POLYGON:03}/{MONTH:02}"


def test_the_bucket_has_the_180_files(case, bucket, uploaded):
    objects = [name.rsplit("/", 1)[1] for name in bucket.files().glob(f"{uploaded}/*.nc")]
    assert sorted(objects) == [case.research(month).name for month in case.months]


def test_objects_have_a_content_type(case, bucket, uploaded):
    files = bucket.files()
    for name, kind in [
        (case.research(case.months[0]).name, "application/x-netcdf"),
        ("manifest.json", "application/json"),
    ]:
        key = f"{uploaded}/{name}".removeprefix(f"{BUCKET}/")
        head = files.call_s3("head_object", Bucket=BUCKET, Key=key)
        assert head["ContentType"] == kind, name


def test_values_of_all_files_equal_those_on_disk(case, bucket, uploaded):
    files = bucket.files()
    for month in case.months:
        path = case.research(month)
        stored = files.cat_file(f"{uploaded}/{path.name}")
        with netCDF4.Dataset("remote", memory=stored) as remote, open_bits(path) as disk:
            remote.set_auto_maskandscale(False)
            assert remote.variables.keys() == disk.variables.keys()
            for name, variable in disk.variables.items():
                assert remote[name][...].tobytes() == variable[...].tobytes(), (month, name)


def test_a_year_joined_by_xarray_over_s3fs_equals_one_from_disk(case, bucket, uploaded):
    """A year, not all 15: h5netcdf takes half a second to open each file."""
    files = bucket.files()
    paths = [case.research(month) for month in case.months[:12]]
    objects = [files.open(f"{uploaded}/{path.name}") for path in paths]
    with (
        xr.open_mfdataset(objects, engine="h5netcdf", **JOINING) as remote,
        xr.open_mfdataset(paths, **JOINING) as disk,
    ):
        assert remote.sizes["elapsed_time"] == 12
        xr.testing.assert_equal(remote, disk)


def test_attributes_and_encoding_equal_those_on_disk(case, bucket, uploaded):
    path = case.research(case.months[1])
    with (
        xr.open_dataset(
            bucket.files().open(f"{uploaded}/{path.name}"),
            engine="h5netcdf",
            decode_timedelta=False,
        ) as remote,
        xr.open_dataset(path, engine="h5netcdf", decode_timedelta=False) as disk,
    ):
        for name in disk.variables:
            assert remote[name].attrs == disk[name].attrs, name
            for key in ("chunksizes", "compression", "compression_opts", "shuffle", "dtype"):
                assert remote[name].encoding.get(key) == disk[name].encoding.get(key), (name, key)


def test_raw_files_are_read_from_the_bucket(dor, case, bucket, tmp_path):
    raw = f"{BUCKET}/archive"
    files = bucket.files()
    files.put(str(case.archive), raw, recursive=True)
    source = f"s3://{raw}"
    arguments = (source, tmp_path, case.grid, *bucket.options())
    dor.process_case(*arguments, **bucket.environment())
    for month in case.samples():
        path = case.research(month)
        again = tmp_path / path.relative_to(case.output)
        with xr.open_dataset(path) as before, xr.open_dataset(again) as after:
            xr.testing.assert_equal(before, after)


def test_raw_files_are_read_over_http(dor, case, bucket, tmp_path):
    """From a public bucket, which is a web server without a listing, and without signatures."""
    public = f"{BUCKET}-public"
    place = bucket.make_public(public)
    files = bucket.files()
    for month in case.months[:2]:
        raw = case.raw(month)
        files.put(str(raw), f"{public}/archive/{raw.relative_to(case.archive)}")
    files.put(str(case.grid), f"{public}/grid.nc")
    dor.process_case(f"{place}/archive", tmp_path, f"{place}/grid.nc", "--allow-missing")
    assert len(list(tmp_path.rglob("*.nc"))) == 2
    for month in case.months[:2]:
        path = case.research(month)
        again = tmp_path / path.relative_to(case.output)
        with xr.open_dataset(path) as before, xr.open_dataset(again) as after:
            xr.testing.assert_equal(before, after)
    listing = dor.run("research-data", "list-cases", "-d", f"{place}/archive")
    assert listing.returncode == 78
    assert "cannot list over https" in listing.stderr


def test_the_code_that_the_demo_prints_opens_its_files(dor, bucket):
    arguments = ("demo", f"s3://{BUCKET}/demo", "--shape", "8x9x3", "--months", "2")
    printed = dor(*arguments, *bucket.options(), **bucket.environment())
    program = printed[printed.index("import s3fs") : printed.index("\n4. ")]
    program = program.replace("xarray.open", "print(xarray.open")
    done = subprocess.run(
        [sys.executable, "-c", program.rstrip() + ".sizes)"],
        env=os.environ | bucket.environment(),
        capture_output=True,
        text=True,
        check=True,
    )
    assert "'elapsed_time': 2" in done.stdout
