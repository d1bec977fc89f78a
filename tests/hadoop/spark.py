"""Spark's jobs on a cluster, in local mode.

    spark.py URI formats short    every format and way of saving; the second committer with some
    spark.py URI formats all      all of them with both committers
    spark.py URI sort MEGABYTES   a sort of so many megabytes of records of 100 bytes
    spark.py URI slow-write PATH  a job that writes for some seconds, after it said `writing pid=...` (the JVM's)
    spark.py URI slow-read PATH   reads slowly what slow-write wrote, after it said `reading pid=...`

Every check is an assertion. Ends with 0 and the line `done` if all hold.
"""

import sys
import time

from pyspark.sql import SparkSession
from pyspark.sql import functions as F
from pyspark.errors import AnalysisException

FORMATS = ("csv", "json", "parquet", "orc")
COMMITTER = "mapreduce.fileoutputcommitter.algorithm.version"
SLOW_TASKS = 6
SLOW_LINES = 40_000


def session(uri):
    settings = {
        "spark.master": "local[2]",
        "spark.ui.enabled": "false",
        "spark.ui.showConsoleProgress": "false",
        "spark.driver.host": "127.0.0.1",
        "spark.driver.memory": "1g",
        "spark.sql.shuffle.partitions": "3",
        "spark.sql.warehouse.dir": uri + "/warehouse",
        "spark.hadoop.fs.defaultFS": uri,
        "spark.log.level": "ERROR",
    }
    builder = SparkSession.builder.appName("granary")
    for name, value in settings.items():
        builder = builder.config(name, value)
    return builder.getOrCreate()


class Files:
    """Looks at the file system through Hadoop's Java client."""

    def __init__(self, spark, uri):
        jvm = spark.sparkContext._jvm
        self.path = jvm.org.apache.hadoop.fs.Path
        conf = spark.sparkContext._jsc.hadoopConfiguration()
        self.fs = jvm.org.apache.hadoop.fs.FileSystem.get(jvm.java.net.URI(uri), conf)

    def names(self, path):
        return sorted(status.getPath().getName() for status in self.fs.listStatus(self.path(path)))

    def committed(self, path):
        names = self.names(path)
        assert "_SUCCESS" in names and "_temporary" not in names, (path, names)


def frame(spark, start, count):
    return spark.range(start, start + count, numPartitions=3).select(
        "id",
        F.concat(F.lit("name ü "), F.col("id").cast("string")).alias("name"),
        (F.col("id") / 7).alias("ratio"),
        (F.col("id") % 4).cast("int").alias("part"),
    )


def read(spark, form, path):
    schema = "id long, name string, ratio double, part int"
    return spark.read.schema(schema).format(form).load(path)


def sums(data):
    row = data.agg(F.count("id"), F.sum("id"), F.sum("part"), F.max("name")).first()
    return tuple(row)


def saving(spark, files, form, version):
    """One format with one committer: save, refuse to save again, append, overwrite."""
    path = f"/spark/v{version}/{form}"
    one, two = frame(spark, 0, 1000), frame(spark, 1000, 500)

    def save(data, mode):
        data.write.format(form).mode(mode).option(COMMITTER, version).save(path)
        files.committed(path)

    save(one, "errorifexists")
    assert sums(read(spark, form, path)) == sums(one), path
    try:
        save(two, "errorifexists")
        raise AssertionError(path + " was saved twice")
    except AnalysisException:
        pass
    save(two, "ignore")
    assert sums(read(spark, form, path)) == sums(one), path
    save(two, "append")
    assert sums(read(spark, form, path)) == sums(one.union(two)), path
    save(two, "overwrite")
    assert sums(read(spark, form, path)) == sums(two), path


def partitioned(spark, files, form, version):
    """A folder for each value of a column; overwriting some of them leaves the others."""
    path = f"/spark/v{version}/{form}-parts"
    one = frame(spark, 0, 400)

    def save(data, how):
        writer = data.write.format(form).mode("overwrite").partitionBy("part")
        # Dynamic overwriting has a staging folder of its own, whose files are renamed.
        writer.option(COMMITTER, version).option("partitionOverwriteMode", how).save(path)
        files.committed(path)

    save(one, "static")
    assert [name for name in files.names(path) if "=" in name] == [f"part={n}" for n in range(4)]
    assert sums(read(spark, form, path)) == sums(one), path
    assert read(spark, form, path).where("part = 3").count() == 100
    before = files.names(path + "/part=0")
    new = frame(spark, 5000, 40).where("part in (1, 2)")
    save(new, "dynamic")
    assert files.names(path + "/part=0") == before
    assert sums(read(spark, form, path)) == sums(one.where("part in (0, 3)").union(new)), path
    assert not [name for name in files.names(path) if name.startswith(".spark-staging")]
    save(new, "static")
    assert sums(read(spark, form, path)) == sums(new), path


