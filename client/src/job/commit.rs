//! How a job's output becomes visible: all at once, or not at all.
//!
//! A job that writes `/out/index` works in the hidden folder `/out/.index.job-ID` and commits by renaming that to the
//! final name: one operation of the namespace. Beside it, `/out/.index.alive-ID` is a file that the job holds open: its
//! lease tells others that the job lives. Until the rename nothing is visible, and a job that fails, panics or is
//! cancelled deletes its folder. A job that is killed leaves both behind; its lease may be taken over a minute later (the
//! NameNode's soft limit), and from then on [`clean`] removes them.
//!
//! If the target exists, a job refuses to start, unless it was told to overwrite. Then the old output stays readable
//! under its name until the new one is complete; it is renamed to `/out/.index.old-ID`, the new one is renamed into
//! place, and the old one is deleted. **Between the two renames the name is absent for a moment**; a job that is killed
//! right there leaves the old output whole under its hidden name, and [`clean`] renames it back. At no time is anything
//! but a complete output visible, and the old one is deleted only after the new one is in place.

use std::collections::BTreeSet;

use proto::granary::{FileKind, FileStatus, RenameMode};
use proto::limits::NAME_BYTES_MAX;
use proto::{Code, Error, FsPath, Result};

use crate::fs::{CreateOptions, Fs, Recursion};
use crate::write::FileWriter;

/// Characters of a job's id.
const ID_CHARS: usize = 12;
/// Bytes of an output's name: the hidden names beside it must fit into a name too.
const OUTPUT_NAME_BYTES_MAX: usize = NAME_BYTES_MAX - ".".len() - ".alive-".len() - ID_CHARS;
const FOLDER_MODE: u32 = 0o755;

/// What a job does where its target exists.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Existing {
    /// Refuses to start.
    #[default]
    Refuse,
    /// Replaces it when the new output is complete. See the module's head for the exact guarantee.
    Overwrite,
}

/// The role of a hidden name beside an output.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Role {
    Job,
    Alive,
    Old,
}

impl Role {
    const ALL: [(Self, &'static str); 3] =
        [(Self::Job, ".job-"), (Self::Alive, ".alive-"), (Self::Old, ".old-")];

    fn mark(self) -> &'static str {
        Self::ALL[self as usize].1
    }
}

/// The hidden name of a role.
fn hidden_name(output: &str, role: Role, id: &str) -> String {
    format!(".{output}{}{id}", role.mark())
}

/// The output, role and id of a hidden name, if it is one.
fn parse_hidden(name: &str) -> Option<(&str, Role, &str)> {
    let cut = name.len().checked_sub(ID_CHARS).filter(|&cut| name.is_char_boundary(cut))?;
    let (rest, id) = name.split_at(cut);
    let lower_hex = |b: u8| b.is_ascii_digit() || (b'a'..=b'f').contains(&b);
    if !id.bytes().all(lower_hex) {
        return None;
    }
    let rest = rest.strip_prefix('.')?;
    let found = Role::ALL.iter().find_map(|(role, mark)| Some((rest.strip_suffix(mark)?, *role)));
    found.filter(|(output, _)| !output.is_empty()).map(|(output, role)| (output, role, id))
}

/// The names of one job.
#[derive(Clone, Debug)]
struct Names {
    target: FsPath,
    parent: FsPath,
    work: FsPath,
    alive: FsPath,
    old: FsPath,
}

impl Names {
    fn new(target: &FsPath, id: &str) -> Result<Self> {
        let (Some(parent), Some(name)) = (target.parent(), target.name()) else {
            let message = "output /: a job writes a folder of its own, such as /out/index";
            return Err(Error::new(Code::InvalidArgument, message));
        };
        if name.len() > OUTPUT_NAME_BYTES_MAX {
            let message = format!(
                "output {target}: the name has {} bytes, at most {OUTPUT_NAME_BYTES_MAX} for a job",
                name.len()
            );
            return Err(Error::new(Code::InvalidPath, message));
        }
        let hidden = |role| parent.join(&hidden_name(name, role, id));
        let (work, alive, old) = (hidden(Role::Job)?, hidden(Role::Alive)?, hidden(Role::Old)?);
        Ok(Self { target: target.clone(), parent, work, alive, old })
    }
}

/// An output that is being written.
pub(crate) struct Output {
    fs: Fs,
    names: Names,
    existing: Existing,
    alive: FileWriter,
}

impl Output {
    /// Checks the target and makes the hidden folder.
    pub async fn begin(fs: &Fs, target: &FsPath, existing: Existing) -> Result<Self> {
        let id = &uuid::Uuid::new_v4().simple().to_string()[..ID_CHARS];
        let names = Names::new(target, id)?;
        if existing == Existing::Refuse && fs.try_status(target).await?.is_some() {
            let message =
                format!("output {target} exists: choose another name, or ask to overwrite it");
            return Err(Error::new(Code::AlreadyExists, message));
        }
        fs.mkdirs(&names.parent, FOLDER_MODE).await?;
        let options = CreateOptions { create_parents: false, ..CreateOptions::default() };
        let alive = fs.create(&names.alive, options).await?;
        let output = Self { fs: fs.clone(), names, existing, alive };
        match fs.mkdir(&output.names.work, FOLDER_MODE).await {
            Ok(()) => Ok(output),
            Err(error) => Err(output.abandon(error).await),
        }
    }

