"""hdfs-native, a client of HDFS's protocols in Rust, against a cluster.

    native.py URI

Every check is an assertion; the script ends with 0 if all hold.
"""

import sys

import hdfs_native


def pattern(length):
    return bytes((i * 31 + (i >> 9) * 7) & 0xFF for i in range(length))


def native(uri):
    client = hdfs_native.Client(uri)
    client.mkdirs("/native/folder/deep", 0o755, True)
    body = pattern(3_000_001)
    with client.create("/native/file", hdfs_native.WriteOptions(block_size=1 << 20, overwrite=True)) as out:
        out.write(body[:1_000_000])
        out.write(body[1_000_000:])
    status = client.get_file_info("/native/file")
    assert (status.length, status.blocksize, status.isdir) == (len(body), 1 << 20, False), status
    with client.read("/native/file") as file:
        assert file.read() == body
        file.seek(1_048_570)
        assert file.read(20) == body[1_048_570:1_048_590]

    # Unaligned appends.
    for step in (1, 511, 100_000):
        with client.append("/native/file") as out:
            out.write(body[:step])
        body += body[:step]
    with client.read("/native/file") as file:
        assert file.read() == body

    names = sorted(entry.path for entry in client.list_status("/native", False))
    assert names == ["/native/file", "/native/folder"], names
    client.rename("/native/file", "/native/folder/moved", False)
    client.set_permission("/native/folder/moved", 0o640)
    client.set_owner("/native/folder/moved", "alice", "users")
    client.set_replication("/native/folder/moved", 2)
    status = client.get_file_info("/native/folder/moved")
    assert (status.permission & 0o777, status.owner, status.group, status.replication) == (0o640, "alice", "users", 2)
    client.set_times("/native/folder/moved", 1_000_000_000_000, 1_100_000_000_000)
    assert client.get_file_info("/native/folder/moved").modification_time == 1_000_000_000_000
    summary = client.get_content_summary("/native")
    assert (summary.file_count, summary.directory_count, summary.length) == (1, 3, len(body)), summary
    assert client.delete("/native", True)
    try:
        client.get_file_info("/native")
        raise AssertionError("a deleted folder has a status")
    except FileNotFoundError:
        pass


if __name__ == "__main__":
    native(sys.argv[1])
    print("hdfs-native", hdfs_native.__version__ if hasattr(hdfs_native, "__version__") else "", "ok")
