"""Nodes that come on demand: a cluster whose autoscaler starts them on this machine, in namespaces of its own."""

import json
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import pytest

from tests.machines import environment_of

pytestmark = [pytest.mark.ray, pytest.mark.nodes, pytest.mark.timeout(300)]

ALONE = ["unshare", "--net", "--pid", "--mount", "--mount-proc", "--fork", "--kill-child"]
"""A network and processes of its own: Ray's fixed ports are free, and all ends with the first process."""
HEAD = """
ip link set lo up
ray start --head --port=6379 --node-ip-address=127.0.0.1 --num-cpus=1 --include-dashboard=false \
  --temp-dir="$FILES" --autoscaling-config="$FILES/autoscaler.json" --block > "$FILES/head.log" 2>&1 &
exec "$@"
"""
LISTS = ("file_mounts", "cluster_synced_files", "rsync_exclude", "rsync_filter")
COMMANDS = ("initialization", "setup", "head_setup", "worker_setup", "head_start_ray", "worker_start_ray")
AUTOSCALER = {
    "cluster_name": "lab",
    "max_workers": 3,
    "idle_timeout_minutes": 5,
    "upscaling_speed": 1,
    "provider": {"type": "fake_multinode", "gcs_address": "127.0.0.1:6379", "disable_node_updaters": True},
    "auth": {},
    "docker": {},
    **{name: {} if name == "file_mounts" else [] for name in LISTS},
    **{f"{name}_commands": [] for name in COMMANDS},
    "head_node_type": "ray.head.default",
    "available_node_types": {
        "ray.head.default": {"resources": {"CPU": 1}, "node_config": {}, "max_workers": 0},
        "gpus": {"resources": {"CPU": 1, "GPU": 4}, "node_config": {}, "min_workers": 0, "max_workers": 2},
    },
}
JOB = """
import json, socket, sys, time
import ray
from cellnet.errors import CellnetError
from pipelines import cluster, room

deadline_s = time.monotonic() + 120
while time.monotonic() < deadline_s:
    try:
        socket.create_connection(("127.0.0.1", 6379), 1).close()
        break
    except OSError:
        time.sleep(0.5)
cluster.connect()
said = []

def gpus(number, wait_s):
    try:
        return room.wait_for_gpus(1, number, wait_s=wait_s, say=said.append)
    except CellnetError as error:
        return f"{type(error).__name__}: {error}"

found = {"refused": gpus(9, 120), "late": gpus(2, 0.5), "trials": room.at_once(0.5), "came": gpus(2, 120)}
found["gpus"] = ray.cluster_resources()["GPU"]
room.wait_for_workers(1, wait_s=0, say=said.append)
left = [group["state"] for group in ray.util.placement_group_table().values()]
print(json.dumps(found | {"said": said, "left": left}))
"""


def can_be_alone() -> bool:
    """Whether processes here may have a network and process numbers of their own."""
    if not all(map(shutil.which, ("unshare", "ip"))):
        return False
    return subprocess.run([*ALONE, "ip", "link", "set", "lo", "up"], capture_output=True, check=False).returncode == 0


def test_a_cluster_that_grows_on_demand_is_asked_for_gpus_and_waited_for(tmp_path: Path) -> None:
    if not can_be_alone():
        pytest.skip("namespaces for a network and processes take root, unshare and ip")
    files = Path(tempfile.mkdtemp(prefix="ray"))  # a short path, for the names of sockets
    (files / "autoscaler.json").write_text(json.dumps(AUTOSCALER))
    rays = {"RAY_FAKE_CLUSTER": "1", "AUTOSCALER_UPDATE_INTERVAL_S": "1", "RAY_AUTH_MODE": "disabled"}
    environment = environment_of(tmp_path, FILES=str(files), RAY_ADDRESS="127.0.0.1:6379", **rays)
    try:
        done = subprocess.run(
            [*ALONE, "sh", "-c", HEAD, "sh", sys.executable, "-c", JOB],
            cwd=Path(__file__).parents[2], env=environment, capture_output=True, text=True, timeout=280,
        )  # fmt: skip
        log = (files / "head.log").read_text()
    finally:
        shutil.rmtree(files, ignore_errors=True)
    assert done.returncode == 0, f"{done.stderr}\n{log}"
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    assert found["refused"].startswith("ConfigError: this needs 9 × GPU at once, and the cluster may grow to 8; ask")
    assert found["late"].startswith("CellnetError: the cluster has 0 of 2 × GPU after 0.5 s; see why none come")
    assert found["trials"] == 16, "what may come counts"
    assert (found["came"], found["gpus"]) == (True, 4)
    assert set(found["said"]) == {"waiting for 2 × GPU; the cluster may grow to 8"} and len(found["said"]) >= 2
    assert set(found["left"]) == {"REMOVED"}, "nothing keeps nodes that nobody uses"
