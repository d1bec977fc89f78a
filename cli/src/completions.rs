//! `granary completions`: what a shell needs to complete commands.

use clap::CommandFactory;
use clap_complete::Shell;

use crate::failure::Result;
use crate::output::Out;

/// Options of `granary completions`.
#[derive(clap::Args, Debug)]
pub struct CompletionsArgs {
    /// The shell
    shell: Shell,
}

/// Runs `granary completions`.
pub fn run(args: &CompletionsArgs, out: &mut Out) -> Result<()> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut crate::args::Cli::command(), "granary", &mut script);
    out.bytes(&script)
}
