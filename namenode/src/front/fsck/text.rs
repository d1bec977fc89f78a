//! The report of a check as HDFS's `fsck` prints it.
//!
//! Java's `hdfs fsck` passes it on as it is and takes its exit code from the last line; scripts read the rest. The
//! format is that of HDFS 2.7: one dot per file unless files are named, then the sums.

use std::fmt::Write;

use super::Mend;
use super::events::{Event, FoundBlock, FoundFile, Sums};
use crate::front::hadoop::storage_id;

const FILES_PER_LINE: u64 = 100;

/// What is printed of files and blocks.
#[derive(Clone, Copy, Debug, Default)]
pub struct Shown {
    /// Every file and folder.
    pub files: bool,
    /// Every block. Only with files.
    pub blocks: bool,
    /// Where its replicas are.
    pub locations: bool,
    /// In which racks.
    pub racks: bool,
    /// Files that are being written.
    pub open: bool,
}

/// What the sums are shown with.
#[derive(Clone, Debug, Default)]
pub struct Surroundings {
    /// The block pool.
    pub pool_id: String,
    /// Replicas of a new file.
    pub replication: u32,
    /// The fewest good replicas that count as safe.
    pub replication_min: u32,
    /// DataNodes that live.
    pub datanodes: usize,
    /// Racks that they stand in.
    pub racks: usize,
}

/// Turns events into text.
pub struct Text {
    shown: Shown,
    around: Surroundings,
    files: u64,
    /// The file that is being told.
    path: String,
}

impl Text {
    pub fn new(shown: Shown, around: Surroundings) -> Self {
        Self { shown, around, files: 0, path: String::new() }
    }

