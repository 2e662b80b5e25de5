"""The files of `infra`, validated by tools for Kubernetes, AWS Batch, Slurm and Compose."""

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
def test_kubernetes_manifests_are_valid(name):
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
def test_aws_batch_requests_are_valid(name, operation):
    model = botocore.loaders.Loader().load_service_model("batch", "service-2")
    shape = botocore.model.ServiceModel(model).operation_model(operation).input_shape
    given = json.loads((INFRA / "aws-batch" / name).read_text())
    report = botocore.validate.ParamValidator().validate(given, shape)
    assert not report.has_errors(), report.generate_report()


def test_the_number_of_shards_is_the_same_in_all_files_of_a_service():
    job = (INFRA / "kubernetes/run.yaml").read_text()
    config = (INFRA / "kubernetes/config.yaml").read_text()
    shards = re.search(r'SHARDS: "(\d+)"', config)[1]
    assert f"completions: {shards}\n" in job
    batch = json.loads((INFRA / "aws-batch/run.json").read_text())
    assert str(batch["arrayProperties"]["size"]) == batch["parameters"]["shards"]


def test_slurm_scripts_pass_shellcheck_and_do_not_poll_the_queue():
    scripts = sorted((INFRA / "slurm").glob("*.sbatch"))
    assert scripts
    subprocess.run([VENV / "shellcheck", *scripts], check=True)
    for script in scripts:
        text = script.read_text()
        assert "debug" not in text
        assert "squeue" not in text


def test_the_compose_file_is_valid():
    command = [
        VENV / "check-jsonschema",
        "--builtin-schema",
        "vendor.compose-spec",
        INFRA / "compose.yaml",
    ]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
