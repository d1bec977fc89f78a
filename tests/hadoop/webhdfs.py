"""WebHDFS as programs that nobody here wrote speak it: curl, fsspec, PyPI's hdfs, and plain sockets.

    webhdfs.py --namenode-http http://HOST:PORT [--superuser NAME]

Prints PASS or FAIL for each case, and ends with 0 if all passed. Works in folders of its own, and removes them. The
cases under "raw" say byte by byte what is sent, for what no client does by itself: a body that breaks off, chunks,
`Expect: 100-continue`, paths that use the syntax of URLs.
"""

import argparse
import hashlib
import io
import json
import os
import socket
import subprocess
import sys
import tempfile
import time
import traceback
from urllib.parse import quote, urlsplit

import fsspec
import hdfs
import requests

CASES = []


def case(function):
    CASES.append(function)
    return function


def pattern(length):
    return bytes((i * 31 + (i >> 9) * 7) & 0xFF for i in range(length))


def until(holds, what):
    deadline = time.monotonic() + 60
    while not holds():
        assert time.monotonic() < deadline, f"it never came that {what}"
        time.sleep(0.05)


class Cluster:
    def __init__(self, http, superuser):
        self.http, self.superuser = http.rstrip("/"), superuser
        self.root = "/webhdfs-suite"

    def url(self, path, op, user=None, **params):
        params = {"op": op, "user.name": user or self.superuser, **params}
        query = "&".join(f"{name}={quote(str(value), safe='')}" for name, value in params.items())
        return f"{self.http}/webhdfs/v1{quote(path)}?{query}"

    def ask(self, method, path, op, status=200, user=None, data=None, **params):
        answer = requests.request(method, self.url(path, op, user, **params), data=data, timeout=60)
        assert answer.status_code == status, f"{method} {op} {path}: {answer.status_code} {answer.text[:400]}"
        return answer

    def get(self, path, op, **rest):
        return self.ask("GET", path, op, **rest).json()

    def fails(self, method, path, op, status, exception, **rest):
        error = self.ask(method, path, op, status, **rest).json()["RemoteException"]
        assert error["exception"] == exception, error
        assert error["javaClassName"].endswith(exception) and error["message"], error
        return error

    def write(self, path, data, **params):
        return self.ask("PUT", path, "CREATE", 201, data=data, **params)

    def read(self, path, **params):
        return self.ask("GET", path, "OPEN", **params).content

    def datanode(self, method, path, op, user=None, **params):
        """Where the NameNode sends this request."""
        answer = requests.request(method, self.url(path, op, user, **params), allow_redirects=False, timeout=60)
        assert answer.status_code == 307, (answer.status_code, answer.text)
        return answer.headers["Location"]

    def exists(self, path):
        return requests.get(self.url(path, "GETFILESTATUS"), timeout=60).status_code == 200


# ---- fsspec


def fsspec_of(cluster):
    at = urlsplit(cluster.http)
    return fsspec.filesystem("webhdfs", host=at.hostname, port=at.port, user=cluster.superuser, skip_instance_cache=True)


@case
def fsspec_writes_lists_reads_and_removes(cluster):
    fs = fsspec_of(cluster)
    root = cluster.root + "/fsspec"
    fs.makedirs(root + "/a/b", exist_ok=True)
    data = pattern(3_000_000)
    with fs.open(root + "/a/file", "wb") as out:
        out.write(data)
    assert fs.cat(root + "/a/file") == data
    assert fs.info(root + "/a/file")["length"] == len(data)
    with fs.open(root + "/a/file", "rb", block_size=100_000) as file:
        file.seek(1_234_567)
        assert file.read(1000) == data[1_234_567:1_235_567]
    names = sorted(entry["name"].rsplit("/", 1)[1] for entry in fs.ls(root + "/a", detail=True))
    assert names == ["b", "file"], names
    fs.mv(root + "/a/file", root + "/a/b/moved")
    assert not fs.exists(root + "/a/file") and fs.isfile(root + "/a/b/moved") and fs.isdir(root + "/a/b")
    assert sorted(fs.find(root)) == [root + "/a/b/moved"], fs.find(root)
    assert fs.content_summary(root)["length"] == len(data)
    fs.rm(root, recursive=True)
    assert not fs.exists(root)


