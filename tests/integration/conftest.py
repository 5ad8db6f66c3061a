"""One local Ray and one small bank of drawn frames for the tests that need them."""

from collections.abc import Iterator
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def ray_started() -> Iterator[None]:
    """A local Ray of two CPUs."""
    import ray

    from pipelines import cluster

    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False, logging_level="ERROR")
    cluster.quiet()
    yield
    ray.shutdown()


@pytest.fixture(scope="session")
def sample_bank(ray_started: None, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three drawn lineages, four wells each, two fields a well: 24 frames of 400×400."""
    from cellnet.sample import write_sample
    from pipelines.ingest import ingest
    from pipelines.places import Places

    folder = tmp_path_factory.mktemp("sample")
    manifest = write_sample(folder / "images", wells_per_lineage=4, lineages=("THP1", "A172", "3T3"))
    ingest(manifest, Places(bank=str(folder / "bank")))
    return folder / "bank"
