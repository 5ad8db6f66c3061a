"""The Ray jobs, one module a verb; each is `python -m pipelines.VERB`."""

import os

# Ray reads this when it is imported. It prints its own affairs on stdout, where cellnet's users expect data.
os.environ.setdefault(
    "RAY_DEDUP_LOGS_SKIP_REGEX", "PYTHON worker processes have been started|ServeController.graceful_shutdown failed"
)
