"""Running `dor` and finding what it reads and writes."""

import os
import subprocess
from dataclasses import dataclass, field
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[3]
SHARED = Path(os.environ.get("DOR_SHARED", REPOSITORY.parent / "shared"))

POLYGON = 112
MONTH = 4
CASE = f"{POLYGON}-{MONTH:02}"


class Dor:
    """The program under test: `DOR_BIN`, else the release build, else the debug build."""

    def __init__(self) -> None:
        builds = [REPOSITORY / "target" / kind / "dor" for kind in ("release", "debug")]
        places = [Path(os.environ["DOR_BIN"])] if "DOR_BIN" in os.environ else builds
        found = [place for place in places if place.exists()]
        if not found:
            raise FileNotFoundError(f"no dor at {', '.join(map(str, places))}: run `cargo build`")
        self.binary = found[0].resolve()

    def run(self, *arguments: object, **environment: str) -> subprocess.CompletedProcess:
        command = [str(self.binary), *map(str, arguments)]
        # Nothing of the user's own configuration may reach the tests.
        inherited = {
            name: value
            for name, value in os.environ.items()
            if not name.startswith(("AWS_", "DOR_", "OCEAN_CDR_")) and name != "SCRATCH"
        }
        return subprocess.run(
            command, env=inherited | environment, capture_output=True, text=True, check=False
        )

    def __call__(self, *arguments: object, **environment: str) -> str:
        done = self.run(*arguments, **environment)
        command = " ".join(map(str, done.args))
        assert done.returncode == 0, f"{command}: exit {done.returncode}\n{done.stderr}"
        return done.stdout

    def make_raw(self, folder: Path, *options: str) -> None:
        self("demo", "raw", folder, "--case", CASE, "--shape", "24x20x5", *options)

    def process_case(
        self, archive: object, output: object, grid: Path, *options: str, **environment: str
    ) -> str:
        return self(
            *("research-data", "process-case", CASE, "-d", archive, "-o", output, "--grid", grid),
            *options,
            **environment,
        )


@dataclass
class Case:
    """A case on disk: the raw archive, the full grid and what `dor` made of them."""

    archive: Path
    grid: Path
    output: Path
    months: list[str] = field(init=False)

    def __post_init__(self) -> None:
        self.months = sorted(path.stem.rsplit(".", 1)[1] for path in self._history().glob("*.nc"))

    @classmethod
    def below(cls, folder: Path, output: Path) -> "Case":
        """The case whose raw form lies somewhere below `folder`."""
        history = next(folder.rglob("ocn/hist"))
        return cls(archive=history.parents[2], grid=next(folder.rglob("grid.nc")), output=output)

    def _history(self) -> Path:
        return next(self.archive.glob(f"*_{POLYGON:03}_1999-{MONTH:02}-01_*/ocn/hist"))

    def raw(self, month: str) -> Path:
        return next(self._history().glob(f"*.pop.h.{month}.nc"))

    def folder(self) -> Path:
        return self.output / f"{POLYGON:03}" / f"{MONTH:02}"

    def research(self, month: str) -> Path:
        name = f"smyle.cdr-atlas-v0.glb-dor.{POLYGON:03}-1999-{MONTH:02}.pop.h.{month}.nc"
        return self.folder() / name

    def samples(self) -> list[str]:
        """An even month, an odd one and the last."""
        return [self.months[0], self.months[1], self.months[-1]]
