//! `granary bench erasure`: how fast one core encodes and decodes by each policy, and striped files beside replicated
//! ones in the same run.
//!
//! Coding is measured over cells as files have them, so beyond the processor's caches, and in strips that stay in them,
//! as a writer does it; decoding with one unit lost and with as many as there is parity. Files are written and read
//! whole, striped and replicated in turn in each round, so that both meet the same machine.

use std::path::PathBuf;
use std::time::Instant;

use bytes::Bytes;
use client::{CreateOptions, Fs, Recursion};
use proto::FsPath;
use proto::erasure::{POLICIES, Policy};
use serde::Serialize;
use transfer::coder::{Code, Coder, Kernel};

use super::figures::{Unit, Values, ratio, spread};
use super::files::CHUNK_BYTES;
use super::{Folder, client_config, cluster, noise};
use crate::coding;
use crate::embedded::Cluster;
use crate::failure::{Exit, Failure, Result};
use crate::output::{Align, Out, Table};
use crate::progress::Progress;
use crate::roles::listen;
use crate::units;

/// Bytes of each cell that are coded at once in strips.
const STRIP_BYTES: usize = 32 << 10;

/// Options of `granary bench erasure`.
#[derive(clap::Args, Debug)]
pub struct ErasureArgs {
    /// A quick run that shows that everything works; its figures mean little
    #[arg(long)]
    small: bool,
    /// Rounds; the medians are told
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..=1_000))]
    rounds: Option<u64>,
    /// Size of the files
    #[arg(long, value_name = "SIZE", value_parser = units::parse_bytes)]
    bytes: Option<u64>,
    /// The policy of the striped files
    #[arg(long, value_name = "POLICY", value_parser = coding::parse, default_value = "RS-6-3-1024k")]
    policy: u32,
    /// Put the embedded cluster here; without it, into a temporary folder. Removed at the end
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
    /// DataNodes of the embedded cluster
    #[arg(long, value_name = "N", default_value_t = 9, value_parser = clap::value_parser!(u64).range(1..=64))]
    datanodes: u64,
    /// Only coding, without a cluster
    #[arg(long)]
    coding_only: bool,
    /// Print the figures as JSON
    #[arg(long)]
    json: bool,
}

/// What one kernel does by one policy, on one core: bytes of data per second.
#[derive(Debug, Serialize)]
struct CodingRates {
    policy: &'static str,
    kernel: String,
    encode_cells: f64,
    encode_strips: f64,
    decode_one_lost: f64,
    decode_all_lost: f64,
}

/// What is measured of files: its name in JSON, and what it is.
const FILES: [(&str, &str); 3] =
    [("write", "write"), ("read", "read"), ("read_tcp", "read over TCP")];

/// Everything.
#[derive(Debug, Serialize)]
struct Told {
    build: &'static str,
    coding: Vec<CodingRates>,
    policy: String,
    file_bytes: u64,
    files: Vec<ToldFiles>,
}

#[derive(Debug, Serialize)]
struct ToldFiles {
    what: &'static str,
    striped: f64,
    replicated: f64,
    ratio: f64,
    striped_rounds: Vec<f64>,
    replicated_rounds: Vec<f64>,
}

/// Runs it.
pub async fn run(
    args: &ErasureArgs,
    context: &crate::connect::Context,
    out: &mut Out,
) -> Result<()> {
    if args.policy == 0 {
        return Err(Failure::usage("--policy replicated: name an erasure-coding policy"));
    }
    let mut stop = listen()?;
    let progress = Progress::spinner("coding");
    let work = if args.small { Work::SMALL } else { Work::USUAL };
    let coding = tokio::task::spawn_blocking(move || coding_rates(work));
    let coding = tokio::select! {
        coding = coding => coding.map_err(|e| Failure::new(Exit::Failure, e.to_string()))?,
        _ = stop.next() => return Err(Failure::silent(Exit::Interrupted)),
    };
    drop(progress);
    let mut files = Files::default();
    if !args.coding_only {
        let folder = Folder::make(args.dir.as_deref())?;
        let cluster = cluster(context, &folder, args.datanodes as usize).await?;
        let measured = tokio::select! {
            measured = files.measure(args, context, cluster.as_ref()) => measured,
            _ = stop.next() => Err(Failure::silent(Exit::Interrupted)),
        };
        let stopped = match cluster {
            Some(cluster) => cluster.stop().await,
            None => Ok(()),
        };
        measured?;
        stopped?;
    }
    let told = Told {
        build: if cfg!(debug_assertions) { "debug" } else { "release" },
        coding,
        policy: coding::name(args.policy),
        file_bytes: file_bytes(args),
        files: files.told(),
    };
    if args.json { out.json(&told) } else { print(&told, &files, out) }
}

