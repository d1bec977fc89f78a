//! The configuration in force: every key with its value and where that value comes from.
//!
//! Later layers win: the default of the role, the file, the environment, the command line. All of them go through
//! [`Settings::set`], which refuses a key that no role has and names the nearest one. The keys, their types and their
//! defaults come from serialising each role's `Config::default()`: there is no second list to keep.
//!
//! | module | owns |
//! |---|---|
//! | [`schema`] | which sections there are, their defaults, and what each key means |
//! | [`file`] | finding and parsing the TOML file, with the line of each key |
//! | [`value`] | text to a value of the key's type: sizes, times, lists |
//! | [`nearest`] | the known name that a wrong one probably meant |
//! | [`show`] | `granary config` |
//!
//! Does not check what values mean: the roles do, when they start.

pub mod file;
pub mod nearest;
pub mod schema;
pub mod show;
pub mod value;

use std::fmt;
use std::path::{Path, PathBuf};

use serde::de::DeserializeOwned;

use crate::failure::{Failure, Result};

/// Where a value comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    /// The role's own default.
    Default,
    /// A line of the configuration file.
    File(PathBuf, usize),
    /// An environment variable.
    Environment(String),
    /// An option of the command line.
    Flag(String),
    /// Another key that stands for several.
    Key(String, Box<Origin>),
    /// `granary up` and `granary demo` lay out their folder and ports themselves.
    Embedded,
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default => f.write_str("default"),
            Self::File(path, line) => write!(f, "{}:{line}", path.display()),
            Self::Environment(name) => write!(f, "environment {name}"),
            Self::Flag(flag) => write!(f, "flag {flag}"),
            Self::Key(key, origin) => write!(f, "{key} ({origin})"),
            Self::Embedded => f.write_str("chosen by the embedded cluster"),
        }
    }
}

/// One key: what is in force, and why.
#[derive(Clone, Debug)]
pub struct Entry {
    /// The key within its section.
    pub key: String,
    /// The value in force.
    pub value: toml::Value,
    /// The role's default; its type is the key's type.
    pub default: toml::Value,
    /// Where the value comes from.
    pub origin: Origin,
}

/// One section of the file, one role of the cluster.
#[derive(Clone, Debug)]
pub struct Section {
    /// Its name, as in `[namenode]`.
    pub name: &'static str,
    /// Its keys in the order of the role's struct.
    pub entries: Vec<Entry>,
}

/// Everything that is configured.
#[derive(Clone, Debug)]
pub struct Settings {
    sections: Vec<Section>,
    /// The file that was read, if any.
    pub file: Option<PathBuf>,
}

impl Settings {
    /// What holds if nobody says anything.
    pub fn defaults() -> Self {
        Self { sections: schema::sections(), file: None }
    }

    /// Defaults, then the file, then the environment, then `--set` options.
    ///
    /// `chosen` is the file that `--config` names; without it the usual places are tried.
    pub fn load(
        chosen: Option<&Path>,
        environment: &[(String, String)],
        assignments: &[String],
    ) -> Result<Self> {
        let mut settings = Self::defaults();
        if let Some(path) = file::find(chosen, environment)? {
            settings.read_file(&path)?;
        }
        settings.read_environment(environment)?;
        for assignment in assignments {
            settings.read_assignment(assignment)?;
        }
        settings.share_cluster()?;
        Ok(settings)
    }

    /// The sections in their order.
    pub fn sections(&self) -> &[Section] {
        &self.sections
    }

    /// One key. Panics if there is none: for keys that the program itself names.
    pub fn entry(&self, section: &str, key: &str) -> &Entry {
        let found = self.find(section, key);
        found.unwrap_or_else(|| panic!("{section}.{key} is a key of its role's Config"))
    }

    /// The text of a key that holds text. Panics if there is none.
    pub fn text(&self, section: &str, key: &str) -> &str {
        self.entry(section, key).value.as_str().expect("a key that holds text")
    }

    fn find(&self, section: &str, key: &str) -> Option<&Entry> {
        let section = self.sections.iter().find(|known| known.name == section)?;
        section.entries.iter().find(|entry| entry.key == key)
    }

    /// Sets one key. `at` names the place for the error about an unknown key or a wrong type.
    pub fn set(
        &mut self,
        section: &str,
        key: &str,
        given: toml::Value,
        origin: Origin,
    ) -> Result<()> {
        let at = origin.to_string();
        let names: Vec<&str> = self.sections.iter().map(|known| known.name).collect();
        let Some(known) = self.sections.iter_mut().find(|known| known.name == section) else {
            return Err(unknown(&at, &format!("section [{section}]"), section, &names));
        };
        let keys: Vec<String> = known.entries.iter().map(|entry| entry.key.clone()).collect();
        let Some(entry) = known.entries.iter_mut().find(|entry| entry.key == key) else {
            let keys: Vec<&str> = keys.iter().map(String::as_str).collect();
            return Err(unknown(&at, &format!("key {key:?} in [{section}]"), key, &keys));
        };
        entry.value = value::fit(key, given, &entry.default)
            .map_err(|why| Failure::usage(format!("{at}: {section}.{key}: {why}")))?;
        entry.origin = origin;
        Ok(())
    }

