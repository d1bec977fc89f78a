//! `granary get` and `granary scan`: reads from a store, over gRPC.

use client::kv::{KvClient, ScanOptions};
use serde::Serialize;

use crate::connect::Context;
use crate::failure::{Exit, Failure, Result};
use crate::output::{Out, printable};
use crate::table::print_record;

/// Records of one `granary scan` if nobody says otherwise.
const SCAN_LIMIT_DEFAULT: u64 = 100;

/// Options of `granary get`.
#[derive(clap::Args, Debug)]
pub struct GetArgs {
    /// Answer from this version instead of the current one
    #[arg(long, value_name = "N", default_value_t = 0, hide_default_value = true)]
    version: u64,
    /// Print as JSON
    #[arg(long, conflicts_with = "raw")]
    json: bool,
    /// Write values as they are; without it, what a terminal would obey is escaped
    #[arg(long)]
    raw: bool,
    /// The store
    store: String,
    /// Keys; of several, each line is the key, a tab and the value
    #[arg(required = true)]
    keys: Vec<String>,
}

/// Options of `granary scan`.
#[derive(clap::Args, Debug)]
pub struct ScanArgs {
    /// Only keys that begin with this
    #[arg(long, default_value = "", hide_default_value = true, conflicts_with_all = ["start", "end"])]
    prefix: String,
    /// From this key on
    #[arg(long, default_value = "", hide_default_value = true)]
    start: String,
    /// Up to but without this key
    #[arg(long, default_value = "", hide_default_value = true)]
    end: String,
    /// So many records at most; 0 for all
    #[arg(long, value_name = "N", default_value_t = SCAN_LIMIT_DEFAULT)]
    limit: u64,
    /// Answer from this version instead of the current one
    #[arg(long, value_name = "N", default_value_t = 0, hide_default_value = true)]
    version: u64,
    /// Print as JSON, one record on a line
    #[arg(long, conflicts_with = "raw")]
    json: bool,
    /// Write bytes as they are; without it, what a terminal would obey is escaped
    #[arg(long)]
    raw: bool,
    /// The store
    store: String,
}

#[derive(Serialize)]
struct Shown {
    key: String,
    value: Option<String>,
}

impl Shown {
    fn of(key: &[u8], value: Option<&[u8]>) -> Self {
        Self { key: printable(key), value: value.map(printable) }
    }
}

/// Runs `granary get`.
pub async fn get(args: &GetArgs, context: &Context, out: &mut Out) -> Result<()> {
    let client = connect(context, &args.store, args.version).await?;
    let keys: Vec<Vec<u8>> = args.keys.iter().map(|key| key.clone().into_bytes()).collect();
    let values = client.multi_get(&keys).await?;
    let pairs = keys.iter().zip(&values);
    if args.json {
        let shown: Vec<Shown> =
            pairs.map(|(key, value)| Shown::of(key, value.as_deref())).collect();
        out.json(&shown)?;
    } else {
        for (key, value) in pairs {
            match value {
                None => {}
                Some(value) if keys.len() > 1 => print_record(key, value, args.raw, out)?,
                Some(value) if args.raw => out.bytes(value)?,
                Some(value) => print_text(value, out)?,
            }
        }
    }
    let missing: Vec<&str> = args
        .keys
        .iter()
        .zip(&values)
        .filter(|(_, value)| value.is_none())
        .map(|(key, _)| key.as_str())
        .collect();
    if missing.is_empty() {
        return Ok(());
    }
    let message =
        format!("{}: no such key: {}", args.store, printable(missing.join(", ").as_bytes()));
    Err(Failure::new(Exit::NotFound, message))
}

/// The only value that was asked for: its lines stay lines.
fn print_text(value: &[u8], out: &mut Out) -> Result<()> {
    let value = value.strip_suffix(b"\n").unwrap_or(value);
    value.split(|byte| *byte == b'\n').try_for_each(|line| out.line(printable(line)))
}

/// Runs `granary scan`.
pub async fn scan(args: &ScanArgs, context: &Context, out: &mut Out) -> Result<()> {
    let client = connect(context, &args.store, args.version).await?;
    let options = ScanOptions {
        prefix: args.prefix.clone().into(),
        start: args.start.clone().into(),
        end: args.end.clone().into(),
        limit: args.limit,
    };
    let mut records = client.scan(options).await?;
    while let Some((key, value)) = records.next().await? {
        if args.json {
            let shown = Shown::of(&key, Some(&value));
            out.line(serde_json::to_string(&shown).expect("plain values serialise"))?;
        } else {
            print_record(&key, &value, args.raw, out)?;
        }
    }
    Ok(())
}

async fn connect(context: &Context, store: &str, version: u64) -> Result<KvClient> {
    let fs = context.connect().await?;
    Ok(KvClient::connect(&fs, store).await?.at_version(version))
}