@case
def fsspec_asks_for_checksums_and_modes(cluster):
    # Its mode "ab" never worked with any server: it appends to the address None. Its "wb" creates, then appends.
    fs = fsspec_of(cluster)
    path = cluster.root + "/appended"
    fs.pipe(path, b"one,two")
    assert fs.cat(path) == b"one,two"
    assert fs.ukey(path)["algorithm"] == "MD5-of-0MD5-of-512CRC32C", fs.ukey(path)
    fs.chmod(path, "600")
    fs.chown(path, "alice", "staff")
    fs.set_replication(path, 1)
    info = fs.info(path)
    assert (info["permission"], info["owner"], info["group"], info["replication"]) == ("600", "alice", "staff", 1), info
    assert fs.home_directory() == f"/user/{cluster.superuser}"


@case
def fsspec_tells_what_is_missing(cluster):
    fs = fsspec_of(cluster)
    for ask in (fs.info, fs.cat, fs.ls):
        try:
            ask(cluster.root + "/none")
            raise AssertionError(f"{ask} of what is not there")
        except FileNotFoundError:
            pass


# ---- PyPI's hdfs


@case
def pypi_hdfs_does_what_it_offers(cluster):
    client = hdfs.InsecureClient(cluster.http, user=cluster.superuser)
    root = cluster.root + "/pypi"
    client.makedirs(root + "/sub", permission="750")
    assert client.status(root + "/sub")["permission"] == "750"
    data = pattern(2_500_000)
    client.write(root + "/file", data, blocksize=1 << 20, replication=2, permission="640")
    status = client.status(root + "/file")
    assert (status["length"], status["blockSize"], status["replication"], status["permission"]) == (
        len(data), 1 << 20, 2, "640"), status
    with client.read(root + "/file") as reader:
        assert reader.read() == data
    with client.read(root + "/file", offset=1_048_000, length=2_000) as reader:
        assert reader.read() == data[1_048_000:1_050_000]
    try:
        client.write(root + "/file", b"again")
        raise AssertionError("a file was replaced without leave")
    except hdfs.HdfsError as error:
        assert error.exception == "FileAlreadyExistsException", error.exception
    client.write(root + "/file", b"again", overwrite=True)
    client.write(root + "/file", b" and more", append=True)
    with client.read(root + "/file") as reader:
        assert reader.read() == b"again and more"
    with client.write(root + "/streamed", encoding="utf-8") as writer:
        for number in range(1000):
            writer.write(f"line {number}\n")
    with client.read(root + "/streamed", encoding="utf-8", delimiter="\n") as lines:
        assert [line for line in lines if line][-1] == "line 999"
    assert sorted(client.list(root)) == ["file", "streamed", "sub"]
    client.rename(root + "/streamed", root + "/sub/renamed")
    client.set_times(root + "/file", modification_time=1_000_000_000_000)
    assert client.status(root + "/file")["modificationTime"] == 1_000_000_000_000
    client.set_owner(root + "/file", owner="bob", group="crew")
    client.set_permission(root + "/file", "600")
    client.set_replication(root + "/file", 1)
    assert client.status(root + "/file")["replication"] == 1
    assert client.content(root)["fileCount"] == 2
    assert client.checksum(root + "/file")["length"] == 28
    walked = [(path, sorted(dirs), sorted(files)) for path, dirs, files in client.walk(root)]
    assert walked == [(root, ["sub"], ["file"]), (root + "/sub", [], ["renamed"])], walked
    with tempfile.TemporaryDirectory() as local:
        client.download(root, local + "/copy", n_threads=2)
        assert open(local + "/copy/file", "rb").read() == b"again and more"
        client.upload(root + "/up", local + "/copy", n_threads=2)
    assert client.status(root + "/up/sub/renamed")["length"] == 8890
    assert client.delete(root, recursive=True) and not client.delete(root)
    assert client.status(root, strict=False) is None


@case
def pypi_hdfs_attributes_lists_and_snapshots(cluster):
    client = hdfs.InsecureClient(cluster.http, user=cluster.superuser)
    root = cluster.root + "/attributes"
    client.makedirs(root)
    client.write(root + "/f", b"x")
    client.set_acl(root + "/f", "user::rw-,user:bob:r--,group::r--,other::---")
    acl = client.acl_status(root + "/f")
    assert "user:bob:r--" in acl["entries"], acl
    assert client.status(root + "/f").get("aclBit") is True
    client.remove_acl(root + "/f")
    assert client.acl_status(root + "/f")["entries"] == []
    client.allow_snapshot(root)
    assert client.create_snapshot(root, "one") == root + "/.snapshot/one"
    client.write(root + "/f", b"changed", overwrite=True)
    with client.read(root + "/.snapshot/one/f") as reader:
        assert reader.read() == b"x"
    client.rename_snapshot(root, "one", "two")
    client.delete_snapshot(root, "two")
    client.disallow_snapshot(root)


