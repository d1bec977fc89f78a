//! Tables and stores: sorting, building, gets in process and over the Redis protocol, and a job over text.

use std::path::Path;
use std::time::Instant;

use client::Fs;
use client::job::builtin::{IndexOptions, inverted_index};
use client::job::sort::{Sorter, SorterOptions};
use client::job::{Existing, Progress as JobProgress};
use client::load;
use proto::FsPath;
use sstable::{Table, TableWriter, WriterOptions};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::Size;
use super::figures::Values;
use crate::failure::{Exit, Failure, Result};
use crate::progress::Progress;

const VALUE_BYTES: usize = 100;
/// Bytes of a text that the job reads as one document.
const TEXT_BYTES: usize = 64 << 10;
/// Different words of the texts.
const WORDS: u64 = 50_000;
const BATCH: usize = 32;

/// Where a kvserve answers, and from which store.
#[derive(Clone, Copy, Debug)]
pub struct Served<'a> {
    /// `host:port` of its Redis port.
    pub redis: &'a str,
    /// The store that the benchmark loads.
    pub store: &'a str,
}

fn key(index: u64) -> Vec<u8> {
    format!("key-{:016x}", super::mixed(index)).into_bytes()
}

fn value(index: u64) -> [u8; VALUE_BYTES] {
    let mut value = [b'.'; VALUE_BYTES];
    value[..8].copy_from_slice(&index.to_le_bytes());
    value
}

fn table_failure(error: &sstable::Error) -> Failure {
    Failure::new(Exit::Failure, error.to_string())
}

/// Sorts records, builds a table of them at `path`, and gets from it.
pub fn local(path: &Path, size: &Size, values: &mut Values) -> Result<()> {
    let begun = Instant::now();
    let mut sorter = Sorter::new(SorterOptions::default());
    for index in 0..size.records {
        sorter.push(&key(index), &value(index))?;
    }
    let sorted = sorter.finish()?;
    let bytes = sorted.stats().bytes as f64;
    values.add("sort", bytes / begun.elapsed().as_secs_f64());

    let begun = Instant::now();
    let failed = |error| table_failure(&error);
    let io = |error| Failure::io(path.display(), &error);
    let out = std::io::BufWriter::with_capacity(1 << 20, std::fs::File::create(path).map_err(io)?);
    let mut writer = TableWriter::new(out, WriterOptions::default()).map_err(failed)?;
    writer.set_property(sstable::PROPERTY_SLOTS, "0-16383").map_err(failed)?;
    let mut records = sorted.records();
    while let Some((key, value)) = records.next()? {
        writer.add(key, value).map_err(failed)?;
    }
    let (out, summary) = writer.finish().map_err(failed)?;
    let file = out.into_inner().map_err(|error| io(error.into_error()))?;
    file.sync_data().map_err(io)?;
    values.add("table", summary.bytes as f64 / begun.elapsed().as_secs_f64());

    let table = Table::open(path).map_err(failed)?;
    table.warm().map_err(failed)?;
    gets(&table, size, values)
}

fn gets(table: &Table, size: &Size, values: &mut Values) -> Result<()> {
    let wanted = size.records.min(1_000_000);
    let keys: Vec<Vec<u8>> =
        (0..wanted).map(|index| key(super::mixed(index) % size.records)).collect();
    let missing = || Failure::new(Exit::Corrupt, "a key that was written is not found");
    let begun = Instant::now();
    for key in &keys {
        std::hint::black_box(table.get(key).map_err(|e| table_failure(&e))?.ok_or_else(missing)?);
    }
    values.add("gets", wanted as f64 / begun.elapsed().as_secs_f64());
    let begun = Instant::now();
    for batch in keys.chunks(BATCH) {
        for found in table.multi_get(batch) {
            std::hint::black_box(found.map_err(|e| table_failure(&e))?.ok_or_else(missing)?);
        }
    }
    values.add("multi_gets", wanted as f64 / begun.elapsed().as_secs_f64());
    Ok(())
}

/// Loads the table at `local` as a version of the store, and waits until it is served.
pub async fn publish(fs: &Fs, served: Served<'_>, local: &Path, folder: &FsPath) -> Result<()> {
    let io = |error| Failure::io(local.display(), &error);
    let content = tokio::task::block_in_place(|| std::fs::read(local)).map_err(io)?;
    fs.mkdirs(folder, 0o755).await?;
    fs.write_all(&folder.join("part-00000.tbl")?, &content).await?;
    let options = load::Options { keep_versions: 1, ..load::Options::default() };
    load::publish_folder(fs, served.store, folder, options, |_| ()).await?;
    Ok(())
}

