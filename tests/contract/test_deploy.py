"""The manifests are what Kubernetes and KubeRay accept, and name what exists."""

import json
import shlex
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from orchestrator.config import load_config
from remote_rm.serve import ServeOptions

_ROOT = Path(__file__).parents[2]
_DEPLOY = _ROOT / "deploy"
_SCHEMAS = _ROOT.parent / "shared" / "kuberay"


@pytest.fixture(scope="module")
def documents() -> dict[str, dict[str, Any]]:
    """The manifest's objects by kind."""
    return {d["kind"]: d for d in yaml.safe_load_all((_DEPLOY / "rayjob.yaml").read_text())}


def _strict(schema: Any) -> Any:
    """The same schema, refusing fields it does not name: Kubernetes would drop them in silence."""
    if isinstance(schema, list):
        return [_strict(item) for item in schema]
    if not isinstance(schema, dict):
        return schema
    strict = {key: _strict(value) for key, value in schema.items()}
    if isinstance(schema.get("properties"), dict) and not schema.get("x-kubernetes-preserve-unknown-fields"):
        strict.setdefault("additionalProperties", False)
    return strict


@pytest.fixture(scope="module")
def rayjob_schema() -> Any:
    """The OpenAPI schema of ``RayJob`` v1, made strict."""
    file = _SCHEMAS / "ray.io_rayjobs.yaml"
    if not file.is_file():
        pytest.skip("the KubeRay schemas are not beside the repository")
    versions = yaml.load(file.read_text(), Loader=yaml.CSafeLoader)["spec"]["versions"]
    (schema,) = [v["schema"]["openAPIV3Schema"] for v in versions if v["name"] == "v1"]
    schema["properties"]["metadata"] = {"type": "object", "x-kubernetes-preserve-unknown-fields": True}
    return _strict(schema)


def test_the_ray_job_is_one_that_kuberay_accepts(documents: dict[str, dict[str, Any]], rayjob_schema: Any) -> None:
    jsonschema.validate(documents["RayJob"], rayjob_schema)
    wrong = json.loads(json.dumps(documents["RayJob"]))
    wrong["spec"]["rayClusterSpec"]["headGroupSpec"]["rayStartParam"] = {}
    with pytest.raises(jsonschema.ValidationError, match="rayStartParam"):
        jsonschema.validate(wrong, rayjob_schema)


def test_the_job_reaches_the_reward_service_with_its_token(documents: dict[str, dict[str, Any]]) -> None:
    service, deployment = documents["Service"], documents["Deployment"]
    pod = deployment["spec"]["template"]
    assert service["spec"]["selector"].items() <= pod["metadata"]["labels"].items()
    port = service["spec"]["ports"][0]["port"]
    command = shlex.split(documents["RayJob"]["spec"]["entrypoint"])
    url = command[command.index("--reward.url") + 1]
    assert url == f"http://{service['metadata']['name']}:{port}"
    arguments = pod["spec"]["containers"][0]["args"]
    assert arguments[arguments.index("--port") + 1] == str(port)
    assert command[command.index("--reward.token_file") + 1] == arguments[arguments.index("--token-file") + 1]
    options = {word.removeprefix("--").replace("-", "_") for word in arguments if word.startswith("--")}
    assert options <= ServeOptions.__dataclass_fields__.keys()


def test_every_volume_that_is_mounted_is_declared(documents: dict[str, dict[str, Any]]) -> None:
    cluster = documents["RayJob"]["spec"]["rayClusterSpec"]
    pods = [cluster["headGroupSpec"]["template"], cluster["workerGroupSpecs"][0]["template"]]
    for pod in [*pods, documents["Deployment"]["spec"]["template"]]:
        declared = {volume["name"] for volume in pod["spec"]["volumes"]}
        assert {mount["name"] for mount in pod["spec"]["containers"][0]["volumeMounts"]} <= declared


def test_the_entry_point_is_a_configuration_that_loads(documents: dict[str, dict[str, Any]]) -> None:
    words = shlex.split(documents["RayJob"]["spec"]["entrypoint"])
    assert words[:3] == ["python", "-m", "orchestrator.train"]
    arguments = [word.replace("/opt/raylign/", f"{_ROOT}/") for word in words[3:]]
    config, _ = load_config(arguments)
    assert (
        config.policy.num_ranks % documents["RayJob"]["spec"]["rayClusterSpec"]["workerGroupSpecs"][0]["replicas"] == 0
    )
    assert config.reward.url is not None