# ---- curl


def curl(*args, data=None):
    done = subprocess.run(["curl", "-sS", *args], input=data, capture_output=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return done.stdout


@case
def curl_follows_redirects_with_files(cluster):
    data = pattern(20_000_000)
    path = cluster.root + "/curl"
    with tempfile.NamedTemporaryFile() as local:
        local.write(data)
        local.flush()
        code = curl("-L", "-T", local.name, "-o", os.devnull, "-w", "%{http_code}", cluster.url(path, "CREATE"))
        assert code == b"201", code
        code = curl("-L", "-T", local.name, "-H", "Transfer-Encoding: chunked", "-o", os.devnull, "-w", "%{http_code}",
                    cluster.url(path + "2", "CREATE", overwrite="true"))
        assert code == b"201", code
    for name in (path, path + "2"):
        assert hashlib.md5(curl("-L", cluster.url(name, "OPEN"))).digest() == hashlib.md5(data).digest()
    assert curl("-L", cluster.url(path, "OPEN", offset=5_000_000, length=10)) == data[5_000_000:5_000_010]
    code = curl("-L", "-X", "POST", "--data-binary", "@-", "-o", os.devnull, "-w", "%{http_code}",
                cluster.url(path, "APPEND"), data=b"tail")
    assert code == b"200", code
    assert curl("-L", cluster.url(path, "OPEN", offset=len(data))) == b"tail"


@case
def curl_without_redirects_gets_the_address(cluster):
    answer = json.loads(curl("-X", "PUT", cluster.url(cluster.root + "/two-steps", "CREATE", noredirect="true")))
    code = curl("-X", "PUT", "--data-binary", "@-", "-o", os.devnull, "-w", "%{http_code}", answer["Location"], data=b"x")
    assert code == b"201", code
    answer = json.loads(curl(cluster.url(cluster.root + "/two-steps", "OPEN", noredirect="true")))
    assert curl(answer["Location"]) == b"x"


# ---- every operation, as requests sends it


@case
def names_are_made_listed_renamed_and_deleted(cluster):
    root = cluster.root + "/names"
    assert cluster.ask("PUT", root + "/d", "MKDIRS", permission="1777").json() == {"boolean": True}
    assert cluster.ask("PUT", root + "/d", "MKDIRS").json() == {"boolean": True}
    cluster.write(root + "/f", b"12345")
    status = cluster.get(root + "/d", "GETFILESTATUS")["FileStatus"]
    assert (status["type"], status["permission"], status["pathSuffix"]) == ("DIRECTORY", "1777", ""), status
    status = cluster.get(root + "/f", "GETFILESTATUS")["FileStatus"]
    for name, kind in [("accessTime", int), ("blockSize", int), ("childrenNum", int), ("fileId", int), ("group", str),
                       ("length", int), ("modificationTime", int), ("owner", str), ("pathSuffix", str),
                       ("permission", str), ("replication", int), ("storagePolicy", int), ("type", str)]:
        assert isinstance(status[name], kind), (name, status)
    assert (status["type"], status["length"], status["permission"]) == ("FILE", 5, "644"), status
    listed = cluster.get(root, "LISTSTATUS")["FileStatuses"]["FileStatus"]
    assert [entry["pathSuffix"] for entry in listed] == ["d", "f"], listed
    alone = cluster.get(root + "/f", "LISTSTATUS")["FileStatuses"]["FileStatus"]
    assert [entry["pathSuffix"] for entry in alone] == [""], alone
    page = cluster.get(root, "LISTSTATUS_BATCH", startAfter="d")["DirectoryListing"]
    assert [e["pathSuffix"] for e in page["partialListing"]["FileStatuses"]["FileStatus"]] == ["f"], page
    assert page["remainingEntries"] == 0
    assert cluster.ask("PUT", root + "/f", "RENAME", destination=root + "/d").json() == {"boolean": True}
    assert cluster.exists(root + "/d/f")
    assert cluster.ask("PUT", root + "/none", "RENAME", destination=root + "/x").json() == {"boolean": False}
    cluster.write(root + "/g", b"g")
    cluster.fails("PUT", root + "/g", "RENAME", 403, "FileAlreadyExistsException", destination=root + "/d/f",
                  renameoptions="NONE")
    assert cluster.ask("PUT", root + "/g", "RENAME", destination=root + "/d/f", renameoptions="OVERWRITE").content == b""
    assert cluster.read(root + "/d/f") == b"g"
    cluster.fails("PUT", root + "/d", "RENAME", 400, "IllegalArgumentException", destination="relative")
    cluster.fails("DELETE", root + "/d", "DELETE", 403, "PathIsNotEmptyDirectoryException")
    assert cluster.ask("DELETE", root, "DELETE", recursive="true").json() == {"boolean": True}
    assert cluster.ask("DELETE", root, "DELETE", recursive="true").json() == {"boolean": False}


@case
def a_folder_of_many_entries_is_listed_whole(cluster):
    root = cluster.root + "/many"
    session = requests.Session()
    for number in range(2_500):
        answer = session.put(cluster.url(f"{root}/d{number:05}", "MKDIRS"), timeout=60)
        assert answer.status_code == 200, answer.text
    listed = cluster.get(root, "LISTSTATUS")["FileStatuses"]["FileStatus"]
    assert [entry["pathSuffix"] for entry in listed] == [f"d{number:05}" for number in range(2_500)]
    seen, after = [], ""
    while True:
        page = cluster.get(root, "LISTSTATUS_BATCH", startAfter=after)["DirectoryListing"]
        names = [entry["pathSuffix"] for entry in page["partialListing"]["FileStatuses"]["FileStatus"]]
        seen += names
        if page["remainingEntries"] == 0:
            break
        after = names[-1]
    assert len(seen) == 2_500 and seen == sorted(seen)


@case
def attributes_of_files_are_set(cluster):
    path = cluster.root + "/set"
    cluster.write(path, b"12345")
    assert cluster.ask("PUT", path, "SETPERMISSION", permission="600").content == b""
    assert cluster.ask("PUT", path, "SETOWNER", owner="ann", group="web").content == b""
    assert cluster.ask("PUT", path, "SETTIMES", modificationtime=1_000_000_000_000, accesstime=1_100_000_000_000).content == b""
    assert cluster.ask("PUT", path, "SETREPLICATION", replication=1).json() == {"boolean": True}
    status = cluster.get(path, "GETFILESTATUS")["FileStatus"]
    found = [status[name] for name in ("permission", "owner", "group", "modificationTime", "accessTime", "replication")]
    assert found == ["600", "ann", "web", 1_000_000_000_000, 1_100_000_000_000, 1], status
    assert cluster.ask("PUT", cluster.root + "/none", "SETREPLICATION", replication=1).json() == {"boolean": False}
    cluster.fails("PUT", path, "SETOWNER", 400, "IllegalArgumentException")
    cluster.ask("GET", path, "CHECKACCESS", fsaction="rw-", user="ann")
    cluster.fails("GET", path, "CHECKACCESS", 403, "AccessControlException", fsaction="r--", user="bob")
    cluster.fails("GET", path, "CHECKACCESS", 400, "IllegalArgumentException", fsaction="wrx")


@case
def files_are_truncated_and_concatenated(cluster):
    root = cluster.root + "/cut"
    block = pattern(1 << 20)
    for name in "abc":
        cluster.write(f"{root}/{name}", block, blocksize=1 << 20)
    cluster.ask("POST", root + "/a", "CONCAT", sources=f"{root}/b,{root}/c")
    assert cluster.read(root + "/a") == block * 3
    assert not cluster.exists(root + "/b")
    assert cluster.ask("POST", root + "/a", "TRUNCATE", newlength=1 << 20).json() == {"boolean": True}
    assert cluster.read(root + "/a") == block


@case
def where_blocks_are_is_told(cluster):
    path = cluster.root + "/blocks"
    cluster.write(path, pattern(2_500_000), blocksize=1 << 20, replication=2)
    blocks = cluster.get(path, "GETFILEBLOCKLOCATIONS")["BlockLocations"]["BlockLocation"]
    assert [(b["offset"], b["length"]) for b in blocks] == [(0, 1 << 20), (1 << 20, 1 << 20), (2 << 20, 2_500_000 - (2 << 20))]
    assert all(len(b["hosts"]) == len(b["names"]) >= 1 for b in blocks), blocks
    located = cluster.get(path, "GET_BLOCK_LOCATIONS", offset=1_500_000, length=1)["LocatedBlocks"]
    assert located["fileLength"] == 2_500_000 and located["isLastBlockComplete"], located
    assert [b["startOffset"] for b in located["locatedBlocks"]] == [1 << 20], located
    for name in ("blockPoolId", "blockId", "numBytes", "generationStamp"):
        assert name in located["locatedBlocks"][0]["block"], located


@case
def what_the_cluster_is_like_is_told(cluster):
    defaults = cluster.get("/", "GETSERVERDEFAULTS")["FsServerDefaults"]
    assert defaults["bytesPerChecksum"] == 512 and defaults["blockSize"] > 0, defaults
    status = cluster.get("/", "GETSTATUS")["FsStatus"]
    assert status["capacity"] > 0 and status["remaining"] > 0, status
    assert cluster.get("/", "GETHOMEDIRECTORY", user="ann") == {"Path": "/user/ann"}
    assert cluster.get("/", "GETTRASHROOT", user="ann") == {"Path": "/user/ann/.Trash"}
    assert cluster.get("/", "GETTRASHROOTS", user="ann") == {"Paths": []}
    for user in ("ann", "bob"):
        cluster.ask("PUT", f"/user/{user}", "MKDIRS", permission="755")
        cluster.ask("PUT", f"/user/{user}/.Trash", "MKDIRS", permission="700")
    [own] = cluster.get("/", "GETTRASHROOTS", user="ann")["Paths"]
    assert (own["path"], own["isdir"], own["permission"]) == ("/user/ann/.Trash", True, "700"), own
    every = cluster.get("/", "GETTRASHROOTS", allusers="true")["Paths"]
    assert {"/user/ann/.Trash", "/user/bob/.Trash"} <= {entry["path"] for entry in every}, every
    assert cluster.get("/", "GETDELEGATIONTOKEN") == {"Token": None}
    cluster.write(cluster.root + "/sum/f", b"12345", replication=2)
    summary = cluster.get(cluster.root + "/sum", "GETCONTENTSUMMARY")["ContentSummary"]
    found = [summary[name] for name in ("directoryCount", "fileCount", "length", "quota", "spaceConsumed", "spaceQuota")]
    assert found == [1, 1, 5, -1, 10, -1], summary
    usage = cluster.get(cluster.root + "/sum", "GETQUOTAUSAGE")["QuotaUsage"]
    assert (usage["fileAndDirectoryCount"], usage["spaceConsumed"]) == (2, 10), usage


@case
def extended_attributes_are_kept(cluster):
    path = cluster.root + "/xattr"
    cluster.write(path, b"x")
    cluster.ask("PUT", path, "SETXATTR", **{"xattr.name": "user.a", "xattr.value": "\"v\"", "flag": "CREATE"})
    cluster.ask("PUT", path, "SETXATTR", **{"xattr.name": "user.b", "xattr.value": "0x00ff", "flag": "CREATE"})
    found = cluster.get(path, "GETXATTRS", **{"xattr.name": "user.b", "encoding": "hex"})["XAttrs"]
    assert found == [{"name": "user.b", "value": "0x00ff"}], found
    found = cluster.get(path, "GETXATTRS", encoding="text")["XAttrs"]
    assert {"name": "user.a", "value": "\"v\""} in found and len(found) == 2, found
    assert sorted(json.loads(cluster.get(path, "LISTXATTRS")["XAttrNames"])) == ["user.a", "user.b"]
    cluster.ask("PUT", path, "REMOVEXATTR", **{"xattr.name": "user.a"})
    assert json.loads(cluster.get(path, "LISTXATTRS")["XAttrNames"]) == ["user.b"]
    cluster.ask("PUT", path, "SETXATTR", 403, **{"xattr.name": "user.b", "xattr.value": "x", "flag": "CREATE"})


@case
def policies_are_told(cluster):
    path = cluster.root + "/policy"
    cluster.ask("PUT", path, "MKDIRS")
    policies = cluster.get(path, "GETALLSTORAGEPOLICY")["BlockStoragePolicies"]["BlockStoragePolicy"]
    assert "HOT" in [policy["name"] for policy in policies], policies
    cluster.ask("PUT", path, "SETSTORAGEPOLICY", storagepolicy="COLD")
    assert cluster.get(path, "GETSTORAGEPOLICY")["BlockStoragePolicy"]["name"] == "COLD"
    cluster.ask("POST", path, "UNSETSTORAGEPOLICY")
    assert cluster.get(path, "GETSTORAGEPOLICY")["BlockStoragePolicy"]["name"] == "HOT"


@case
def quotas_hold(cluster):
    path = cluster.root + "/quota"
    cluster.ask("PUT", path, "MKDIRS")
    cluster.ask("PUT", path, "SETQUOTA", namespacequota=2, storagespacequota=1 << 40)
    summary = cluster.get(path, "GETCONTENTSUMMARY")["ContentSummary"]
    assert (summary["quota"], summary["spaceQuota"]) == (2, 1 << 40), summary
    cluster.ask("PUT", path + "/one", "MKDIRS")
    cluster.fails("PUT", path + "/two", "MKDIRS", 403, "NSQuotaExceededException")
    cluster.ask("PUT", path, "SETQUOTA", namespacequota=-1)
    cluster.ask("PUT", path + "/two", "MKDIRS")


@case
def snapshots_differ_as_files_do(cluster):
    root = cluster.root + "/snapshots"
    cluster.write(root + "/f", b"1")
    cluster.fails("PUT", root, "CREATESNAPSHOT", 403, "SnapshotException", snapshotname="s")
    cluster.ask("PUT", root, "ALLOWSNAPSHOT")
    assert cluster.get(root, "GETFILESTATUS")["FileStatus"].get("snapshotEnabled") is True
    assert cluster.ask("PUT", root, "CREATESNAPSHOT", snapshotname="s1").json() == {"Path": root + "/.snapshot/s1"}
    cluster.write(root + "/g", b"2")
    cluster.ask("PUT", root, "CREATESNAPSHOT", snapshotname="s2")
    report = cluster.get(root, "GETSNAPSHOTDIFF", oldsnapshotname="s1", snapshotname="s2")["SnapshotDiffReport"]
    assert {"sourcePath": "g", "type": "CREATE"} in report["diffList"], report
    part = cluster.get(root, "GETSNAPSHOTDIFFLISTING", oldsnapshotname="s1", snapshotname="s2")["SnapshotDiffReportListing"]
    assert [entry["sourcePath"] for entry in part["createList"]] == ["g"], part
    assert (part["isFromEarlier"], part["lastPath"], part["lastIndex"]) == (True, "", -1), part
    listed = cluster.get("/", "GETSNAPSHOTTABLEDIRECTORYLIST")["SnapshottableDirectoryList"]
    assert any(entry["snapshotNumber"] == 2 for entry in listed), listed
    for name in ("s1", "s2"):
        cluster.ask("DELETE", root, "DELETESNAPSHOT", snapshotname=name)
    cluster.ask("PUT", root, "DISALLOWSNAPSHOT")


# ---- who may


@case
def users_are_who_they_say(cluster):
    root = cluster.root + "/users"
    cluster.ask("PUT", root, "MKDIRS", permission="777")
    cluster.write(root + "/ann", b"secret", user="ann", permission="600")
    assert cluster.get(root + "/ann", "GETFILESTATUS")["FileStatus"]["owner"] == "ann"
    cluster.fails("GET", root + "/ann", "OPEN", 403, "AccessControlException", user="bob")
    cluster.fails("PUT", root + "/ann", "SETPERMISSION", 403, "AccessControlException", user="bob", permission="644")
    cluster.fails("GET", root + "/ann", "GETFILESTATUS", 400, "IllegalArgumentException", user="not a name")
    cluster.fails("GET", root + "/ann", "OPEN", 403, "SecurityException", user="bob", doas="ann")
    nobody = requests.put(f"{cluster.http}/webhdfs/v1{root}/anonymous?op=MKDIRS", timeout=60)
    assert nobody.status_code == 200, nobody.text
    assert cluster.get(root + "/anonymous", "GETFILESTATUS")["FileStatus"]["owner"] == "dr.who"
    # The DataNode checks as well: a client may come to it without the NameNode.
    location = cluster.datanode("GET", root + "/ann", "OPEN", user="ann")
    stolen = requests.get(location.replace("user.name=ann", "user.name=bob"), timeout=60)
    assert stolen.status_code == 403 and "AccessControlException" in stolen.text, stolen.text


@case
def what_cannot_be_is_told_as_hdfs_tells_it(cluster):
    root = cluster.root + "/errors"
    cluster.write(root + "/f", b"12345")
    cluster.fails("GET", root + "/none", "GETFILESTATUS", 404, "FileNotFoundException")
    cluster.fails("GET", root + "/none", "LISTSTATUS", 404, "FileNotFoundException")
    cluster.fails("GET", root + "/none", "OPEN", 404, "FileNotFoundException")
    cluster.fails("GET", root, "OPEN", 404, "FileNotFoundException")
    cluster.fails("POST", root + "/none", "APPEND", 404, "FileNotFoundException")
    cluster.fails("GET", root + "/none", "GETFILECHECKSUM", 404, "FileNotFoundException")
    cluster.fails("PUT", root + "/f", "CREATE", 403, "FileAlreadyExistsException", data=b"x")
    cluster.fails("PUT", root, "CREATE", 403, "FileAlreadyExistsException", overwrite="true", data=b"x")
    cluster.fails("PUT", root + "/f", "MKDIRS", 403, "FileAlreadyExistsException")
    cluster.fails("PUT", root + "/f/sub", "MKDIRS", 403, "ParentNotDirectoryException")
    cluster.fails("GET", root + "/f", "OPEN", 403, "IOException", offset=5)
    cluster.fails("GET", root + "/f", "OPEN", 400, "IllegalArgumentException", offset=-1)
    cluster.fails("GET", root + "/f", "NOSUCHOP", 400, "IllegalArgumentException")
    cluster.fails("GET", root + "/f", "MKDIRS", 400, "IllegalArgumentException")
    cluster.fails("PUT", root + "/f", "SETPERMISSION", 400, "IllegalArgumentException", permission="999")
    cluster.fails("DELETE", root + "/f", "DELETE", 400, "IllegalArgumentException", recursive="perhaps")
    # Clients resolve this themselves; who doesn't is refused.
    status, body = raw(f"{cluster.http}/webhdfs/v1{root}/a/../b?op=MKDIRS", "PUT", ["Content-Length: 0"])
    assert status == 400 and b"InvalidPathException" in body, body
    no_op = requests.get(f"{cluster.http}/webhdfs/v1/", timeout=60)
    assert no_op.status_code == 400 and "UnsupportedOperationException" in no_op.text, no_op.text


@case
def a_datanode_serves_its_own_namenode_alone(cluster):
    path = cluster.root + "/own"
    cluster.write(path, b"x")
    location = cluster.datanode("GET", path, "OPEN")
    assert "namenoderpcaddress=" in location, location
    ours = location.split("namenoderpcaddress=")[1].split("&")[0]
    with socket.socket() as trap:
        trap.bind(("127.0.0.1", 0))
        trap.listen()
        trap.settimeout(0.5)
        foreign = f"127.0.0.1:{trap.getsockname()[1]}"
        answer = requests.get(location.replace(ours, quote(foreign, safe="")), timeout=60)
        assert answer.status_code == 400 and "namenoderpcaddress" in answer.text, answer.text
        try:
            trap.accept()
            raise AssertionError("the DataNode dialled an address of the request")
        except socket.timeout:
            pass


# ---- raw


def raw(url, method, headers=(), body=b"", read=True):
    """Sends these bytes, and gives the status and the whole answer; `read` false hangs up after sending."""
    at = urlsplit(url)
    with socket.create_connection((at.hostname, at.port), timeout=30) as stream:
        lines = [f"{method} {at.path}?{at.query} HTTP/1.1", f"Host: {at.netloc}", *headers, "", ""]
        stream.sendall("\r\n".join(lines).encode() + body)
        if not read:
            return 0, b""
        return answer_of(stream)


def answer_of(stream):
    answer = b""
    while b"\r\n\r\n" not in answer:
        part = stream.recv(65536)
        if not part:
            break
        answer += part
    head, _, body = answer.partition(b"\r\n\r\n")
    status = int(head.split()[1]) if head else 0
    lengths = [line.split(b":")[1] for line in head.split(b"\r\n") if line.lower().startswith(b"content-length:")]
    while lengths and len(body) < int(lengths[0]):
        part = stream.recv(65536)
        if not part:
            break
        body += part
    return status, body


@case
def raw_bodies_come_in_chunks_or_with_a_length(cluster):
    path = cluster.root + "/raw"
    chunks = b"".join(b"%x\r\n%s\r\n" % (len(part), part) for part in (b"a", b"bc" * 70_000, b"d" * 3)) + b"0\r\n\r\n"
    whole = b"a" + b"bc" * 70_000 + b"ddd"
    status, _ = raw(cluster.datanode("PUT", path, "CREATE"), "PUT", ["Transfer-Encoding: chunked"], chunks)
    assert status == 201 and cluster.read(path) == whole
    location = cluster.datanode("PUT", path, "CREATE", overwrite="true")
    status, _ = raw(location, "PUT", [f"Content-Length: {len(whole)}"], whole)
    assert status == 201 and cluster.read(path) == whole
    location = cluster.datanode("PUT", path, "CREATE", overwrite="true")
    status, _ = raw(location, "PUT", ["Content-Length: 0"])
    assert status == 201 and cluster.read(path) == b""


@case
def raw_expect_continue_is_answered_before_the_body(cluster):
    path = cluster.root + "/expect"
    at = urlsplit(cluster.datanode("PUT", path, "CREATE"))
    head = (f"PUT {at.path}?{at.query} HTTP/1.1\r\nHost: {at.netloc}\r\nContent-Length: 5\r\n"
            "Expect: 100-continue\r\n\r\n").encode()
    with socket.create_connection((at.hostname, at.port), timeout=30) as stream:
        stream.sendall(head)
        assert answer_of(stream)[0] == 100
        stream.sendall(b"12345")
        assert answer_of(stream)[0] == 201
    assert cluster.read(path) == b"12345"
    # Refused before a byte of the body was asked for.
    with socket.create_connection((at.hostname, at.port), timeout=30) as stream:
        stream.sendall(head)
        assert answer_of(stream)[0] == 403


@case
def raw_a_body_that_breaks_off_leaves_no_file(cluster):
    for name, headers, body in [
        ("sized", ["Content-Length: 10000000"], pattern(3_000_000)),
        ("chunked", ["Transfer-Encoding: chunked"], b"100000\r\n" + pattern(500_000)),
    ]:
        path = f"{cluster.root}/broken-{name}"
        at = urlsplit(cluster.datanode("PUT", path, "CREATE"))
        with socket.create_connection((at.hostname, at.port), timeout=30) as stream:
            lines = [f"PUT {at.path}?{at.query} HTTP/1.1", f"Host: {at.netloc}", *headers, "", ""]
            stream.sendall("\r\n".join(lines).encode() + body)
            until(lambda: cluster.exists(path), f"{path} is being written")
        until(lambda: not cluster.exists(path), f"{path} is gone after its client hung up")


@case
def raw_an_append_that_breaks_off_keeps_what_was_there(cluster):
    path = cluster.root + "/broken-append"
    cluster.write(path, b"12345")
    location = cluster.datanode("POST", path, "APPEND")
    raw(location, "POST", ["Content-Length: 100"], b"67", read=False)
    append = lambda: requests.post(cluster.url(path, "APPEND"), data=b"!", timeout=60).status_code == 200
    until(append, "another may append")
    content = cluster.read(path)
    assert content in (b"12345!", b"1234567!", b"123456!"), content


@case
def raw_names_may_hold_what_urls_use(cluster):
    root = cluster.root + "/odd"
    for name in ["a b", "a+b", "100%", "%41", "a;b=c", "a&b", "a?b", "a#b", "\u00e4\u4e2d\U0001f600", "'\"", "~", "@,!"]:
        path = f"{root}/{name}"
        cluster.write(path, name.encode())
        assert cluster.read(path) == name.encode(), name
        assert cluster.ask("GET", path, "GETFILECHECKSUM").json()["FileChecksum"]["length"] == 28
    listed = cluster.get(root, "LISTSTATUS")["FileStatuses"]["FileStatus"]
    assert len(listed) == 12 and {"a;b=c", "100%", "%41"} <= {entry["pathSuffix"] for entry in listed}, listed
    # Neither side decodes twice, and + in a path is itself.
    plus = requests.get(f"{cluster.http}/webhdfs/v1{root}/a+b?op=GETFILESTATUS", timeout=60)
    assert plus.status_code == 200, plus.text
    status, body = raw(f"{cluster.http}/webhdfs/v1{root}/%zz?op=GETFILESTATUS", "GET")
    assert status == 400, body


@case
def raw_headers_without_end_are_cut_off(cluster):
    for url in (cluster.url("/", "LISTSTATUS"), cluster.datanode("PUT", cluster.root + "/h", "CREATE")):
        at = urlsplit(url)
        with socket.create_connection((at.hostname, at.port), timeout=30) as stream:
            try:
                stream.sendall(b"GET / HTTP/1.1\r\n")
                for number in range(100_000):
                    stream.sendall(b"X-%d: %s\r\n" % (number, b"y" * 1000))
                raise AssertionError("100 MB of headers were taken")
            except OSError:
                pass
    status, _ = raw(f"{cluster.http}/webhdfs/v1/?op=LISTSTATUS&x={'y' * 62_000}", "GET")
    assert status in (400, 414), status


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--namenode-http", required=True)
    parser.add_argument("--superuser", default="root")
    parser.add_argument("--only", default="")
    args = parser.parse_args()
    cluster = Cluster(args.namenode_http, args.superuser)
    failed = 0
    for check in CASES:
        if args.only not in check.__name__:
            continue
        try:
            cluster.ask("DELETE", cluster.root, "DELETE", recursive="true")
            check(cluster)
            print(f"PASS {check.__name__}", flush=True)
        except Exception as error:  # every case is told, whatever breaks
            failed += 1
            print(f"FAIL {check.__name__}: {type(error).__name__}: {error}", flush=True)
            trace = io.StringIO()
            traceback.print_exc(file=trace)
            print(trace.getvalue(), file=sys.stderr)
    cluster.ask("DELETE", cluster.root, "DELETE", recursive="true")
    print(f"{len(CASES)} cases, {failed} failed")
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
