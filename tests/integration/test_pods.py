"""The containers of infra/kubernetes run here in their order, as their user, with a read-only root and an S3 server.

What Kubernetes and the KubeRay operator do is done by this test: volumes, secrets, commands, probes, the submission of
jobs and of what is to be served. Ray's autoscaler beside the head asks the API server, and is left out. The service's
head is that of components/rocksdb.
"""

import shlex
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import boto3
import cv2
import httpx
import pytest
import yaml

from cellnet.registry.registry import Registry
from cellnet.sample import write_sample
from cellnet.store.place import Place
from tests.factories import clouds, publish_untrained
from tests.machines import Machines, are_possible, wait_until
from tests.manifests import KUBERNETES, Manifest, Pod, cluster_of, merged, named, pods, probes, read
from tests.pods import Container

from .servers import BUCKET, PersistentServer

pytestmark = [
    pytest.mark.ray,
    pytest.mark.nodes,
    pytest.mark.whole,
    pytest.mark.timeout(900),
    pytest.mark.skipif(not are_possible(), reason="pods take root, and Linux's ip, unshare and nsenter"),
]

SECRETS = {
    "cellnet-token": {"auth_token": "0123456789abcdef" * 4},
    "cellnet-api-keys": {"keys": "0123456789abcdef"},
    "cellnet-redis": {"password": "secret"},
    "cellnet-s3": {"AWS_ACCESS_KEY_ID": "tester", "AWS_SECRET_ACCESS_KEY": "secret"},
}
BEARER = {"Authorization": f"Bearer {SECRETS['cellnet-token']['auth_token']}"}
QUICK = ["folds=0", "epochs=1", "model.width=4", "model.depth=2", "augment.shifts=0", "augment.shares=[1.0]"]
SMALL = [word for setting in QUICK for word in ("--set", setting)]
SMALLER = {"train": SMALL, "tune": [*SMALL, "--trials", "2"]}
"""Arguments beside a job's own, without which it would take minutes."""


class Lab(NamedTuple):
    """The network, what is applied to it, and its S3 server."""

    machines: Machines
    manifests: list[Manifest]
    server: PersistentServer
    folder: Path

    def container(self, pod: Pod) -> Container:
        """A container of a pod on a machine of its own, which knows a way out of its network, as a pod does."""
        machine = self.machines.add()
        machine.run("ip", "route", "add", "default", "via", self.machines.here)
        folder = self.folder / f"{pod.name}-{len(self.machines.all)}"
        folder.mkdir()
        files = {}
        for volume in pod.template["spec"].get("volumes", []):
            if "configMap" in volume:
                [mount] = [one for one in pod.container["volumeMounts"] if one["name"] == volume["name"]]
                files[mount["mountPath"]] = _mounted(folder / "files", self.config(volume["configMap"]["name"]))
        user = pod.template["spec"]["securityContext"]["runAsUser"]
        return Container(machine, folder, pod.writable, files, user=user)

    def config(self, name: str) -> dict[str, str]:
        data: dict[str, str] = named(self.manifests, "ConfigMap", name)["data"]
        return data

    def start(self, pod: Pod, *, is_head: bool = False) -> Container:
        """A pod of the cluster, once its probes are content."""
        container = self.container(pod)
        environment = pod.environment(self.manifests, SECRETS)
        token = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": SECRETS["cellnet-token"]["auth_token"]}  # by authOptions
        container.start(pod.command, token | environment)
        asked = probes(head=is_head, service=False)
        wait_until(lambda: all(_is_content(container, one) for one in asked), f"{pod.name} is well\n{_tail(container)}")
        by_kubelet = f"http://{container.machine.address}:52365/api/healthz"  # of newer operators
        assert httpx.get(by_kubelet, timeout=60).status_code == 200
        return container

    def s3(self) -> Any:
        keys = {name.lower(): value for name, value in SECRETS["cellnet-s3"].items()}
        return boto3.client("s3", endpoint_url=self.server.address, region_name="us-east-1", **keys)


