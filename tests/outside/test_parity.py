"""Research-grade files and those of the reference: docs/parity.md lists every difference."""

import re
from fnmatch import fnmatchcase

import numpy as np
import pytest
from support.contract import open_bits
from support.program import REPOSITORY

ROW = re.compile(r"^\| *`(?P<names>[^`|]+)` *\| *`(?P<aspects>[^`|]+)` *\|(?P<rest>.+)\|$")


def allowed() -> list[tuple[list[str], list[str]]]:
    """Rows of the table of docs/parity.md: names and aspects, each a list of patterns."""
    lines = (REPOSITORY / "docs" / "parity.md").read_text().splitlines()
    rows = [row for row in map(ROW.match, lines) if row]
    return [(row["names"].split(), row["aspects"].split()) for row in rows]


def attributes(holder) -> dict[str, tuple[str, bytes]]:
    found = {}
    for name in holder.ncattrs():
        value = holder.getncattr(name)
        kind = "text" if isinstance(value, str) else str(np.asarray(value).dtype)
        found[name] = (kind, str(value).encode() if kind == "text" else np.asarray(value).tobytes())
    return found


def unequal(left: dict, right: dict) -> set[str]:
    return {key for key in left.keys() | right.keys() if left.get(key) != right.get(key)}


def storage(variable) -> tuple:
    filters = variable.filters()
    return (variable.chunking(), filters["zlib"], filters["complevel"], filters["shuffle"])


def differences(theirs, ours) -> set[tuple[str, str]]:
    changed = unequal(attributes(theirs), attributes(ours))
    found = {("(file)", f"attribute:{name}") for name in changed}
    sizes = [
        {name: (len(d), d.isunlimited()) for name, d in side.dimensions.items()}
        for side in (theirs, ours)
    ]
    found |= {("(file)", f"dimension:{name}") for name in unequal(*sizes)}
    for name in theirs.variables.keys() ^ ours.variables.keys():
        found.add((name, "presence"))
    for name in theirs.variables.keys() & ours.variables.keys():
        left, right = theirs[name], ours[name]
        aspects = {
            "dimensions": left.dimensions == right.dimensions,
            "type": left.dtype == right.dtype,
            "storage": storage(left) == storage(right),
            "values": left[...].reshape(-1).astype(right.dtype).tobytes() == right[...].tobytes(),
        }
        found |= {(name, aspect) for aspect, same in aspects.items() if not same}
        changed = unequal(attributes(left), attributes(right))
        found |= {(name, f"attribute:{attribute}") for attribute in changed}
    return found


def covers(row, difference) -> bool:
    return all(
        any(fnmatchcase(text, pattern) for pattern in patterns)
        for patterns, text in zip(row, difference, strict=True)
    )


@pytest.fixture(scope="module")
def found(mini_case, expected) -> set[tuple[str, str]]:
    assert sorted(expected) == ["0347-04", "0347-05", "0362-03"]
    every = set()
    for month, path in expected.items():
        with open_bits(path) as theirs, open_bits(mini_case.research(month)) as ours:
            every |= differences(theirs, ours)
    return every


def test_every_difference_is_documented(found):
    rows = allowed()
    assert sorted(d for d in found if not any(covers(row, d) for row in rows)) == []


def test_every_documented_difference_occurs(found):
    unused = [row for row in allowed() if not any(covers(row, d) for d in found)]
    assert unused == []


def test_no_value_and_no_variable_differs(found):
    assert {name for name, aspect in found if aspect in {"values", "presence"}} == set()
