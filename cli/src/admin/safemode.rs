//! `granary admin safemode`: safe mode, in which the NameNode answers reads and changes nothing.

use std::time::{Duration, Instant};

use proto::granary::set_safe_mode_request::Action;

use crate::connect::Context;
use crate::failure::{Exit, Failure, Result};
use crate::output::Out;
use crate::units;

const PAUSE: Duration = Duration::from_millis(200);

/// The commands of `granary admin safemode`.
#[derive(clap::Subcommand, Debug)]
pub enum SafemodeCommand {
    /// Tell whether it is on, and why; ends with 0 if it is off and with 1 if it is on
    Get,
    /// Enter it: nothing can be changed until somebody leaves it
    Enter,
    /// Leave it, even if blocks are still missing
    Leave,
    /// Wait until it is off
    Wait(WaitArgs),
}

/// Options of `granary admin safemode wait`.
#[derive(clap::Args, Debug)]
pub struct WaitArgs {
    /// Give up after this time, and end with 6
    #[arg(long, value_name = "TIME", value_parser = units::parse_millis)]
    timeout: Option<u64>,
}

/// Runs a command of `granary admin safemode`.
pub async fn run(command: &SafemodeCommand, context: &Context, out: &mut Out) -> Result<()> {
    let fs = context.connect().await?;
    let said = |on: bool| if on { "safe mode is ON" } else { "safe mode is OFF" };
    match command {
        SafemodeCommand::Get => {
            let status = fs.cluster_status().await?;
            if !status.safe_mode {
                return out.line(said(false));
            }
            out.line(format_args!("{}: {}", said(true), status.safe_mode_reason))?;
            Err(Failure::silent(Exit::Failure))
        }
        SafemodeCommand::Enter => out.line(said(fs.safe_mode(Action::Enter).await?)),
        SafemodeCommand::Leave => out.line(said(fs.safe_mode(Action::Leave).await?)),
        SafemodeCommand::Wait(args) => {
            let began = Instant::now();
            let limit = args.timeout.map(Duration::from_millis);
            loop {
                let status = fs.cluster_status().await?;
                if !status.safe_mode {
                    return out.line(said(false));
                }
                if limit.is_some_and(|limit| began.elapsed() >= limit) {
                    let why = status.safe_mode_reason;
                    let message = format!("safe mode is still on: {why}");
                    return Err(Failure::new(Exit::Unreachable, message));
                }
                tokio::time::sleep(PAUSE).await;
            }
        }
    }
}