    /// Sets one key from text of the command line or the environment.
    pub fn set_text(&mut self, section: &str, key: &str, text: &str, origin: Origin) -> Result<()> {
        let wanted = self.find(section, key).map(|entry| entry.default.clone());
        let given = match wanted {
            Some(default) => value::parse(key, text, &default)
                .map_err(|why| Failure::usage(format!("{origin}: {section}.{key}: {why}")))?,
            None => toml::Value::String(text.to_owned()), // refused by name below
        };
        self.set(section, key, given, origin)
    }

    fn read_file(&mut self, path: &Path) -> Result<()> {
        for line in file::read(path)? {
            let origin = Origin::File(path.to_owned(), line.number);
            self.set(&line.section, &line.key, line.value, origin)?;
        }
        self.file = Some(path.to_owned());
        Ok(())
    }

    /// `GRANARY_<SECTION>_<KEY>`. Other variables that begin with `GRANARY_` are not ours to judge.
    fn read_environment(&mut self, environment: &[(String, String)]) -> Result<()> {
        let mut ours: Vec<&(String, String)> =
            environment.iter().filter(|(name, _)| name.starts_with("GRANARY_")).collect();
        ours.sort(); // so that the first error is always the same
        for (name, text) in ours {
            let lower = name["GRANARY_".len()..].to_ascii_lowercase();
            let Some((section, key)) = self.split_variable(&lower) else { continue };
            self.set_text(&section, &key, text, Origin::Environment(name.clone()))?;
        }
        Ok(())
    }

    fn split_variable(&self, lower: &str) -> Option<(String, String)> {
        let of = |section: &Section| {
            let key = lower.strip_prefix(section.name)?.strip_prefix('_')?;
            Some((section.name.to_owned(), key.to_owned()))
        };
        self.sections.iter().find_map(of)
    }

    /// One `--set section.key=value`.
    fn read_assignment(&mut self, assignment: &str) -> Result<()> {
        let parts = assignment.split_once('=').and_then(|(name, text)| {
            let (section, key) = name.trim().split_once('.')?;
            Some((section, key, text))
        });
        let Some((section, key, text)) = parts else {
            return Err(Failure::usage(format!("--set {assignment}: expected section.key=value"))
                .hint("for example --set namenode.replication=2"));
        };
        self.set_text(section, key, text, Origin::Flag(format!("--set {section}.{key}")))
    }

    /// `cluster.namenode` stands for the address of the NameNode in every section that has one of its own and
    /// does not say otherwise.
    fn share_cluster(&mut self) -> Result<()> {
        let shared = self.entry("cluster", "namenode").clone();
        if shared.origin == Origin::Default {
            return Ok(());
        }
        for section in ["datanode", "kvserve", "client"] {
            let own = self.find(section, "namenode").map(|entry| entry.origin.clone());
            if own == Some(Origin::Default) {
                let origin =
                    Origin::Key("cluster.namenode".into(), Box::new(shared.origin.clone()));
                self.set(section, "namenode", shared.value.clone(), origin)?;
            }
        }
        Ok(())
    }

    /// The configuration of one role.
    pub fn role<T: DeserializeOwned>(&self, section: &str) -> Result<T> {
        let known = self.sections.iter().find(|known| known.name == section);
        let known = known.expect("a section that the program names");
        let pairs = known.entries.iter().map(|entry| (entry.key.clone(), entry.value.clone()));
        let table: toml::Table = pairs.collect();
        table.try_into().map_err(|error: toml::de::Error| {
            Failure::usage(format!("configuration of [{section}]: {}", error.message()))
        })
    }

    /// Refuses addresses beyond loopback in these sections, unless `cluster.insecure` says that this is meant.
    pub fn check_exposure(&self, sections: &[&str]) -> Result<()> {
        if self.entry("cluster", "insecure").value.as_bool() == Some(true) {
            return Ok(());
        }
        for section in self.sections.iter().filter(|known| sections.contains(&known.name)) {
            for entry in section.entries.iter().filter(|entry| entry.key.ends_with("_addr")) {
                let addr = entry.value.as_str().unwrap_or_default();
                if !is_loopback(addr) {
                    return Err(exposed(section.name, entry, addr));
                }
            }
        }
        Ok(())
    }
}

fn exposed(section: &str, entry: &Entry, addr: &str) -> Failure {
    Failure::usage(format!(
        "{section}.{} = {addr:?} ({}) can be reached from other machines, and Granary has no transport security yet",
        entry.key, entry.origin
    ))
    .hint("listen on 127.0.0.1, or add --insecure if everybody on that network may read and write")
}

fn unknown(at: &str, what: &str, wrong: &str, known: &[&str]) -> Failure {
    let failure = Failure::usage(format!("{at}: unknown {what}"));
    match nearest::of(wrong, known) {
        Some(near) => failure.hint(format!("did you mean {near:?}?")),
        None => failure.hint(format!("known here: {}", known.join(", "))),
    }
}

/// Whether only this machine can reach a listener at `addr`. A name other than `localhost` may mean anything.
fn is_loopback(addr: &str) -> bool {
    if addr.is_empty() {
        return true; // switched off
    }
    let host = addr.rsplit_once(':').map_or(addr, |(host, _)| host);
    let host = host.trim_start_matches('[').trim_end_matches(']');
    host == "localhost"
        || host.parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback())
}

#[cfg(test)]
mod tests;
