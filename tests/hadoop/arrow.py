"""pyarrow on Hadoop's libhdfs, against a cluster.

    arrow.py URI

The environment names libhdfs (ARROW_LIBHDFS_DIR), Java (JAVA_HOME) and the client's jars (CLASSPATH). Every check is an
assertion; the script ends with 0 if all hold.
"""

import sys

import pyarrow
from pyarrow import dataset, fs, parquet


def refused(call, kind=OSError):
    try:
        call()
    except kind:
        return
    raise AssertionError("it was not refused")


def files(cluster):
    cluster.create_dir("/arrow/deep/er")
    body = bytes(i * 7 & 0xFF for i in range(3_000_001))
    with cluster.open_output_stream("/arrow/file") as out:
        out.write(body[:1_000_000])
        out.write(body[1_000_000:])
    with cluster.open_append_stream("/arrow/file") as out:
        out.write(b"more")
    body += b"more"
    with cluster.open_input_file("/arrow/file") as file:
        assert file.size() == len(body)
        assert file.read() == body
        assert file.read_at(20, 1_048_570) == body[1_048_570:1_048_590]
    with cluster.open_input_stream("/arrow/file") as stream:
        assert stream.read(5) == body[:5]
    [info] = cluster.get_file_info(["/arrow/file"])
    assert (info.type, info.size) == (fs.FileType.File, len(body)), info
    assert cluster.get_file_info("/arrow/none").type == fs.FileType.NotFound
    found = cluster.get_file_info(fs.FileSelector("/arrow", recursive=True))
    assert sorted(info.path for info in found) == ["/arrow/deep", "/arrow/deep/er", "/arrow/file"], found
    cluster.move("/arrow/file", "/arrow/deep/moved")
    cluster.copy_file("/arrow/deep/moved", "/arrow/copied")
    with cluster.open_input_file("/arrow/copied") as file:
        assert file.read() == body
    refused(lambda: cluster.open_input_file("/arrow/none"), FileNotFoundError)
    refused(lambda: cluster.delete_file("/arrow/none"))
    cluster.delete_file("/arrow/copied")
    cluster.delete_dir("/arrow")
    assert cluster.get_file_info("/arrow").type == fs.FileType.NotFound


def tables(cluster):
    table = pyarrow.table({
        "day": [f"2026-01-{i % 7 + 1:02}" for i in range(70_000)],
        "number": list(range(70_000)),
        "text": [str(i) * 3 for i in range(70_000)],
    })
    parquet.write_table(table, "/arrow-one.parquet", filesystem=cluster)
    assert parquet.read_table("/arrow-one.parquet", filesystem=cluster).equals(table)
    days = dataset.partitioning(pyarrow.schema([("day", pyarrow.string())]), flavor="hive")
    dataset.write_dataset(table, "/arrow-days", filesystem=cluster, format="parquet", partitioning=days)
    read = dataset.dataset("/arrow-days", filesystem=cluster, format="parquet", partitioning=days)
    assert len(read.files) == 7, read.files
    third = read.to_table(filter=dataset.field("day") == "2026-01-03")
    assert third.num_rows == 10_000 and read.count_rows() == 70_000, third.num_rows
    cluster.delete_dir("/arrow-days")
    cluster.delete_file("/arrow-one.parquet")


if __name__ == "__main__":
    cluster = fs.HadoopFileSystem.from_uri(sys.argv[1])
    files(cluster)
    tables(cluster)
    print("pyarrow", pyarrow.__version__, "ok")