fn file_bytes(args: &ErasureArgs) -> u64 {
    let usual = if args.small { 16 << 20 } else { 512 << 20 };
    args.bytes.unwrap_or(usual).max(1 << 20) >> 20 << 20
}

/// How much is coded for a figure.
#[derive(Clone, Copy)]
struct Work {
    /// Bytes of data in a round.
    bytes: usize,
    /// Bytes of a cell at most.
    cell_bytes: usize,
    rounds: usize,
}

impl Work {
    const SMALL: Self = Self { bytes: 64 << 10, cell_bytes: 64 << 10, rounds: 1 };
    const USUAL: Self = Self { bytes: 1 << 30, cell_bytes: usize::MAX, rounds: 5 };

    /// Bytes per second of work that goes through `bytes`: the best round.
    fn rate(self, bytes: usize, mut work: impl FnMut()) -> f64 {
        let times = (self.bytes / bytes).max(1);
        let rounds = (0..self.rounds).map(|_| {
            let begun = Instant::now();
            (0..times).for_each(|_| work());
            (bytes * times) as f64 / begun.elapsed().as_secs_f64()
        });
        rounds.fold(0.0, f64::max)
    }
}

/// Each policy by each kernel of this processor.
fn coding_rates(work: Work) -> Vec<CodingRates> {
    let mut all = Vec::new();
    for policy in POLICIES {
        let Some(code) = Code::of(policy) else { continue };
        for kernel in Kernel::available() {
            all.push(rates_of(policy, &Coder::with_kernel(code, kernel), work));
        }
    }
    all
}

fn rates_of(policy: Policy, coder: &Coder, work: Work) -> CodingRates {
    let code = coder.code();
    let (k, m) = (code.data(), code.parity_units());
    let cell = work.cell_bytes.min(policy.cell_bytes as usize);
    let data: Vec<Vec<u8>> = (0..k).map(|_| noise(cell)).collect();
    let mut parity = vec![vec![0; cell]; m];
    let encode = |strip: usize, parity: &mut [Vec<u8>]| {
        for begin in (0..cell).step_by(strip) {
            let inputs: Vec<&[u8]> = data.iter().map(|unit| &unit[begin..begin + strip]).collect();
            let mut outputs: Vec<&mut [u8]> =
                parity.iter_mut().map(|unit| &mut unit[begin..begin + strip]).collect();
            coder.encode(&inputs, &mut outputs);
        }
    };
    let encode_cells = work.rate(k * cell, || encode(cell, &mut parity));
    let encode_strips = work.rate(k * cell, || encode(STRIP_BYTES, &mut parity));
    // Any k buffers will do: what they hold does not change how long it takes.
    let inputs: Vec<&[u8]> = data.iter().map(|unit| &unit[..]).collect();
    let mut decode = |lost: usize| {
        let left: Vec<usize> = (lost..k + m).collect();
        let wanted: Vec<usize> = (0..lost).collect();
        let plan = coder.plan(&left, &wanted).expect("no more are lost than there is parity");
        let mut outputs: Vec<&mut [u8]> =
            parity[..lost].iter_mut().map(|unit| &mut unit[..]).collect();
        work.rate(k * cell, || plan.decode(&inputs, &mut outputs))
    };
    CodingRates {
        policy: policy.name,
        kernel: format!("{:?}", coder.kernel()),
        encode_cells,
        encode_strips,
        decode_one_lost: decode(1),
        decode_all_lost: decode(m.min(k)),
    }
}

/// Rates of striped and of replicated files.
#[derive(Default)]
struct Files {
    striped: Values,
    replicated: Values,
}

