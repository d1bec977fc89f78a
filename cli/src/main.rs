//! The binary `granary`: every role and every command.
//!
//! | module | owns |
//! |---|---|
//! | [`args`] | what can be typed |
//! | [`config`] | the configuration in force, and where each value comes from |
//! | [`connect`] | which cluster a command talks to |
//! | [`failure`] | errors and exit codes |
//! | [`output`], [`progress`], [`units`], [`logs`] | what people see |
//! | [`fs`], [`job`], [`load`], [`kv`], [`store`], [`table`], [`status`], [`admin`], [`mounting`] | commands |
//! | [`program`] | what a suggested command begins with |
//! | [`roles`], [`up`], [`embedded`] | servers in this process |
//! | [`demo`] | the main job from end to end |
//! | [`bench`] | what the cluster does per second, beside what the machine gives |
//! | [`resp`], [`signals`] | a small Redis client; Ctrl-C and SIGTERM |
//!
//! Invariant: standard output is written by [`output`] alone, and holds results only; everything else goes to standard
//! error. No crate depends on this one.

mod admin;
mod args;
mod bench;
mod coding;
mod completions;
mod config;
mod connect;
mod demo;
mod embedded;
mod failure;
mod fs;
mod help;
mod job;
mod kv;
mod load;
mod logs;
mod mounting;
mod output;
mod program;
mod progress;
mod reload;
mod resp;
mod roles;
mod signals;
mod status;
mod store;
mod table;
mod units;
mod up;

use std::process::ExitCode;

use clap::Parser;
use clap::error::ErrorKind;

use crate::args::{Cli, Command};
use crate::config::{Origin, Settings};
use crate::connect::Context;
use crate::failure::{Exit, Failure, Result};
use crate::output::Out;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => return usage(&error),
    };
    let result = start(&cli);
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            if !failure.message.is_empty() {
                output::note(format_args!("granary: {failure}"));
            }
            ExitCode::from(failure.exit as u8)
        }
    }
}

/// What clap has to say: help and version are no errors.
fn usage(error: &clap::Error) -> ExitCode {
    // Nothing can be done if standard output or error is closed.
    error.print().ok();
    match error.kind() {
        ErrorKind::DisplayHelp | ErrorKind::DisplayVersion => ExitCode::SUCCESS,
        _ => ExitCode::from(Exit::Usage as u8),
    }
}

fn start(cli: &Cli) -> Result<()> {
    let mut out = Out::new();
    if let Command::Help(args) = &cli.command {
        help::run(args, &mut out)?;
        return out.finish();
    }
    let context = context(cli)?;
    logs::start(cli.global.log.as_deref(), &context.settings, cli.command.is_role())?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    let runtime = runtime.map_err(|error| Failure::io("start the runtime", &error))?;
    let result = runtime.block_on(run(&cli.command, &context, &mut out));
    // Threads that read a terminal or a dead mount cannot be waited for.
    runtime.shutdown_timeout(std::time::Duration::from_millis(200));
    // What was printed before a failure is shown all the same.
    let finished = out.finish();
    result.and(finished)
}

fn context(cli: &Cli) -> Result<Context> {
    let environment: Vec<(String, String)> = std::env::vars_os()
        .filter_map(|(name, text)| Some((name.into_string().ok()?, text.into_string().ok()?)))
        .collect();
    let global = &cli.global;
    let mut settings = Settings::load(global.config.as_deref(), &environment, &global.assignments)?;
    for (section, key, text, flag) in cli.command.own_settings() {
        settings.set_text(section, key, &text, Origin::Flag(flag.to_owned()))?;
    }
    Ok(Context { settings, cluster: global.cluster.clone(), user: global.user.clone() })
}

async fn run(command: &Command, context: &Context, out: &mut Out) -> Result<()> {
    match command {
        Command::Demo(args) => demo::run(args, context, out).await,
        Command::Up(args) => up::run(args, context, out).await,
        Command::Namenode(_) => roles::namenode(context, out).await,
        Command::Datanode(_) => roles::datanode(context, out).await,
        Command::Kvserve(_) => roles::kvserve(context, out).await,
        Command::Fs(command) => fs::run(command, context, out).await,
        Command::Mount(args) => mounting::run(args, context).await,
        Command::Job(command) => job::run(command, context, out).await,
        Command::Load(args) => load::run(args, context, out).await,
        Command::Get(args) => kv::get(args, context, out).await,
        Command::Scan(args) => kv::scan(args, context, out).await,
        Command::Store(command) => store::run(command, context, out).await,
        Command::Table(command) => table::run(command, out),
        Command::Admin(command) => admin::run(command, context, out).await,
        Command::Status(args) => status::run(args, context, out).await,
        Command::Bench(args) => bench::run(args, context, out).await,
        Command::Config(args) => config::show::run(args, &context.settings, out),
        Command::Completions(args) => completions::run(args, out),
        Command::Help(args) => help::run(args, out),
    }
}
