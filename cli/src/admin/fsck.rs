//! `granary admin fsck`: checks files, and tells which have blocks that cannot be read.
//!
//! Prints while the check goes on, so that its memory does not grow with the tree. As JSON it is one object per line.

use client::{CheckOptions, Mend};
use proto::granary::check_files_event::Event;
use proto::granary::{CheckedBlock, CheckedFile, CheckedSums};
use serde_json::{Value, json};

use super::path;
use crate::connect::Context;
use crate::failure::{Exit, Failure, Result};
use crate::output::Out;
use crate::units;

const AFTER: &str = "\
Without --files only files in trouble are told: with missing blocks (no good replica is known), or
with fewer good replicas than wanted.

Ends with 0 if every block can be read, and with 7 if one cannot, also if all replicas of it are on
DataNodes that are down. A block that only lacks replicas is repaired by the cluster itself; --fix has
it repaired next.";

/// Options of `granary admin fsck`.
#[derive(clap::Args, Debug)]
#[command(after_help = AFTER)]
#[allow(clippy::struct_excessive_bools, reason = "each is a flag of the command line")]
pub struct FsckArgs {
    /// Tell every file and folder
    #[arg(long)]
    files: bool,
    /// Tell every block of the files that are told
    #[arg(long)]
    blocks: bool,
    /// Tell where the blocks are (with --blocks)
    #[arg(long, requires = "blocks")]
    locations: bool,
    /// Check files that are being written, too
    #[arg(long)]
    open: bool,
    /// Print one JSON object per line: files, blocks, and the sums last
    #[arg(long)]
    json: bool,
    /// Check racks, too: end with 7 if blocks stand in too few, and tell the rack of each place
    #[arg(long)]
    racks: bool,
    /// As if these DataNodes died now: what would be lost, per file and in sum. Each is named by its uuid, its host and
    /// data port, or its host
    #[arg(long, value_name = "NODE[,NODE]", value_delimiter = ',')]
    if_lost: Vec<String>,
    /// Copy what blocks lack before all else that waits for repair, and delete what they have too many of
    #[arg(long)]
    fix: bool,
    /// Move files with missing blocks under /lost+found
    #[arg(long = "move", conflicts_with = "delete")]
    mend_move: bool,
    /// Delete files with missing blocks
    #[arg(long)]
    delete: bool,
    /// The file or folder to check
    #[arg(default_value = "/")]
    path: String,
}

/// Runs `granary admin fsck`.
pub async fn run(args: &FsckArgs, context: &Context, out: &mut Out) -> Result<()> {
    let path = path(&args.path)?;
    let mend = match (args.mend_move, args.delete) {
        (true, _) => Mend::Move,
        (_, true) => Mend::Delete,
        _ => Mend::Leave,
    };
    let options = CheckOptions {
        blocks: args.blocks,
        open: args.open,
        mend,
        repair: args.fix,
        without: args.if_lost.clone(),
    };
    let fs = context.connect().await?;
    let mut told = Told { args, file_told: false, healthy: None };
    fs.check_files(&path, options, |event| told.tell(event, out)).await?;
    match told.healthy {
        Some(true) => Ok(()),
        Some(false) => Err(Failure::silent(Exit::Corrupt)),
        None => Err(Failure::new(Exit::Unreachable, "the check ended before its end")),
    }
}

/// What was printed so far.
struct Told<'a> {
    args: &'a FsckArgs,
    /// Whether the blocks that come are of a file that was told.
    file_told: bool,
    healthy: Option<bool>,
}