    /// Where to write.
    pub fn folder(&self) -> &FsPath {
        &self.names.work
    }

    /// Makes the output visible under its final name.
    pub async fn commit(self) -> Result<()> {
        match self.rename().await {
            Ok(replaced) => {
                self.end(replaced).await;
                Ok(())
            }
            Err(error) => Err(self.abandon(error).await),
        }
    }

    /// Removes what was written. Gives `error` back, with what could not be removed.
    pub async fn abandon(self, mut error: Error) -> Error {
        let Self { fs, names, alive, .. } = self;
        if let Err(left) = fs.delete(&names.work, Recursion::Yes).await
            && left.code != Code::NotFound
        {
            error.message = format!("{}; {} is left behind: {left}", error.message, names.work);
        }
        if let Err(left) = alive.abort().await {
            tracing::debug!("{} is left behind: {left}", names.alive);
        }
        error
    }

    /// Whether something was replaced.
    async fn rename(&self) -> Result<bool> {
        let Names { target, work, old, .. } = &self.names;
        let move_to = async |from, to| self.fs.rename(from, to, RenameMode::NoReplace).await;
        if self.existing == Existing::Refuse {
            move_to(work, target).await?;
            return Ok(false);
        }
        match move_to(target, old).await {
            Ok(()) => {}
            Err(error) if error.code == Code::NotFound => {
                move_to(work, target).await?;
                return Ok(false);
            }
            Err(error) => return Err(error),
        }
        let Err(error) = move_to(work, target).await else { return Ok(true) };
        match move_to(old, target).await {
            Ok(()) => Err(error),
            Err(stuck) => Err(error.context(format!(
                "the output that was to be replaced is at {old} now ({stuck}), and the new one failed"
            ))),
        }
    }

    /// Removes what is not needed any more. The output is in place: what fails here is left to [`clean`].
    async fn end(self, replaced: bool) {
        let Self { fs, names, alive, .. } = self;
        if replaced && let Err(error) = fs.delete(&names.old, Recursion::Yes).await {
            tracing::warn!("{} is left behind: {error}", names.old);
        }
        if let Err(error) = alive.abort().await {
            tracing::debug!("{} is left behind: {error}", names.alive);
        }
    }
}

/// One thing that [`clean`] does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Cleaned {
    /// A leftover of a dead job was deleted.
    Deleted(FsPath),
    /// An output that a dead job had moved aside got its name back.
    Restored(FsPath),
}

/// Removes what dead jobs left in `folder` (of outputs directly in it), and tells what was done. Leaves jobs alone that
/// live, and those whose lease has not ended yet: about a minute after they were killed.
pub async fn clean(fs: &Fs, folder: &FsPath) -> Result<Vec<Cleaned>> {
    let mut entries = fs.list(folder).await?;
    for entry in &mut entries {
        if entry.open_for_write && is_alive_file(entry) {
            entry.open_for_write = !take_over(fs, &folder.join(&entry.name)?).await?;
        }
    }
    let mut done = Vec::new();
    for step in plan_clean(&entries) {
        match step {
            Step::Restore { hidden, output } => {
                let target = folder.join(&output)?;
                fs.rename(&folder.join(&hidden)?, &target, RenameMode::NoReplace).await?;
                done.push(Cleaned::Restored(target));
            }
            Step::Delete(name) => {
                let path = folder.join(&name)?;
                fs.delete(&path, Recursion::Yes).await?;
                done.push(Cleaned::Deleted(path));
            }
        }
    }
    Ok(done)
}

/// Ends the lease on a dead job's file. False if its job lives.
async fn take_over(fs: &Fs, path: &FsPath) -> Result<bool> {
    match fs.append(path).await {
        // Ours now, and still without a byte; it is deleted next.
        Ok(file) => file.close().await.map(|_| true),
        Err(error) if error.code == Code::NotFound => Ok(true),
        Err(error) if error.code == Code::FileOpenElsewhere => Ok(false),
        Err(error) => Err(error),
    }
}

fn is_alive_file(entry: &FileStatus) -> bool {
    entry.kind == FileKind::File as i32
        && parse_hidden(&entry.name).is_some_and(|(_, role, _)| role == Role::Alive)
}

#[derive(Debug, PartialEq, Eq)]
enum Step {
    Restore { hidden: String, output: String },
    Delete(String),
}

