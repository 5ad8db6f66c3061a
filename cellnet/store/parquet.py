"""Tables from the bytes of a Parquet file."""

import pyarrow as pa
import pyarrow.parquet as pq


def read_parquet(data: bytes) -> pa.Table:
    """The table that a Parquet file holds, read by the calling thread alone, its pages' checksums compared.

    Not by pyarrow's `read_table`, which reads in threads of Arrow's: one of them may be the last that holds the bytes,
    and to let go of an object of Python's it takes the GIL. Where the interpreter is ending by then, that ends the
    thread in the midst of a destructor, and C++ aborts the process: "terminate called without an active exception",
    exit 134. `pre_buffer` and `use_threads` are what starts threads. Raises what Arrow raises of damaged bytes.
    """
    file = pq.ParquetFile(pa.BufferReader(data), pre_buffer=False, page_checksum_verification=True)
    return file.read(use_threads=False)
