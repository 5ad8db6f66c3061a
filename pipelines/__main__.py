"""The one door of the Ray jobs: `python -m pipelines VERB …`, with the arguments of the command of that verb.

ray job submit --working-dir . -- python -m pipelines train s3://lab/bank --task classify --registry s3://lab/registry
"""

import sys
from typing import Final

VERBS: Final = {
    "ingest": ("bank", "import"),
    "shards": ("bank", "shards"),
    "train": ("train",),
    "tune": ("tune",),
    "calibrate": ("calibrate",),
    "evaluate": ("evaluate",),
    "suggest": ("suggest",),
    "promote": ("registry", "promote"),
    "predict": ("predict",),
    "run": ("pipeline", "run"),
}
"""The command of each verb."""


def run(arguments: list[str]) -> int:
    """Run one job, and give its exit status, as `cellnet` does."""
    verb, *others = arguments or ["--help"]
    if verb in ("-h", "--help"):
        print("usage: python -m pipelines VERB …\n")
        for name, command in VERBS.items():
            print(f"  {name:<10} as cellnet {' '.join(command)}")
        return 0
    if verb not in VERBS:
        print(f"pipelines: no verb {verb!r}; there is {', '.join(VERBS)}", file=sys.stderr)
        return 2
    from cellnet.cli import main

    return main([*VERBS[verb], *others])


if __name__ == "__main__":
    sys.exit(run(sys.argv[1:]))
