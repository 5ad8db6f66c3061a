"""The manifests of infra/kubernetes: merged as `kubectl kustomize` does, checked, and what KubeRay makes of them.

Of Kustomize there is what the overlays use: `resources`, `components`, `patches` (JSON6902, of a kind and a name),
`images` and `namespace`. A test compares it with `kubectl kustomize`, where there is kubectl.
"""

import copy
import json
import shlex
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import jsonpatch
import kubernetes_validate
import yaml

KUBERNETES: Final = Path(__file__).parents[1] / "infra" / "kubernetes"
OVERLAYS: Final = ("lab", "core-facility")
COMPONENTS: Final = ("redis", "rocksdb")
KUBERNETES_VERSION: Final = "1.34"
KUBERAY_VERSION: Final = "1.6"

Manifest = dict[str, Any]


def read(path: Path) -> list[Manifest]:
    """What a file declares; what an alias repeats is apart, as in Kustomize."""
    return [json.loads(json.dumps(one)) for one in yaml.safe_load_all(path.read_text(encoding="utf-8")) if one]


def merged(overlay: str, *components: str) -> list[Manifest]:
    """What an overlay applies, with components that it leaves out."""
    folder = KUBERNETES / "overlays" / overlay
    kustomization = yaml.safe_load((folder / "kustomization.yaml").read_text(encoding="utf-8"))
    kustomization["components"] += [f"../../components/{name}" for name in components]
    return _merged(folder, kustomization, [])


def _merged(folder: Path, kustomization: Manifest, below: list[Manifest]) -> list[Manifest]:
    wanted = dict(kustomization)
    kind = wanted.pop("kind")
    version = "v1beta1" if kind == "Kustomization" else "v1alpha1"
    if wanted.pop("apiVersion") != f"kustomize.config.k8s.io/{version}":
        raise ValueError(f"{folder}: a {kind} is of kustomize.config.k8s.io/{version}")
    every = list(below)
    for name in wanted.pop("resources", []):
        path = folder / name
        every += _of_folder(path, []) if path.is_dir() else read(path)
    for name in wanted.pop("components", []):
        every = _of_folder(folder / name, every)
    for patch in wanted.pop("patches", []):
        every = _patched(every, **patch)
    for image in wanted.pop("images", []):
        for one in every:
            _rename_images(one, **image)
    if namespace := wanted.pop("namespace", None):
        for one in every:
            one["metadata"]["name" if one["kind"] == "Namespace" else "namespace"] = namespace
    if wanted:
        raise ValueError(f"{folder}: {', '.join(wanted)} is more of Kustomize than tests/manifests.py merges")
    return every


def _of_folder(folder: Path, below: list[Manifest]) -> list[Manifest]:
    return _merged(folder, yaml.safe_load((folder / "kustomization.yaml").read_text(encoding="utf-8")), below)


def _patched(every: list[Manifest], target: Mapping[str, str], patch: str) -> list[Manifest]:
    hit = [one for one in every if (one["kind"], one["metadata"]["name"]) == (target["kind"], target["name"])]
    if len(hit) != 1 or set(target) != {"kind", "name"}:
        raise ValueError(f"a patch is for one manifest by kind and name, and {dict(target)} are {len(hit)}")
    changed = jsonpatch.apply_patch(hit[0], yaml.safe_load(patch.strip()))
    return [changed if one is hit[0] else one for one in every]


def _rename_images(one: Any, name: str, newName: str, newTag: str) -> None:
    if isinstance(one, dict):
        for container in [*one.get("containers", []), *one.get("initContainers", [])]:
            if container["image"] == name:
                container["image"] = f"{newName}:{newTag}"
    for inner in one.values() if isinstance(one, dict) else one if isinstance(one, list) else ():
        _rename_images(inner, name, newName, newTag)


# KubeRay's own fields


@dataclass(frozen=True)
class Core:
    """A part that is Kubernetes' own: checked within the core kind that it makes."""

    within: Callable[[Any], Manifest]


@dataclass(frozen=True)
class Of:
    """An object of named fields; those without which it is refused are `required`."""

    fields: Mapping[str, Any]
    required: Sequence[str] = field(default=())


def _template(value: Any) -> Manifest:
    return {"apiVersion": "v1", "kind": "PodTemplate", "metadata": {"name": "pod"}, "template": value}


def _in_container(name: str) -> Core:
    return Core(lambda value: _template({"spec": {"containers": [{"name": "one", "image": "one", name: value}]}}))


