"""The figures as Prometheus reads them."""

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
