"""Room for a job: what the cluster has, what it may grow to where nodes come on demand, and the wait for them."""

import math
import time
from collections.abc import Mapping
from typing import Any, Final, NamedTuple

import ray
from ray._private.ray_constants import DEBUG_AUTOSCALING_STATUS
from ray.autoscaler.v2.utils import is_autoscaler_v2
from ray.experimental.internal_kv import _internal_kv_get
from ray.util.placement_group import placement_group, remove_placement_group
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from cellnet.errors import CellnetError, ConfigError
from pipelines import cluster
from pipelines.runs import Say

WAIT_S: Final = 900.0
"""How long room is waited for: as long as Ray's autoscaler gives a node to start (AUTOSCALER_NODE_START_WAIT_S)."""
TELL_S: Final = 60.0
"""How often it is said that it is waited."""
HEAD_S: Final = 60.0
"""How long the head may take to tell which nodes may come."""
HEAD: Final = "node:__internal_head__"

Bundle = Mapping[str, float]
"""What one worker or one trial reserves on one node, by resource."""


class Growth(NamedTuple):
    """Which nodes may come."""

    kinds: tuple[tuple[Bundle, int], ...] | None
    """What a node of each kind has, and how many there may be; None where the cluster does not say."""
    at_most: float = math.inf
    """Nodes of all kinds, without the head."""


def held(bundle: Bundle, resources: Bundle) -> int:
    """How many such bundles fit on a node at once.

    >>> held({"GPU": 0.5}, {"CPU": 8, "GPU": 2}), held({"CPU": 1, "GPU": 1}, {"CPU": 8})
    (4, 0)
    """
    return min(int(resources.get(name, 0) / amount + 1e-9) for name, amount in bundle.items())


def may_hold(bundle: Bundle, nodes: list[Bundle], growth: Growth) -> float:
    """How many such bundles fit on a cluster that has grown as far as it may; infinite where that is not known.

    A node of `nodes` counts as of the kind that has its CPUs and GPUs; the head is of none.

    >>> growth = Growth((({"CPU": 1, "GPU": 2}, 4),), at_most=3)
    >>> may_hold({"GPU": 1}, [{"CPU": 4, HEAD: 1}, {"CPU": 1, "GPU": 2}], growth)
    6
    """
    there = sum(held(bundle, node) for node in nodes)
    if growth.kinds is None:
        return math.inf
    workers = [node for node in nodes if HEAD not in node]
    left = max(0.0, growth.at_most - len(workers))
    for resources, most in sorted(growth.kinds, key=lambda kind: -held(bundle, kind[0])):
        shape = [resources.get(name, 0) for name in ("CPU", "GPU")]
        alike = sum([node.get(name, 0) for name in ("CPU", "GPU")] == shape for node in workers)
        more = min(max(0, most - alike), left)
        there += int(more) * held(bundle, resources)
        left -= more
    return there


@ray.remote(num_cpus=0, max_retries=0)  # type: ignore[untyped-decorator]
def _on_head(port: str) -> list[Any] | None:
    """On the head: the kinds of nodes of its autoscaler's file, and how many nodes there may be.

    Empty where its autoscaler only looks on; None where none runs there. `port` is the cluster's, since a machine may
    have two, and has several names. Nothing is used of its cellnet.
    """
    import yaml
    from psutil import Error, process_iter

    for process in process_iter():
        try:
            words = process.cmdline()
        except Error:
            continue
        of_cluster = any(word.startswith("--gcs-address=") and word.endswith(f":{port}") for word in words)
        if not of_cluster or not any(word.endswith("/monitor.py") for word in words):
            continue
        files = [word.partition("=")[2] for word in words if word.startswith("--autoscaling-config=")]
        if not files:
            return []
        with open(files[0], encoding="utf-8") as file:
            config = yaml.safe_load(file)
        most = config.get("max_workers", 0)
        kinds = {
            name: kind for name, kind in config["available_node_types"].items() if name != config["head_node_type"]
        }
        if not all(kind.get("resources") for kind in kinds.values()):
            return [None, most]
        return [[[kind["resources"], kind.get("max_workers", most)] for kind in kinds.values()], most]
    return None


