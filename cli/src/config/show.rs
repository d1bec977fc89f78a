//! `granary config`: what is in force and where each value comes from, and a documented example.

use serde::Serialize;

use super::{Settings, schema};
use crate::failure::Result;
use crate::output::Out;

/// Options of `granary config`.
#[derive(clap::Args, Debug)]
pub struct ConfigArgs {
    /// Print a documented example file with every key at its default
    #[arg(long, conflicts_with = "json")]
    example: bool,
    /// Print as JSON
    #[arg(long)]
    json: bool,
    /// Only this section, or this `section.key`
    #[arg(value_name = "SECTION[.KEY]")]
    only: Option<String>,
}

#[derive(Serialize)]
struct Shown<'a> {
    section: &'a str,
    key: &'a str,
    value: &'a toml::Value,
    origin: String,
}

/// Runs `granary config`.
pub fn run(args: &ConfigArgs, settings: &Settings, out: &mut Out) -> Result<()> {
    if args.example {
        return example(out);
    }
    let only = args.only.as_deref();
    if let Some(only) = only {
        check_known(only, settings)?;
    }
    let wanted = |section: &str, key: &str| match only {
        None => true,
        Some(only) => only == section || only == format!("{section}.{key}"),
    };
    if args.json {
        let all = settings.sections().iter().flat_map(|section| {
            section.entries.iter().map(move |entry| Shown {
                section: section.name,
                key: &entry.key,
                value: &entry.value,
                origin: entry.origin.to_string(),
            })
        });
        let all: Vec<Shown<'_>> = all.filter(|shown| wanted(shown.section, shown.key)).collect();
        return out.json(&all);
    }
    match &settings.file {
        Some(path) => out.line(format_args!("# file: {}", path.display()))?,
        None => out.line("# no configuration file was found")?,
    }
    for section in settings.sections() {
        let shown: Vec<_> =
            section.entries.iter().filter(|e| wanted(section.name, &e.key)).collect();
        if shown.is_empty() {
            continue;
        }
        out.line(format_args!("\n[{}]", section.name))?;
        let lines: Vec<String> = shown.iter().map(|e| format!("{} = {}", e.key, e.value)).collect();
        let width = lines.iter().map(|line| line.chars().count()).filter(|w| *w <= 60).max();
        let width = width.unwrap_or(0);
        for (line, entry) in lines.iter().zip(shown) {
            out.line(format_args!("{line:<width$}  # {}", entry.origin))?;
        }
    }
    Ok(())
}

fn check_known(only: &str, settings: &Settings) -> Result<()> {
    let (named, key) = only.split_once('.').map_or((only, None), |(name, key)| (name, Some(key)));
    let Some(section) = settings.sections().iter().find(|section| section.name == named) else {
        let names: Vec<&str> = settings.sections().iter().map(|section| section.name).collect();
        let what = format!("section [{named}]");
        return Err(super::unknown("granary config", &what, named, &names));
    };
    let keys: Vec<&str> = section.entries.iter().map(|entry| entry.key.as_str()).collect();
    match key {
        Some(key) if !keys.contains(&key) => {
            let what = format!("key {key:?} in [{named}]");
            Err(super::unknown("granary config", &what, key, &keys))
        }
        _ => Ok(()),
    }
}

/// Every key, commented out at its default, with what it means.
fn example(out: &mut Out) -> Result<()> {
    out.line("# Granary's configuration. Every key stands at its default; take the # away to change one.")?;
    out.line("# The environment (GRANARY_NAMENODE_GRPC_ADDR=...) and the command line win over this file.")?;
    out.line("# Keys that hold bytes take \"64MiB\", those in _ms take \"5s\".")?;
    for section in Settings::defaults().sections() {
        out.line(format_args!("\n# {}", schema::about(section.name)))?;
        out.line(format_args!("[{}]", section.name))?;
        for entry in &section.entries {
            for line in wrapped(&schema::meaning(section.name, &entry.key), 96) {
                out.line(format_args!("# {line}"))?;
            }
            out.line(format_args!("#{} = {}\n", entry.key, entry.default))?;
        }
    }
    Ok(())
}

/// Breaks text into lines of at most `width` characters, at spaces.
fn wrapped(text: &str, width: usize) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    for word in text.split_whitespace() {
        match lines.last_mut() {
            Some(line) if line.chars().count() + 1 + word.chars().count() <= width => {
                line.push(' ');
                line.push_str(word);
            }
            _ => lines.push(word.to_owned()),
        }
    }
    lines
}
