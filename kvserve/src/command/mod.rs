//! What each command of the Redis protocol means here.
//!
//! | module | owns |
//! |---|---|
//! | [`table`] | names, arity, keys |
//! | [`keys`] | commands that read the store |
//! | [`connection`] | commands about connections |
//! | [`admin`] | INFO, CONFIG, COMMAND, CLUSTER |
//! | [`glob`], [`cursor`] | patterns, positions of SCAN |
//!
//! [`run`] checks the name and the arity, in the words of Redis, and hands on. Every command answers exactly once.
//! A command that was refused changes nothing and leaves the connection usable.

pub mod admin;
pub mod connection;
pub mod cursor;
pub mod glob;
pub mod keys;
pub mod table;

use std::io;

use proto::{Code, Error};

use crate::resp::Args;
use crate::session::Session;
use table::{Found, arity_fits, find};

/// What to do after a command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flow {
    /// Read the next one.
    Next,
    /// Write what is buffered and close.
    Close,
}

/// The words of an error of this server in the Redis protocol.
pub fn error_line(error: &Error) -> String {
    match error.code {
        Code::Unavailable => format!("LOADING {error}"),
        _ => format!("ERR {error}"),
    }
}

/// Runs one command. Errors are those of the socket.
pub async fn run(session: &mut Session<'_>, args: Args<'_>) -> io::Result<Flow> {
    let name = args.at(0);
    // The one that matters, ahead of the table.
    if name.eq_ignore_ascii_case(b"get") && args.len() == 2 {
        return keys::get(session, args.at(1)).await;
    }
    let spec = match find(name) {
        Found::Answered(spec) => spec,
        Found::Write(name, arity) => {
            refuse_write(session, name, arity, args.len());
            return Ok(Flow::Next);
        }
        Found::Unknown => {
            session.reply().error(&unknown(args));
            return Ok(Flow::Next);
        }
    };
    if !arity_fits(spec.arity, args.len()) {
        session.reply().error(&wrong_arity(spec.name));
        return Ok(Flow::Next);
    }
    match spec.name {
        "mget" => return keys::mget(session, args).await,
        "keys" => return keys::keys(session, args.at(1)).await,
        "granary.scan" => return keys::granary_scan(session, args).await,
        "get" => return keys::get(session, args.at(1)).await,
        "client" => return connection::client(session, args).await,
        "quit" => {
            session.reply().ok();
            return Ok(Flow::Close);
        }
        "exists" => keys::exists(session, args),
        "strlen" => keys::strlen(session, args.at(1)),
        "getrange" => keys::getrange(session, args),
        "type" | "ttl" | "pttl" => keys::presence(session, spec.name, args.at(1)),
        "scan" => keys::scan(session, args),
        "randomkey" => keys::randomkey(session),
        "dbsize" => keys::dbsize(session),
        "granary.use" => keys::granary_use(session, args.at(1)),
        "granary.version" => keys::granary_version(session),
        "ping" => connection::ping(session, args),
        "echo" => session.reply().bulk(args.at(1)),
        "auth" => connection::auth(session, args),
        "hello" => connection::hello(session, args),
        "reset" => connection::reset(session),
        "select" => connection::select(session, args.at(1)),
        "time" => admin::time(session),
        "info" => admin::info(session, args),
        "config" => admin::config(session, args),
        "command" => admin::command(session, args),
        "cluster" => admin::cluster(session, args),
        "asking" | "readonly" | "readwrite" => session.reply().error(admin::NO_CLUSTER),
        other => unreachable!("{other} is in the table of commands"),
    }
    Ok(Flow::Next)
}

/// The error for a command with too few or too many arguments.
pub fn wrong_arity(name: &str) -> String {
    format!("ERR wrong number of arguments for '{name}' command")
}

/// The error for a subcommand that there is not.
pub fn unknown_subcommand(command: &str, subcommand: &[u8]) -> String {
    let shown = String::from_utf8_lossy(&subcommand[..subcommand.len().min(128)]);
    format!("ERR unknown subcommand '{shown}'. Try {} HELP.", command.to_ascii_uppercase())
}

fn refuse_write(session: &mut Session<'_>, name: &str, arity: i32, arguments: usize) {
    let error = if arity_fits(arity, arguments) {
        "READONLY You can't write against a read only replica.".to_owned()
    } else {
        wrong_arity(name)
    };
    session.reply().error(&error);
}

fn unknown(args: Args<'_>) -> String {
    const SHOWN_BYTES_MAX: usize = 128;
    let cut = |bytes: &[u8], max: usize| {
        String::from_utf8_lossy(&bytes[..bytes.len().min(max)]).into_owned()
    };
    let mut shown = String::new();
    for arg in args.from(1) {
        if shown.len() >= SHOWN_BYTES_MAX {
            break;
        }
        shown.push_str(&format!("'{}' ", cut(arg, SHOWN_BYTES_MAX - shown.len())));
    }
    let name = cut(args.at(0), SHOWN_BYTES_MAX);
    format!("ERR unknown command '{name}', with args beginning with: {shown}")
}