    /// Appends what an event says. The ends of a check are not told here.
    pub fn tell(&mut self, event: &Event, out: &mut String) {
        let add = |text: std::fmt::Arguments<'_>, out: &mut String| {
            out.write_fmt(text).expect("a String takes any text");
        };
        match event {
            Event::Folder(path) if self.shown.files => add(format_args!("{path} <dir>\n"), out),
            Event::File(file) => self.file(file, out),
            Event::Bad(block) => self.bad(block, out),
            Event::FileChecked(file) => self.checked(file, out),
            Event::Block(block) if self.shown.files => self.block(block, out),
            Event::BlocksTold if self.shown.files => out.push('\n'),
            Event::Mended(Mend::Move, path) => {
                add(format_args!("\n{path}: moved to /lost+found{path}\n"), out);
            }
            Event::Mended(_, path) => add(format_args!("\n{path}: deleted\n"), out),
            Event::Folder(_) | Event::Block(_) | Event::BlocksTold => {}
            Event::Sums(_) | Event::Failed(_) => {}
        }
    }

    fn file(&mut self, file: &FoundFile, out: &mut String) {
        let FoundFile { path, length, blocks, .. } = file;
        self.files += 1;
        self.path = path.clone();
        // As Hadoop 3 tells it; what is replicated is told as HDFS 2.7 does.
        let coding = file
            .coding
            .map_or(String::new(), |policy| format!(" erasure-coded: policy={},", policy.name));
        let head = if self.shown.open && file.open {
            format!("{path} {length} bytes,{coding} {blocks} block(s), OPENFORWRITE: ")
        } else if self.shown.files {
            format!("{path} {length} bytes,{coding} {blocks} block(s): ")
        } else {
            ".".to_owned()
        };
        out.push_str(&head);
        if self.files.is_multiple_of(FILES_PER_LINE) {
            out.push('\n');
        }
    }

    fn bad(&self, found: &FoundBlock, out: &mut String) {
        let (pool, path) = (&self.around.pool_id, &self.path);
        let block = found.block;
        let text = if found.is_misplaced() && !found.is_short() {
            let lead = if self.shown.files { String::new() } else { format!("\n{path}: ") };
            format!(
                "{lead} Replica placement policy is violated for {pool}:blk_{}_{}. \
                 Block should be additionally replicated on {} more rack(s).\n",
                block.id.0.cast_signed(),
                block.stamp.0,
                found.racks_lacking
            )
        } else if found.is_damaged() {
            format!("\n{path}: CORRUPT blockpool {pool} block blk_{}\n", block.id.0.cast_signed())
        } else {
            let lead = if self.shown.files { String::new() } else { format!("\n{path}: ") };
            format!(
                "{lead} Under replicated {pool}:blk_{}_{}. Target Replicas is {} but found {} replica(s).\n",
                block.id.0.cast_signed(),
                block.stamp.0,
                found.wanted,
                found.live
            )
        };
        out.push_str(&text);
    }

    fn checked(&self, file: &FoundFile, out: &mut String) {
        let FoundFile { path, missing, missing_bytes, .. } = file;
        let text = match (*missing > 0, self.shown.files) {
            (true, false) => {
                format!("\n{path}: MISSING {missing} blocks of total size {missing_bytes} B.")
            }
            (true, true) => format!(" MISSING {missing} blocks of total size {missing_bytes} B\n"),
            (false, true) if file.short == 0 && file.misplaced == 0 => " OK\n".to_owned(),
            (false, _) => String::new(),
        };
        out.push_str(&text);
    }

    fn block(&self, found: &FoundBlock, out: &mut String) {
        let (pool, block) = (&self.around.pool_id, found.block);
        let mut line = format!(
            "{}. {pool}:blk_{}_{} len={}",
            found.index,
            block.id.0.cast_signed(),
            block.stamp.0,
            block.length
        );
        if found.is_missing() {
            line.push_str(" MISSING!");
        } else {
            let what = if found.is_group() { "Live_repl" } else { "repl" };
            line.push_str(&format!(" {what}={}", found.live));
            if self.shown.locations || self.shown.racks {
                line.push_str(&format!(" [{}]", self.places(found).join(", ")));
            }
        }
        line.push('\n');
        out.push_str(&line);
    }

    fn places(&self, found: &FoundBlock) -> Vec<String> {
        let place = |(number, node): (usize, &proto::granary::DatanodeAddress)| {
            let unit = found.units.get(number);
            let unit = unit.map_or(String::new(), |&unit| {
                format!("blk_{}:", found.block.id.of_unit(unit).0.cast_signed())
            });
            let at = format!("{unit}{}:{}", node.host, node.data_port);
            if self.shown.racks {
                format!("{}/{at}", node.rack)
            } else {
                format!("DatanodeInfoWithStorage[{at},{},DISK]", storage_id(&node.uuid))
            }
        };
        found.nodes.iter().enumerate().map(place).collect()
    }

    /// The sums, and what surrounds them.
    pub fn sums(&self, sums: &Sums, out: &mut String) {
        let lines = self.lines(sums);
        for line in lines {
            out.push_str(&line);
            out.push('\n');
        }
    }

    fn lines(&self, sums: &Sums) -> Vec<String> {
        let blocks = sums.blocks;
        let maybe = |condition: bool, text: String| if condition { text } else { String::new() };
        let mut lines = vec![
            format!("Status: {}", if sums.is_healthy() { "HEALTHY" } else { "CORRUPT" }),
            format!(
                " Total size:\t{} B{}",
                sums.bytes,
                maybe(
                    sums.open_bytes > 0,
                    format!(" (Total open files size: {} B)", sums.open_bytes)
                )
            ),
            format!(" Total dirs:\t{}", sums.folders),
            format!(" Total files:\t{}", sums.files),
            format!(
                " Total symlinks:\t\t0{}",
                maybe(
                    sums.open_files > 0,
                    format!(" (Files currently being written: {})", sums.open_files)
                )
            ),
            format!(
                " Total blocks (validated):\t{blocks}{}{}",
                maybe(blocks > 0, format!(" (avg. block size {} B)", sums.bytes / blocks.max(1))),
                maybe(
                    sums.open_blocks > 0,
                    format!(" (Total open file blocks (not validated): {})", sums.open_blocks)
                )
            ),
        ];
        lines.extend(self.alarm(sums));
        lines.extend([
            format!(" Minimally replicated blocks:\t{}", of(sums.at_min, blocks)),
            format!(" Over-replicated blocks:\t{}", of(sums.over, blocks)),
            format!(" Under-replicated blocks:\t{}", of(sums.short, blocks)),
            format!(" Mis-replicated blocks:\t\t{}", of(sums.misplaced, blocks)),
            format!(" Default replication factor:\t{}", self.around.replication),
            format!(
                " Average block replication:\t{:?}",
                if blocks == 0 { 0.0 } else { sums.replicas as f32 / blocks as f32 }
            ),
            format!(" Corrupt blocks:\t\t{}", sums.damaged),
            format!(
                " Missing replicas:\t\t{}",
                if sums.replicas == 0 {
                    sums.replicas_lacking.to_string()
                } else {
                    of(sums.replicas_lacking, sums.replicas_wanted)
                }
            ),
            format!(" Number of data-nodes:\t\t{}", self.around.datanodes),
            format!(" Number of racks:\t\t{}", self.around.racks),
        ]);
        lines
    }

    /// The box that stands out if something is wrong.
    fn alarm(&self, sums: &Sums) -> Vec<String> {
        const STARS: &str = "  ********************************";
        if sums.broken_files == 0 && sums.below_min == 0 {
            return Vec::new();
        }
        let mut lines = vec![STARS.to_owned()];
        if sums.below_min > 0 {
            lines.push(format!("  UNDER MIN REPL'D BLOCKS:\t{}", of(sums.below_min, sums.blocks)));
            lines.push(format!("  dfs.namenode.replication.min:\t{}", self.around.replication_min));
        }
        if sums.broken_files > 0 {
            lines.push(format!("  CORRUPT FILES:\t{}", sums.broken_files));
            if sums.missing > 0 {
                lines.push(format!("  MISSING BLOCKS:\t{}", sums.missing));
                lines.push(format!("  MISSING SIZE:\t\t{} B", sums.missing_bytes));
            }
            if sums.damaged > 0 {
                lines.push(format!("  CORRUPT BLOCKS: \t{}", sums.damaged));
            }
        }
        lines.push(STARS.to_owned());
        lines
    }
}

/// A count with its share of a whole, as Java prints a float.
fn of(count: u64, whole: u64) -> String {
    if whole == 0 {
        return count.to_string();
    }
    format!("{count} ({:?} %)", (count * 100) as f32 / whole as f32)
}
