//! `granary help`: a command's help, or a topic.

use clap::CommandFactory;

use crate::args::Cli;
use crate::failure::{Exit, Failure, Result};
use crate::output::Out;

const CLUSTERS: &str = "\
Which cluster a command talks to, the first that is given:

  --cluster HOST:PORT    the NameNode's gRPC address
  --cluster DIR          the folder of `granary up --dir DIR`
  GRANARY_CLUSTER        the same, as an environment variable
  client.namenode        in the configuration (or cluster.namenode, which all roles share)
  127.0.0.1:8030         where `granary up` listens";

const CONFIGURATION: &str = "\
Every setting has a key in a section: [cluster], [namenode], [datanode], [kvserve], [client], [log].
Its value is the last of these that is given:

  1. the default                  granary config --example
  2. the configuration file       --config FILE, GRANARY_CONFIG, ./granary.toml,
                                  ~/.config/granary/granary.toml, /etc/granary/granary.toml
  3. the environment              GRANARY_NAMENODE_GRPC_ADDR=127.0.0.1:9000
  4. the command line             --set namenode.grpc_addr=127.0.0.1:9000

Keys that hold bytes take 64MiB, those in _ms take 5s, lists are separated by commas.
`granary config` shows what is in force and where it comes from.";

/// Options of `granary help`.
#[derive(clap::Args, Debug)]
pub struct HelpArgs {
    /// A command, as in `fs put`, or a topic
    topic: Vec<String>,
}

/// Runs `granary help`.
pub fn run(args: &HelpArgs, out: &mut Out) -> Result<()> {
    let words: Vec<&str> = args.topic.iter().map(String::as_str).collect();
    match words.as_slice() {
        ["exit-codes"] => {
            out.line("Every command ends with one of these:\n")?;
            Exit::TABLE
                .iter()
                .try_for_each(|(code, what)| out.line(format_args!("  {code:>3}  {what}")))
        }
        ["clusters"] => out.line(CLUSTERS),
        ["configuration"] => out.line(CONFIGURATION),
        words => command(words, out),
    }
}

fn command(words: &[&str], out: &mut Out) -> Result<()> {
    let mut command = Cli::command();
    command.build();
    let mut found = &mut command;
    for word in words {
        found = found.find_subcommand_mut(word).ok_or_else(|| {
            Failure::usage(format!("granary help {}: no such command or topic", words.join(" ")))
                .hint("topics: exit-codes, clusters, configuration; `granary --help` lists the commands")
        })?;
    }
    out.line(found.render_long_help())
}
