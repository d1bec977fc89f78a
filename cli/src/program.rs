//! How a user calls this program again: what commands that are suggested begin with.
//!
//! `granary` if the shell finds this program by that name, else its path, relative to the current folder if it lies
//! below: after `cargo run` nothing named `granary` is on the PATH. Looks at files; runs nothing.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};

const NAME: &str = "granary";

/// What to type.
pub fn called() -> String {
    let Ok(binary) = std::env::current_exe() else { return NAME.to_owned() };
    let path = std::env::var_os("PATH").unwrap_or_default();
    called_as(&binary, &path, std::env::current_dir().ok().as_deref())
}

fn called_as(binary: &Path, path: &OsStr, current: Option<&Path>) -> String {
    let found = std::env::split_paths(path).map(|folder| folder.join(NAME)).find(|at| at.is_file());
    if found.is_some_and(|found| same(&found, binary)) {
        return NAME.to_owned();
    }
    let below = current.and_then(|current| binary.strip_prefix(current).ok());
    let shown = below.map_or_else(|| binary.to_owned(), |below| PathBuf::from(".").join(below));
    shown.display().to_string()
}

fn same(left: &Path, right: &Path) -> bool {
    match (left.canonicalize(), right.canonicalize()) {
        (Ok(left), Ok(right)) => left == right,
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_name_is_enough_where_the_path_leads_to_this_program() {
        let temp = tempfile::tempdir().unwrap();
        let (bin, other) = (temp.path().join("bin"), temp.path().join("other"));
        for folder in [&bin, &other] {
            std::fs::create_dir(folder).unwrap();
            std::fs::write(folder.join(NAME), "").unwrap();
        }
        let binary = bin.join(NAME);
        let path = |folders: &[&PathBuf]| std::env::join_paths(folders).unwrap();
        assert_eq!(called_as(&binary, &path(&[&bin, &other]), None), NAME);
        let whole = binary.display().to_string();
        assert_eq!(called_as(&binary, &path(&[&other, &bin]), None), whole);
        assert_eq!(called_as(&binary, &path(&[]), Some(&other)), whole);
        assert_eq!(called_as(&binary, &path(&[]), Some(temp.path())), "./bin/granary");
    }
}
