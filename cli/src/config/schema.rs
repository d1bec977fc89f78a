//! Which sections there are, and what each of their keys means.
//!
//! Keys, types and defaults are those of each role's `Config`; the meaning is its doc comment, taken from the role's own
//! source when this crate is built. A test says that every key has one.

use serde::{Deserialize, Serialize};

use super::{Entry, Origin, Section};

/// `[cluster]`: what several roles share.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ClusterConfig {
    /// The NameNode's gRPC address, `host:port`. Stands for `namenode` in [datanode], [kvserve] and [client] where
    /// those do not set their own.
    pub namenode: String,
    /// Listen on addresses that other machines can reach. There is no transport security yet: everybody on that
    /// network may then read and write everything.
    pub insecure: bool,
}

/// `[log]`: messages on standard error.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct LogConfig {
    /// What is logged: error, warn, info, debug, trace, or filters such as `info,namenode=debug`. Empty: info for
    /// the roles, warn for every other command.
    pub level: String,
    /// `text` for people, `json` for log collectors.
    pub format: String,
}

impl Default for LogConfig {
    fn default() -> Self {
        Self { level: String::new(), format: "text".into() }
    }
}

/// A section, and the source that documents its keys.
struct Known {
    name: &'static str,
    about: &'static str,
    source: &'static str,
    defaults: fn() -> toml::Table,
}

fn table<T: Default + Serialize>() -> toml::Table {
    toml::Table::try_from(T::default()).expect("a Config holds plain values")
}

const KNOWN: &[Known] = &[
    Known {
        name: "cluster",
        about: "what several roles share",
        source: include_str!("schema.rs"),
        defaults: table::<ClusterConfig>,
    },
    Known {
        name: "namenode",
        about: "the NameNode",
        source: include_str!("../../../namenode/src/config.rs"),
        defaults: table::<namenode::Config>,
    },
    Known {
        name: "datanode",
        about: "each DataNode",
        source: include_str!("../../../datanode/src/config.rs"),
        defaults: table::<datanode::Config>,
    },
    Known {
        name: "kvserve",
        about: "each key-value server",
        source: include_str!("../../../kvserve/src/config.rs"),
        defaults: table::<kvserve::Config>,
    },
    Known {
        name: "client",
        about: "commands, jobs and mounts",
        source: include_str!("../../../client/src/config.rs"),
        defaults: table::<client::Config>,
    },
    Known {
        name: "log",
        about: "messages on standard error",
        source: include_str!("schema.rs"),
        defaults: table::<LogConfig>,
    },
];

/// All sections at their defaults.
pub fn sections() -> Vec<Section> {
    let section = |known: &Known| {
        let entry = |(key, default): (String, toml::Value)| Entry {
            key,
            value: default.clone(),
            default,
            origin: Origin::Default,
        };
        let mut entries: Vec<Entry> = (known.defaults)().into_iter().map(entry).collect();
        let docs = documented(known.source);
        let place = |key: &str| docs.iter().position(|(name, _)| name == key);
        entries.sort_by_key(|entry| place(&entry.key).unwrap_or(usize::MAX));
        Section { name: known.name, entries }
    };
    KNOWN.iter().map(section).collect()
}

/// What a section is for.
pub fn about(section: &str) -> &'static str {
    KNOWN.iter().find(|known| known.name == section).map_or("", |known| known.about)
}

/// What a key means; empty if its `Config` does not say.
pub fn meaning(section: &str, key: &str) -> String {
    let known = KNOWN.iter().find(|known| known.name == section);
    let docs = known.map(|known| documented(known.source)).unwrap_or_default();
    docs.into_iter().find(|(name, _)| name == key).map_or_else(String::new, |(_, text)| text)
}

/// The documented public fields of a source file: name and doc comment, in order.
fn documented(source: &str) -> Vec<(String, String)> {
    let mut found = Vec::new();
    let mut text: Vec<&str> = Vec::new();
    for line in source.lines().map(str::trim) {
        if let Some(doc) = line.strip_prefix("///") {
            text.push(doc.trim());
        } else if let Some((name, _)) = line.strip_prefix("pub ").and_then(|l| l.split_once(": ")) {
            found.push((name.trim_start_matches("r#").to_owned(), text.join(" ")));
            text.clear();
        } else if !line.starts_with("#[") {
            text.clear();
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_key_is_documented() {
        for section in sections() {
            for entry in &section.entries {
                let text = meaning(section.name, &entry.key);
                assert!(!text.is_empty(), "{}.{} has no doc comment", section.name, entry.key);
            }
        }
    }

    #[test]
    fn doc_comments_are_read_from_source() {
        let source =
            "struct X {\n /// One\n /// line.\n #[serde(x)]\n pub a: u64,\n pub b: String,\n}";
        let expected = [("a".to_owned(), "One line.".to_owned()), ("b".to_owned(), String::new())];
        assert_eq!(documented(source), expected);
    }
}
