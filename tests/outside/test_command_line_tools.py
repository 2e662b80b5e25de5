"""Research-grade files in ncdump and NCO, which use the netCDF-C of the system."""

import re
import subprocess

from support.contract import layouts, open_bits


def run(*command: object) -> str:
    done = subprocess.run([*map(str, command)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{command}: {done.stderr}"
    return done.stdout


def special_attributes(cdl: str) -> dict[str, dict[str, str]]:
    """`_Storage`, `_ChunkSizes`, ... of each variable in the output of `ncdump -hs`."""
    found: dict[str, dict[str, str]] = {}
    for name, attribute, value in re.findall(r"^\t\t(\w+):(_\w+) = (.*) ;$", cdl, re.MULTILINE):
        found.setdefault(name, {})[attribute] = value.strip('"')
    return found


def test_ncdump_shows_the_expected_storage_chunks_and_filters(case):
    for month in case.samples():
        stored = special_attributes(run("ncdump", "-hs", case.research(month)))
        with open_bits(case.raw(month)) as raw:
            wanted = layouts(raw)
        assert wanted.keys() <= stored.keys()
        for name, layout in wanted.items():
            shown = stored[name]
            if not layout.filtered:
                assert shown["_Storage"] == "contiguous", name
                continue
            assert shown["_Storage"] == "chunked", name
            assert shown["_ChunkSizes"] == ", ".join(map(str, layout.chunks)), name
            assert (shown["_DeflateLevel"], shown["_Shuffle"]) == ("4", "true"), name
            assert "_Filter" not in shown, name


def test_ncdump_prints_elapsed_time_and_time_delta(case):
    month = case.months[-1]
    cdl = run("ncdump", "-v", "elapsed_time,time_delta", case.research(month))
    assert "elapsed_time = 5444" in cdl
    assert "time_delta = 31" in cdl


def test_ncks_extracts_a_subset(case, tmp_path):
    month = case.months[1]
    subset = tmp_path / "subset.nc"
    run("ncks", "-O", "-v", "DIC", "-d", "z_t,0", "-d", "nlat,2,9", case.research(month), subset)
    with open_bits(case.raw(month)) as raw, open_bits(subset) as made:
        wanted = raw["DIC"][0, 0:1, 2:10, :]
        assert made["DIC"].shape == (1, 1, 1, *wanted.shape)
        assert made["DIC"][...].tobytes() == wanted.tobytes()
        assert {"TLONG", "TLAT", "time"} <= set(made.variables)


def test_ncrcat_joins_months(case, tmp_path):
    """NCO joins along the first dimension only, so ncpdq moves it to the front (docs/guide.md)."""
    parts = []
    for month in case.samples():
        moved, part = tmp_path / "moved.nc", tmp_path / f"{month}.nc"
        order = "elapsed_time,polygon_id,intervention_date"
        run(*["ncpdq", "-O", "-v", "FG_CO2,time_delta", "-a"], order, case.research(month), moved)
        run(*["ncks", "-O", "--mk_rec_dmn", "elapsed_time"], moved, part)
        parts.append(part)
    joined = tmp_path / "joined.nc"
    run("ncrcat", "-O", *parts, joined)
    with open_bits(joined) as made:
        assert made["elapsed_time"][...].tolist() == [0, 30, 5444]
        assert made["time_delta"][...].tolist() == [30, 31, 31]
        for step, month in enumerate(case.samples()):
            with open_bits(case.raw(month)) as raw:
                wanted = raw["FG_CO2"][0]
            assert made["FG_CO2"][step, 0, 0].tobytes() == wanted.tobytes(), month