TEMPLATE: Final = Core(_template)
WORDS: Final = {str: str}
CREDENTIAL: Final = Of({"value": str, "valueFrom": Core(
    lambda value: _in_container("env").within([{"name": "ONE", "valueFrom": value}])
)})  # fmt: skip
AUTOSCALER: Final = Of({
    "resources": _in_container("resources"), "image": str, "imagePullPolicy": ("Always", "IfNotPresent", "Never"),
    "securityContext": _in_container("securityContext"), "idleTimeoutSeconds": int,
    "upscalingMode": ("Default", "Aggressive", "Conservative"), "version": ("v1", "v2"),
    "env": _in_container("env"), "envFrom": _in_container("envFrom"), "volumeMounts": _in_container("volumeMounts"),
})  # fmt: skip
HEAD: Final = Of({
    "template": TEMPLATE, "headService": Core(lambda value: {"apiVersion": "v1", "kind": "Service", **value}),
    "enableIngress": bool, "resources": WORDS, "labels": WORDS, "rayStartParams": WORDS,
    "serviceType": ("ClusterIP", "NodePort", "LoadBalancer"),
}, required=["template"])  # fmt: skip
WORKERS: Final = Of({
    "groupName": str, "replicas": int, "minReplicas": int, "maxReplicas": int, "idleTimeoutSeconds": int,
    "resources": WORDS, "labels": WORDS, "rayStartParams": WORDS, "template": TEMPLATE, "numOfHosts": int,
    "scaleStrategy": Of({"workersToDelete": [str]}),
}, required=["groupName", "minReplicas", "maxReplicas", "template"])  # fmt: skip
CLUSTER: Final = Of({
    "upgradeStrategy": Of({"type": ("Recreate", "None")}),
    "authOptions": Of({"mode": ("disabled", "token"), "secretName": str, "enableK8sTokenAuth": bool}),
    "suspend": bool, "managedBy": str, "autoscalerOptions": AUTOSCALER, "headServiceAnnotations": WORDS,
    "enableInTreeAutoscaling": bool,
    "gcsFaultToleranceOptions": Of({
        "redisAddress": str, "redisUsername": CREDENTIAL, "redisPassword": CREDENTIAL, "externalStorageNamespace": str,
    }, required=["redisAddress"]),
    "headGroupSpec": HEAD, "rayVersion": str, "workerGroupSpecs": [WORKERS],
}, required=["headGroupSpec"])  # fmt: skip
DELETION: Final = Of({"policy": ("DeleteCluster", "DeleteWorkers", "DeleteSelf", "DeleteNone")})
JOB: Final = Of({
    "activeDeadlineSeconds": int, "backoffLimit": int, "rayClusterSpec": CLUSTER, "submitterPodTemplate": TEMPLATE,
    "metadata": WORDS, "clusterSelector": WORDS, "submitterConfig": Of({"backoffLimit": int}), "managedBy": str,
    "deletionStrategy": Of({"onSuccess": DELETION, "onFailure": DELETION}), "entrypoint": str, "runtimeEnvYAML": str,
    "jobId": str, "submissionMode": ("K8sJobMode", "HTTPMode", "InteractiveMode", "SidecarMode"),
    "entrypointResources": str, "entrypointNumCpus": float, "entrypointNumGpus": float,
    "ttlSecondsAfterFinished": int, "shutdownAfterJobFinishes": bool, "suspend": bool,
})  # fmt: skip
SERVICE: Final = Of({
    "serveConfigV2": str, "rayClusterConfig": CLUSTER, "excludeHeadPodFromServeSvc": bool,
    "serveService": Core(lambda value: {"apiVersion": "v1", "kind": "Service", **value}),
    "upgradeStrategy": Of({"type": ("NewCluster", "NewClusterWithIncrementalUpgrade", "None")}),
})  # fmt: skip
RAY: Final = {"RayCluster": CLUSTER, "RayJob": JOB, "RayService": SERVICE}
"""The `spec` of KubeRay's kinds of ray.io/v1: the fields and types of KubeRay 1.6's definitions."""


def faults(manifest: Manifest) -> list[str]:
    """What Kubernetes or KubeRay would refuse or ignore in a manifest; each names where."""
    kind = manifest["kind"]
    if manifest["apiVersion"] != "ray.io/v1":
        return list(_core(manifest, kind))
    if kind not in RAY or set(manifest) != {"apiVersion", "kind", "metadata", "spec"}:
        return [f"{kind}: ray.io/v1 has apiVersion, kind, metadata and spec, of {', '.join(RAY)}"]
    named = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": manifest["metadata"]}
    return [*_core(named, f"{kind}.metadata"), *_wrong(manifest["spec"], RAY[kind], f"{kind}.spec")]


def _core(manifest: Manifest, where: str) -> Iterator[str]:
    try:
        kubernetes_validate.validate(manifest, KUBERNETES_VERSION, strict=True)
    except (kubernetes_validate.ValidationError, kubernetes_validate.utils.SchemaNotFoundError) as error:
        inside = ".".join(str(name) for name in getattr(error, "path", ()))
        yield f"{where}: {inside}: {error.message}"