def _mounted(folder: Path, files: Mapping[str, str]) -> Path:
    """A folder of a map's files, which are links to what Kubernetes changes at once."""
    (folder / "..data").mkdir(parents=True)
    for name, text in files.items():
        (folder / "..data" / name).write_text(text, encoding="utf-8")
        (folder / name).symlink_to(Path("..data", name))
    return folder


def _is_content(container: Container, probe: list[str]) -> bool:
    try:
        container.run(*probe)
    except RuntimeError:
        return False
    return True


def _tail(container: Container) -> str:
    return container.log.read_text(errors="replace")[-4000:] if container.log.exists() else ""


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    """The overlay of a lab, whose places are those of a server here, with images to learn from."""
    folder = tmp_path_factory.mktemp("pods")
    with (
        Machines(folder) as machines,
        PersistentServer(folder, host=machines.here) as server,
        pytest.MonkeyPatch.context() as patch,
    ):
        manifests = merged("lab", "rocksdb")
        places = named(manifests, "ConfigMap", "cellnet")["data"]
        places |= {"CELLNET_REGISTRY": f"s3://{BUCKET}/registry", "BANK": f"s3://{BUCKET}/bank"}
        places |= {"RUNS": f"s3://{BUCKET}/runs", "AWS_ENDPOINT_URL_S3": server.address}
        pipeline = named(manifests, "ConfigMap", "cellnet-pipeline")["data"]
        pipeline["pipeline.yaml"] = small_pipeline(pipeline["pipeline.yaml"].replace("my-bucket", BUCKET))
        for name, value in SECRETS["cellnet-s3"].items():
            patch.setenv(name, value)
        lab = Lab(machines, manifests, server, folder)
        images = write_sample(folder / "images", wells_per_lineage=4, lineages=("THP1", "A172")).parent
        for path in images.rglob("*"):
            if path.is_file():
                lab.s3().upload_file(str(path), BUCKET, f"plates/{path.relative_to(images)}")
        yield lab


def submitted(head: Container, entrypoint: str) -> tuple[str, str]:
    """How a job ended and what it said, sent as KubeRay sends it in HTTPMode."""
    address = f"http://{head.machine.address}:8265/api/jobs/"
    sent = httpx.post(address, json={"entrypoint": entrypoint}, headers=BEARER, timeout=60)
    assert sent.status_code == 200, sent.text
    job = f"{address}{sent.json()['submission_id']}"
    deadline = time.monotonic() + 400
    while (status := httpx.get(job, headers=BEARER, timeout=60).json())["status"] in ("PENDING", "RUNNING"):
        assert time.monotonic() < deadline, f"{entrypoint} does not end"
        time.sleep(1)
    return status["status"], httpx.get(f"{job}/logs", headers=BEARER, timeout=60).json()["logs"]


def run(head: Container, name: str) -> None:
    """One of the jobs, in small."""
    entrypoint = read(KUBERNETES / "jobs" / f"{name}.yaml")[0]["spec"]["entrypoint"]
    status, said = submitted(head, f"{entrypoint} {shlex.join(SMALLER.get(name, []))}")
    assert status == "SUCCEEDED", f"{entrypoint}\n{said}"


def small_pipeline(text: str) -> str:
    pipeline = yaml.safe_load(text)
    for model in pipeline["models"].values():
        model["train"]["set"] = {name: yaml.safe_load(value) for name, value in (one.split("=") for one in QUICK)}
    return yaml.safe_dump(pipeline)