impl Told<'_> {
    fn tell(&mut self, event: Event, out: &mut Out) -> Result<()> {
        match event {
            Event::Folder(path) if self.args.files && self.args.json => {
                line(out, &json!({ "folder": path }))
            }
            Event::Folder(path) if self.args.files => {
                out.line(format_args!("{}/", path.trim_end_matches('/')))
            }
            Event::Folder(_) => Ok(()),
            Event::File(file) => {
                self.file_told = self.args.files || trouble(&file).is_some();
                match (self.file_told, self.args.json) {
                    (false, _) => Ok(()),
                    (true, true) => line(out, &file_json(&file)),
                    (true, false) => out.line(file_line(&file)),
                }
            }
            Event::Block(block) if self.file_told => match self.args.json {
                true => line(out, &self.block_json(&block)),
                false => out.line(self.block_line(&block)),
            },
            Event::Block(_) => Ok(()),
            Event::Mended(path) => {
                let verb = if self.args.delete { "deleted" } else { "moved to /lost+found" };
                match self.args.json {
                    true => line(out, &json!({ "mended": path, "by": verb })),
                    false => out.line(format_args!("{path}: {verb}")),
                }
            }
            Event::Sums(sums) => {
                self.healthy =
                    Some(sums.healthy && !(self.args.racks && sums.misplaced_blocks > 0));
                match self.args.json {
                    true => line(out, &sums_json(&sums)),
                    false => self.sums_lines(&sums).iter().try_for_each(|line| out.line(line)),
                }
            }
        }
    }

    fn block_line(&self, found: &CheckedBlock) -> String {
        let block = found.block.unwrap_or_default();
        let state = match (found.complete, found.live, found.damaged) {
            (false, ..) => "being written".to_owned(),
            (_, 0, true) => "MISSING, all replicas are damaged".to_owned(),
            (_, 0, false) => "MISSING".to_owned(),
            (_, live, _) => format!("{live} of {} replicas", found.wanted),
        };
        let places = if self.args.locations {
            format!("  {}", self.places(found).join(" "))
        } else {
            String::new()
        };
        format!(
            "  {:>4}  blk_{}_{}  {:>12} B  {state}{places}",
            found.index, block.id, block.generation_stamp, block.length
        )
    }

    fn block_json(&self, found: &CheckedBlock) -> Value {
        let block = found.block.unwrap_or_default();
        let mut value = json!({
            "block": format!("blk_{}_{}", block.id, block.generation_stamp),
            "index": found.index,
            "length": block.length,
            "complete": found.complete,
            "live": found.live,
            "wanted": found.wanted,
            "damaged": found.damaged,
        });
        if self.args.locations {
            value["locations"] = self.places(found).into();
        }
        value
    }
}

impl Told<'_> {
    fn places(&self, found: &CheckedBlock) -> Vec<String> {
        let racks = self.args.racks;
        let place = |at: &proto::granary::DatanodeAddress| match racks {
            true => format!("{}/{}:{}", at.rack, at.host, at.data_port),
            false => format!("{}:{}", at.host, at.data_port),
        };
        found.locations.iter().map(place).collect()
    }

    /// The sums, and what would be lost if that was asked.
    fn sums_lines(&self, sums: &CheckedSums) -> Vec<String> {
        let mut lines = sums_lines(sums);
        let names = self.args.if_lost.join(", ");
        if !names.is_empty() && sums.lost_blocks == 0 {
            lines.push(format!(
                "without {names}: nothing would be lost, {} down to the last copy",
                units::count(sums.endangered_blocks, "block")
            ));
        } else if !names.is_empty() {
            lines.push(format!(
                "without {names}: LOST {} of {} ({}), {} more down to the last copy",
                units::count(sums.lost_blocks, "block"),
                units::count(sums.lost_files, "file"),
                units::bytes(sums.lost_bytes),
                units::count(sums.endangered_blocks, "block")
            ));
        }
        if self.args.fix {
            lines.push(format!(
                "{} put before all others that wait for repair",
                units::count(sums.repairing_blocks, "block")
            ));
        }
        lines
    }
}

fn line(out: &mut Out, value: &Value) -> Result<()> {
    out.line(value)
}

