//! Map and reduce without a cluster: splits come from memory, and the output goes there.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use proptest::prelude::*;
use proto::{Error, FsPath};
use sstable::{Table, WriterOptions};
use tokio::sync::{Semaphore, mpsc};

use super::*;
use crate::job::builtin;
use crate::job::input::{Content, Kind, Loaded, Split};
use crate::job::map::MapWork;
use crate::job::sort::{SorterOptions, Ties};
use crate::job::{Combiner, Job, Progress};

type Files = BTreeMap<String, Vec<u8>>;

/// Inputs in memory.
struct Bench {
    kind: Kind,
    texts: Vec<Vec<u8>>,
    threads: usize,
    memory: usize,
    format: Format,
}

impl Bench {
    fn lines(texts: &[&str]) -> Self {
        Self {
            kind: Kind::Lines,
            texts: texts.iter().map(|text| text.as_bytes().to_vec()).collect(),
            threads: 3,
            memory: 300,
            format: Format::Tables(WriterOptions::default()),
        }
    }

    fn files(&self) -> Vec<InputFile> {
        let file = |(number, text): (usize, &Vec<u8>)| InputFile {
            input: 0,
            kind: self.kind,
            path: FsPath::parse(&format!("/in/{number}")).unwrap(),
            length: text.len() as u64,
            block_bytes: 1 << 20,
        };
        self.texts.iter().enumerate().map(file).collect()
    }

    fn queue(&self) -> mpsc::Receiver<Result<Loaded>> {
        let (to, queue) = mpsc::channel(self.texts.len() + 1);
        let permits = Arc::new(Semaphore::new(self.texts.len()));
        for (number, text) in self.texts.iter().enumerate() {
            let data = Bytes::from(text.clone());
            let content = match self.kind {
                Kind::Lines => Content::Lines { offset: 0, data },
                Kind::Documents => Content::Document(data),
                Kind::Tables => {
                    Content::Table(Box::new(Table::from_bytes("t", data.into()).unwrap()))
                }
            };
            let split = Split { file: number as u32, start: 0, end: text.len() as u64 };
            let permit = permits.clone().try_acquire_owned().unwrap();
            to.try_send(Ok(Loaded::for_test(split, content, permit))).unwrap();
        }
        queue
    }

    /// Runs a job over it, and gives the files that it would write.
    fn run(&self, job: Job) -> Result<(Files, BTreeMap<String, u64>)> {
        let (files, progress) = (self.files(), Progress::new());
        let partitions = Partitions::new(job.partitions).unwrap();
        let map_work = MapWork {
            stage: job.map.as_ref().unwrap(),
            files: &files,
            partitions,
            sorter: SorterOptions {
                memory_bytes: self.memory,
                ties: Ties::Value,
                combiner: job.combiner.clone(),
                ..SorterOptions::default()
            },
            progress: &progress,
            cancel: &job.cancel,
        };
        let mapped = map_work.run(self.threads, self.queue())?;
        let work = ReduceWork {
            job: &job.name,
            stage: &job.reduce,
            summary: job.summary.as_ref(),
            files: &files,
            partitions,
            mapped: &mapped,
            format: &self.format,
            progress: &progress,
            cancel: &job.cancel,
        };
        let written = Mutex::new(Files::new());
        let open = |name: &str| Ok(Named { name: name.to_owned(), bytes: Vec::new() });
        let close = |file: Named| {
            written.lock().unwrap().insert(file.name, file.bytes);
            Ok(())
        };
        let reduced = work.run(self.threads, open, close)?;
        let mut counters = reduced.counters;
        for mapped in &mapped {
            counters.merge(&mapped.counters)?;
        }
        Ok((written.into_inner().unwrap(), counters.by_name))
    }

