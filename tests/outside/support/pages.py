"""The snippets of the documentation, and what runs them in the order of a page.

The info string of a fence says what a snippet is. `sh` and `python` are run; `toml` is written to
`dor.toml`, `ini` to `~/.aws/config`; the lines of `text` are in what the shell snippet before has
printed. A fence with `not-run` behind the language is not run: its shell syntax, and the options of
its `dor` commands, are checked.
"""

import importlib.metadata
import os
import re
import shlex
import signal
import subprocess
import sys
import textwrap
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from packaging.requirements import Requirement

from support.program import REPOSITORY, Dor

FENCE = re.compile(r"^( *)```([^\n`]+)\n(.*?)^\1```$", re.M | re.S)
LANGUAGES = ("sh", "python", "toml", "ini", "text")
# What the shell does before and after each language.
RUN = {
    "sh": '. "{file}"',
    "python": 'PYTHONPATH="{site}" "{python}" -S "{file}"',
    "toml": 'cp "{file}" dor.toml; dor config show',
    "ini": 'mkdir -p ~/.aws; cat "{file}" >>~/.aws/config; dor config show',
}
PATIENCE = 1800


@dataclass(frozen=True)
class Snippet:
    page: str
    line: int
    info: str
    text: str

    @property
    def language(self) -> str:
        return self.info.split()[0]

    @property
    def installs(self) -> bool:
        """Whether it makes a Python environment. The test's own packages stand for it."""
        return self.language == "sh" and "pip install " in self.text

    @property
    def runs(self) -> bool:
        return self.info in RUN and not self.installs

    def __str__(self) -> str:
        return f"{self.page}:{self.line}"


def pages() -> list[str]:
    """Every page of the book, and the README."""
    found = [REPOSITORY / "README.md", *sorted((REPOSITORY / "docs").rglob("*.md"))]
    return [str(page.relative_to(REPOSITORY)) for page in found if "book" not in page.parts]


def snippets(page: str) -> list[Snippet]:
    text = (REPOSITORY / page).read_text()
    found = []
    for fence in FENCE.finditer(text):
        line = text.count("\n", 0, fence.start()) + 1
        found.append(Snippet(page, line, fence[2].strip(), textwrap.dedent(fence[3])))
    return found


def prose(page: str) -> str:
    return FENCE.sub("", (REPOSITORY / page).read_text())


def commands(snippet: Snippet) -> list[list[str]]:
    """The `dor` commands at the starts of the lines of a shell snippet, as words."""
    lines = snippet.text.replace("\\\n", " ").splitlines()
    words = [shlex.split(line.removeprefix("srun "), comments=True) for line in lines]
    return [line for line in words if line[:1] == ["dor"]]


def inline_commands(page: str) -> list[list[str]]:
    """The `dor` commands in the sentences of a page, but for those with `*` and `...` in them."""
    spans = re.findall(r"`(dor [^`]+)`", prose(page))
    return [shlex.split(span) for span in spans if not re.search(r"\*|\.\.\.", span)]


def parse(dor: Dor, words: list[str]) -> str:
    """What is wrong with the command and its options: nothing, when its help is shown."""
    done = dor.run(*words[1:], "--help")
    # A sentence may name an option without its value.
    known = done.returncode == 0 or "a value is required for" in done.stderr
    return "" if known else f"{shlex.join(words)}: {done.stderr}"


def packages(page: str, line: int) -> set[str]:
    """What the page tells the reader to install with pip before this line."""
    before = "\n".join((REPOSITORY / page).read_text().splitlines()[:line])
    named = re.findall(r"pip install ([\w -]+)", before)
    return {name for names in named for name in names.split() if not name.startswith("-")}


def installed(names: set[str], folder: Path) -> Path:
    """A folder from which Python imports these packages and what they require, and nothing else."""
    waiting, done = list(names), set()
    while waiting:
        name = re.sub(r"[-_.]+", "-", waiting.pop()).lower()
        if name in done:
            continue
        done.add(name)
        package = importlib.metadata.distribution(name)
        for part in {file.parts[0] for file in package.files}:
            if part not in ("..", "__pycache__") and not (folder / part).exists():
                folder.mkdir(exist_ok=True)
                (folder / part).symlink_to(package.locate_file(part))
        waiting += [_name(line) for line in package.requires or [] if _applies(line)]
    return folder


def _name(requirement: str) -> str:
    return re.match(r"[\w.-]+", requirement)[0]


def _applies(requirement: str) -> bool:
    """Not what only an extra, or a Python or a system other than this, requires."""
    marker = Requirement(requirement).marker
    return marker is None or marker.evaluate({"extra": ""})


@dataclass
class Session:
    """One shell that runs the snippets of a page one after another."""

    folder: Path
    environment: dict[str, str]
    replaced: dict[str, str]

    def run(self, given: list[Snippet]) -> list[Path]:
        """The files with what each snippet has printed. A snippet that fails fails the test."""
        work, logs = self.folder / "work", self.folder / "snippets"
        logs.mkdir()
        lines = ["set -eo pipefail"]
        outputs = [logs / f"{number}.out" for number in range(len(given))]
        for number, snippet in enumerate(given):
            file = logs / f"{number}.{snippet.language}"
            text = snippet.text
            for old, new in self.replaced.items():
                text = text.replace(old, new)
            file.write_text(text)
            site = logs / f"site-{number}"
            if snippet.language == "python":
                installed(packages(snippet.page, snippet.line), site)
            values = {"file": file, "site": site, "python": base_python()}
            lines += [f'exec >"{outputs[number]}" 2>&1', RUN[snippet.language].format(**values)]
        shell = subprocess.Popen(
            ["bash", "-c", "\n".join(lines)],
            cwd=work,
            env=self.environment,
            stdin=subprocess.DEVNULL,
            start_new_session=True,
        )
        try:
            code = shell.wait(timeout=PATIENCE)
        finally:
            # Servers that the page has started in the background belong to the same group.
            with suppress(ProcessLookupError):
                os.killpg(shell.pid, signal.SIGTERM)
        last = sum(output.exists() for output in outputs) - 1
        assert code == 0, f"{given[last]}: exit {code}\n{given[last].text}\n" + (
            outputs[last].read_text()[-4000:] if last >= 0 else ""
        )
        missing = [str(given[n]) for n, output in enumerate(outputs) if not output.exists()]
        assert not missing, f"the shell has ended before {missing}"
        return outputs


def base_python() -> str:
    """The Python without the packages of the test's environment."""
    return getattr(sys, "_base_executable", sys.executable)


def squeezed(text: str) -> list[str]:
    """Lines with single blanks, without empty ones: widths of columns depend on their values."""
    return [" ".join(line.split()) for line in text.splitlines() if line.strip()]


def indented(page: str) -> list[str]:
    """The first lines of code blocks that are made by four blanks and not by a fence."""
    return re.findall(r"\n\n(?: {4})(\S.*)", "\n\n" + prose(page))
