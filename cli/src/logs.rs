//! Log messages on standard error: quiet by default.
//!
//! `--log`, then `GRANARY_LOG`, then `log.level` pick the level; without any the roles say info and commands warn.

use tracing_subscriber::EnvFilter;

use crate::config::Settings;
use crate::failure::{Failure, Result};

/// Starts logging. `roles`: this process is a server.
pub fn start(flag: Option<&str>, settings: &Settings, roles: bool) -> Result<()> {
    let variable = std::env::var("GRANARY_LOG").ok().filter(|text| !text.is_empty());
    let (level, from) = match (flag, variable, settings.text("log", "level")) {
        (Some(flag), _, _) => (flag.to_owned(), "--log".to_owned()),
        (None, Some(text), _) => (text, "GRANARY_LOG".to_owned()),
        (None, None, "") => (
            if roles { "info,h2=warn,hyper=warn,tower=warn" } else { "warn" }.to_owned(),
            "default".into(),
        ),
        (None, None, text) => (text.to_owned(), settings.entry("log", "level").origin.to_string()),
    };
    let filter = EnvFilter::try_new(&level).map_err(|error| {
        Failure::usage(format!("{from}: log level {level:?}: {error}"))
            .hint("error, warn, info, debug, trace, or filters such as info,namenode=debug")
    })?;
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    let started = match settings.text("log", "format") {
        "json" => builder.json().try_init(),
        "text" => builder.with_target(false).with_ansi(crate::output::watched()).try_init(),
        other => {
            let origin = &settings.entry("log", "format").origin;
            return Err(Failure::usage(format!("{origin}: log.format {other:?}: text or json")));
        }
    };
    started.map_err(|error| Failure::new(crate::failure::Exit::Failure, error.to_string()))
}
