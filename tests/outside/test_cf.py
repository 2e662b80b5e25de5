"""IOOS compliance checker, offline: a conversion adds no CF error to those of the raw file."""

import json
import subprocess
import sys
from pathlib import Path

# CF allows int64 variables, which research-grade files have, since version 1.9.
CONVENTION = "cf:1.11"
# The checker has its own table of standard names. If it requests another one, the test must fail.
NO_NETWORK = {"https_proxy": "http://127.0.0.1:9", "http_proxy": "http://127.0.0.1:9"}


def errors(path: Path, report: Path) -> set[tuple[str, str]]:
    checker = Path(sys.executable).with_name("compliance-checker")
    command = [checker, "--test", CONVENTION, "--format", "json", "--output", report, path]
    subprocess.run(command, env=NO_NETWORK, capture_output=True, check=False)
    (result,) = json.loads(report.read_text()).values()
    assert result["possible_points"] > 100, "the checker checked nothing"
    return {
        (check["name"], message) for check in result["high_priorities"] for message in check["msgs"]
    }


def test_conversion_adds_no_cf_error(case, tmp_path):
    month = case.months[1]
    before = errors(case.raw(month), tmp_path / "raw.json")
    after = errors(case.research(month), tmp_path / "research.json")
    assert sorted(after - before) == []


def test_the_checker_finds_a_known_error_of_the_reference(expected, tmp_path):
    messages = " ".join(message for _, message in errors(expected["0347-05"], tmp_path / "r.json"))
    assert "'z_t' must not have the _FillValue attribute" in messages
