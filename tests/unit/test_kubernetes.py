"""The manifests of infra/kubernetes: as the API server, KubeRay, Ray and cellnet itself read them."""

import copy
import re
import shlex
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml
from ray._private.ray_constants import DEFAULT_OBJECT_STORE_MEMORY_PROPORTION
from ray.dashboard.modules.job.cli import submit
from ray.scripts.scripts import kuberay_autoscaler, start
from ray.serve.schema import ServeDeploySchema

from cellnet.cli import program
from cellnet.cli.pipeline import opened
from cellnet.pipeline.steps import steps_of
from pipelines.__main__ import VERBS
from serve.app import ServeArgs
from tests.manifests import (
    COMPONENTS,
    KUBERNETES,
    OVERLAYS,
    Manifest,
    cluster_of,
    faults,
    merged,
    named,
    pods,
    read,
)

JOBS = sorted((KUBERNETES / "jobs").glob("*.yaml"))


@pytest.fixture(scope="module", params=OVERLAYS)
def manifests(request: pytest.FixtureRequest) -> list[Manifest]:
    return merged(request.param)


def pod_specs(one: Any) -> list[Manifest]:
    """The pods that a manifest makes, at any depth."""
    if isinstance(one, list):
        return [spec for inner in one for spec in pod_specs(inner)]
    if not isinstance(one, dict):
        return []
    return ([one] if "containers" in one else []) + [spec for inner in one.values() for spec in pod_specs(inner)]


@pytest.mark.slow
@pytest.mark.parametrize("overlay", OVERLAYS)
@pytest.mark.parametrize("components", [(), *((name,) for name in COMPONENTS)], ids=["alone", *COMPONENTS])
def test_kubernetes_and_kuberay_take_what_an_overlay_makes(overlay: str, components: tuple[str, ...]) -> None:
    every = merged(overlay, *components)
    assert [fault for one in every for fault in faults(one)] == []
    assert {one["metadata"].get("namespace") for one in every if one["kind"] != "Namespace"} == {
        named(every, "Namespace")["metadata"]["name"]
    }


@pytest.mark.parametrize("path", JOBS, ids=lambda path: path.stem)
def test_kuberay_takes_the_jobs_and_there_is_a_cluster_for_them(path: Path, manifests: list[Manifest]) -> None:
    [job] = read(path)
    assert faults(job) == [] and job["metadata"] == {"generateName": f"{path.stem}-"}
    assert job["spec"]["clusterSelector"] == {"ray.io/cluster": named(manifests, "RayCluster")["metadata"]["name"]}


def of(manifest: Manifest, path: str) -> Manifest:
    """What lies at a path of a manifest, by names and numbers between points."""
    inner: Any = manifest
    for name in path.split(".") if path else ():
        inner = inner[int(name)] if isinstance(inner, list) else inner[name]
    return inner  # type: ignore[no-any-return]


@pytest.mark.parametrize(
    ("kind", "path", "name", "value"),
    [
        ("RayCluster", "spec", "workerGroupSpec", []),
        ("RayCluster", "spec.autoscalerOptions", "idleTimeoutSecond", 300),
        ("RayCluster", "spec.autoscalerOptions.securityContext", "readOnlyRootFileSystem", True),
        ("RayCluster", "spec.headGroupSpec.rayStartParams", "num-cpus", 0),
        ("RayCluster", "spec.workerGroupSpecs.0", "minReplicas", "0"),
        ("RayCluster", "spec.workerGroupSpecs.1.template.spec.tolerations.0", "operater", "Exists"),
        ("RayCluster", "metadata", "label", {}),
        ("RayService", "spec", "rayClusterSpec", {}),
        ("RayService", "spec.rayClusterConfig.authOptions", "mode", "tokens"),
        ("RayService", "spec.rayClusterConfig.headGroupSpec.template.spec.containers.0", "volumeMount", []),
        ("CronJob", "spec", "timezone", "Etc/UTC"),
        ("NetworkPolicy", "spec.ingress.0", "port", []),
        ("PodDisruptionBudget", "spec", "maxUnavailable", [1]),
    ],
)
def test_a_field_that_nobody_knows_is_found(kind: str, path: str, name: str, value: object) -> None:
    manifest = next(copy.deepcopy(one) for one in merged("lab") if one["kind"] == kind)
    of(manifest, path)[name] = value
    found = faults(manifest)
    assert len(found) == 1 and name in found[0]


