//! cat, head, tail, checksum: what files hold.

use std::collections::VecDeque;
use std::time::Duration;

use proto::{Code, Error, FsPath};
use serde::Serialize;

use super::{Shell, each};
use crate::failure::Result;
use crate::output::Out;
use crate::units;

const LINES_DEFAULT: u64 = 10;
/// `tail` looks for lines from the end in steps of so many bytes.
const TAIL_STEP_BYTES: u64 = 64 << 10;
/// `tail -n` gives up on longer ends; `-c` has no such bound.
const TAIL_BYTES_MAX: u64 = 64 << 20;
const FOLLOW_INTERVAL: Duration = Duration::from_millis(500);

/// Options of `granary fs cat`.
#[derive(clap::Args, Debug)]
pub struct CatArgs {
    /// Files; patterns match
    #[arg(required = true)]
    paths: Vec<String>,
}

/// Options of `granary fs head`.
#[derive(clap::Args, Debug)]
pub struct HeadArgs {
    /// So many lines
    #[arg(short = 'n', long, default_value_t = LINES_DEFAULT)]
    lines: u64,
    /// So many bytes instead, as in 4K
    #[arg(short = 'c', long, value_parser = units::parse_bytes, conflicts_with = "lines")]
    bytes: Option<u64>,
    /// The file
    path: String,
}

/// Options of `granary fs tail`.
#[derive(clap::Args, Debug)]
pub struct TailArgs {
    /// So many lines
    #[arg(short = 'n', long, default_value_t = LINES_DEFAULT)]
    lines: u64,
    /// So many bytes instead, as in 4K
    #[arg(short = 'c', long, value_parser = units::parse_bytes, conflicts_with = "lines")]
    bytes: Option<u64>,
    /// Go on as the file grows, until Ctrl-C
    #[arg(short, long)]
    follow: bool,
    /// The file
    path: String,
}

/// Options of `granary fs checksum`.
#[derive(clap::Args, Debug)]
pub struct ChecksumArgs {
    /// Print as JSON
    #[arg(long)]
    json: bool,
    /// The CRC of the bytes (HDFS's COMPOSITE_CRC), the same whatever the blocks and chunks are
    #[arg(long)]
    composite: bool,
    /// Files; patterns match
    #[arg(required = true)]
    paths: Vec<String>,
}

/// Runs `granary fs cat`.
pub async fn cat(args: &CatArgs, shell: &Shell, out: &mut Out) -> Result<()> {
    let paths = shell.expand_all(&args.paths).await?;
    cat_paths(&paths, shell, out).await
}

/// Writes files to standard output, one after another.
pub async fn cat_paths(paths: &[FsPath], shell: &Shell, out: &mut Out) -> Result<()> {
    for path in paths {
        refuse_folder(path, shell).await?;
        let mut reader = shell.fs.open(path).await?;
        while let Some(chunk) = reader.read_next().await? {
            out.bytes(&chunk)?;
        }
    }
    Ok(())
}

async fn refuse_folder(path: &FsPath, shell: &Shell) -> Result<()> {
    if shell.found(path).await?.is_folder() {
        return Err(Error::new(Code::IsFolder, format!("{path}: is a folder")).into());
    }
    Ok(())
}

/// Runs `granary fs head`.
pub async fn head(args: &HeadArgs, shell: &Shell, out: &mut Out) -> Result<()> {
    let path = shell.path(&args.path)?;
    refuse_folder(&path, shell).await?;
    let mut reader = shell.fs.open(&path).await?;
    let (mut lines, mut bytes) = (args.lines, args.bytes.unwrap_or(u64::MAX));
    while lines > 0 && bytes > 0 {
        let Some(chunk) = reader.read_next().await? else { break };
        let mut take = chunk.len().min(usize::try_from(bytes).unwrap_or(usize::MAX));
        if args.bytes.is_none() {
            let ends = chunk.iter().enumerate().filter(|(_, byte)| **byte == b'\n');
            let wanted = usize::try_from(lines).unwrap_or(usize::MAX);
            let mut seen = 0;
            for (index, _) in ends.take(wanted) {
                (seen, take) = (seen + 1, if seen + 1 == wanted { index + 1 } else { chunk.len() });
            }
            lines -= seen as u64;
        }
        out.bytes(&chunk[..take])?;
        bytes -= take as u64;
    }
    Ok(())
}

