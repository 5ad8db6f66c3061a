"""Tables from bytes, read without threads: one that outlives the interpreter takes the process with it."""

import subprocess
import sys
from pathlib import Path

import pytest

from cellnet.bank.bank import Bank
from tests.factories import frame

ROOT = Path(__file__).parents[3]

SHORT = """
import os, sys

from cellnet.bank.bank import Bank
from tests.factories import frame

def threads():
    return len(os.listdir("/proc/self/task"))

codes = []
for _ in range(20):
    child = os.fork()
    if child == 0:
        break
    codes.append(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
else:
    print(codes)
    sys.exit()
before = threads()
bank = Bank.open(sys.argv[1])
sys.exit(0 if len(bank.frames) == 2 and threads() == before else 3)
"""
"""Twenty commands that read a table and end at once, each a process that ends as Python's do. They are forked, so that
twenty times of importing are saved. Exit 134 is the abort that they must not end with; whether it comes is chance, so
that they say 3 where a thread was started that could bring it about."""


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/task").is_dir(), reason="counts threads as Linux shows them")
def test_twenty_short_commands_that_read_tables_end_well(tmp_path: Path) -> None:
    Bank.create(tmp_path / "bank").add([frame(n) for n in range(2)])
    done = subprocess.run(
        [sys.executable, "-c", SHORT, str(tmp_path / "bank")], capture_output=True, text=True, timeout=250
    )
    assert (done.stdout.strip(), done.returncode) == (str([0] * 20), 0), done.stderr


def test_nothing_else_reads_tables_from_bytes() -> None:
    texts = {path.stem: path.read_text() for path in (ROOT / "cellnet").rglob("*.py")}
    from_bytes = {stem for stem, text in texts.items() if "io.BytesIO(" in text or "pa.BufferReader(" in text}
    readers = {stem for stem, text in texts.items() if "pq.ParquetFile(" in text or "pq.read_table(" in text}
    assert from_bytes & readers == {"parquet"}
