#!/usr/bin/env python3
"""Checks the links of the documentation: each file and each heading that a page names is there."""

import re
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
LINK = re.compile(r"(?<!!)\[[^\]]*\]\(([^)\s]+)\)|!\[[^\]]*\]\(([^)\s]+)\)")
CODE = re.compile(r"```.*?```|`[^`\n]*`", re.S)


def anchor(heading: str) -> str:
    """The anchor that mdBook and GitHub make of a heading."""
    text = re.sub(r"`|\[|\]\([^)]*\)|\*", "", heading).strip().lower()
    return re.sub(r"[^\w\- ]", "", text).replace(" ", "-")


def anchors(page: Path) -> set[str]:
    text = re.sub(r"```.*?```", "", page.read_text(), flags=re.S)
    return {anchor(line) for line in re.findall(r"^#+ (.*)$", text, re.M)}


def problems(page: Path) -> list[str]:
    found = []
    for one, other in LINK.findall(CODE.sub("", page.read_text())):
        target = one or other
        if re.match(r"[a-z]+:", target):
            continue
        path, _, heading = target.partition("#")
        linked = (page.parent / path).resolve() if path else page
        if not linked.exists():
            found.append(f"{page.relative_to(ROOT)}: {target}: there is no such file")
        elif heading and linked.suffix == ".md" and heading not in anchors(linked):
            found.append(f"{page.relative_to(ROOT)}: {target}: there is no such heading")
    return found


def main() -> int:
    pages = [*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("infra/**/*.md")]
    found = [problem for page in sorted(pages) for problem in problems(page)]
    print("\n".join(found), end="\n" if found else "")
    return bool(found)


if __name__ == "__main__":
    sys.exit(main())