/// Runs `granary fs tail`.
pub async fn tail(args: &TailArgs, shell: &Shell, out: &mut Out) -> Result<()> {
    let path = shell.path(&args.path)?;
    refuse_folder(&path, shell).await?;
    let mut reader = shell.fs.open(&path).await?;
    let mut at = match args.bytes {
        Some(bytes) => reader.len().saturating_sub(bytes),
        None => start_of_last_lines(&reader, args.lines).await?,
    };
    loop {
        at = copy_from(&reader, at, out).await?;
        if !args.follow {
            return Ok(());
        }
        out.flush()?;
        tokio::time::sleep(FOLLOW_INTERVAL).await;
        reader = shell.fs.open(&path).await?;
        if reader.len() < at {
            crate::output::note(format_args!("granary: {path} was cut; starting over"));
            at = 0;
        }
    }
}

/// Writes from `at` to the end; gives where that is.
async fn copy_from(reader: &client::FileReader, mut at: u64, out: &mut Out) -> Result<u64> {
    let mut buffer = vec![0; 1 << 20];
    loop {
        let count = reader.read_at(at, &mut buffer).await?;
        if count == 0 {
            return Ok(at);
        }
        out.bytes(&buffer[..count])?;
        at += count as u64;
    }
}

/// Where the last `lines` lines begin, looking back from the end.
async fn start_of_last_lines(reader: &client::FileReader, lines: u64) -> Result<u64> {
    let end = reader.len();
    let mut ends: VecDeque<u64> = VecDeque::new();
    let mut at = end;
    let wanted = usize::try_from(lines).unwrap_or(usize::MAX);
    while at > 0 && ends.len() <= wanted && end - at < TAIL_BYTES_MAX {
        let from = at.saturating_sub(TAIL_STEP_BYTES);
        let mut buffer = vec![0; (at - from) as usize];
        let mut filled = 0;
        while filled < buffer.len() {
            let count = reader.read_at(from + filled as u64, &mut buffer[filled..]).await?;
            if count == 0 {
                break;
            }
            filled += count;
        }
        for (index, byte) in buffer[..filled].iter().enumerate().rev() {
            // The line end at the very end of the file ends the last line; it begins none.
            let position = from + index as u64 + 1;
            if *byte == b'\n' && position != end {
                ends.push_front(position);
                if ends.len() >= wanted {
                    return Ok(if wanted == 0 { end } else { ends[0] });
                }
            }
        }
        at = from;
    }
    Ok(if wanted == 0 { end } else { at })
}

#[derive(Serialize)]
struct Sum {
    path: String,
    algorithm: String,
    checksum: String,
}

/// Runs `granary fs checksum`.
pub async fn checksum(args: &ChecksumArgs, shell: &Shell, out: &mut Out) -> Result<()> {
    let paths = shell.expand_all(&args.paths).await?;
    let sums = std::cell::RefCell::new(Vec::new());
    let result = each(&paths, async |path| {
        refuse_folder(path, shell).await?;
        let (algorithm, checksum) = if args.composite {
            let sum = shell.fs.composite_checksum(path).await?;
            (sum.algorithm(), sum.hex())
        } else {
            let sum = shell.fs.checksum(path).await?;
            (sum.algorithm(), sum.hex())
        };
        sums.borrow_mut().push(Sum { path: path.to_string(), algorithm, checksum });
        Ok(())
    })
    .await;
    let sums = sums.into_inner();
    if args.json {
        out.json(&sums)?;
    } else {
        for sum in &sums {
            out.line(format_args!("{}  {}  {}", sum.checksum, sum.algorithm, sum.path))?;
        }
    }
    result
}
