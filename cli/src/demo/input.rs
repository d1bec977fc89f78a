//! What the demo works on: the user's text files, or the sources of the crates that cargo fetched.
//!
//! Text is what holds no NUL in its first 8 KiB. The order is that of the paths, so that two runs work on the same.

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use crate::failure::{Exit, Failure, Result};

const SNIFF_BYTES: u64 = 8 << 10;
/// Files that one demo stores; more are left out.
const FILES_MAX: usize = 200_000;
/// Folders of a source tree that hold what was made from it. Names that begin with `.` or `_` are left out too, as jobs
/// do.
const SKIPPED: &[&str] = &["target", "node_modules"];

/// A local text file, and the name that it gets in the cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TextFile {
    /// Where it is.
    pub local: PathBuf,
    /// Its path below the input folder of the cluster.
    pub name: String,
    /// Its length in bytes.
    pub bytes: u64,
}

/// What was found.
#[derive(Debug, Default)]
pub struct Input {
    /// The files, in order.
    pub files: Vec<TextFile>,
    /// Their bytes.
    pub bytes: u64,
    /// Whether there was more than the limit let in.
    pub cut: bool,
    /// Where they come from, for people.
    pub from: String,
}

/// Finds text below `paths`, or at the usual places if there are none. At most `bytes_max` bytes.
pub fn find(paths: &[PathBuf], bytes_max: u64) -> Result<Input> {
    if !paths.is_empty() {
        let from = paths.iter().map(|path| path.display().to_string()).collect::<Vec<_>>();
        let input = collect(paths, from.join(", "), bytes_max)?;
        if input.files.is_empty() {
            let message = format!("{}: no text files", input.from);
            return Err(Failure::new(Exit::NotFound, message));
        }
        return Ok(input);
    }
    for folder in usual() {
        let input =
            collect(std::slice::from_ref(&folder), folder.display().to_string(), bytes_max)?;
        if !input.files.is_empty() {
            return Ok(input);
        }
    }
    Err(Failure::new(Exit::NotFound, "no text files were found")
        .hint("name some: granary demo PATH..."))
}

/// Cargo's folders of fetched sources, one for each registry, then the current folder.
fn usual() -> Vec<PathBuf> {
    let home = std::env::var_os("CARGO_HOME")
        .map(PathBuf::from)
        .or_else(|| std::env::var_os("HOME").map(|home| PathBuf::from(home).join(".cargo")));
    let mut folders =
        home.and_then(|home| list(&home.join("registry/src")).ok()).unwrap_or_default();
    folders.retain(|folder| folder.is_dir());
    folders.reverse();
    folders.push(PathBuf::from("."));
    folders
}

fn collect(paths: &[PathBuf], from: String, bytes_max: u64) -> Result<Input> {
    let mut input = Input { from, ..Input::default() };
    for (index, path) in paths.iter().enumerate() {
        let metadata =
            std::fs::metadata(path).map_err(|error| Failure::io(path.display(), &error))?;
        // Several paths may hold files of the same name.
        let prefix = if paths.len() == 1 { String::new() } else { format!("{index}/") };
        if metadata.is_dir() {
            add_folder(path, &prefix, bytes_max, &mut input)?;
        } else {
            let name = path.file_name().and_then(|name| name.to_str()).unwrap_or("input");
            add_file(path, format!("{prefix}{name}"), metadata.len(), bytes_max, &mut input);
        }
    }
    Ok(input)
}

fn add_folder(root: &Path, prefix: &str, bytes_max: u64, input: &mut Input) -> Result<()> {
    // Paths yet to visit, the next one last. Folders that cannot be read are passed over, but for the root.
    let mut open = list(root).map_err(|error| Failure::io(root.display(), &error))?;
    while let Some(path) = open.pop() {
        if input.cut {
            return Ok(());
        }
        let Some(name) = path.file_name().and_then(|name| name.to_str()) else { continue };
        let Ok(metadata) = std::fs::symlink_metadata(&path) else { continue };
        if name.starts_with(['.', '_']) {
            continue;
        }
        if metadata.is_dir() {
            if !SKIPPED.contains(&name) {
                open.extend(list(&path).unwrap_or_default());
            }
        } else if metadata.is_file() {
            let below = path.strip_prefix(root).expect("it was found below the root");
            if let Some(below) = below.to_str() {
                add_file(&path, format!("{prefix}{below}"), metadata.len(), bytes_max, input);
            }
        }
    }
    Ok(())
}

/// What is in a folder, in reverse order.
fn list(folder: &Path) -> std::io::Result<Vec<PathBuf>> {
    let entries = std::fs::read_dir(folder)?;
    let mut paths = entries.map(|entry| Ok(entry?.path())).collect::<std::io::Result<Vec<_>>>()?;
    paths.sort_by(|left, right| right.cmp(left));
    Ok(paths)
}

fn add_file(path: &Path, name: String, bytes: u64, bytes_max: u64, input: &mut Input) {
    if bytes == 0 || !is_text(path) || proto::FsPath::parse(&format!("/{name}")).is_err() {
        return;
    }
    if input.bytes + bytes > bytes_max || input.files.len() == FILES_MAX {
        input.cut = true;
        return;
    }
    input.bytes += bytes;
    input.files.push(TextFile { local: path.to_owned(), name, bytes });
}

fn is_text(path: &Path) -> bool {
    let mut head = Vec::new();
    let read = File::open(path).and_then(|file| file.take(SNIFF_BYTES).read_to_end(&mut head));
    read.is_ok() && !head.contains(&0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_is_found_in_order_up_to_the_limit() {
        let temp = tempfile::tempdir().unwrap();
        let at = |name: &str| temp.path().join(name);
        std::fs::create_dir_all(at("b/target")).unwrap();
        std::fs::write(at("b/two.txt"), "two").unwrap();
        std::fs::write(at("b/target/made.txt"), "made").unwrap();
        std::fs::write(at("a.txt"), "one").unwrap();
        std::fs::write(at("c.bin"), b"\0\0").unwrap();
        std::fs::write(at("empty"), "").unwrap();
        let names = |input: &Input| -> Vec<String> {
            input.files.iter().map(|file| file.name.clone()).collect()
        };
        let input = find(&[temp.path().to_owned()], 1 << 20).unwrap();
        assert_eq!(names(&input), ["a.txt", "b/two.txt"]);
        assert_eq!((input.bytes, input.cut), (6, false));
        let input = find(&[temp.path().to_owned()], 4).unwrap();
        assert_eq!((names(&input), input.cut), (vec!["a.txt".to_owned()], true));
        let failure = find(&[at("c.bin")], 1 << 20).unwrap_err();
        assert_eq!(failure.exit, Exit::NotFound);
    }
}