@pytest.mark.skipif(shutil.which("kubectl") is None, reason="kubectl is not there to merge")
@pytest.mark.parametrize(
    ("overlay", "component"), [*((name, "") for name in OVERLAYS), *(("lab", name) for name in COMPONENTS)]
)
def test_kubectl_merges_the_same(overlay: str, component: str, tmp_path: Path) -> None:
    shutil.copytree(KUBERNETES, tmp_path / "kubernetes")
    folder = tmp_path / "kubernetes" / "overlays" / overlay
    page = (folder / "kustomization.yaml").read_text(encoding="utf-8")
    if component:
        page = re.sub(r"(?m)^components: \[\].*$", f"components: [../../components/{component}]", page)
    (folder / "kustomization.yaml").write_text(page, encoding="utf-8")
    told = subprocess.run(["kubectl", "kustomize", str(folder)], capture_output=True, text=True, check=True).stdout

    def by_name(every: list[Manifest]) -> dict[tuple[str, str], Manifest]:
        return {(one["kind"], one["metadata"]["name"]): one for one in every}

    assert by_name(list(yaml.safe_load_all(told))) == by_name(merged(overlay, *filter(None, [component])))


def test_components_are_off_and_say_how_far_one_may_rely_on_them() -> None:
    for overlay in OVERLAYS:
        page = yaml.safe_load((KUBERNETES / "overlays" / overlay / "kustomization.yaml").read_text(encoding="utf-8"))
        assert page["components"] == []
    words = {name: (KUBERNETES / "components" / name / "kustomization.yaml").read_text("utf-8") for name in COMPONENTS}
    assert "alpha" in words["rocksdb"] and "Ray's supported way" in words["redis"]


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_no_pod_is_root_or_writes_but_into_its_volumes(overlay: str) -> None:
    specs = pod_specs(merged(overlay, *COMPONENTS))
    assert len(specs) == 7
    for spec in specs:
        assert spec["securityContext"]["runAsNonRoot"] is True and spec["securityContext"]["runAsUser"] > 0
        assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        for container in spec["containers"]:
            assert container["securityContext"] == {
                "allowPrivilegeEscalation": False,
                "readOnlyRootFilesystem": True,
                "capabilities": {"drop": ["ALL"]},
            }
            assert container["resources"]["requests"] == container["resources"]["limits"]  # which Ray counts
    for manifest in (one for one in merged(overlay) if one["kind"].startswith("Ray")):
        [beside] = [cluster_of(manifest)["autoscalerOptions"]]
        assert beside["securityContext"] == specs[0]["containers"][0]["securityContext"]
        assert beside["resources"]["requests"] == beside["resources"]["limits"]


def test_rays_objects_find_room_in_shared_memory(manifests: list[Manifest]) -> None:
    for spec in (spec for one in manifests if one["kind"].startswith("Ray") for spec in pod_specs(one)):
        [memory] = [one["emptyDir"]["sizeLimit"] for one in spec["volumes"] if one["name"] == "shm"]
        limit = spec["containers"][0]["resources"]["limits"]["memory"]
        assert float(memory.removesuffix("Gi")) >= DEFAULT_OBJECT_STORE_MEMORY_PROPORTION * float(
            limit.removesuffix("Gi")
        )


def test_pods_run_as_the_user_of_the_image(manifests: list[Manifest]) -> None:
    image = (KUBERNETES.parent / "Dockerfile").read_text(encoding="utf-8")
    [user] = re.findall(r"^USER (\d+)", image, re.MULTILINE)
    for spec in pod_specs(manifests):
        assert (spec["securityContext"]["runAsUser"], spec["securityContext"]["fsGroup"]) == (int(user), int(user))


def test_secrets_are_named_and_not_held(manifests: list[Manifest]) -> None:
    assert not any(one["kind"] == "Secret" for one in manifests)
    named_ones: dict[str, set[str]] = {}
    for spec in pod_specs(manifests):
        for variable in spec["containers"][0].get("env", []):
            if any(word in variable["name"] for word in ("KEY", "TOKEN", "SECRET")):
                wanted = variable["valueFrom"]["secretKeyRef"]
                named_ones.setdefault(wanted["name"], set()).add(wanted["key"])
    assert named_ones == {
        "cellnet-token": {"auth_token"},
        "cellnet-api-keys": {"keys"},
        "cellnet-s3": {"AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"},
    }
    page = (KUBERNETES.parent / "README.md").read_text(encoding="utf-8")
    for name, keys in named_ones.items():
        assert re.search(rf"create secret generic {name} .*{sorted(keys)[0]}=", page), f"the page does not make {name}"