def _wrong(value: Any, form: Any, where: str) -> Iterator[str]:
    if isinstance(form, Core):
        yield from _core(form.within(value), where)
    elif isinstance(form, Of):
        if not isinstance(value, dict):
            yield f"{where} is no object"
            return
        yield from (f"{where}.{name} is missing" for name in form.required if name not in value)
        for name, inner in value.items():
            if name in form.fields:
                yield from _wrong(inner, form.fields[name], f"{where}.{name}")
            else:
                yield f"{where}.{name} is no field of KubeRay {KUBERAY_VERSION}"
    elif isinstance(form, list):
        for number, inner in enumerate(value) if isinstance(value, list) else ():
            yield from _wrong(inner, form[0], f"{where}.{number}")
        if not isinstance(value, list):
            yield f"{where} is no list"
    elif form is WORDS:
        if not isinstance(value, dict):
            yield f"{where} is no object"
            return
        yield from (
            f"{where}.{name} is {inner!r}, and no text" for name, inner in value.items() if type(inner) is not str
        )
    elif isinstance(form, tuple):
        if value not in form:
            yield f"{where} is {value!r}, and no one of {', '.join(form)}"
    elif type(value) not in ((int, float) if form is float else (form,)):
        yield f"{where} is {value!r}, and no {form.__name__}"


# What KubeRay starts of them


@dataclass(frozen=True)
class Pod:
    """A pod as Kubernetes would start it: its Ray container's command, user, environment and what it may write."""

    name: str
    template: Manifest
    command: list[str]

    @property
    def container(self) -> Manifest:
        """The first, which is Ray's."""
        first: Manifest = self.template["spec"]["containers"][0]
        return first

    @property
    def writable(self) -> list[str]:
        """The folders that are emptyDirs or claimed disks."""
        held = {one["name"] for one in self.template["spec"].get("volumes", []) if "configMap" in one}
        return [mount["mountPath"] for mount in self.container["volumeMounts"] if mount["name"] not in held]

    def environment(self, manifests: list[Manifest], secrets: Mapping[str, Mapping[str, str]]) -> dict[str, str]:
        """Its variables. Raises KeyError for a secret or a map that is not there, as Kubernetes waits for it."""
        maps = {one["metadata"]["name"]: one["data"] for one in manifests if one["kind"] == "ConfigMap"}
        seen: dict[str, str] = {}
        for source in self.container.get("envFrom", []):
            seen |= maps[source["configMapRef"]["name"]]
        for one in self.container.get("env", []):
            if "value" in one:
                seen[one["name"]] = one["value"]
                continue
            wanted = one["valueFrom"]["secretKeyRef"]
            if wanted.get("optional") and wanted["name"] not in secrets:
                continue
            seen[one["name"]] = secrets[wanted["name"]][wanted["key"]]
        return seen


def named(manifests: list[Manifest], kind: str, name: str = "") -> Manifest:
    """The one manifest of a kind, or of a kind and a name."""
    [found] = [one for one in manifests if one["kind"] == kind and name in ("", one["metadata"]["name"])]
    return found


def cluster_of(manifest: Manifest) -> Manifest:
    """The Ray cluster of a RayCluster or a RayService."""
    spec: Manifest = manifest["spec"]
    return spec.get("rayClusterConfig", spec)


def pods(cluster: Manifest, address: str) -> list[Pod]:
    """The head's pod and one of each group, by the command that KubeRay 1.6 gives them; the head is at this address."""
    head = cluster["headGroupSpec"]
    more = {"no-monitor": "true"} if cluster.get("enableInTreeAutoscaling") else {}
    made = [Pod("head", head["template"], _ray_start(head, {"head": "true", "dashboard-host": "0.0.0.0"} | more))]
    for group in cluster["workerGroupSpecs"]:
        made.append(Pod(group["groupName"], group["template"], _ray_start(group, {"address": f"{address}:6379"})))
    return made


def _ray_start(group: Manifest, fixed: dict[str, str]) -> list[str]:
    """`generateRayStartCommand` of KubeRay: a group's parameters, and what a container's limits say."""
    limits = group["template"]["spec"]["containers"][0]["resources"]["limits"]
    options = copy.copy(group["rayStartParams"]) | fixed
    options |= {"metrics-export-port": "8080", "block": "true", "dashboard-agent-listen-port": "52365"}
    options.setdefault("num-cpus", limits["cpu"])
    options.setdefault("memory", str(int(limits["memory"].removesuffix("Gi")) * 2**30))
    if "nvidia.com/gpu" in limits:
        options.setdefault("num-gpus", limits["nvidia.com/gpu"])
    words = [f"--{name}" if value == "true" else f"--{name}={value}" for name, value in options.items()]
    return ["/bin/bash", "-c", "--", f"ulimit -n 65536; ray start {shlex.join(words)}"]


def probes(*, head: bool, service: bool) -> list[list[str]]:
    """The commands by which KubeRay asks a Ray container how it is."""
    ask = "wget --tries 1 -T 2 -q -O- http://localhost:{} | grep success"
    paths = ["52365/api/local_raylet_healthz"]
    paths += ["8265/api/gcs_healthz"] if head else []
    paths += ["8000/-/healthz"] if service and not head else []
    return [["bash", "-c", " && ".join(ask.format(path) for path in paths)]]