def growth() -> Growth | None:
    """Which nodes may come; None for a cluster that does not grow.

    The head's autoscaler knows it by a file. On Kubernetes it runs beside the head, and does not say.
    """
    heads = [node["NodeID"] for node in ray.nodes() if node["Alive"] and HEAD in node["Resources"]]
    if cluster.is_own() or not heads:
        return None
    there = NodeAffinitySchedulingStrategy(heads[0], soft=False)
    port = ray.get_runtime_context().gcs_address.rpartition(":")[2]
    try:
        found = ray.get(_on_head.options(scheduling_strategy=there).remote(port), timeout=HEAD_S)
    except (ray.exceptions.RayError, ray.exceptions.GetTimeoutError):
        return None
    if found is None:
        grows = _internal_kv_get(DEBUG_AUTOSCALING_STATUS) or is_autoscaler_v2()
        return Growth(None) if grows else None
    if not found or not found[1]:
        return None
    kinds, most = found
    return Growth(None if kinds is None else tuple((resources, number) for resources, number in kinds), most)


def wait_for(bundle: Bundle, number: int, *, wait_s: float, say: Say, at_best: bool = False) -> bool:
    """Whether the cluster has room for so many bundles, at the latest when nodes that it was asked for have come.

    False for a cluster that does not grow. `at_best` takes less than it was asked for, so that nothing is refused: as
    much as the cluster may grow to, or has when the wait is over. Raises ConfigError where no kind of node offers it,
    CellnetError when it did not come in time.
    """
    nodes = _nodes()
    if sum(held(bundle, node) for node in nodes) >= number:
        return True
    may_grow = growth()
    if may_grow is None:
        return False
    most = may_hold(bundle, nodes, may_grow)
    wanted = min(number, int(most)) if at_best and most < math.inf else number
    what = f"{wanted} × {_name(bundle)}"
    if most < wanted:
        raise ConfigError(
            f"this needs {what} at once, and the cluster may grow to {most:g}; ask for less, or let its autoscaler "
            "start more or other nodes"
        )
    if sum(held(bundle, node) for node in nodes) >= wanted:
        return True
    grows = "the cluster grows on demand" if most == math.inf else f"the cluster may grow to {most:g}"
    # Its demand is this job's own, and ends with it: that of `request_resources` would be in place of everybody else's.
    group = placement_group([dict(bundle)] * wanted)
    try:
        deadline_s = time.monotonic() + wait_s
        while (left_s := deadline_s - time.monotonic()) > 0:
            say(f"waiting for {what}; {grows}")
            if group.wait(min(TELL_S, left_s)):
                cluster.check_nodes()
                return True
    finally:
        remove_placement_group(group)
    has = sum(held(bundle, node) for node in _nodes())
    missing = f"the cluster has {has} of {what} after {wait_s:g} s"
    if not at_best:
        raise CellnetError(f"{missing}; see why none come (ray status on its head), or give a longer --wait")
    say(f"note: {missing}; it is done with what there is")
    return True


def wait_for_workers(workers: int, *, wait_s: float, say: Say) -> None:
    """Have a CPU for each worker and one to feed them, as far as the cluster grows to that; else they share what is."""
    wait_for({"CPU": 1}, workers + (workers > 1), wait_s=wait_s, say=say, at_best=True)


def wait_for_gpus(gpus: float, workers: int, *, wait_s: float, say: Say) -> bool:
    """Whether there are so many GPUs for each of so many workers; on a cluster that grows, when they have come."""
    return wait_for({"GPU": gpus}, workers, wait_s=wait_s, say=say)


def at_once(gpus: float, workers: int = 1) -> int:
    """How many trials of so many workers to run at once: a worker on each CPU, or as many as the GPUs have room for.

    `gpus` are for each worker; those that may come count too. Raises ConfigError for a cluster that has not as many as
    one trial wants.
    """
    if not gpus:
        return max(1, int(cluster.cpus() / workers))
    there, wanted = ray.cluster_resources().get("GPU", 0), gpus * workers
    may_grow = growth()
    most = may_hold({"GPU": gpus}, _nodes(), may_grow) if may_grow else 0
    if there < wanted and most < workers:
        raise ConfigError(f"a trial wants {wanted:g} GPUs, and the cluster has {there:g}; leave gpus out to use CPUs")
    return max(1, int(there / wanted), int(most / workers) if most < math.inf else 0)


def use_gpus(workers: int, *, insist: bool = False) -> bool:
    """Whether the cluster has a GPU for each of so many workers. Raises ConfigError if not and one insists."""
    gpus = ray.cluster_resources().get("GPU", 0)
    if insist and gpus < workers:
        raise ConfigError(
            f"--gpu needs a GPU a worker, and the cluster has {gpus:g} for {workers}; "
            "leave --gpu out to train on CPUs, or take fewer workers"
        )
    return bool(gpus >= workers)


def _nodes() -> list[Bundle]:
    """What each node has that is there."""
    return [node["Resources"] for node in ray.nodes() if node["Alive"]]


def _name(bundle: Bundle) -> str:
    return " and ".join(name if amount == 1 else f"{amount:g} {name}" for name, amount in bundle.items())