def test_whoever_has_no_token_sends_a_cluster_nothing(manifests: list[Manifest]) -> None:
    clusters = [cluster_of(one) for one in manifests if one["kind"].startswith("Ray")]
    assert [one["authOptions"] for one in clusters] == [{"mode": "token", "secretName": "cellnet-token"}] * 2


def test_jobs_cost_nothing_while_there_is_none(manifests: list[Manifest]) -> None:
    groups = named(manifests, "RayCluster")["spec"]["workerGroupSpecs"]
    assert [(one["groupName"], one["replicas"], one["minReplicas"]) for one in groups] == [("cpu", 0, 0), ("gpu", 0, 0)]
    limits = groups[1]["template"]["spec"]["containers"][0]["resources"]["limits"]
    assert limits["nvidia.com/gpu"] == "1"
    tolerated = groups[1]["template"]["spec"]["tolerations"]
    assert tolerated == [{"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"}]


def test_the_disruption_budget_and_the_network_policy_mean_the_services_pods(manifests: list[Manifest]) -> None:
    labels = [
        group["template"]["metadata"]["labels"] | {"ray.io/node-type": kind}  # which KubeRay adds
        for kind, group in zip(("head", "worker"), _groups(named(manifests, "RayService")), strict=True)
    ]
    budget = named(manifests, "PodDisruptionBudget")["spec"]
    assert budget["maxUnavailable"] == 1
    assert [budget["selector"]["matchLabels"].items() <= one.items() for one in labels] == [False, True]
    for policy in ("cellnet", "cellnet-service"):
        chosen = named(manifests, "NetworkPolicy", policy)["spec"]["podSelector"]["matchLabels"]
        assert all(chosen.items() <= one.items() for one in labels)
    closed = named(manifests, "NetworkPolicy", "cellnet")["spec"]["podSelector"]["matchLabels"]
    for group in _groups(named(manifests, "RayCluster")):
        assert closed.items() <= group["template"]["metadata"]["labels"].items()


def _groups(manifest: Manifest) -> list[Manifest]:
    cluster = cluster_of(manifest)
    return [cluster["headGroupSpec"], *cluster["workerGroupSpecs"]]


def serve_config(manifests: list[Manifest]) -> Any:
    return yaml.safe_load(named(manifests, "RayService")["spec"]["serveConfigV2"])