impl Files {
    async fn measure(
        &mut self,
        args: &ErasureArgs,
        context: &crate::connect::Context,
        cluster: Option<&Cluster>,
    ) -> Result<()> {
        let mut config = client_config(context, cluster)?;
        let fs = Fs::connect(config.clone()).await?;
        config.short_circuit = false;
        let over_tcp = Fs::connect(config).await?;
        let own = FsPath::parse(&format!("/granary-bench-{}", uuid::Uuid::new_v4().simple()))?;
        fs.mkdirs(&own, 0o755).await?;
        let rounds = args.rounds.unwrap_or(if args.small { 1 } else { 5 });
        let progress = Progress::items("files", rounds * 2);
        let measured = async {
            for _ in 0..rounds {
                for (policy, values) in
                    [(args.policy, &mut self.striped), (0, &mut self.replicated)]
                {
                    progress.say(coding::name(policy));
                    one(&fs, &over_tcp, &own.join("file")?, policy, file_bytes(args), values)
                        .await?;
                    progress.add(1);
                }
            }
            Ok(())
        };
        let measured: Result<()> = measured.await;
        // What could not be deleted is told only if nothing else went wrong.
        let deleted = fs.delete(&own, Recursion::Yes).await;
        measured?;
        deleted?;
        Ok(())
    }

    fn told(&self) -> Vec<ToldFiles> {
        let told = FILES.into_iter().filter_map(|(id, what)| {
            let (striped, replicated) = (self.striped.median(id)?, self.replicated.median(id)?);
            Some(ToldFiles {
                what,
                striped,
                replicated,
                ratio: striped / replicated,
                striped_rounds: self.striped.of(id).to_vec(),
                replicated_rounds: self.replicated.of(id).to_vec(),
            })
        });
        told.collect()
    }
}

/// Writes a file and reads it twice: as it goes, and over TCP.
async fn one(
    fs: &Fs,
    over_tcp: &Fs,
    path: &FsPath,
    policy: u32,
    bytes: u64,
    values: &mut Values,
) -> Result<()> {
    let chunk = Bytes::from(noise(CHUNK_BYTES));
    let options = CreateOptions { erasure_policy: Some(policy), ..CreateOptions::default() };
    let rate = |begun: Instant| bytes as f64 / begun.elapsed().as_secs_f64();
    let begun = Instant::now();
    let mut file = fs.create(path, options).await?;
    for _ in 0..bytes / CHUNK_BYTES as u64 {
        file.write_bytes(chunk.clone()).await?;
    }
    file.close().await?;
    values.add("write", rate(begun));
    for (id, fs) in [("read", fs), ("read_tcp", over_tcp)] {
        let begun = Instant::now();
        let mut file = fs.open(path).await?;
        let mut read = 0;
        while let Some(part) = file.read_next().await? {
            read += std::hint::black_box(part).len() as u64;
        }
        if read != bytes {
            let what = format!("{path}: {read} bytes were read, {bytes} were written");
            return Err(Failure::new(Exit::Failure, what));
        }
        values.add(id, rate(begun));
    }
    fs.delete(path, Recursion::No).await?;
    Ok(())
}

fn print(told: &Told, files: &Files, out: &mut Out) -> Result<()> {
    let mut table = Table::new(&[
        ("one core", Align::Left),
        ("kernel", Align::Left),
        ("encode cells", Align::Right),
        ("encode strips", Align::Right),
        ("decode 1 lost", Align::Right),
        ("decode all lost", Align::Right),
    ]);
    let shown = |rate: f64| format!("{:.1} GB/s", rate / 1e9);
    for one in &told.coding {
        table.row(vec![
            one.policy.to_owned(),
            one.kernel.clone(),
            shown(one.encode_cells),
            shown(one.encode_strips),
            shown(one.decode_one_lost),
            shown(one.decode_all_lost),
        ]);
    }
    table.print(out)?;
    if !told.files.is_empty() {
        out.line(format_args!("\nFiles of {}:\n", units::bytes(told.file_bytes)))?;
        let mut table = Table::new(&[
            ("", Align::Left),
            ("striped", Align::Right),
            ("spread", Align::Right),
            ("replicated", Align::Right),
            ("spread", Align::Right),
            ("ratio", Align::Right),
        ]);
        for (one, (id, _)) in told.files.iter().zip(FILES) {
            table.row(vec![
                one.what.to_owned(),
                Unit::BytesPerSecond.show(one.striped),
                spread(files.striped.of(id)),
                Unit::BytesPerSecond.show(one.replicated),
                spread(files.replicated.of(id)),
                ratio(one.striped, one.replicated),
            ]);
        }
        table.print(out)?;
        out.line(format_args!("\nStriped files are {}.", told.policy))?;
    }
    if told.build == "debug" {
        out.line("This is a debug build: its figures tell nothing about speed.")?;
    }
    Ok(())
}
