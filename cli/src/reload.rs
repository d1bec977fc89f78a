//! SIGHUP: what a running DataNode takes from its configuration file when an operator asks it to read that again.
//!
//! That is one thing: folders that `datanode.volumes` names and that are no volumes yet are taken up. Volumes that are no
//! longer named stay until the DataNode is started again, and every other key holds from the start on. What goes wrong is
//! logged; the DataNode goes on as it was.

use std::path::PathBuf;

use tokio::signal::unix::{SignalKind, signal};

use crate::config::{Origin, Settings};
use crate::failure::{Exit, Failure, Result};

/// Takes up volumes at every SIGHUP, for ever.
pub async fn take_up_volumes(settings: &Settings, node: &datanode::Handle) -> Failure {
    let mut asked = match signal(SignalKind::hangup()) {
        Ok(asked) => asked,
        Err(error) => {
            tracing::warn!(%error, "SIGHUP is not listened to");
            return std::future::pending().await;
        }
    };
    while asked.recv().await.is_some() {
        match take_up(settings, node).await {
            Ok(added) => tracing::info!(added, "SIGHUP: the configuration was read again"),
            Err(failure) => {
                tracing::error!(why = failure.message, "SIGHUP: volumes were not taken up");
            }
        }
    }
    std::future::pending().await
}

async fn take_up(settings: &Settings, node: &datanode::Handle) -> Result<usize> {
    let volumes = volumes_now(settings)?;
    Ok(node.add_volumes(volumes).await?)
}

/// What the file says now, if it is the file that says it.
fn volumes_now(settings: &Settings) -> Result<Vec<PathBuf>> {
    let refused = |why: String| Failure::new(Exit::Failure, why);
    let origin = &settings.entry("datanode", "volumes").origin;
    let Some(file) = settings.file.as_deref().filter(|_| matches!(origin, Origin::File(..))) else {
        return Err(refused(format!("datanode.volumes comes from no file: {origin}")));
    };
    let now: datanode::Config = Settings::load(Some(file), &[], &[])?.role("datanode")?;
    now.check()?;
    Ok(now.volumes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_volumes_that_a_file_names_are_read_again() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("granary.toml");
        let write = |text: &str| std::fs::write(&path, text).unwrap();
        write("[datanode]\nvolumes = [\"/a\"]\n");
        let started = Settings::load(Some(&path), &[], &[]).unwrap();
        write("[datanode]\nvolumes = [\"/a\", \"/b\"]\n");
        assert_eq!(volumes_now(&started).unwrap(), [PathBuf::from("/a"), PathBuf::from("/b")]);
        write("[datanode]\nvolumes = []\n");
        assert!(volumes_now(&started).is_err());
        write("[datanode]\nvolume = [\"/c\"]\n");
        assert!(volumes_now(&started).is_err());
        write("[namenode]\nreplication = 1\n");
        let given = ["datanode.volumes=[\"/a\"]".to_owned()];
        let started = Settings::load(Some(&path), &[], &given).unwrap();
        assert!(volumes_now(&started).is_err());
    }
}
