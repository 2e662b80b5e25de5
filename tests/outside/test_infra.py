"""The files for Kubernetes, AWS Batch, Slurm and Compose, as the tools of each read them."""

import json
import re
import subprocess
from pathlib import Path

import botocore.loaders
import botocore.model
import botocore.validate
import pytest

INFRA = Path(__file__).parents[2] / "infra"
VENV = Path(__file__).parents[2] / ".venv/bin"


MANIFESTS = sorted(path.name for path in (INFRA / "kubernetes").glob("*.yaml"))


@pytest.mark.parametrize("name", MANIFESTS)
def test_kubernetes_takes_it(name):
    command = [VENV / "kubernetes-validate", "--strict", INFRA / "kubernetes" / name]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize(
    ("name", "operation"),
    [
        ("job-definition.json", "RegisterJobDefinition"),
        ("run.json", "SubmitJob"),
        ("finalize.json", "SubmitJob"),
    ],
)
def test_aws_batch_takes_it(name, operation):
    model = botocore.loaders.Loader().load_service_model("batch", "service-2")
    shape = botocore.model.ServiceModel(model).operation_model(operation).input_shape
    given = json.loads((INFRA / "aws-batch" / name).read_text())
    report = botocore.validate.ParamValidator().validate(given, shape)
    assert not report.has_errors(), report.generate_report()


def test_the_number_of_shards_is_told_once():
    job = (INFRA / "kubernetes/run.yaml").read_text()
    config = (INFRA / "kubernetes/config.yaml").read_text()
    shards = re.search(r'SHARDS: "(\d+)"', config)[1]
    assert f"completions: {shards}\n" in job
    batch = json.loads((INFRA / "aws-batch/run.json").read_text())
    assert str(batch["arrayProperties"]["size"]) == batch["parameters"]["shards"]


def test_scripts_are_sound_and_do_not_abuse_the_queue():
    scripts = sorted((INFRA / "slurm").glob("*.sbatch"))
    assert scripts
    subprocess.run([VENV / "shellcheck", *scripts], check=True)
    for script in scripts:
        text = script.read_text()
        assert "debug" not in text
        assert "squeue" not in text


def test_compose_takes_it():
    command = [
        VENV / "check-jsonschema",
        "--builtin-schema",
        "vendor.compose-spec",
        INFRA / "compose.yaml",
    ]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
