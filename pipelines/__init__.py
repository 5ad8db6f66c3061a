"""The Ray jobs, one module a verb, started as `python -m pipelines VERB …`."""

import os
import sys

# Ray reads this when it is imported. It prints its own affairs on stdout, where cellnet's users expect data.
os.environ.setdefault(
    "RAY_DEDUP_LOGS_SKIP_REGEX", "PYTHON worker processes have been started|ServeController.graceful_shutdown failed"
)


def _refuse_a_module_as_a_program() -> None:
    """End `python -m pipelines.train …`, as jobs were once started: it would do nothing, and exit with 0.

    While Python looks for the module of its option -m, the first argument is that option itself.
    """
    started = sys.orig_argv[sys.orig_argv.index("-m") + 1 :] if sys.argv[:1] == ["-m"] else []
    if started and started[0].startswith("pipelines."):
        verb = started[0].removeprefix("pipelines.")
        print(f"pipelines: type python -m pipelines {verb} …, with a blank before the verb", file=sys.stderr)
        sys.exit(2)


_refuse_a_module_as_a_program()
