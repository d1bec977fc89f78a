//! `granary get` and `granary scan`: reads from a store, over gRPC.

use client::kv::{KvClient, ScanOptions};
use serde_json::{Map, Value};

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
    /// Print as JSON; what is not UTF-8 in hexadecimal, as `value_hex`
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
    /// Print as JSON, one record on a line; what is not UTF-8 in hexadecimal, as `key_hex` and `value_hex`
    #[arg(long, conflicts_with = "raw")]
    json: bool,
    /// Write bytes as they are; without it, what a terminal would obey is escaped
    #[arg(long)]
    raw: bool,
    /// The store
    store: String,
}

/// A record as JSON: bytes that are UTF-8 as `key` and `value`, others in hexadecimal as `key_hex` and `value_hex`. Of
/// a key that is not there, `value` is null.
fn shown(key: &[u8], value: Option<&[u8]>) -> Value {
    let (mut record, of_key) = (Map::new(), field("key", key));
    record.extend([of_key]);
    record.extend([value.map_or(("value".into(), Value::Null), |value| field("value", value))]);
    Value::Object(record)
}

fn field(name: &str, bytes: &[u8]) -> (String, Value) {
    match std::str::from_utf8(bytes) {
        Ok(text) => (name.to_owned(), text.into()),
        Err(_) => {
            let digits: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
            (format!("{name}_hex"), digits.into())
        }
    }
}

/// Runs `granary get`.
pub async fn get(args: &GetArgs, context: &Context, out: &mut Out) -> Result<()> {
    let client = connect(context, &args.store, args.version).await?;
    let keys: Vec<Vec<u8>> = args.keys.iter().map(|key| key.clone().into_bytes()).collect();
    let values = client.multi_get(&keys).await?;
    let pairs = keys.iter().zip(&values);
    if args.json {
        let all: Vec<Value> = pairs.map(|(key, value)| shown(key, value.as_deref())).collect();
        out.json(&all)?;
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
            out.line(shown(&key, Some(&value)))?;
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_holds_the_bytes_themselves() {
        let text = |key: &[u8], value: Option<&[u8]>| shown(key, value).to_string();
        assert_eq!(text(b"k", Some(b"a\n\tb")), r#"{"key":"k","value":"a\n\tb"}"#);
        assert_eq!(text(b"\xff\x00", Some(b"\xfe")), r#"{"key_hex":"ff00","value_hex":"fe"}"#);
        assert_eq!(text(b"k", None), r#"{"key":"k","value":null}"#);
    }
}
