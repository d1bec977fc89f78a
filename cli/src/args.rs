//! The command line: what can be typed. Options of each command stand beside its code.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};

use crate::config::show::ConfigArgs;
use crate::fs::FsCommand;
use crate::{
    admin, bench, completions, demo, help, job, kv, load, mounting, roles, status, store, table, up,
};

const TEMPLATE: &str = "\
{about}

{usage-heading} {usage}

Run a cluster:
  demo         Do the whole main job on real files in an embedded cluster, and show what it did
  up           Run a whole cluster in this process
  namenode     Run a NameNode
  datanode     Run a DataNode
  kvserve      Run a key-value server

Files:
  fs           put, get, cat, ls, mkdir, mv, cp, rm, du, stat, df, checksum ...
  mount        Show the file system under a local folder

Jobs and stores:
  job          Run a batch job over files
  load         Publish tables, or a local TSV file, as a new version of a store
  get          Look up keys
  scan         List keys and values in order
  store        ls, versions, rollback, activate, rm
  table        Look into a local table file

Operate:
  status       Show nodes, capacity, blocks and stores
  admin        fsck, report, safemode, quota, snapshot, lease, checkpoint
  bench        Measure the cluster beside what this machine gives
  config       Show the configuration in force and where each value comes from
  completions  Print completions for a shell
  help         Explain a command, or: exit-codes, clusters, configuration

{options}{after-help}
";

const EXAMPLES: &str = "\
Examples:
  granary demo                                  the whole thing, in a minute
  granary up --dir ~/granary                    a cluster that stays
  granary fs put -f ~/texts /in                 store a folder
  granary job inverted-index /in --output /out/index
  granary load index /out/index                 serve what the job made
  granary get index error; redis-cli -p 6380 GET error
  granary store rollback index";

/// Granary stores what batch jobs produce, and serves it: a distributed file system and a bulk-loaded key-value tier.
#[derive(Parser, Debug)]
#[command(
    name = "granary",
    version,
    help_template = TEMPLATE,
    after_help = EXAMPLES,
    disable_help_subcommand = true,
    subcommand_required = true,
    arg_required_else_help = true,
    max_term_width = 100
)]
pub struct Cli {
    /// What every command takes.
    #[command(flatten)]
    pub global: Global,
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// What every command takes.
#[derive(Args, Clone, Debug, Default)]
#[command(next_help_heading = "Everywhere")]
pub struct Global {
    /// The cluster: HOST:PORT of its NameNode, or the folder of `granary up` [env: GRANARY_CLUSTER]
    #[arg(long, global = true, value_name = "HOST:PORT|DIR")]
    pub cluster: Option<String>,
    /// Act as this user
    #[arg(long, global = true, value_name = "NAME")]
    pub user: Option<String>,
    /// Configuration file [env: GRANARY_CONFIG]
    #[arg(long, global = true, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Set any configuration key; may be repeated
    #[arg(long = "set", global = true, value_name = "SECTION.KEY=VALUE")]
    pub assignments: Vec<String>,
    /// What is logged to standard error: error, warn, info, debug, trace, or filters [env: GRANARY_LOG]
    #[arg(long, global = true, value_name = "LEVEL")]
    pub log: Option<String>,
}

/// Every command.
#[derive(Subcommand, Debug)]
pub enum Command {
    /// Do the whole main job on real files in an embedded cluster, and show what it did
    Demo(demo::DemoArgs),
    /// Run a whole cluster in this process
    Up(up::UpArgs),
    /// Run a NameNode. Every other setting: `granary config --example`
    Namenode(roles::NamenodeArgs),
    /// Run a DataNode of the cluster that --cluster or the configuration names. Every setting: `granary config --example`
    Datanode(roles::DatanodeArgs),
    /// Run a key-value server of the cluster that --cluster or the configuration names. Every setting: `granary config
    /// --example`
    Kvserve(roles::KvserveArgs),
    /// Work with files and folders of the cluster
    #[command(subcommand)]
    Fs(FsCommand),
    /// Show the file system under a local folder
    Mount(mounting::MountArgs),
    /// Run a batch job over files
    #[command(subcommand)]
    Job(job::JobCommand),
    /// Publish tables, or a local TSV file, as a new version of a store
    Load(load::LoadArgs),
    /// Look up keys
    Get(kv::GetArgs),
    /// List keys and values in order
    Scan(kv::ScanArgs),
    /// Work with stores and their versions
    #[command(subcommand)]
    Store(store::StoreCommand),
    /// Look into a local table file
    #[command(subcommand)]
    Table(table::TableCommand),
    /// Show nodes, capacity, blocks and stores
    Status(status::StatusArgs),
    /// Check files, show DataNodes, set safe mode and quotas, end leases
    #[command(subcommand)]
    Admin(admin::AdminCommand),
    /// Measure the cluster beside what this machine gives
    Bench(bench::BenchArgs),
    /// Show the configuration in force and where each value comes from
    Config(ConfigArgs),
    /// Print completions for a shell
    Completions(completions::CompletionsArgs),
    /// Explain a command, or: exit-codes, clusters, configuration
    Help(help::HelpArgs),
}

impl Command {
    /// Whether this process is a server.
    pub fn is_role(&self) -> bool {
        matches!(self, Self::Namenode(_) | Self::Datanode(_) | Self::Kvserve(_))
    }

    /// The assignments that the command's own options stand for, with the option's name.
    pub fn own_settings(&self) -> Vec<(&'static str, &'static str, String, &'static str)> {
        match self {
            Self::Namenode(args) => args.settings(),
            Self::Datanode(args) => args.settings(),
            Self::Kvserve(args) => args.settings(),
            _ => Vec::new(),
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn the_help_names_every_command() {
        for command in Cli::command().get_subcommands() {
            let line = format!("\n  {:<12} ", command.get_name());
            assert!(TEMPLATE.contains(&line), "{} is missing in the help", command.get_name());
        }
    }
}
