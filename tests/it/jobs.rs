//! Batch jobs on a real cluster: what they compute, and that nothing is visible of one that did not end well.

use std::collections::BTreeMap;
use std::time::Duration;

use client::job::builtin::{IndexOptions, inverted_index, totals_of};
use client::job::{Cancel, Cleaned, Existing, Job, Phase, Progress, clean};
use client::{Code, Error, Fs};
use sstable::Table;
use tests::cluster::{Cluster, Options, path};
use tests::seed::Seed;

/// Texts of few words, in files of several sizes, some of them of several blocks.
async fn store_texts(fs: &Fs, folder: &str, seed: &mut Seed) -> Vec<(String, String)> {
    let mut texts = Vec::new();
    for number in 0..12 {
        let words = if number == 0 { 400_000 } else { seed.below(3_000) };
        let mut text = String::new();
        for _ in 0..words {
            let end = if seed.below(9) == 0 { '\n' } else { ' ' };
            text.push_str(&format!("w{:03}{end}", seed.below(500)));
        }
        let name = format!("{folder}/sub{}/text-{number}", number % 3);
        let options =
            client::CreateOptions { block_bytes: 1 << 20, ..client::CreateOptions::default() };
        let mut file = fs.create(&path(&name), options).await.expect("create");
        file.write(text.as_bytes()).await.expect("write");
        file.close().await.expect("close");
        texts.push((name, text));
    }
    for hidden in ["_logs/x", ".trash/x", "sub0/_SUCCESS"] {
        fs.write_all(&path(&format!("{folder}/{hidden}")), b"hidden").await.expect("write");
    }
    texts
}

fn word_count() -> Job {
    Job::new("word count")
        .input_lines([path("/in")])
        .map(|line, out| {
            for word in line.text().split_whitespace() {
                out.emit(word.as_bytes(), &[1])?;
            }
            Ok(())
        })
        .reduce(|word, ones, out| {
            let mut count = 0u64;
            while let Some(one) = ones.next()? {
                count += u64::from(one[0]);
            }
            out.emit(word, count.to_string().as_bytes())
        })
        // Little memory: the sort spills.
        .memory_bytes(1 << 20)
        .partitions(4)
}

/// The records of all tables in a folder; every name in it must be a table's.
async fn records(fs: &Fs, folder: &str) -> BTreeMap<String, String> {
    let mut records = BTreeMap::new();
    for file in fs.list(&path(folder)).await.expect("list") {
        assert!(file.name.starts_with("part-") && file.name.ends_with(".tbl"), "{}", file.name);
        let name = path(folder).join(&file.name).expect("path");
        let bytes = fs.read_all(&name, 1 << 30).await.expect("read");
        let table = Table::from_bytes(name.as_str(), bytes.into()).expect("a table");
        for record in table.iter() {
            let (key, value) = record.expect("record");
            let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).expect("text");
            assert_eq!(records.insert(text(&key), text(&value)), None, "each key once");
        }
    }
    records
}

