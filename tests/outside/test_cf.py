"""IOOS compliance checker, offline: the output has no CF error that its input did not have."""

import json
import subprocess
import sys
from pathlib import Path

# The first CF version that allows int64, which the contract asks for, is 1.9.
CONVENTION = "cf:1.11"
# The checker brings its table of standard names along; should it ask for another one, it must fail.
NO_NETWORK = {"https_proxy": "http://127.0.0.1:9", "http_proxy": "http://127.0.0.1:9"}


def errors(path: Path, report: Path) -> set[tuple[str, str]]:
    checker = Path(sys.executable).with_name("compliance-checker")
    command = [checker, "--test", CONVENTION, "--format", "json", "--output", report, path]
    subprocess.run(command, env=NO_NETWORK, capture_output=True, check=False)
    (result,) = json.loads(report.read_text()).values()
    assert result["possible_points"] > 100, "the checker looked at nothing"
    return {
        (check["name"], message) for check in result["high_priorities"] for message in check["msgs"]
    }


def test_no_error_is_added(case, tmp_path):
    month = case.months[1]
    before = errors(case.raw(month), tmp_path / "raw.json")
    after = errors(case.research(month), tmp_path / "research.json")
    assert sorted(after - before) == []


def test_the_checker_finds_what_the_reference_does_wrong(expected, tmp_path):
    messages = " ".join(message for _, message in errors(expected["0347-05"], tmp_path / "r.json"))
    assert "'z_t' must not have the _FillValue attribute" in messages
