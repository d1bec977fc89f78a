//! `granary mount`: the file system under a local folder, until it is unmounted, SIGTERM or Ctrl-C.

use std::path::PathBuf;

use crate::connect::Context;
use crate::failure::{Exit, Failure, Result};
use crate::output::note;
use crate::roles::listen;
use crate::units;

/// Options of `granary mount`.
#[derive(clap::Args, Debug)]
pub struct MountArgs {
    /// Let other users of this machine in; permissions are checked by mode, owner and group
    #[arg(long)]
    allow_other: bool,
    /// Refuse every change
    #[arg(long)]
    read_only: bool,
    /// How long the kernel may keep names and attributes before it asks again, as in 500ms
    #[arg(long, value_name = "TIME", default_value = "1s", value_parser = units::parse_millis)]
    attribute_ttl: u64,
    /// An empty local folder
    dir: PathBuf,
}

/// Runs `granary mount`.
pub async fn run(args: &MountArgs, context: &Context) -> Result<()> {
    let mut stop = listen()?;
    let fs = context.connect().await?;
    let options = mount::Options {
        attribute_ttl_ms: args.attribute_ttl,
        allow_other: args.allow_other,
        read_only: args.read_only,
        ..mount::Options::default()
    };
    let runtime = tokio::runtime::Handle::current();
    let session = mount::mount(fs, runtime, &args.dir, options)?;
    let dir = session.dir().display().to_string();
    note(format_args!("mounted on {dir}; Ctrl-C or `umount {dir}` ends it"));
    tokio::select! {
        () = session.ended() => Ok(session.join().await?),
        _ = stop.next() => tokio::select! {
            unmounted = session.unmount() => {
                unmounted?;
                note("unmounted; everything that was written is stored");
                Ok(())
            }
            signal = stop.next() => {
                note(format_args!("granary: {signal} again: stopping at once"));
                Err(Failure::silent(Exit::Interrupted))
            }
        },
    }
}
