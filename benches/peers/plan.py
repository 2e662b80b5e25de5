"""How long `dor publish` takes to plan a campaign: 1,660,000 objects in the records of 2760 cases.

    plan.py FOLDER --dor DOR [--runs N]

The source holds the records only, as conversions leave them: 180 research-grade files and 421 maps
of each case. Planned three times: for an empty destination, for one that has everything, and for
one where 1 % of the objects are other ones. Prints medians of seconds and of peak memory.
"""

import argparse
import gzip
import hashlib
import json
import os
import shutil
import statistics
import subprocess
import time
from pathlib import Path

CASES = [f"{polygon:03}-{month:02}" for polygon in range(690) for month in (1, 4, 7, 10)]
FILES, MAPS = 180, 421
# A file in nine parts, a map in one.
SIZE, MAP_SIZE = 150_000_000, 60_000
PART_SIZE = 16 << 20


def parts_of(key: str, size: int) -> list:
    return [hashlib.md5(f"{key} {n}".encode()) for n in range(-(-size // PART_SIZE))]


def etag_of(key: str, size: int) -> str:
    """What S3 calls an object with these parts."""
    parts = parts_of(key, size)
    if len(parts) == 1:
        return parts[0].hexdigest()
    return f"{hashlib.md5(b''.join(part.digest() for part in parts)).hexdigest()}-{len(parts)}"


def record(keys: list, size: int) -> str:
    files = []
    for key in keys:
        md5 = [part.hexdigest() for part in parts_of(key, size)]
        sha256 = hashlib.sha256(key.encode()).hexdigest()
        md5 = md5 if len(md5) > 1 else md5[0]
        files.append({"key": key, "size": size, "sha256": sha256, "md5": md5})
    head = {"format": 2, "recipe": {"product": "bench"}, "part_size": PART_SIZE}
    return json.dumps({**head, "files": files})


def write_source(root: Path) -> list:
    """Records of all cases; an entry for each object, as a published manifest has it."""
    entries = []
    store = root / "store2.zarr/.cases"
    store.mkdir(parents=True)
    (store / "shared.json").write_text(
        '{"format": 2, "recipe": {}, "store": "store2", "part_size": 16777216}'
    )
    for n, case in enumerate(CASES):
        folder = root / "research" / case.replace("-", "/")
        folder.mkdir(parents=True)
        text = record([f"{case.replace('-', '/')}/{month:03}.nc" for month in range(FILES)], SIZE)
        (folder / "manifest.json").write_text(text)
        key = folder.relative_to(root) / "manifest.json"
        entries.append([str(key), len(text), hashlib.md5(text.encode()).hexdigest()])
        maps = [f"{chunk % 4}/DIC/{n}/{chunk}" for chunk in range(MAPS)]
        (store / f"{case}.json").write_text(record(maps, MAP_SIZE))
        files = [f"{key.parent}/{month:03}.nc" for month in range(FILES)]
        own = [("research", f.removeprefix("research/"), SIZE) for f in files]
        for below, key, size in own + [("store2.zarr", m, MAP_SIZE) for m in maps]:
            entries.append([f"{below}/{key}", size, etag_of(key, size)])
    return sorted(entries)


def write_published(destination: Path, entries: list) -> None:
    header = {
        "format": 2,
        "version": 1,
        "published": "2026-01-01T00:00:00Z",
        "program": "bench",
        "source": "bench",
        "part_size": PART_SIZE,
        "recipes": {},
        "objects": len(entries),
        "bytes": sum(size for _, size, _ in entries),
    }
    folder = destination / ".dor"
    folder.mkdir(parents=True)
    with gzip.open(folder / "manifest.jsonl.gz", "wt", compresslevel=1) as out:
        for line in [header, *entries]:
            out.write(json.dumps(line, separators=(",", ":")) + "\n")


def plan(args: argparse.Namespace, destination: Path) -> tuple:
    command = [args.dor, "publish", args.folder / "source", destination, "--dry-run"]
    env = {**os.environ, "DOR_STATE_DIR": str(args.folder / "state")}
    begun = time.monotonic()
    # Linux counts the memory of a process that forks as its child's: a small one starts it.
    out = subprocess.run(
        ["/usr/bin/time", "-f", "%M", *command], env=env, capture_output=True, text=True
    )
    took = time.monotonic() - begun
    if out.returncode != 0:
        raise SystemExit(out.stdout + out.stderr)
    return took, int(out.stderr.split()[-1]) / 1024, out.stdout


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("folder", type=Path)
    parser.add_argument("--dor", required=True)
    parser.add_argument("--runs", type=int, default=5)
    args = parser.parse_args()
    shutil.rmtree(args.folder, ignore_errors=True)
    entries = write_source(args.folder / "source")
    others = [[key, size + (n % 100 == 0), etag] for n, (key, size, etag) in enumerate(entries)]
    destinations = {"nothing": [], "everything": entries, "all but 1 %": others}
    for name, published in destinations.items():
        destination = args.folder / name
        if published:
            write_published(destination, published)
        results = [plan(args, destination) for _ in range(args.runs)]
        seconds = statistics.median(took for took, _, _ in results)
        peak = statistics.median(peak for _, peak, _ in results)
        print(f"{len(entries)} objects, published: {name}: {seconds:.2f} s, {peak:.0f} MB")
        # The table of the plan, without the objects.
        print(*results[-1][2].splitlines()[:5], sep="\n")
    shutil.rmtree(args.folder)


if __name__ == "__main__":
    main()