def text(spark, files, version):
    """RDDs and text, plain and compressed, and Hadoop's own formats."""
    context = spark.sparkContext
    lines = [f"line {n} ☃" for n in range(3000)]
    base = f"/spark/v{version}/rdd"
    context._jsc.hadoopConfiguration().set(COMMITTER, str(version))
    context.parallelize(lines, 4).saveAsTextFile(base + "-plain")
    files.committed(base + "-plain")
    assert files.names(base + "-plain")[1:] == [f"part-{n:05}" for n in range(4)]
    assert context.textFile(base + "-plain").collect() == lines
    codec = "org.apache.hadoop.io.compress.GzipCodec"
    context.parallelize(lines, 2).saveAsTextFile(base + "-gzip", codec)
    assert sorted(context.textFile(base + "-gzip").collect()) == sorted(lines)
    context.parallelize(enumerate(lines), 2).saveAsSequenceFile(base + "-sequence")
    assert context.sequenceFile(base + "-sequence").count() == len(lines)
    assert context.wholeTextFiles(base + "-plain").count() == 4
    data = spark.createDataFrame([(line,) for line in lines], "value string")
    data.write.mode("overwrite").option(COMMITTER, version).text(f"/spark/v{version}/text")
    files.committed(f"/spark/v{version}/text")
    assert spark.read.text(f"/spark/v{version}/text").count() == len(lines)
    try:
        context.parallelize(lines, 1).saveAsTextFile(base + "-plain")
        raise AssertionError("an output folder was used twice")
    except Exception as error:
        assert "FileAlreadyExists" in str(error), error


def tables(spark, files):
    """Tables of a catalogue, partitioned, inserted into and overwritten, and a join of two."""
    spark.sql("create table sales (id long, amount double, day string) using parquet partitioned by (day)")
    spark.sql("insert into sales select id, id * 1.5, 'd' || (id % 3) from range(300)")
    spark.sql("insert into sales partition (day = 'd9') select id, 1.0 from range(10)")
    spark.sql("insert overwrite sales partition (day = 'd0') select id, 2.0 from range(5)")
    assert spark.table("sales").count() == 200 + 10 + 5
    frame(spark, 0, 1000).write.format("orc").saveAsTable("people")
    joined = spark.sql("select p.id, p.name, s.amount from people p join sales s on p.id = s.id where s.day <> 'd0'")
    joined.write.mode("overwrite").parquet("/spark/joined")
    back = spark.read.parquet("/spark/joined")
    assert back.count() == 210 and back.agg(F.sum("amount")).first()[0] == joined.agg(F.sum("amount")).first()[0]
    spark.sql("drop table sales")
    assert "sales" not in files.names("/warehouse")


def formats(spark, uri, extent):
    files = Files(spark, uri)
    for version in (1, 2):
        short = extent == "short" and version == 2
        text(spark, files, version)
        for form in ("parquet",) if short else FORMATS:
            saving(spark, files, form, version)
        for form in ("csv",) if short else ("parquet",) if extent == "short" else FORMATS:
            partitioned(spark, files, form, version)
    tables(spark, files)


def sort(spark, uri, megabytes):
    records = megabytes * 10_000
    tasks = max(2, megabytes // 64)
    source = spark.range(0, records, numPartitions=tasks)
    key = F.substring(F.sha2(F.col("id").cast("string"), 256), 1, 16)
    source.select(F.rpad(F.concat_ws(" ", key, F.col("id")), 99, "x").alias("value")).write.text("/sort/in")
    data = spark.read.text("/sort/in")
    spark.conf.set("spark.sql.shuffle.partitions", tasks)
    started = time.monotonic()
    data.sort("value").write.text("/sort/out")
    took = time.monotonic() - started
    ranges = spark.read.text("/sort/out").groupBy(F.input_file_name().alias("file"))
    ranges = ranges.agg(F.min("value").alias("low"), F.max("value").alias("high"), F.count("*").alias("n"))
    rows = ranges.orderBy("file").collect()
    assert sum(row.n for row in rows) == records
    assert all(a.high <= b.low for a, b in zip(rows, rows[1:]))
    # Within a file: no line is less than the one before it.
    def descents(lines):
        before, count = "", 0
        for line in lines:
            count += line < before
            before = line
        return [count]
    if megabytes <= 100:
        assert spark.sparkContext.textFile("/sort/out/part-00000*").mapPartitions(descents).sum() == 0
    print(f"sorted {megabytes} MB in {took:.1f} s", flush=True)


def slow_line(task, number):
    return f"{task} {number} " + "z" * 80


def slow_write(spark, uri, path):
    def lines(task):
        for number in range(SLOW_LINES):
            if number % (SLOW_LINES // 10) == 0:
                time.sleep(0.2)
            yield slow_line(task, number)

    said(spark, "writing")
    spark.sparkContext.parallelize(range(SLOW_TASKS), SLOW_TASKS).flatMap(lines).saveAsTextFile(path)
    Files(spark, uri).committed(path)


def slow_read(spark, uri, path):
    def count(lines):
        found = 0
        for line in lines:
            if found % (SLOW_LINES // 10) == 0:
                time.sleep(0.2)
            task, number, rest = line.split(" ")
            assert slow_line(int(task), int(number)) == line
            found += 1
        return [found]

    said(spark, "reading")
    found = spark.sparkContext.textFile(path).mapPartitions(count).sum()
    assert found == SLOW_TASKS * SLOW_LINES, found


def said(spark, what):
    pid = spark.sparkContext._jvm.java.lang.ProcessHandle.current().pid()
    print(f"{what} pid={pid}", flush=True)


if __name__ == "__main__":
    uri, what, *rest = sys.argv[1:]
    spark = session(uri)
    if what == "formats":
        formats(spark, uri, rest[0])
    elif what == "sort":
        sort(spark, uri, int(rest[0]))
    elif what == "slow-write":
        slow_write(spark, uri, rest[0])
    elif what == "slow-read":
        slow_read(spark, uri, rest[0])
    else:
        sys.exit(__doc__)
    print("done", flush=True)