/// What to do in a folder with these entries. Pure.
fn plan_clean(entries: &[FileStatus]) -> Vec<Step> {
    let hidden = || entries.iter().filter_map(|entry| Some((entry, parse_hidden(&entry.name)?)));
    let alive: BTreeSet<&str> = hidden()
        .filter(|(entry, (_, role, _))| *role == Role::Alive && entry.open_for_write)
        .map(|(_, (_, _, id))| id)
        .collect();
    let mut present: BTreeSet<&str> = entries.iter().map(|entry| entry.name.as_str()).collect();
    let (mut restores, mut deletes) = (Vec::new(), Vec::new());
    for (entry, (output, role, id)) in hidden() {
        let of_a_job =
            (entry.kind == FileKind::File as i32) == (role == Role::Alive) || role == Role::Old;
        if alive.contains(id) || !of_a_job {
            continue;
        }
        if role == Role::Old && present.insert(output) {
            let (hidden, output) = (entry.name.clone(), output.to_owned());
            restores.push(Step::Restore { hidden, output });
        } else {
            deletes.push(Step::Delete(entry.name.clone()));
        }
    }
    restores.append(&mut deletes);
    restores
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: &str = "0123456789ab";
    const B: &str = "ba9876543210";

    fn entry(name: &str, kind: FileKind, open: bool) -> FileStatus {
        FileStatus {
            name: name.to_owned(),
            kind: kind as i32,
            open_for_write: open,
            ..FileStatus::default()
        }
    }

    fn folder(name: String) -> FileStatus {
        entry(&name, FileKind::Folder, false)
    }

    #[test]
    fn hidden_names_parse_back_and_others_do_not() {
        for output in ["index", "a.b", ".x", "\u{e4}\u{e4}", "x.job-0123456789ab"] {
            for (role, _) in Role::ALL {
                assert_eq!(parse_hidden(&hidden_name(output, role, A)), Some((output, role, A)));
            }
        }
        for name in [
            "",
            ".",
            "index",
            ".index",
            ".index.job-",
            ".index.job-0123456789aB",
            ".index.job-0123456789a",
            "index.job-0123456789ab",
            ".job-0123456789ab",
            ".index.tmp-0123456789ab",
            "\u{e4}\u{e4}\u{e4}\u{e4}\u{e4}\u{e4}\u{e4}",
        ] {
            assert_eq!(parse_hidden(name), None, "{name}");
        }
    }

    #[test]
    fn names_lie_beside_the_target_and_are_hidden() {
        let target = FsPath::parse("/out/index").unwrap();
        let names = Names::new(&target, A).unwrap();
        assert_eq!(names.work.as_str(), "/out/.index.job-0123456789ab");
        assert_eq!(names.alive.as_str(), "/out/.index.alive-0123456789ab");
        assert_eq!(names.old.as_str(), "/out/.index.old-0123456789ab");
        let longest = FsPath::parse(&format!("/{}", "x".repeat(OUTPUT_NAME_BYTES_MAX))).unwrap();
        Names::new(&longest, A).unwrap();
        let too_long = FsPath::parse(&format!("{longest}x")).unwrap();
        assert_eq!(Names::new(&too_long, A).unwrap_err().code, Code::InvalidPath);
        assert_eq!(Names::new(&FsPath::root(), A).unwrap_err().code, Code::InvalidArgument);
    }

    #[test]
    fn a_living_job_is_left_alone_and_a_dead_one_is_removed() {
        let alive = |id, open| entry(&hidden_name("index", Role::Alive, id), FileKind::File, open);
        let work = |id| folder(hidden_name("index", Role::Job, id));
        let user = [folder("index".into()), folder(".hidden".into())];
        let mut entries = vec![alive(A, true), work(A), alive(B, false), work(B)];
        entries.extend(user);
        let steps = plan_clean(&entries);
        let deleted =
            [Role::Alive, Role::Job].map(|role| Step::Delete(hidden_name("index", role, B)));
        assert_eq!(steps, deleted);
    }

    #[test]
    fn an_output_that_was_moved_aside_gets_its_name_back() {
        let old = |id| hidden_name("index", Role::Old, id);
        let work = hidden_name("index", Role::Job, A);
        let entries = [folder(old(A)), folder(work.clone())];
        let restored = Step::Restore { hidden: old(A), output: "index".into() };
        assert_eq!(plan_clean(&entries), [restored, Step::Delete(work)]);
        // The new output is in place: the old one is of no use.
        let entries = [folder(old(A)), folder("index".into())];
        assert_eq!(plan_clean(&entries), [Step::Delete(old(A))]);
        // Of two, one gets the name.
        let entries = [folder(old(A)), folder(old(B))];
        let restored = Step::Restore { hidden: old(A), output: "index".into() };
        assert_eq!(plan_clean(&entries), [restored, Step::Delete(old(B))]);
    }

    #[test]
    fn a_users_file_of_such_a_name_but_another_kind_stays() {
        let file = entry(&hidden_name("index", Role::Job, A), FileKind::File, false);
        let dir = folder(hidden_name("index", Role::Alive, A));
        assert!(plan_clean(&[file, dir]).is_empty());
    }
}
