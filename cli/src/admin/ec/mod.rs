//! `granary admin ec`: how files are coded.
//!
//! | module | owns |
//! |---|---|
//! | [`convert`] | coding files anew |

mod convert;

use proto::FsPath;
use proto::granary::change_erasure_coding_request::Action;
use serde::Serialize;

use crate::coding;
use crate::connect::Context;
use crate::failure::{Failure, Result};
use crate::fs::{Shell, each};
use crate::output::{Align, Out, Table};
use crate::units;

const AFTER: &str = "\
A policy of RS-6-3-1024k cuts a file into cells of 1024 KiB, spreads six of them over six DataNodes
and writes three cells of parity to three others: any three may be lost, at half the space of three
replicas. It needs as many DataNodes as it has cells in a row. A folder's policy is that of new files
in it and below, unless a folder in between has another; files that are there stay as they are:
see `granary admin ec convert`. The policy `replicated` ends what is inherited.";

/// The commands of `granary admin ec`.
#[derive(clap::Subcommand, Debug)]
pub enum EcCommand {
    /// Give folders a policy: new files in them are coded by it
    Set(SetArgs),
    /// Take the policy of folders away: they go by the folder above again
    Unset(PathArgs),
    /// Show how files are coded, and what new files in folders get
    Get(GetArgs),
    /// List the policies
    Ls(LsArgs),
    /// Code files anew while readers read, each in one step
    Convert(convert::ConvertArgs),
    /// Let a policy be given to folders and files
    Enable(PolicyArgs),
    /// Let a policy be given no more; what has it keeps it
    Disable(PolicyArgs),
}

/// Options of `granary admin ec set`.
#[derive(clap::Args, Debug)]
#[command(after_help = AFTER)]
pub struct SetArgs {
    /// The policy, as in RS-6-3-1024k or rs-6-3; or `replicated`
    #[arg(value_parser = coding::parse)]
    policy: u32,
    /// The folders
    #[arg(required = true)]
    paths: Vec<String>,
}

/// Folders.
#[derive(clap::Args, Debug)]
pub struct PathArgs {
    /// The folders
    #[arg(required = true)]
    paths: Vec<String>,
}

/// A policy.
#[derive(clap::Args, Debug)]
pub struct PolicyArgs {
    /// The policy, as in RS-6-3-1024k or rs-6-3
    #[arg(value_parser = coding::parse)]
    policy: u32,
}

/// Options of `granary admin ec get`.
#[derive(clap::Args, Debug)]
pub struct GetArgs {
    /// Print as JSON
    #[arg(long)]
    json: bool,
    /// Files and folders; patterns match
    #[arg(required = true)]
    paths: Vec<String>,
}

/// Options of `granary admin ec ls`.
#[derive(clap::Args, Debug)]
pub struct LsArgs {
    /// Print as JSON
    #[arg(long)]
    json: bool,
}

/// Runs a command of `granary admin ec`.
pub async fn run(command: &EcCommand, context: &Context, out: &mut Out) -> Result<()> {
    let shell = &Shell::connect(context).await?;
    let fs = &shell.fs;
    match command {
        EcCommand::Set(args) => {
            let paths = shell.expand_all(&args.paths).await?;
            change(&paths, shell, Action::Set, args.policy).await
        }
        EcCommand::Unset(args) => {
            let paths = shell.expand_all(&args.paths).await?;
            change(&paths, shell, Action::Unset, 0).await
        }
        EcCommand::Get(args) => get(args, shell, out).await,
        EcCommand::Ls(args) => list(args, shell, out).await,
        EcCommand::Convert(args) => convert::run(args, shell, out).await,
        EcCommand::Enable(args) => {
            Ok(fs.change_erasure_coding(Action::Enable, None, policy_of(args)?).await?)
        }
        EcCommand::Disable(args) => {
            Ok(fs.change_erasure_coding(Action::Disable, None, policy_of(args)?).await?)
        }
    }
}

fn policy_of(args: &PolicyArgs) -> Result<u32> {
    match args.policy {
        0 => Err(Failure::usage("files can always be replicated; name a policy")),
        policy => Ok(policy),
    }
}

async fn change(paths: &[FsPath], shell: &Shell, action: Action, policy: u32) -> Result<()> {
    each(paths, async |path| {
        let changed = shell.fs.change_erasure_coding(action, Some(path), policy).await;
        changed.map_err(|error| Failure::from(error).context(path))
    })
    .await
}

/// How something is coded, as JSON.
#[derive(Serialize)]
struct Shown {
    path: String,
    policy: String,
    /// Of a folder that has a policy of its own.
    own: bool,
}

async fn get(args: &GetArgs, shell: &Shell, out: &mut Out) -> Result<()> {
    let paths = shell.expand_all(&args.paths).await?;
    let shown = std::cell::RefCell::new(Vec::new());
    let result = each(&paths, async |path| {
        let reply = shell.fs.erasure_coding(Some(path)).await;
        let reply = reply.map_err(|error| Failure::from(error).context(path))?;
        let policy = coding::name(reply.policy);
        let own = reply.own.is_some();
        shown.borrow_mut().push(Shown { path: path.to_string(), policy, own });
        Ok(())
    })
    .await;
    let shown = shown.into_inner();
    if args.json {
        out.json(&shown)?;
        return result;
    }
    let mut table = Table::new(&[("", Align::Left), ("", Align::Left)]);
    for one in &shown {
        table.row(vec![one.policy.clone(), crate::output::printable(one.path.as_bytes())]);
    }
    table.print(out)?;
    result
}

/// A policy as JSON.
#[derive(Serialize)]
struct Known {
    id: u32,
    name: String,
    codec: String,
    data_units: u32,
    parity_units: u32,
    cell_bytes: u32,
    enabled: bool,
}

async fn list(args: &LsArgs, shell: &Shell, out: &mut Out) -> Result<()> {
    let policies = shell.fs.erasure_coding(None).await?.policies;
    let known = policies.into_iter().map(|policy| Known {
        id: policy.id,
        name: policy.name,
        codec: policy.codec,
        data_units: policy.data_units,
        parity_units: policy.parity_units,
        cell_bytes: policy.cell_bytes,
        enabled: policy.enabled,
    });
    let known: Vec<Known> = known.collect();
    if args.json {
        return out.json(&known);
    }
    let mut table = Table::new(&[
        ("policy", Align::Left),
        ("data", Align::Right),
        ("parity", Align::Right),
        ("cell", Align::Right),
        ("space", Align::Right),
        ("enabled", Align::Left),
    ]);
    for one in &known {
        let units = f64::from(one.data_units + one.parity_units);
        table.row(vec![
            one.name.clone(),
            one.data_units.to_string(),
            one.parity_units.to_string(),
            units::bytes(one.cell_bytes.into()),
            format!("{:.2}x", units / f64::from(one.data_units.max(1))),
            if one.enabled { "yes" } else { "no" }.to_owned(),
        ]);
    }
    table.print(out)
}