/// Everything in a folder, hidden names too.
async fn names(fs: &Fs, folder: &str) -> Vec<String> {
    let listed = fs.list(&path(folder)).await.expect("list");
    listed.into_iter().map(|entry| entry.name).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn jobs_compute_what_a_naive_program_does_and_replace_output_only_when_asked() {
    let cluster = Cluster::start(Options::default()).await;
    let fs = cluster.fs().await;
    let texts = store_texts(&fs, "/in", &mut Seed::from_env(1)).await;
    let mut counts: BTreeMap<String, u64> = BTreeMap::new();
    let mut files: BTreeMap<String, u64> = BTreeMap::new();
    for (_, text) in &texts {
        let mut own: BTreeMap<&str, u64> = BTreeMap::new();
        text.split_whitespace().for_each(|word| *own.entry(word).or_default() += 1);
        for (word, count) in own {
            *counts.entry(word.to_owned()).or_default() += count;
            *files.entry(word.to_owned()).or_default() += 1;
        }
    }

    let progress = Progress::new();
    let job = word_count().output_tables(path("/out/words"));
    let report = job.run(&fs, &progress).await.expect("job");
    let expected: BTreeMap<_, _> = counts.iter().map(|(w, n)| (w.clone(), n.to_string())).collect();
    assert_eq!(records(&fs, "/out/words").await, expected);
    assert_eq!(names(&fs, "/out").await, ["words"]);
    assert!(report.spills > 0 && report.input_files == 12 && report.parts.len() == 4, "{report:?}");
    assert_eq!(report.mapped_records, counts.values().sum::<u64>());
    let snapshot = progress.snapshot();
    assert_eq!((snapshot.phase, snapshot.input_bytes_done), (Phase::Done, report.input_bytes));

    let error =
        word_count().output_tables(path("/out/words")).run(&fs, &progress).await.unwrap_err();
    assert_eq!(error.code, Code::AlreadyExists, "{error}");
    let job = inverted_index([path("/in")], IndexOptions::default());
    let job = job.output_tables(path("/out/words")).existing(Existing::Overwrite);
    job.run(&fs, &Progress::new()).await.expect("job");
    let index = records(&fs, "/out/words").await;
    for (word, count) in &counts {
        assert_eq!(totals_of(index[word].as_bytes()), Some((files[word], *count)), "{word}");
    }
    assert_eq!(index.len(), counts.len() + 1);
    assert_eq!(index["_top"].lines().count(), 100);
    assert_eq!(names(&fs, "/out").await, ["words"]);

    // A second job reads what the first wrote, and writes text.
    let job = Job::new("turn")
        .input_tables([path("/out/words")])
        .map(|record, out| {
            let totals = totals_of(record.value).map_or(0, |(_, occurrences)| occurrences);
            out.emit(format!("{totals:012}").as_bytes(), record.key)
        })
        .partitions(1)
        .output_text(path("/out/turned"));
    job.run(&fs, &Progress::new()).await.expect("job");
    let text = fs.read_all(&path("/out/turned/part-00000"), 1 << 20).await.expect("read");
    let text = String::from_utf8(text.to_vec()).expect("text");
    assert_eq!(text.lines().count(), index.len());
    assert!(text.lines().is_sorted());
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_visible_of_a_job_that_fails_panics_or_is_cancelled() {
    let cluster = Cluster::start(Options::default()).await;
    let fs = cluster.fs().await;
    store_texts(&fs, "/in", &mut Seed::from_env(2)).await;
    fs.mkdirs(&path("/out"), 0o755).await.expect("mkdirs");
    let failed = || Error::new(Code::InvalidArgument, "no good");
    let cancel = Cancel::new();
    let stop = cancel.clone();
    let jobs: Vec<(&str, Job)> = vec![
        ("no good", word_count().map(move |_, _| Err(failed()))),
        ("panicked: bad", word_count().map(|_, _| panic!("bad"))),
        ("no good", word_count().reduce(move |_, _, _| Err(failed()))),
        ("panicked: bad", word_count().reduce(|_, _, _| panic!("bad"))),
        ("slot", word_count().reduce(|_, _, out| out.emit(b"other", b""))),
        ("ended with status 3", word_count().map_command("exit 3")),
        ("/nowhere", word_count().input_lines([path("/nowhere")])),
        ("/no/such/folder", word_count().temp_dir("/no/such/folder")),
        (
            "cancelled",
            word_count().cancelled_by(cancel).reduce(move |_, _, _| {
                stop.cancel();
                Ok(())
            }),
        ),
    ];
    for (why, job) in jobs {
        let job = job.output_tables(path("/out/x"));
        let error = job.run(&fs, &Progress::new()).await.expect_err(why);
        assert!(error.message.contains(why), "{why}: {error}");
        assert_eq!(names(&fs, "/out").await, [""; 0], "{why}");
    }

    // Who drops the future cancels the job, and it cleans up behind itself.
    let endless = word_count().map_command("sleep 600").output_tables(path("/out/x"));
    let progress = Progress::new();
    let mapping = tests::wait::until("it maps", Duration::from_secs(30), async || {
        (progress.snapshot().phase == Phase::Map).then_some(())
    });
    tokio::select! {
        ended = endless.run(&fs, &progress) => panic!("it sleeps: {ended:?}"),
        () = mapping => {}
    }
    tests::wait::until("the folder is gone", Duration::from_secs(30), async || {
        names(&fs, "/out").await.is_empty().then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_job_shows_nothing_and_is_cleaned_away_once_its_lease_is_over() {
    let options = Options { namenode: "lease_soft_limit_ms = 6000".into(), ..Options::default() };
    let cluster = Cluster::start(options).await;
    let config = client::Config { lease_renew_interval_ms: 1_000, ..client::Config::default() };
    let fs = cluster.fs_with(config).await;
    fs.write_all(&path("/in/a"), b"x\n").await.expect("write");
    fs.mkdirs(&path("/out"), 0o755).await.expect("mkdirs");
    // A job that lives, in this process; and one that is killed.
    let living = Job::new("living").input_lines([path("/in")]).map_command("sleep 600");
    let living = living.output_tables(path("/out/living"));
    let (its_fs, its_progress) = (fs.clone(), Progress::new());
    let living = tokio::spawn(async move { living.run(&its_fs, &its_progress).await });
    let mut killed = std::process::Command::new(tests::cluster::granary())
        .args(["--cluster", cluster.namenode_addr(), "job", "run", "--map", "sleep 600"])
        .args(["/in", "--output", "/out/killed"])
        .spawn()
        .expect("granary job");
    let of = |names: Vec<String>, job: &str| -> Vec<String> {
        names.into_iter().filter(|name| name.starts_with(&format!(".{job}."))).collect()
    };
    tests::wait::until("both jobs work", Duration::from_secs(60), async || {
        let names = names(&fs, "/out").await;
        assert!(names.iter().all(|name| name.starts_with('.')), "{names:?}");
        (names.len() == 4).then_some(())
    })
    .await;
    killed.kill().expect("kill");
    killed.wait().expect("reap");

    let cleaned = tests::wait::until("it is cleaned", Duration::from_secs(60), async || {
        let cleaned = clean(&fs, &path("/out")).await.expect("clean");
        (!cleaned.is_empty()).then_some(cleaned)
    })
    .await;
    assert!(cleaned.len() == 2 && cleaned.iter().all(|one| matches!(one, Cleaned::Deleted(_))));
    let left = names(&fs, "/out").await;
    assert_eq!((left.len(), of(left, "living").len()), (2, 2));
    living.abort();
    tests::wait::until("the other one ends", Duration::from_secs(60), async || {
        names(&fs, "/out").await.is_empty().then_some(())
    })
    .await;
}