    /// The records of all tables that it would write.
    fn records(&self, job: Job) -> Result<BTreeMap<String, String>> {
        let (files, _) = self.run(job)?;
        let mut records = BTreeMap::new();
        for (name, bytes) in files {
            let table = Table::from_bytes(&name, bytes).unwrap();
            let slots = table.properties().slots().unwrap();
            for record in table.iter() {
                let (key, value) = record.unwrap();
                assert!(slots.contains(&sstable::slot::slot_of(&key)), "{name}: a foreign key");
                let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
                assert_eq!(records.insert(text(&key), text(&value)), None);
            }
        }
        Ok(records)
    }
}

struct Named {
    name: String,
    bytes: Vec<u8>,
}

impl Write for Named {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.bytes.write(bytes)
    }
    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

fn word_count() -> Job {
    Job::new("word count")
        .map(|line, out| {
            for word in line.value.split(|&b| b == b' ').filter(|word| !word.is_empty()) {
                out.emit(word, b"1")?;
            }
            out.count("lines", 1)
        })
        .reduce(|word, ones, out| {
            let mut count = 0;
            while let Some(one) = ones.next()? {
                count += std::str::from_utf8(one).unwrap().parse::<u64>().unwrap();
            }
            out.emit(word, count.to_string().as_bytes())
        })
        .partitions(5)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn a_word_count_equals_the_naive_one(
        texts in prop::collection::vec("([ab]{1,2}[ \n]){0,40}", 1..6), combine in any::<bool>(),
    ) {
        let mut expected: BTreeMap<String, u64> = BTreeMap::new();
        for word in texts.iter().flat_map(|text| text.split_whitespace()) {
            *expected.entry(word.to_owned()).or_default() += 1;
        }
        let expected: BTreeMap<_, _> = expected.into_iter().map(|(w, n)| (w, n.to_string())).collect();
        let mut job = word_count();
        if combine {
            job = job.combine(|_, ones, out| {
                let mut count = 0;
                while let Some(one) = ones.next()? {
                    count += std::str::from_utf8(one).unwrap().parse::<u64>().unwrap();
                }
                out.emit(count.to_string().as_bytes())
            });
        }
        let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
        prop_assert_eq!(Bench::lines(&texts).records(job).unwrap(), expected);
    }
}

#[test]
fn the_output_does_not_depend_on_threads_or_memory() {
    let text: String = (0..3_000).map(|i| format!("w{} w{}\n", i % 97, i % 13)).collect();
    let texts: Vec<&str> = (0..7).map(|i| &text[i * 100..]).collect();
    let run = |threads, memory| {
        let job = word_count().reduce(|word, ones, out| {
            let mut joined = Vec::new();
            while let Some(one) = ones.next()? {
                joined.extend_from_slice(one);
            }
            out.emit(word, &joined)
        });
        Bench { threads, memory, ..Bench::lines(&texts) }.run(job).unwrap()
    };
    let first = run(1, 1 << 20);
    assert_eq!(first.0.len(), 5);
    for (threads, memory) in [(1, 100), (2, 5_000), (4, 1 << 20)] {
        assert_eq!(run(threads, memory), first);
    }
}

#[test]
fn an_error_of_a_map_names_the_file_and_the_offset() {
    let job = word_count().map(|line, out| match line.value {
        b"bad" => Err(Error::new(Code::InvalidArgument, "no good")),
        other => out.emit(other, b"1"),
    });
    let error = Bench::lines(&["a\nb\n", "a\nbad\n"]).run(job).unwrap_err();
    assert_eq!(error.code, Code::InvalidArgument);
    assert_eq!(error.message, "input /in/1 at 2: no good");
}

#[test]
fn a_panic_of_a_map_is_an_error_that_names_the_file_and_the_offset() {
    let job = word_count().map(|line, _| {
        assert!(line.value != b"bad", "bad line {}", line.offset);
        Ok(())
    });
    let error = Bench::lines(&["a\nb\n", "a\nbad\n"]).run(job).unwrap_err();
    assert_eq!(error.code, Code::Internal);
    assert_eq!(error.message, "input /in/1 at 2: the map function panicked: bad line 2");
}

