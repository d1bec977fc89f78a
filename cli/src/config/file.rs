//! The configuration file: where it is, and its keys with their lines.
//!
//! One file is read: the one that `--config` or `GRANARY_CONFIG` names (it must be there), or the first that exists of
//! `./granary.toml`, `~/.config/granary/granary.toml` and `/etc/granary/granary.toml`. At most 1 MiB.

use std::io::Read;
use std::path::{Path, PathBuf};

use toml::de::DeTable;

use crate::failure::{Failure, Result};

const FILE_BYTES_MAX: u64 = 1 << 20;

/// One `key = value` of the file.
#[derive(Clone, Debug, PartialEq)]
pub struct Line {
    /// The section it stands in.
    pub section: String,
    /// Its key.
    pub key: String,
    /// Its value, of whatever type the user wrote.
    pub value: toml::Value,
    /// The line it begins on, counted from 1.
    pub number: usize,
}

/// The file to read, if there is one.
pub fn find(chosen: Option<&Path>, environment: &[(String, String)]) -> Result<Option<PathBuf>> {
    let variable = |wanted: &str| {
        let found = environment.iter().find(|(name, text)| name == wanted && !text.is_empty());
        found.map(|(_, text)| PathBuf::from(text))
    };
    let named = chosen.map(|path| ("--config", path.to_owned()));
    let named = named.or_else(|| Some(("GRANARY_CONFIG", variable("GRANARY_CONFIG")?)));
    if let Some((by, path)) = named {
        if !path.is_file() {
            let message = format!("{by} {}: no such file", path.display());
            return Err(Failure::usage(message)
                .hint("`granary config --example > granary.toml` writes one to begin with"));
        }
        return Ok(Some(path));
    }
    let home = variable("XDG_CONFIG_HOME").or_else(|| Some(variable("HOME")?.join(".config")));
    let usual = [
        Some(PathBuf::from("granary.toml")),
        home.map(|folder| folder.join("granary/granary.toml")),
        Some(PathBuf::from("/etc/granary/granary.toml")),
    ];
    Ok(usual.into_iter().flatten().find(|path| path.is_file()))
}

/// Reads a file.
pub fn read(path: &Path) -> Result<Vec<Line>> {
    let fail = |error: &std::io::Error| {
        Failure::usage(format!("configuration file {}: {error}", path.display()))
    };
    let file = std::fs::File::open(path).map_err(|error| fail(&error))?;
    let mut text = String::new();
    file.take(FILE_BYTES_MAX + 1).read_to_string(&mut text).map_err(|error| fail(&error))?;
    if text.len() as u64 > FILE_BYTES_MAX {
        let message = format!("configuration file {} exceeds 1 MiB", path.display());
        return Err(Failure::usage(message));
    }
    parse(path, &text)
}

/// Parses a file's text. Errors name the file and the line.
pub fn parse(path: &Path, text: &str) -> Result<Vec<Line>> {
    let at = |offset: usize| {
        1 + text.as_bytes()[..offset.min(text.len())].iter().filter(|byte| **byte == b'\n').count()
    };
    let place = |line: usize| format!("{}:{line}", path.display());
    let broken = |error: toml::de::Error| {
        let line = error.span().map_or(1, |span| at(span.start));
        Failure::usage(format!("{}: {}", place(line), error.message().replace('\n', ", ")))
    };
    let spans = DeTable::parse(text).map_err(broken)?;
    let mut values: toml::Table = toml::from_str(text).map_err(broken)?;
    let mut lines = Vec::new();
    for (section, inner) in spans.get_ref() {
        let Some(keys) = inner.get_ref().as_table() else {
            let message = format!(
                "{}: key {:?} stands outside a section",
                place(at(section.span().start)),
                section.get_ref()
            );
            return Err(Failure::usage(message).hint("write it under [namenode], [datanode], ..."));
        };
        let name = section.get_ref().to_string();
        let mut own = match values.remove(&name) {
            Some(toml::Value::Table(own)) => own,
            _ => toml::Table::new(),
        };
        for key in keys.keys() {
            let (key, number) = (key.get_ref().to_string(), at(key.span().start));
            let value = own.remove(&key).expect("both parsers read the same text");
            lines.push(Line { section: name.clone(), key, value, number });
        }
        if keys.is_empty() {
            // An empty section still has to be a known one.
            let number = at(section.span().start);
            let value = toml::Value::Boolean(false);
            lines.push(Line { section: name, key: String::new(), value, number });
        }
    }
    lines.sort_by_key(|line| line.number);
    Ok(lines)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_know_their_lines() {
        let text = "# head\n[namenode]\n\ndir = \"/x\"\n[log]\nlevel = \"info\"\n";
        let lines = parse(Path::new("g.toml"), text).unwrap();
        let told: Vec<_> =
            lines.iter().map(|l| (l.section.as_str(), l.key.as_str(), l.number)).collect();
        assert_eq!(told, [("namenode", "dir", 4), ("log", "level", 6)]);
    }

    #[test]
    fn broken_text_and_stray_keys_name_file_and_line() {
        let message = |text: &str| parse(Path::new("g.toml"), text).unwrap_err().message;
        assert!(message("[log]\nlevel = = 3\n").starts_with("g.toml:2: "));
        assert!(
            message("\nlevel = \"info\"\n").starts_with("g.toml:2: key \"level\" stands outside")
        );
    }
}