def test_the_standing_cluster_runs_every_job_and_the_schedules(lab: Lab) -> None:
    manifest = named(lab.manifests, "RayCluster")
    head_pod, *_ = pods(cluster_of(manifest), "")
    head = lab.start(head_pod, is_head=True)
    assert httpx.get(f"http://{head.machine.address}:8265/api/jobs/", timeout=60).status_code == 401
    _, cpu, gpu = pods(cluster_of(manifest), head.machine.address)
    worker = lab.start(cpu)
    worker.run("bash", "-c", f"ray health-check --address {head.machine.address}:6379")  # of KubeRay's init container
    machine = lab.start(gpu).machine
    machine.kill()  # it has no GPU, and no job is to wait for it
    run(head, "pipeline")

    schedule = named(lab.manifests, "CronJob")["spec"]["jobTemplate"]["spec"]["template"]
    [container] = schedule["spec"]["containers"]
    words = [word.replace("cellnet-jobs-head-svc", head.machine.address) for word in container["command"]]
    pod = Pod("schedule", schedule, [*words, *container["args"]])
    night = lab.container(pod)
    assert night.start(pod.command, pod.environment(lab.manifests, SECRETS)).wait(timeout=400) == 0, _tail(night)
    assert "nothing to do" in _tail(night)

    run(head, "train")
    run(head, "tune")
    kept = [one["Key"] for one in lab.s3().list_objects_v2(Bucket=BUCKET, Prefix="registry/")["Contents"]]
    assert [sum(f"/{name}/versions/" in key for key in kept) for name in ("classifier", "regressor")] == [2, 2]
    refuse_the_unwritable(head, worker, night)
    for machine in lab.machines.all:
        machine.kill()


def test_the_service_answers_with_its_keys(lab: Lab) -> None:
    registry = lab.config("cellnet")["CELLNET_REGISTRY"]
    publish_untrained(Registry.open(Place(registry, lab.server.address)), "count")
    manifest = named(lab.manifests, "RayService")
    head_pod, *_ = pods(cluster_of(manifest), "")
    head = lab.start(head_pod, is_head=True)
    [_, cpu] = pods(cluster_of(manifest), head.machine.address)
    worker = lab.start(cpu)
    wanted = yaml.safe_load(manifest["spec"]["serveConfigV2"])
    address = f"http://{head.machine.address}:8265/api/serve/applications/"
    sent = httpx.put(address, json=wanted, headers=BEARER, timeout=60)  # as KubeRay sends it
    assert sent.status_code == 200, sent.text

    [ready] = probes(head=False, service=True)
    wait_until(lambda: _is_content(worker, ready), "the worker is ready", timeout_s=300)
    image = [("images", ("a.png", cv2.imencode(".png", clouds(200, 200))[1].tobytes()))]
    asked = f"http://{worker.machine.address}:8000/v1/predict"

    def answer(**headers: str) -> Callable[[], bool]:
        return lambda: httpx.post(asked, files=image, headers=headers, timeout=60).status_code == 200

    wait_until(answer(Authorization="Bearer 0123456789abcdef"), "the service answers")
    assert httpx.post(asked, files=image, timeout=60).status_code == 401
    refuse_the_unwritable(head, worker)


@pytest.mark.skipif(shutil.which("redis-server") is None, reason="redis-server is not there")
def test_redis_starts_with_its_password(lab: Lab) -> None:
    template = named(merged("lab", "redis"), "StatefulSet")["spec"]["template"]
    [container] = template["spec"]["containers"]
    pod = Pod("redis", template, [*container["command"], *container["args"]])
    redis = lab.container(pod)
    redis.start(pod.command, pod.environment(lab.manifests, SECRETS))
    probe = container["readinessProbe"]["exec"]["command"]
    wait_until(lambda: _is_content(redis, probe), f"Redis is ready\n{_tail(redis)}")
    assert "NOAUTH" in redis.run("redis-cli", "get", "one")
    assert any(redis.volumes["/data"].rglob("*.aof"))


def refuse_the_unwritable(*containers: Container) -> None:
    """That nobody wrote, or tried to, where the root is read-only, and that all of them are the manifests' user."""
    for container in containers:
        if not container.machine.is_up():
            continue
        with pytest.raises(RuntimeError, match="Read-only file system"):
            container.run("touch", "/app/cellnet/one")
        assert container.run("id", "-u").strip() == "1000"
    for container in containers:
        said = _tail(container) + "".join(
            path.read_text(errors="replace")
            for path in container.volumes["/tmp"].rglob("*")
            if path.is_file() and path.suffix in (".log", ".out", ".err")
        )
        assert "Read-only file system" not in said
