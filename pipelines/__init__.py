"""The Ray jobs, one module a verb, started as `python -m pipelines VERB …`."""

import re
import sys


def _refuse_a_module_as_a_program() -> None:
    """End `python -m pipelines.train …`, as jobs were once started: it would do nothing, and exit with 0.

    While Python looks for the module of its option -m, that option stands in place of the program's name, and what
    follows the module in `sys.orig_argv` is what follows it in `sys.argv`.
    """
    if sys.argv[:1] != ["-m"]:
        return
    module = re.sub(r"^-\w*?m", "", sys.orig_argv[-len(sys.argv)])  # -mpipelines.train is one word
    if module.startswith("pipelines."):
        from pipelines.__main__ import VERBS

        verb = module.removeprefix("pipelines.")
        said = f"type python -m pipelines {verb} …, with a blank before the verb"
        print(f"pipelines: {said if verb in VERBS else 'see python -m pipelines --help'}", file=sys.stderr)
        sys.exit(2)


_refuse_a_module_as_a_program()