def test_ray_serve_takes_the_configuration_and_the_application_its_arguments(
    manifests: list[Manifest], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CELLNET_REGISTRY", named(manifests, "ConfigMap", "cellnet")["data"]["CELLNET_REGISTRY"])
    [application] = ServeDeploySchema.model_validate(serve_config(manifests)).applications
    assert (application.import_path, application.route_prefix) == ("serve.app:build", "/")
    assert ServeArgs.model_validate(application.args).registry.startswith("s3://")


def test_there_are_as_many_workers_as_the_most_replicas_want(manifests: list[Manifest]) -> None:
    cluster = cluster_of(named(manifests, "RayService"))
    assert cluster["enableInTreeAutoscaling"] is True
    [workers] = cluster["workerGroupSpecs"]
    [application] = serve_config(manifests)["applications"]
    args = ServeArgs.model_validate(application["args"])
    in_a_worker = float(workers["template"]["spec"]["containers"][0]["resources"]["requests"]["cpu"]) // args.cpus
    assert args.replicas == (in_a_worker * workers["minReplicas"], in_a_worker * workers["maxReplicas"])


def test_haproxy_is_the_program_that_the_image_has(manifests: list[Manifest]) -> None:
    project = (KUBERNETES.parents[1] / "pyproject.toml").read_text(encoding="utf-8")
    [program_name] = re.findall(r'^(\S+) = "serve.haproxy:main"', project, re.MULTILINE)
    assert "PATH=/app/.venv/bin:$PATH" in (KUBERNETES.parent / "Dockerfile").read_text(encoding="utf-8")
    for group in _groups(named(manifests, "RayService")):
        [container] = group["template"]["spec"]["containers"]
        environment = {one["name"]: one.get("value") for one in container["env"]}
        assert environment["RAY_SERVE_HAPROXY_BINARY_PATH"] == f"/app/.venv/bin/{program_name}"


def test_kubernetes_runs_the_ray_that_the_project_is_written_for(manifests: list[Manifest]) -> None:
    project = (KUBERNETES.parents[1] / "pyproject.toml").read_text(encoding="utf-8")
    [wanted] = re.findall(r"ray\[.*\]>=([\d.]+),", project)
    for one in (one for one in manifests if one["kind"].startswith("Ray")):
        assert cluster_of(one)["rayVersion"].startswith(f"{wanted}.")


def test_ray_takes_the_commands_that_kuberay_makes_of_the_groups(manifests: list[Manifest]) -> None:
    seen = []
    for one in (one for one in manifests if one["kind"].startswith("Ray")):
        for pod in pods(cluster_of(one), "10.0.0.1"):
            limit, words = pod.command[3].split("; ")
            ray, verb, *options = shlex.split(words)
            seen.append(start.make_context("start", options).params["head"])
            assert (pod.command[:3], limit, ray, verb) == (["/bin/bash", "-c", "--"], "ulimit -n 65536", "ray", "start")
    assert seen == [True, False, False, True, False]
    kuberay_autoscaler.make_context("kuberay-autoscaler", ["--cluster-name", "one", "--cluster-namespace", "two"])


def entrypoints() -> list[list[str]]:
    """The commands of the jobs and of the schedule, as their shell reads them."""
    job = named(merged("lab"), "CronJob")["spec"]["jobTemplate"]["spec"]["template"]["spec"]["containers"][0]
    return [shlex.split(read(path)[0]["spec"]["entrypoint"]) for path in JOBS] + [job["args"]]


@pytest.mark.parametrize("words", entrypoints(), ids=lambda words: "-".join(words[3:5]))
def test_cellnet_takes_the_commands_of_the_jobs(words: list[str], manifests: list[Manifest]) -> None:
    assert words[:3] == ["python", "-m", "pipelines"]
    verb, *arguments = words[3:]
    places = named(manifests, "ConfigMap", "cellnet")["data"]
    assert all(word.removeprefix("$") in places for word in words if word.startswith("$"))
    program.parser().parse_args([*VERBS[verb], *arguments])


def test_the_schedule_sends_its_command_to_the_standing_cluster(manifests: list[Manifest]) -> None:
    template = named(manifests, "CronJob")["spec"]["jobTemplate"]["spec"]["template"]
    [container] = template["spec"]["containers"]
    ray, job, verb, *options = container["command"]
    sent = submit.make_context("submit", [*options, *container["args"]]).params
    cluster = named(manifests, "RayCluster")["metadata"]["name"]
    assert (ray, job, verb, sent["address"]) == ("ray", "job", "submit", f"http://{cluster}-head-svc:8265")
    assert list(sent["entrypoint"]) == container["args"]
    assert template["metadata"]["labels"]["app.kubernetes.io/part-of"] == "cellnet"  # whom the network policy lets in


def test_the_pipelines_file_lies_where_the_commands_look_for_it(manifests: list[Manifest]) -> None:
    held = named(manifests, "ConfigMap", "cellnet-pipeline")["data"]
    [head] = [pod for pod in pods(named(manifests, "RayCluster")["spec"], "10.0.0.1") if pod.name == "head"]
    [volume] = [one for one in head.template["spec"]["volumes"] if "configMap" in one]
    [mount] = [one for one in head.container["volumeMounts"] if one["name"] == volume["name"]]
    assert volume["configMap"]["name"] == "cellnet-pipeline"
    file = f"{mount['mountPath']}/pipeline.yaml"
    asked = [words[4] for words in entrypoints() if words[3] == "run"]
    assert asked == [file] * 2 and list(held) == ["pipeline.yaml"]


def test_the_pipeline_is_one_for_the_places_of_the_pods(
    manifests: list[Manifest], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("CELLNET_TRUSTED_KEYS", "CELLNET_SIGNING_KEY"):
        monkeypatch.delenv(name, raising=False)
    path = tmp_path / "pipeline.yaml"
    path.write_text(named(manifests, "ConfigMap", "cellnet-pipeline")["data"]["pipeline.yaml"], encoding="utf-8")
    file, _ = opened(path)
    places = named(manifests, "ConfigMap", "cellnet")["data"]
    assert file.places.bank and file.places.bank.uri == places["BANK"]
    assert (file.places.registry.uri, file.places.runs.uri) == (places["CELLNET_REGISTRY"], places["RUNS"])
    assert {step.name.partition("-")[0] for step in steps_of(file)} == {"import", "train", "evaluate", "promote"}
