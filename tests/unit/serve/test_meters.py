"""The figures as Prometheus reads them."""

import time

from prometheus_client.parser import text_string_to_metric_families

from serve.meters import Meters, merged

HOSTILE = ("a\\", "\\n", '\\"', 'x"} 5\nforged 1', "line\nbreak", '{a="b"}', "# x", "\x1b[31m", "\u202eb", "L" * 99, "")


def test_names_of_lineages_are_labels_whatever_is_written_in_them() -> None:
    meters = Meters()
    for number, name in enumerate(HOSTILE, start=1):
        meters.lineages.labels("classifier@1", name).inc(number)
    families = list(text_string_to_metric_families(merged({"a": meters.text(), 'b"\n': meters.text()})))
    told = [sample for family in families for sample in family.samples if sample.name == "cellnet_lineages_total"]
    assert {(one.labels["replica"], one.labels["lineage"]): one.value for one in told} == {
        (replica, name): number for replica in ("a", 'b"\n') for number, name in enumerate(HOSTILE, start=1)
    }
    assert {family.name for family in families if not family.name.startswith("cellnet_")} == set()


def test_what_may_be_counted_is_there_from_the_beginning_so_that_the_first_one_is_a_rise() -> None:
    told = Meters().registry.get_sample_value
    labels = [
        *(("cellnet_requests_refused_total", {"reason": reason}) for reason in ("queue", "memory", "time")),
        *(("cellnet_quality_total", {"flag": flag}) for flag in ("out_of_focus", "saturated", "empty")),
        *(("cellnet_images_total", {"outcome": outcome}) for outcome in ("answered", "not usable")),
    ]
    assert {told(name, given) for name, given in labels} == {0}


def test_a_process_tells_its_memory_and_when_it_started() -> None:
    told = Meters().registry.get_sample_value
    assert told("cellnet_process_resident_memory_bytes") > 1e6
    assert 0 < time.time() - told("cellnet_process_start_time_seconds") < 86_400