#[test]
fn errors_and_panics_of_a_reduce_name_the_key() {
    let job = word_count().reduce(|key, _, _| match key {
        b"b" => Err(Error::new(Code::InvalidArgument, "no good")),
        _ => Ok(()),
    });
    let error = Bench::lines(&["a\nb\n"]).run(job).unwrap_err();
    assert!(error.message.ends_with("reduce of key \"b\": no good"), "{error}");
    let job = word_count().reduce(|key, _, _| panic!("{key:?}"));
    let error = Bench::lines(&["b\n"]).run(job).unwrap_err();
    assert!(error.message.ends_with("the reduce function panicked: [98]"), "{error}");
}

#[test]
fn a_cancelled_job_says_so() {
    let job = word_count();
    let cancel = job.cancel.clone();
    let job = job.map(move |_, _| {
        cancel.cancel();
        Ok(())
    });
    let error = Bench::lines(&["a\nb\n", "a\n"]).run(job).unwrap_err();
    assert_eq!(error.code, Code::Cancelled);
}

#[test]
fn without_a_reduce_records_pass_and_equal_keys_of_a_table_are_refused() {
    let job = || Job::new("pass").map(|line, out| out.emit(line.value, b"v"));
    let records = Bench::lines(&["b\r\na", "c\n"]).records(job()).unwrap();
    assert_eq!(records.keys().collect::<Vec<_>>(), ["a", "b", "c"]);
    let error = Bench::lines(&["a\n", "a\n"]).records(job()).unwrap_err();
    assert!(error.message.contains("\"a\" equals the key before it"), "{error}");
    let text = Bench { format: Format::Text, ..Bench::lines(&["a\n", "a\nb\n"]) };
    let (files, _) = text.run(job().partitions(1)).unwrap();
    assert_eq!(files["part-00000"], b"a\tv\na\tv\nb\tv\n");
}

#[test]
fn tables_are_inputs_too() {
    let (files, _) = Bench::lines(&["a b a\n"]).run(word_count().partitions(1)).unwrap();
    let tables =
        Bench { kind: Kind::Tables, texts: files.into_values().collect(), ..Bench::lines(&[]) };
    let job = Job::new("turn").map(|record, out| out.emit(record.value, record.key));
    let turned = tables.records(job).unwrap();
    assert_eq!(
        turned.into_iter().collect::<Vec<_>>(),
        [("1".into(), "b".into()), ("2".into(), "a".into())]
    );
}

#[test]
fn commands_map_and_reduce() {
    let job = Job::new("streaming")
        .map_command(r"tr ' ' '\n' | sed 's/$/\t1/'")
        .reduce_command("cut -f 1 | uniq -c | sed 's/^ *\\([0-9]*\\) \\(.*\\)$/\\2\\t\\1/'")
        .partitions(3);
    let records = Bench::lines(&["a b a\nc\n", "a\n"]).records(job).unwrap();
    let expected = [("a", "3"), ("b", "1"), ("c", "1")];
    assert_eq!(records, expected.map(|(k, v)| (k.to_owned(), v.to_owned())).into());
    let job = Job::new("streaming").map_command("echo oh no >&2; false");
    let error = Bench::lines(&["a\n"]).records(job).unwrap_err();
    assert!(error.message.contains("/in/0") && error.message.ends_with("oh no"), "{error}");
}

#[test]
fn a_summary_is_in_its_place_and_nothing_else_may_have_its_key() {
    let summed = |job: Job| {
        job.summary(
            [b"k".to_vec()],
            || 0,
            |seen, _, _| *seen += 1,
            |seen| vec![(b"k".to_vec(), format!("{}", seen.iter().sum::<u64>()).into_bytes())],
        )
    };
    let records = Bench::lines(&["a b c x y z a"]).records(summed(word_count())).unwrap();
    assert_eq!(records["k"], "6");
    assert_eq!(records.len(), 7);
    let error = Bench::lines(&["a k"]).records(summed(word_count())).unwrap_err();
    assert!(error.message.contains("key \"k\" is the summary's"), "{error}");
    let (_, counters) = Bench::lines(&["a\nb"]).run(summed(word_count())).unwrap();
    assert_eq!(counters["lines"], 2);
}

