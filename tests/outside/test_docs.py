"""The snippets of README.md and docs run, in the order of each page, in a fresh folder."""

import os
import re
import shutil
import socket
import struct
import subprocess
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
from support import minio as minio_server
from support import pages
from support.pages import Session, Snippet
from support.program import REPOSITORY, Dor

# The size of docs/from-nothing.md.
RAW = ("--shape", "small", "--ssh")
LOCATIONS = """
data_dir = "archive"
grid = "grid.nc"
ssh = "ssh.nc"
centers = "centers.csv"
output_dir = "atlas/research"
store1 = "atlas/store1b.zarr"
store2 = "atlas/store2.zarr"
store3 = "atlas/cumulative_FG_CO2_percent.zarr"
"""
DEMO = """
data_dir = "demo/archive"
grid = "demo/grid.nc"
ssh = "demo/ssh.nc"
"""
RESULTS = {
    "research-grade": "research",
    "store1b.zarr": "store1.zarr",
    "store2.zarr": "store2.zarr",
    "cumulative_FG_CO2_percent.zarr": "store3.zarr",
}
# The address of MinIO on every page. Where the port is taken, a free one replaces it.
PORT = 9000
# Programs of a cluster and of a service, as far as `dor` and the pages need them.
STAND_INS = {
    "sbatch": 'test -f "${@: -1}"; echo 4711',
    "salloc": "true",
    "srun": 'exec "$@"',
    "source-coop": """
        keys='"AccessKeyId": "myself", "SecretAccessKey": "secret-of-mine"'
        case $1 in
            login) ;;
            creds) echo "{\\"Version\\": 1, $keys}" ;;
            *) exit 2 ;;
        esac""",
}


@dataclass(frozen=True)
class Page:
    """What a page expects, and how many of its snippets run at least, and are only read."""

    runs: int
    not_run: int = 0
    # Cases whose raw files lie in the folder, with the grid and the other inputs.
    raw: tuple[str, ...] = ()
    # The `dor.toml` in the folder.
    configured: str = ""
    # Research-grade files of the cases in `research`.
    research: bool = False
    # What `make demo` leaves; and a copy of its results in $SCRATCH/atlas.
    demo: bool = False
    atlas: bool = False
    # Buckets of a MinIO of the test, or of the one that the page starts.
    buckets: tuple[str, ...] = ()
    # Folder below the home folder in which the page draws the pictures that it shows.
    pictures: str = ""
    # Where the raw files and the other inputs are copied to as well.
    uploaded: str = ""


PAGES = {
    "README.md": Page(2, 1, raw=("112-04",), configured=LOCATIONS, buckets=("bucket",)),
    "docs/aws-batch.md": Page(0, 3),
    "docs/benchmarks.md": Page(0, 7),
    "docs/command-line.md": Page(1, 1),
    "docs/configuration.md": Page(1),
    "docs/from-nothing.md": Page(10, 1, pictures="atlas-demo"),
    "docs/guide.md": Page(7, 3, raw=("112-04",), configured=LOCATIONS, demo=True),
    "docs/hpc.md": Page(7, 3, raw=("112-04",), buckets=("my-account",)),
    "docs/kubernetes.md": Page(
        1, 5, raw=("112-04",), buckets=("my-bucket", "archive"), uploaded="archive"
    ),
    "docs/publishing.md": Page(6, configured=DEMO, demo=True, atlas=True, buckets=("my-account",)),
    "docs/stores.md": Page(4, 1, raw=("112-04", "113-04"), research=True, buckets=("bucket",)),
    "docs/style.md": Page(0, 1),
}


