"""What the service counts and times, for Prometheus: of each process, with its name in the label `replica`."""

import functools
from collections.abc import Iterable
from typing import Final, get_args

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector, generate_latest
from prometheus_client.metrics_core import Metric
from prometheus_client.parser import text_string_to_metric_families

from cellnet.images.quality import Flag

SECONDS: Final = (0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 30, 60)
TILES: Final = (1, 2, 4, 8, 12, 16)
CELLS: Final = (0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 50, 100)
REFUSALS: Final = ("host", "site", "key", "queue", "memory", "slow", "time")
CONTENT_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"


class Meters:
    """The figures of one process.

    Counters whose labels are known are there from the beginning, at 0: of one that begins at 1 Prometheus sees no rise.
    """

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        ProcessCollector(namespace="cellnet", registry=self.registry)
        counter = functools.partial(Counter, registry=self.registry)
        gauge = functools.partial(Gauge, registry=self.registry)
        histogram = functools.partial(Histogram, registry=self.registry)
        model = ("model", "alias")
        self.requests = counter("cellnet_requests", "Requests answered.", ("route", "status"))
        self.request_seconds = histogram("cellnet_request_seconds", "Of a request.", ("route",), buckets=SECONDS)
        self.in_flight = gauge("cellnet_requests_in_flight", "Requests that are being answered.")
        self.refused = counter("cellnet_requests_refused", "Requests turned away.", ("reason",))
        self.images = counter("cellnet_images", "Images answered, or not.", ("outcome",))
        self.answers = counter("cellnet_answers", "Answers of each model.", model)
        self.batch_seconds = histogram("cellnet_batch_seconds", "Of a batch in a model.", model, buckets=SECONDS)
        self.unfamiliar = counter("cellnet_unfamiliar", "Images unlike a model's training images.", model)
        self.quality = counter("cellnet_quality", "Images out of focus, saturated or empty.", ("flag",))
        self.lineages = counter("cellnet_lineages", "Images by the lineage named.", ("model", "lineage"))
        self.judged = counter(
            "cellnet_judged", "Answers that people judged.", ("model", "of", "lineage", "batch", "otherwise")
        )
        self.batch_tiles = histogram("cellnet_batch_tiles", "Tiles computed together.", ("model",), buckets=TILES)
        self.serving = gauge("cellnet_serving", "1 for a version that is served.", ("model", "task", "alias", "engine"))
        self.swaps = counter("cellnet_swaps", "Versions that took over.", ("name",))
        self.stale = gauge("cellnet_stale", "1 while other versions may be served than the registry says.")
        self.registry_answered = gauge("cellnet_registry_answered_timestamp_seconds", "When the registry last did.")
        self.shadow_lineages = counter("cellnet_shadow_lineages", "Whether a shadow named the same.", ("model", "same"))
        self.shadow_cells = histogram("cellnet_shadow_cells", "Cells apart from a shadow.", ("model",), buckets=CELLS)
        self.shadow_missed = counter("cellnet_shadow_missed", "Images that no shadow saw.", ("reason",))
        known = {self.refused: REFUSALS, self.images: ("answered", "not usable"), self.quality: get_args(Flag)}
        for of, names in known.items():
            for name in names:
                of.labels(name)

    def text(self) -> str:
        """In Prometheus's text format."""
        return generate_latest(self.registry).decode()


def merged(texts: dict[str, str]) -> str:
    """The texts of several processes as one, with the name of each in the label `replica`."""
    families: dict[str, Metric] = {}
    for replica, text in texts.items():
        for family in text_string_to_metric_families(text):
            whole = families.setdefault(family.name, Metric(family.name, family.documentation, family.type))
            whole.samples += [sample._replace(labels=sample.labels | {"replica": replica}) for sample in family.samples]
    return generate_latest(_Given(families.values())).decode()


class _Given(CollectorRegistry):
    """Families that are there already."""

    def __init__(self, families: Iterable[Metric]) -> None:
        super().__init__()
        self._families = list(families)

    def collect(self) -> Iterable[Metric]:
        return self._families