#[test]
fn the_inverted_index_lists_documents_by_count() {
    let documents = |texts: &[&str]| Bench { kind: Kind::Documents, ..Bench::lines(texts) };
    let options = builtin::IndexOptions { postings_max: 2, top: 2, ..Default::default() };
    let job = || builtin::inverted_index([], options);
    let texts = ["hello world", "Hello, HELLO!", "hello there: world", "nul\0hello"];
    let records = documents(&texts).records(job()).unwrap();
    assert_eq!(records["hello"], "3 documents, 4 occurrences\n/in/1\t2\n/in/0\t1\n");
    assert_eq!(records["there"], "1 document, 1 occurrence\n/in/2\t1\n");
    assert_eq!(records["_top"], "hello\t4\nworld\t2\n");
    assert_eq!(records.len(), 4);
    let (_, counters) = documents(&texts).run(job()).unwrap();
    assert_eq!((counters["documents"], counters["documents_binary"]), (3, 1));
}

#[test]
fn the_inverted_index_of_lines_names_their_offsets() {
    let options = builtin::IndexOptions { unit: builtin::IndexUnit::Lines, ..Default::default() };
    let records = Bench::lines(&["ab cd\nab ab\n", "ab"])
        .records(builtin::inverted_index([], options))
        .unwrap();
    assert_eq!(records["ab"], "3 documents, 4 occurrences\n/in/0:6\t2\n/in/0:0\t1\n/in/1:0\t1\n");
}

#[test]
fn top_terms_hold_counts_and_ranks() {
    let options = builtin::TopTermsOptions { top: 2, ..Default::default() };
    let records =
        Bench::lines(&["bb aa\naa", "cc bb aa"]).records(builtin::top_terms([], options)).unwrap();
    let expected =
        [("aa", "3"), ("bb", "2"), ("cc", "1"), ("top:0001", "aa\t3"), ("top:0002", "bb\t2")];
    assert_eq!(records, expected.map(|(k, v)| (k.to_owned(), v.to_owned())).into());
}

#[test]
fn web_logs_give_hits_bytes_and_statuses() {
    let line = |path: &str, status: u16| {
        format!("h - - [t] \"GET {path} HTTP/1.1\" {status} 10 \"-\" \"-\"\n")
    };
    let first = [line("/a?x", 200), line("/a?y", 404), line("/b", 200)].concat();
    let second = [line("/a", 200), "garbage\n".into()].concat();
    let bench = Bench::lines(&[&first, &second]);
    let job = || builtin::access_log([], builtin::AccessLogOptions { top: 1 });
    let records = bench.records(job()).unwrap();
    assert_eq!(records["/a"], "hits\t3\nbytes\t30\nstatus 200\t2\nstatus 404\t1\n");
    assert_eq!(records["_total"], "hits\t4\nbytes\t40\nstatus 200\t3\nstatus 404\t1\n");
    assert_eq!(records["_status:404"], "hits\t1\nbytes\t10\nstatus 404\t1\n");
    assert_eq!(records["_top"], "/a\t3\n");
    assert_eq!(bench.run(job()).unwrap().1["lines_unparsed"], 1);
}

#[test]
fn a_combiner_runs_on_spills_of_any_size() {
    let combiner: Combiner = Arc::new(|_, values, out| {
        let mut longest = Vec::new();
        while let Some(value) = values.next()? {
            longest = value.to_vec();
        }
        out.emit(&longest)
    });
    let mut job = word_count().map(|line, out| out.emit(b"k", line.value));
    job.combiner = Some(combiner);
    let job = job.reduce(|key, values, out| {
        let mut last = Vec::new();
        while let Some(value) = values.next()? {
            last = value.to_vec();
        }
        out.emit(key, &last)
    });
    let text: String = (0..500).map(|i| format!("{:05}\n", i * 7919 % 500)).collect();
    assert_eq!(Bench::lines(&[&text, &text]).records(job).unwrap()["k"], "00499");
}