/// Gets from a kvserve over the Redis protocol, one at a time and in pipelines.
pub async fn redis(served: Served<'_>, size: &Size, values: &mut Values) -> Result<()> {
    let io = |error| Failure::io(served.redis, &error);
    let mut stream = TcpStream::connect(served.redis).await.map_err(io)?;
    stream.set_nodelay(true).map_err(io)?;
    let choose = format!("GRANARY.USE {}\r\n", served.store);
    stream.write_all(choose.as_bytes()).await.map_err(io)?;
    let mut said = [0; 5];
    stream.read_exact(&mut said).await.map_err(io)?;
    if said != *b"+OK\r\n" {
        let said = String::from_utf8_lossy(&said).into_owned();
        return Err(Failure::new(Exit::Failure, format!("{}: {said}...", served.redis)));
    }
    for (id, pipeline, factor) in [("redis_1", 1, 1), ("redis_16", 16, 8), ("redis_64", 64, 16)] {
        let count = size.calls * factor;
        let begun = Instant::now();
        let done = pipelined(&mut stream, size.records, count, pipeline).await?;
        values.add(id, done as f64 / begun.elapsed().as_secs_f64());
    }
    Ok(())
}

/// Sends so many gets at a time and reads their answers; every answer is checked.
async fn pipelined(stream: &mut TcpStream, records: u64, count: u64, pipeline: u64) -> Result<u64> {
    let io = |error| Failure::io("the kvserve", &error);
    let reply_head = format!("${VALUE_BYTES}\r\n").into_bytes();
    let reply_bytes = reply_head.len() + VALUE_BYTES + 2;
    let mut replies = vec![0; reply_bytes * pipeline as usize];
    let mut request = Vec::new();
    let mut done = 0;
    while done < count {
        let indexes: Vec<u64> =
            (done..done + pipeline).map(|index| super::mixed(index) % records).collect();
        request.clear();
        for index in &indexes {
            let key = key(*index);
            request.extend_from_slice(format!("*2\r\n$3\r\nGET\r\n${}\r\n", key.len()).as_bytes());
            request.extend_from_slice(&key);
            request.extend_from_slice(b"\r\n");
        }
        stream.write_all(&request).await.map_err(io)?;
        stream.read_exact(&mut replies).await.map_err(io)?;
        for (reply, index) in replies.chunks(reply_bytes).zip(indexes) {
            let body = reply.strip_prefix(&reply_head[..]).and_then(|r| r.strip_suffix(b"\r\n"));
            if body != Some(&value(index)[..]) {
                let shown = String::from_utf8_lossy(&reply[..reply.len().min(40)]).into_owned();
                let message = format!("the kvserve answered {shown:?} for key {index}");
                return Err(Failure::new(Exit::Corrupt, message));
            }
        }
        done += pipeline;
    }
    Ok(done)
}

/// Stores texts in `folder/texts`: words of a fixed vocabulary, rare ones rarely.
pub async fn store_texts(fs: &Fs, folder: &FsPath, size: &Size) -> Result<()> {
    use futures_util::{StreamExt, TryStreamExt};
    let texts = folder.join("texts")?;
    fs.mkdirs(&texts, 0o755).await?;
    let count = (size.text_bytes / TEXT_BYTES as u64).max(1);
    let stored = futures_util::stream::iter(0..count).map(|number| {
        let path = texts.join(&format!("text-{number}"));
        async move { Ok::<_, Failure>(fs.write_all(&path?, text(number).as_bytes()).await?) }
    });
    stored.buffer_unordered(BATCH).try_for_each(async |_| Ok(())).await
}

fn text(number: u64) -> String {
    let mut text = String::with_capacity(TEXT_BYTES + 16);
    let mut seed = number << 32;
    while text.len() < TEXT_BYTES {
        seed += 1;
        let random = super::mixed(seed);
        // The product of two: low numbers are more frequent, as in texts.
        let word = (random >> 32) % WORDS * (random & 0xffff_ffff) / (1 << 32);
        text.push_str(&format!("{:x}", super::mixed(word) >> (20 + word % 24)));
        text.push(if random.is_multiple_of(11) { '\n' } else { ' ' });
    }
    text
}

/// Indexes the texts in `folder`.
pub async fn index(
    fs: &Fs,
    folder: &FsPath,
    progress: &Progress,
    values: &mut Values,
) -> Result<()> {
    progress.say("inverted index");
    let job = inverted_index([folder.join("texts")?], IndexOptions::default())
        .existing(Existing::Overwrite)
        .output_tables(folder.join("index")?);
    let report = job.run(fs, &JobProgress::new()).await?;
    values.add("index", report.input_bytes_per_second());
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn local_figures_are_measured() {
        let dir = tempfile::tempdir().unwrap();
        let mut values = Values::default();
        let size = Size { records: 5_000, ..Size::SMALL };
        local(&dir.path().join("t"), &size, &mut values).unwrap();
        for id in ["sort", "table", "gets", "multi_gets"] {
            assert!(values.median(id).is_some_and(|value| value > 0.0), "{id}");
        }
    }

    #[test]
    fn texts_are_words_of_a_vocabulary() {
        let text = text(1);
        assert!(text.len() >= TEXT_BYTES && text == super::text(1) && text != super::text(2));
        let words: std::collections::BTreeSet<&str> = text.split_whitespace().collect();
        assert!((1_000..9_000).contains(&words.len()), "{} words", words.len());
    }
}
