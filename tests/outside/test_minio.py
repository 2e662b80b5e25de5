"""Straight to a bucket of MinIO, and back with xarray over s3fs: the values are those on disk."""

import pytest
import xarray as xr
from support.program import MONTH, POLYGON

BUCKET = "dor-outside"
PREFIX = f"{BUCKET}/research"


@pytest.fixture(scope="module")
def bucket(minio):
    minio.files().mkdir(BUCKET)
    return minio


@pytest.fixture(scope="module")
def uploaded(dor, case, bucket):
    """Converted from disk to the bucket."""

    prefix = f"{PREFIX}/{case.output.name}"
    target = f"s3://{prefix}"
    dor.process_case(case.archive, target, case.grid, *bucket.options(), **bucket.environment())
    return f"{prefix}/{POLYGON:03}/{MONTH:02}"


def open_remote(bucket, folder: str, name: str) -> xr.Dataset:
    return xr.open_dataset(
        bucket.files().open(f"{folder}/{name}"), engine="h5netcdf", decode_timedelta=False
    )


def test_bucket_holds_the_180_files(case, bucket, uploaded):
    objects = [name.rsplit("/", 1)[1] for name in bucket.files().glob(f"{uploaded}/*.nc")]
    assert sorted(objects) == [case.research(month).name for month in case.months]


def test_joined_dataset_equals_the_one_on_disk(case, bucket, uploaded):
    files = bucket.files()
    joining = {
        "combine": "by_coords",
        "coords": "minimal",
        "data_vars": "minimal",
        "compat": "override",
        "engine": "h5netcdf",
        "decode_timedelta": False,
    }
    objects = [files.open(name) for name in sorted(files.glob(f"{uploaded}/*.nc"))]
    local = sorted(map(str, case.folder().glob("*.nc")))
    with xr.open_mfdataset(objects, **joining) as remote, xr.open_mfdataset(local, **joining) as disk:
        assert remote.sizes["elapsed_time"] == 180
        xr.testing.assert_equal(remote, disk)


def test_attributes_and_encoding_equal_those_on_disk(case, bucket, uploaded):
    path = case.research(case.months[1])
    with (
        open_remote(bucket, uploaded, path.name) as remote,
        xr.open_dataset(path, engine="h5netcdf", decode_timedelta=False) as disk,
    ):
        for name in disk.variables:
            assert remote[name].attrs == disk[name].attrs, name
            for key in ("chunksizes", "compression", "compression_opts", "shuffle", "dtype"):
                assert remote[name].encoding.get(key) == disk[name].encoding.get(key), (name, key)


def test_raw_input_can_be_in_the_bucket(dor, synthetic_case, bucket, tmp_path):
    raw = f"{BUCKET}/archive"
    files = bucket.files()
    files.put(str(synthetic_case.archive), raw, recursive=True)
    source = f"s3://{raw}"
    arguments = (source, tmp_path, synthetic_case.grid, *bucket.options())
    dor.process_case(*arguments, **bucket.environment())
    for month in synthetic_case.samples():
        path = synthetic_case.research(month)
        again = tmp_path / path.relative_to(synthetic_case.output)
        with xr.open_dataset(path) as before, xr.open_dataset(again) as after:
            xr.testing.assert_equal(before, after)