@pytest.fixture(scope="module")
def demo(dor, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("demo") / "demo"
    dor("demo", folder, "--shape", "small")
    return folder


def free_port() -> int:
    for wanted in (PORT, 0):
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", wanted))
            except OSError:
                continue
            return probe.getsockname()[1]
    raise OSError("no free port")


def programs(folder: Path, found: dict[str, object]) -> Path:
    """A folder for PATH: links to programs, and the stand-ins."""
    folder.mkdir()
    for name, program in found.items():
        (folder / name).symlink_to(program)
    for name, text in STAND_INS.items():
        (folder / name).write_text(f"#!/usr/bin/env bash\nset -eu\n{text}\n")
        (folder / name).chmod(0o755)
    return folder


def reader(dor: Dor, folder: Path, **found: object) -> dict[str, str]:
    """The environment of a reader, with nothing of the configuration of the user."""
    environment = {
        key: value
        for key, value in os.environ.items()
        if not key.startswith(("AWS_", "DOR_", "OCEAN_CDR_", "XDG_", "MINIO_", "PYTHON"))
    }
    path = programs(folder / "bin", {"dor": dor.binary} | found)
    return environment | {
        "PATH": f"{path}{os.pathsep}{environment['PATH']}",
        "HOME": str(folder / "home"),
        "SCRATCH": str(folder / "scratch"),
        "ARCHIVE": str(folder / "work/archive"),
    }


def prepare(page: Page, dor: Dor, demo: Path | None, folder: Path) -> None:
    """The folders of a reader who has come to this page: work, home and scratch."""
    work, scratch = folder / "work", folder / "scratch"
    for made in (work, scratch, folder / "home"):
        made.mkdir()
    for case in page.raw:
        dor("demo", "raw", work, "--case", case, *RAW)
    for name in ("scripts", "infra"):
        (work / name).symlink_to(REPOSITORY / name)
    if page.configured:
        (work / "dor.toml").write_text(page.configured)
    if page.research:
        for case in page.raw:
            command = ("research-data", "process-case", case, "-d", work / "archive")
            dor(*command, "-o", work / "research", "--grid", work / "grid.nc")
    if page.demo:
        shutil.copytree(demo, work / "demo")
    if page.atlas:
        for source, name in RESULTS.items():
            shutil.copytree(demo / source, scratch / "atlas" / name)


def upload(server: minio_server.Minio, work: Path, bucket: str) -> None:
    files = server.files()
    files.put(str(work / "archive"), f"{bucket}/raw", recursive=True)
    for name in ("grid.nc", "ssh.nc", "centers.csv"):
        files.put(str(work / name), f"{bucket}/{name}")


@contextmanager
def server_of(page: Page, folder: Path) -> Iterator[dict[str, str]]:
    """The variables that name a MinIO with the buckets of the page, if it needs one."""
    if not page.buckets:
        yield {}
        return
    (folder / "minio").mkdir()
    with minio_server.serve(minio_server.required(), folder / "minio") as server:
        for bucket in page.buckets:
            server.files().mkdir(bucket)
        if page.uploaded:
            upload(server, folder / "work", page.uploaded)
        yield server.environment() | {"DOR_S3_ENDPOINT_URL": server.endpoint}


def run_with_own_server(page: Page, dor: Dor, given: list[Snippet], folder: Path) -> list[Path]:
    """For a page that starts MinIO itself, with other buckets in it than the page makes."""
    port = free_port()
    address = f"127.0.0.1:{port}"
    environment = reader(dor, folder, minio=minio_server.required())
    environment |= {"MINIO_ADDRESS": address, "MINIO_BROWSER": "off"}
    for bucket in page.buckets:
        (folder / "home/minio" / bucket).mkdir(parents=True)
    # Of the profiles of the pages, `minio` has this endpoint already, and `source-coop` another.
    if port != PORT or page.buckets:
        environment["DOR_S3_ENDPOINT_URL"] = f"http://{address}"
    return Session(folder, environment, {f"127.0.0.1:{PORT}": address}).run(given)


@pytest.mark.parametrize("name", [name for name, page in PAGES.items() if page.runs])
def test_the_snippets_of_the_page_run(name, dor, request, tmp_path, capsys):
    page = PAGES[name]
    given = [snippet for snippet in pages.snippets(name) if snippet.runs]
    assert len(given) >= page.runs, f"{name}: only {len(given)} snippets run"
    demo = request.getfixturevalue("demo") if page.demo or page.atlas else None
    prepare(page, dor, demo, tmp_path)
    if any("minio.sh" in snippet.text for snippet in given):
        outputs = run_with_own_server(page, dor, given, tmp_path)
    else:
        with server_of(page, tmp_path) as variables:
            outputs = Session(tmp_path, reader(dor, tmp_path) | variables, {}).run(given)
    assert_shows(name, dict(zip(given, outputs, strict=True)))
    if page.pictures:
        assert_drawn(name, tmp_path / "home" / page.pictures)
    with capsys.disabled():
        print(f"\n{name}: {len(given)} snippets run", end="")
    # Half a gigabyte for each page; what a failed one has left stays.
    for used in ("work", "home", "scratch", "minio"):
        shutil.rmtree(tmp_path / used, ignore_errors=True)


@pytest.mark.parametrize(
    ("info", "text", "reason"),
    [
        ("sh", "dor vis plot --nothing", "unexpected argument '--nothing'"),
        ("sh", "false | true", "exit 1"),
        ("sh", "exit 0", "the shell has ended before"),
        ("toml", "nothing = 1", "unknown key `nothing`"),
        ("python", "import s3fs", "No module named 's3fs'"),
    ],
)
def test_a_snippet_that_does_not_work_fails(info, text, reason, dor, tmp_path):
    """The README does not tell the reader to install s3fs."""
    prepare(Page(1), dor, None, tmp_path)
    given = [Snippet("README.md", 1000, *snippet) for snippet in [(info, text), ("sh", "true")]]
    with pytest.raises(AssertionError, match=re.escape(reason)):
        Session(tmp_path, reader(dor, tmp_path), {}).run(given)


def assert_shows(name: str, outputs: dict[Snippet, Path]) -> None:
    """Each `text` of the page is in what the snippet before it has printed."""
    before = None
    for snippet in pages.snippets(name):
        if snippet.info == "text":
            printed = pages.squeezed(outputs[before].read_text())
            for line in pages.squeezed(snippet.text):
                assert line in printed, f"{snippet}: {before} does not print: {line}"
        elif snippet in outputs:
            before = snippet


def assert_drawn(name: str, folder: Path) -> None:
    """The pictures of the page are those that its commands have drawn, but for some pixels.

    Another label, or the map of another grid, changes 2 bytes of 1000: most of a map is one colour.
    """
    shown = re.findall(r"!\[[^\]]+\]\(pictures/([^)]+)\)", pages.prose(name))
    assert shown
    for picture in shown:
        old, new = (pixels(place / picture) for place in (REPOSITORY / "docs/pictures", folder))
        assert len(old) == len(new), f"{picture}: run scripts/pictures.sh"
        different = sum(a != b for a, b in zip(old, new, strict=True))
        assert different < len(old) / 2000, f"{picture}: run scripts/pictures.sh"


def pixels(png: Path) -> bytes:
    content, place, found = png.read_bytes(), 8, b""
    while place < len(content):
        length, kind = struct.unpack_from(">I4s", content, place)
        if kind == b"IDAT":
            found += content[place + 8 : place + 8 + length]
        place += length + 12
    return zlib.decompress(found)


def test_pictures_are_small():
    pictures = sorted((REPOSITORY / "docs/pictures").iterdir())
    assert pictures
    assert not [picture for picture in pictures if picture.stat().st_size >= 100_000]


def test_every_page_with_snippets_is_known():
    with_snippets = {name for name in pages.pages() if pages.snippets(name)}
    assert with_snippets == set(PAGES)


def test_what_is_not_run_is_named_and_can_be_run_by_its_syntax(dor, capsys):
    total, listed = 0, []
    for name, page in PAGES.items():
        not_run = [snippet for snippet in pages.snippets(name) if "not-run" in snippet.info]
        assert len(not_run) >= page.not_run, f"{name}: only {len(not_run)} are not run"
        total += len(not_run)
        listed += [f"{snippet}: {snippet.text.splitlines()[0]}" for snippet in not_run]
        for snippet in not_run:
            if snippet.language != "sh":
                continue
            done = subprocess.run(
                ["bash", "-n"], input=snippet.text, capture_output=True, text=True, check=False
            )
            assert done.returncode == 0, f"{snippet}: {done.stderr}"
            for words in pages.commands(snippet):
                assert not (wrong := pages.parse(dor, words)), f"{snippet}: {wrong}"
    assert total == sum(page.not_run for page in PAGES.values())
    with capsys.disabled():
        print(f"\n{total} snippets not run:\n" + "\n".join(listed), end="")


def test_every_fence_says_what_it_is():
    for name in pages.pages():
        for snippet in pages.snippets(name):
            language, *rest = snippet.info.split()
            assert language in pages.LANGUAGES, f"{snippet}: {snippet.info}"
            assert rest in ([], ["not-run"]), f"{snippet}: {snippet.info}"
        assert pages.prose(name).count("```") == 0, (
            f"{name}: a fence that is not closed or has no language"
        )


def test_no_command_is_an_indented_block():
    for name in pages.pages():
        blocks = pages.indented(name)
        assert not blocks, f"{name}: put it into a fence: {blocks}"


def test_commands_in_sentences_exist(dor):
    found = {tuple(words): name for name in pages.pages() for words in pages.inline_commands(name)}
    assert len(found) >= 30
    wrong = {words: pages.parse(dor, list(words)) for words in found}
    named = [f"{found[words]}: {reason}" for words, reason in wrong.items() if reason]
    assert not named, "\n".join(named)
