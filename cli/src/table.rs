//! `granary table`: looks into a table file on this machine. Needs no cluster.

use std::path::PathBuf;

use serde::Serialize;
use sstable::{Table as SortedTable, verify_file};

use crate::failure::{Exit, Failure, Result};
use crate::output::{Align, Out, Table, printable};
use crate::progress::Progress;
use crate::units;

/// The commands of `granary table`.
#[derive(clap::Subcommand, Debug)]
pub enum TableCommand {
    /// Print keys and values in order
    Cat(CatArgs),
    /// Show what a table says of itself
    Stat(StatArgs),
    /// Read everything and list all damage
    Verify(VerifyArgs),
}

/// Options of `granary table cat`.
#[derive(clap::Args, Debug)]
pub struct CatArgs {
    /// Only keys that begin with this
    #[arg(long, default_value = "")]
    prefix: String,
    /// So many records at most
    #[arg(long, value_name = "N")]
    limit: Option<usize>,
    /// Write bytes as they are; without it, what a terminal would obey is escaped
    #[arg(long)]
    raw: bool,
    /// A table file on this machine
    file: PathBuf,
}

/// Options of `granary table stat`.
#[derive(clap::Args, Debug)]
pub struct StatArgs {
    /// Print as JSON
    #[arg(long)]
    json: bool,
    /// A table file on this machine
    file: PathBuf,
}

/// Options of `granary table verify`.
#[derive(clap::Args, Debug)]
pub struct VerifyArgs {
    /// Table files on this machine
    #[arg(required = true)]
    files: Vec<PathBuf>,
}

/// Runs `granary table`.
pub fn run(command: &TableCommand, out: &mut Out) -> Result<()> {
    match command {
        TableCommand::Cat(args) => cat(args, out),
        TableCommand::Stat(args) => stat(args, out),
        TableCommand::Verify(args) => verify(args, out),
    }
}

/// Its message names the file.
fn failed(error: &sstable::Error) -> Failure {
    match error.io() {
        Some(io) => Failure { message: error.message.clone(), ..Failure::io("", io) },
        None => Failure::new(Exit::Corrupt, error.message.clone()),
    }
}

fn cat(args: &CatArgs, out: &mut Out) -> Result<()> {
    let fail = |error: sstable::Error| failed(&error);
    let table = SortedTable::open(&args.file).map_err(fail)?;
    let records = table.prefix(args.prefix.as_bytes());
    for record in records.take(args.limit.unwrap_or(usize::MAX)) {
        let (key, value) = record.map_err(fail)?;
        print_record(&key, &value, args.raw, out)?;
    }
    Ok(())
}

/// One line: key, tab, value.
pub fn print_record(key: &[u8], value: &[u8], raw: bool, out: &mut Out) -> Result<()> {
    if !raw {
        return out.line(format_args!("{}\t{}", printable(key), printable(value)));
    }
    [key, b"\t", value, b"\n"].into_iter().try_for_each(|part| out.bytes(part))
}

#[derive(Serialize)]
struct Shown {
    path: String,
    bytes: u64,
    records: u64,
    blocks: u64,
    key_bytes: u64,
    value_bytes: u64,
    smallest: String,
    largest: String,
    footer_crc32: String,
    properties: std::collections::BTreeMap<String, String>,
}

fn stat(args: &StatArgs, out: &mut Out) -> Result<()> {
    let table = SortedTable::open(&args.file).map_err(|error| failed(&error))?;
    let properties = table.properties();
    let user = properties.user.iter().map(|(name, value)| (name.clone(), printable(value)));
    let shown = Shown {
        path: args.file.display().to_string(),
        bytes: table.file_bytes(),
        records: table.records(),
        blocks: table.footer().blocks,
        key_bytes: properties.key_bytes,
        value_bytes: properties.value_bytes,
        smallest: printable(&properties.smallest),
        largest: printable(&properties.largest),
        footer_crc32: format!("{:08x}", table.footer_crc32()),
        properties: user.collect(),
    };
    if args.json {
        return out.json(&shown);
    }
    let mut rows = Table::new(&[("", Align::Left), ("", Align::Left)]);
    let mut row = |name: &str, value: String| rows.row(vec![name.to_owned(), value]);
    row("file", shown.path);
    row("size", format!("{} ({})", shown.bytes, units::bytes(shown.bytes)));
    row("records", units::number(shown.records));
    row("blocks", units::number(shown.blocks));
    row("keys", units::bytes(shown.key_bytes));
    row("values", units::bytes(shown.value_bytes));
    row("smallest key", shown.smallest);
    row("largest key", shown.largest);
    row("footer crc32", shown.footer_crc32);
    shown.properties.into_iter().for_each(|(name, value)| row(&name, value));
    rows.print(out)
}

fn verify(args: &VerifyArgs, out: &mut Out) -> Result<()> {
    let mut damaged = 0;
    for file in &args.files {
        let progress = Progress::bytes(&file.display().to_string(), 0);
        let report = verify_file(file, |done, total| progress.set(done, total))
            .map_err(|error| failed(&error))?;
        drop(progress);
        if report.is_good() {
            let (records, bytes) =
                (units::count(report.records, "record"), units::bytes(report.bytes));
            out.line(format_args!("{}: good, {records}, {bytes}", file.display()))?;
            continue;
        }
        damaged += 1;
        for damage in &report.damage {
            out.line(format_args!("{}: {damage}", file.display()))?;
        }
    }
    if damaged == 0 {
        return Ok(());
    }
    let message =
        format!("{} of {} damaged", damaged, units::count(args.files.len() as u64, "table"));
    Err(Failure::new(Exit::Corrupt, message))
}