/// What is wrong with a file, if anything is.
fn trouble(file: &CheckedFile) -> Option<String> {
    let mut parts = Vec::new();
    if file.missing_blocks > 0 {
        parts.push(format!(
            "MISSING {} of {} ({})",
            file.missing_blocks,
            units::count(file.blocks, "block"),
            units::bytes(file.missing_bytes)
        ));
    }
    if file.damaged_blocks > 0 {
        parts.push(format!("all replicas damaged of {}", file.damaged_blocks));
    }
    if file.short_blocks > 0 {
        parts.push(format!("too few replicas of {}", units::count(file.short_blocks, "block")));
    }
    if file.misplaced_blocks > 0 {
        parts.push(format!("too few racks of {}", units::count(file.misplaced_blocks, "block")));
    }
    if file.lost_blocks > 0 {
        parts.push(format!(
            "would lose {} ({})",
            units::count(file.lost_blocks, "block"),
            units::bytes(file.lost_bytes)
        ));
    }
    (!parts.is_empty()).then(|| parts.join(", "))
}

fn file_line(file: &CheckedFile) -> String {
    let state = trouble(file).unwrap_or_else(|| "ok".to_owned());
    let open = if file.open { ", being written" } else { "" };
    format!(
        "{}  {} in {}{open}: {state}",
        file.path,
        units::bytes(file.length),
        units::count(file.blocks, "block")
    )
}

fn file_json(file: &CheckedFile) -> Value {
    json!({
        "file": file.path,
        "length": file.length,
        "blocks": file.blocks,
        "open": file.open,
        "missing_blocks": file.missing_blocks,
        "missing_bytes": file.missing_bytes,
        "damaged_blocks": file.damaged_blocks,
        "short_blocks": file.short_blocks,
        "misplaced_blocks": file.misplaced_blocks,
        "lost_blocks": file.lost_blocks,
        "lost_bytes": file.lost_bytes,
        "endangered_blocks": file.endangered_blocks,
    })
}

fn sums_json(sums: &CheckedSums) -> Value {
    json!({ "sums": {
        "healthy": sums.healthy,
        "folders": sums.folders,
        "files": sums.files,
        "bytes": sums.bytes,
        "blocks": sums.blocks,
        "open_files": sums.open_files,
        "broken_files": sums.broken_files,
        "missing_blocks": sums.missing_blocks,
        "missing_bytes": sums.missing_bytes,
        "damaged_blocks": sums.damaged_blocks,
        "short_blocks": sums.short_blocks,
        "misplaced_blocks": sums.misplaced_blocks,
        "surplus_blocks": sums.surplus_blocks,
        "replicas": sums.replicas,
        "replicas_wanted": sums.replicas_wanted,
        "lost_files": sums.lost_files,
        "lost_blocks": sums.lost_blocks,
        "lost_bytes": sums.lost_bytes,
        "endangered_blocks": sums.endangered_blocks,
        "repairing_blocks": sums.repairing_blocks,
    } })
}

fn sums_lines(sums: &CheckedSums) -> Vec<String> {
    let mut lines = vec![format!(
        "{} in {}, {} in {}: {} of {} replicas",
        units::count(sums.files, "file"),
        units::count(sums.folders, "folder"),
        units::bytes(sums.bytes),
        units::count(sums.blocks, "block"),
        units::number(sums.replicas),
        units::number(sums.replicas_wanted)
    )];
    let mut more = |count: u64, what: &str| {
        if count > 0 {
            lines.push(format!("{}: {what}", units::number(count)));
        }
    };
    more(sums.open_files, "files are being written and were not checked (--open checks them)");
    more(sums.short_blocks, "blocks have fewer replicas than wanted");
    more(sums.misplaced_blocks, "blocks stand in too few racks");
    more(sums.surplus_blocks, "blocks have more replicas than wanted");
    more(sums.missing_blocks, "blocks are MISSING");
    more(sums.damaged_blocks, "of those have damaged replicas alone");
    more(sums.broken_files, "files cannot be read in whole");
    let verdict = if sums.healthy { "healthy" } else { "NOT HEALTHY: blocks are missing" };
    lines.push(verdict.to_owned());
    lines
}
