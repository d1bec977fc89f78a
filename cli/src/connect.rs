//! Which cluster a command talks to, and the connection.
//!
//! `--cluster`, then `GRANARY_CLUSTER`, then the configuration, then `127.0.0.1:8030`. The first two take `host:port` or
//! the folder of an embedded cluster, whose `cluster.json` tells the address. An error says which address was tried and
//! who named it.

use std::path::Path;

use client::Fs;

use crate::config::{Origin, Settings};
use crate::embedded::ClusterFile;
use crate::failure::{Exit, Failure, Result};

const PORT_DEFAULT: u16 = 8030;

/// What every command knows.
pub struct Context {
    /// The configuration in force.
    pub settings: Settings,
    /// `--cluster`.
    pub cluster: Option<String>,
    /// `--user`.
    pub user: Option<String>,
}

/// An address, and who named it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    /// `host:port` of the NameNode's gRPC service.
    pub addr: String,
    /// Who named it, for people.
    pub from: String,
}

impl Context {
    /// The cluster to talk to.
    pub fn target(&self) -> Result<Target> {
        let variable = std::env::var("GRANARY_CLUSTER").ok().filter(|text| !text.is_empty());
        let named = self.cluster.clone().map(|text| (text, "--cluster"));
        if let Some((text, by)) = named.or_else(|| Some((variable?, "GRANARY_CLUSTER"))) {
            return named_target(&text, by);
        }
        let entry = self.settings.entry("client", "namenode");
        let from = match &entry.origin {
            Origin::Default => "the default address".to_owned(),
            origin => format!("client.namenode, {origin}"),
        };
        Ok(Target { addr: self.settings.text("client", "namenode").to_owned(), from })
    }

    /// The client's settings, with the cluster and the user of this command.
    pub fn client_config(&self) -> Result<client::Config> {
        let mut config: client::Config = self.settings.role("client")?;
        config.namenode = self.target()?.addr;
        if let Some(user) = &self.user {
            config.user.clone_from(user);
        }
        Ok(config)
    }

    /// Connects to the cluster.
    pub async fn connect(&self) -> Result<Fs> {
        let target = self.target()?;
        match Fs::connect(self.client_config()?).await {
            Ok(fs) => Ok(fs),
            Err(error) => Err(unreachable(&target, Failure::from(error))),
        }
    }
}

fn unreachable(target: &Target, failure: Failure) -> Failure {
    if failure.exit != Exit::Unreachable {
        return failure;
    }
    // The address stands in front already.
    let named = format!("NameNode {}: ", target.addr);
    let why = failure.message.strip_prefix(&named).unwrap_or(&failure.message);
    let message = format!("no cluster answers at {} ({}): {why}", target.addr, target.from);
    Failure::new(Exit::Unreachable, message).hint(
        "start one with `granary up --dir DIR`, or name another with --cluster HOST:PORT or GRANARY_CLUSTER",
    )
}

/// What `--cluster` and `GRANARY_CLUSTER` say: `host:port`, `host`, or a folder.
fn named_target(text: &str, by: &str) -> Result<Target> {
    let folder = Path::new(text);
    if text.contains('/') || folder.is_dir() {
        let file =
            ClusterFile::read(folder).map_err(|failure| failure.context(format!("{by} {text}")))?;
        let from = format!("{by} {text}");
        return Ok(Target { addr: file.namenode, from });
    }
    let addr = match text.rsplit_once(':') {
        Some((host, port)) if !host.is_empty() && port.parse::<u16>().is_ok() => text.to_owned(),
        None if !text.is_empty() => format!("{text}:{PORT_DEFAULT}"),
        _ => {
            let message = format!("{by} {text:?}: neither HOST:PORT nor the folder of a cluster");
            return Err(Failure::usage(message));
        }
    };
    Ok(Target { addr, from: by.to_owned() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clusters_are_named_by_address_host_or_folder() {
        let target = |text: &str| named_target(text, "--cluster").map(|target| target.addr);
        assert_eq!(target("nn:1234").unwrap(), "nn:1234");
        assert_eq!(target("nn").unwrap(), "nn:8030");
        assert_eq!(target("nn:x").unwrap_err().exit, Exit::Usage);
        let failure = target("/nowhere/at/all").unwrap_err();
        assert!(failure.message.starts_with("--cluster /nowhere/at/all: "), "{failure}");
    }
}
