"""The manifests are what Kubernetes and KubeRay accept, and name what exists."""

import json
import re
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


_JOBS = ("rayjob.yaml", "laptop.yaml")


def _documents(file: str) -> dict[str, dict[str, Any]]:
    """A manifest's objects by kind."""
    return {d["kind"]: d for d in yaml.safe_load_all((_DEPLOY / file).read_text())}


@pytest.fixture(scope="module")
def reward() -> dict[str, dict[str, Any]]:
    """What the reward service is made of, by kind."""
    return _documents("reward.yaml")


@pytest.fixture(params=_JOBS)
def job(request: pytest.FixtureRequest) -> dict[str, Any]:
    """Each ``RayJob`` that we ship."""
    return _documents(request.param)["RayJob"]


def _pods(job: dict[str, Any]) -> list[dict[str, Any]]:
    cluster = job["spec"]["rayClusterSpec"]
    return [cluster["headGroupSpec"]["template"], *(group["template"] for group in cluster["workerGroupSpecs"])]


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


def test_the_ray_job_is_one_that_kuberay_accepts(job: dict[str, Any], rayjob_schema: Any) -> None:
    jsonschema.validate(job, rayjob_schema)
    wrong = json.loads(json.dumps(job))
    wrong["spec"]["rayClusterSpec"]["headGroupSpec"]["rayStartParam"] = {}
    with pytest.raises(jsonschema.ValidationError, match="rayStartParam"):
        jsonschema.validate(wrong, rayjob_schema)


def test_the_job_reaches_the_reward_service_with_its_token(
    job: dict[str, Any], reward: dict[str, dict[str, Any]]
) -> None:
    service, pod = reward["Service"], reward["Deployment"]["spec"]["template"]
    assert service["spec"]["selector"].items() <= pod["metadata"]["labels"].items()
    port = service["spec"]["ports"][0]["port"]
    command = shlex.split(job["spec"]["entrypoint"])
    assert command[command.index("--reward.url") + 1] == f"http://{service['metadata']['name']}:{port}"
    arguments = pod["spec"]["containers"][0]["args"]
    assert arguments[arguments.index("--port") + 1] == str(port)
    assert command[command.index("--reward.token_file") + 1] == arguments[arguments.index("--token-file") + 1]
    options = {word.removeprefix("--").replace("-", "_") for word in arguments if word.startswith("--")}
    assert options <= ServeOptions.__dataclass_fields__.keys()


def test_nobody_but_the_pods_of_a_job_may_speak_to_the_reward_service(
    job: dict[str, Any], reward: dict[str, dict[str, Any]]
) -> None:
    policy, deployment = reward["NetworkPolicy"]["spec"], reward["Deployment"]["spec"]
    assert policy["podSelector"] == deployment["selector"]
    (rule,) = policy["ingress"]
    (allowed,) = (peer["podSelector"]["matchLabels"] for peer in rule["from"])
    assert all(allowed.items() <= pod["metadata"]["labels"].items() for pod in _pods(job))
    container = deployment["template"]["spec"]["containers"][0]
    ports = {port["port"] for port in rule["ports"]}
    probes = {container[probe]["tcpSocket"]["port"] for probe in ("readinessProbe", "livenessProbe")}
    assert ports == probes == {container["ports"][0]["containerPort"]}


def test_every_volume_that_is_mounted_is_declared(job: dict[str, Any], reward: dict[str, dict[str, Any]]) -> None:
    for pod in [*_pods(job), reward["Deployment"]["spec"]["template"]]:
        declared = {volume["name"] for volume in pod["spec"]["volumes"]}
        assert {mount["name"] for mount in pod["spec"]["containers"][0]["volumeMounts"]} <= declared


@pytest.mark.parametrize("file", ["reward.yaml", *_JOBS])
def test_every_claim_and_secret_is_one_that_the_manifests_say_how_to_make(file: str) -> None:
    text = "".join((_DEPLOY / name).read_text() for name in ("reward.yaml", file))
    claims = set(re.findall(r"claimName: ([a-z-]+)", text))
    assert claims <= {document["metadata"]["name"] for document in yaml.safe_load_all(_joined(file)) if document}
    assert set(re.findall(r"secretName: ([a-z-]+)", text)) <= set(re.findall(r"secret generic ([a-z-]+)", text))


def _joined(file: str) -> str:
    return "\n---\n".join((_DEPLOY / name).read_text() for name in ("reward.yaml", file))


def test_the_entry_point_is_a_configuration_that_loads(job: dict[str, Any]) -> None:
    words = shlex.split(job["spec"]["entrypoint"])
    assert words[:3] == ["python", "-m", "orchestrator.train"]
    config, _ = load_config([word.replace("/opt/raylign/", f"{_ROOT}/") for word in words[3:]])
    replicas = job["spec"]["rayClusterSpec"]["workerGroupSpecs"][0]["replicas"]
    assert config.policy.num_ranks % replicas == 0
    assert config.reward.url is not None


def test_the_laptops_pods_fit_a_machine_of_sixteen_gib(reward: dict[str, dict[str, Any]]) -> None:
    pods = [*_pods(_documents("laptop.yaml")["RayJob"]), reward["Deployment"]["spec"]["template"]]
    limits = [pod["spec"]["containers"][0]["resources"]["limits"]["memory"] for pod in pods]
    assert sum(int(limit.removesuffix("Gi")) for limit in limits) <= 16
    assert not any("nvidia.com/gpu" in json.dumps(pod) for pod in pods)
