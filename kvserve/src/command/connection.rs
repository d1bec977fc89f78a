//! Commands about connections: PING, HELLO, AUTH, SELECT, RESET, CLIENT.

use std::io;

use rustix::net::Shutdown;

use super::{Flow, unknown_subcommand, wrong_arity};
use crate::clients::Client;
use crate::resp::parse::number;
use crate::resp::{Args, Protocol};
use crate::session::{Muting, Session};

/// The version of Redis whose behaviour clients may expect.
pub const REDIS_VERSION: &str = "7.0.15";

const SYNTAX: &str = "ERR syntax error";
const WRONG_PASSWORD: &str = "WRONGPASS invalid username-password pair or user is disabled.";

/// PING [message].
pub fn ping(session: &mut Session<'_>, args: Args<'_>) {
    match args.len() {
        1 => session.reply().simple("PONG"),
        2 => session.reply().bulk(args.at(1)),
        _ => session.reply().error(&wrong_arity("ping")),
    }
}

/// AUTH [user] password: there is one user, without a password.
pub fn auth(session: &mut Session<'_>, args: Args<'_>) {
    match args.len() {
        2 => session.reply().error(
            "ERR AUTH <password> called without any password configured for the default user. \
             Are you sure your configuration is correct?",
        ),
        3 if args.at(1) == b"default" => session.reply().ok(),
        3 => session.reply().error(WRONG_PASSWORD),
        _ => session.reply().error(SYNTAX),
    }
}

/// SELECT 0.
pub fn select(session: &mut Session<'_>, index: &[u8]) {
    match number(index) {
        Some(0) => session.reply().ok(),
        Some(_) => session.reply().error("ERR DB index is out of range"),
        None => session.reply().error("ERR value is not an integer or out of range"),
    }
}

/// RESET.
pub fn reset(session: &mut Session<'_>) {
    session.reset();
    session.reply().simple("RESET");
}

/// HELLO [version [AUTH user password] [SETNAME name]].
pub fn hello(session: &mut Session<'_>, args: Args<'_>) {
    let (protocol, name) = match parse_hello(session.protocol, args) {
        Ok(parsed) => parsed,
        Err(error) => {
            session.reply().error(&error);
            return;
        }
    };
    session.set_protocol(protocol);
    if let Some(name) = name {
        session.client.told().name = name;
    }
    let id = session.client.id as i64;
    let mut reply = session.reply();
    reply.map(7);
    for (name, value) in [("server", "redis"), ("version", REDIS_VERSION)] {
        reply.bulk(name.as_bytes());
        reply.bulk(value.as_bytes());
    }
    reply.bulk(b"proto");
    reply.integer(if protocol == Protocol::Resp3 { 3 } else { 2 });
    reply.bulk(b"id");
    reply.integer(id);
    for (name, value) in [("mode", "standalone"), ("role", "master")] {
        reply.bulk(name.as_bytes());
        reply.bulk(value.as_bytes());
    }
    reply.bulk(b"modules");
    reply.array(0);
}

/// Checks all of HELLO before any of it takes effect.
fn parse_hello(now: Protocol, args: Args<'_>) -> Result<(Protocol, Option<String>), String> {
    let protocol = match args.get(1).map(number) {
        None => now,
        Some(Some(2)) => Protocol::Resp2,
        Some(Some(3)) => Protocol::Resp3,
        Some(Some(_)) => return Err("NOPROTO unsupported protocol version".into()),
        Some(None) => return Err("ERR Protocol version is not an integer or out of range".into()),
    };
    let (mut at, mut name) = (2, None);
    while let Some(option) = args.get(at) {
        let left = args.len() - at - 1;
        if option.eq_ignore_ascii_case(b"auth") && left >= 2 {
            if args.at(at + 1) != b"default" {
                return Err(WRONG_PASSWORD.into());
            }
            at += 3;
        } else if option.eq_ignore_ascii_case(b"setname") && left >= 1 {
            name = Some(client_text(args.at(at + 1), "names")?);
            at += 2;
        } else {
            let shown = String::from_utf8_lossy(option);
            return Err(format!("ERR Syntax error in HELLO option '{shown}'"));
        }
    }
    Ok((protocol, name))
}

/// A name or version that a client tells of itself: printable ASCII without spaces.
fn client_text(text: &[u8], what: &str) -> Result<String, String> {
    const BYTES_MAX: usize = 1024;
    if text.len() > BYTES_MAX {
        return Err(format!("ERR Client {what} cannot be longer than {BYTES_MAX} bytes."));
    }
    let printable = text.iter().all(u8::is_ascii_graphic);
    match std::str::from_utf8(text) {
        Ok(text) if printable => Ok(text.to_owned()),
        _ => {
            Err(format!("ERR Client {what} cannot contain spaces, newlines or special characters."))
        }
    }
}

/// CLIENT subcommand ...
pub async fn client(session: &mut Session<'_>, args: Args<'_>) -> io::Result<Flow> {
    let subcommand = args.at(1).to_ascii_lowercase();
    let wanted = match subcommand.as_slice() {
        b"id" | b"info" | b"getname" => 2..=2,
        b"setname" | b"reply" | b"no-evict" | b"no-touch" => 3..=3,
        b"setinfo" => 4..=4,
        b"list" => 2..=usize::MAX,
        b"kill" => 3..=usize::MAX,
        _ => {
            session.reply().error(&unknown_subcommand("client", args.at(1)));
            return Ok(Flow::Next);
        }
    };
    if !wanted.contains(&args.len()) {
        let name = format!("client|{}", String::from_utf8_lossy(&subcommand));
        session.reply().error(&wrong_arity(&name));
        return Ok(Flow::Next);
    }
    match subcommand.as_slice() {
        b"reply" => return client_reply(session, args.at(2)).await,
        b"kill" => return Ok(client_kill(session, args)),
        b"id" => {
            let id = session.client.id as i64;
            session.reply().integer(id);
        }
        b"info" => {
            let line = session.client.line("client|info");
            session.reply().verbatim(&line);
        }
        b"list" => client_list(session, args),
        b"getname" => {
            let name = session.client.told().name.clone();
            if name.is_empty() {
                session.reply().null()
            } else {
                session.reply().bulk(name.as_bytes())
            }
        }
        b"setname" => {
            tell(session, client_text(args.at(2), "names"), |told, name| told.name = name)
        }
        b"setinfo" => client_setinfo(session, args.at(2), args.at(3)),
        _ => on_or_off(session, args.at(2)),
    }
    Ok(Flow::Next)
}

fn tell(
    session: &mut Session<'_>,
    text: Result<String, String>,
    note: impl FnOnce(&mut crate::clients::Told, String),
) {
    match text {
        Ok(text) => {
            note(&mut session.client.told(), text);
            session.reply().ok();
        }
        Err(error) => session.reply().error(&error),
    }
}

fn client_setinfo(session: &mut Session<'_>, attribute: &[u8], value: &[u8]) {
    if attribute.eq_ignore_ascii_case(b"lib-name") {
        tell(session, client_text(value, "lib-name"), |told, text| told.lib_name = text);
    } else if attribute.eq_ignore_ascii_case(b"lib-ver") {
        tell(session, client_text(value, "lib-ver"), |told, text| told.lib_version = text);
    } else {
        let shown = String::from_utf8_lossy(attribute);
        session.reply().error(&format!("ERR Unrecognized option '{shown}'"));
    }
}

/// CLIENT NO-EVICT and NO-TOUCH: nothing is ever evicted here.
fn on_or_off(session: &mut Session<'_>, word: &[u8]) {
    if word.eq_ignore_ascii_case(b"on") || word.eq_ignore_ascii_case(b"off") {
        session.reply().ok();
    } else {
        session.reply().error(SYNTAX);
    }
}

async fn client_reply(session: &mut Session<'_>, mode: &[u8]) -> io::Result<Flow> {
    if mode.eq_ignore_ascii_case(b"on") {
        session.mute(Muting::None).await?;
        session.reply().ok();
    } else if mode.eq_ignore_ascii_case(b"off") {
        session.mute(Muting::All).await?;
    } else if mode.eq_ignore_ascii_case(b"skip") {
        session.mute(Muting::NextCommand).await?;
    } else {
        session.reply().error(SYNTAX);
    }
    Ok(Flow::Next)
}

fn client_list(session: &mut Session<'_>, args: Args<'_>) {
    let wanted: Option<Vec<i64>> = match args.get(2).map(<[u8]>::to_ascii_lowercase).as_deref() {
        None => None,
        Some(b"type") if args.len() == 4 => match args.at(3).to_ascii_lowercase().as_slice() {
            b"normal" => None,
            b"master" | b"replica" | b"slave" | b"pubsub" => Some(Vec::new()),
            other => {
                let shown = String::from_utf8_lossy(other);
                session.reply().error(&format!("ERR Unknown client type '{shown}'"));
                return;
            }
        },
        Some(b"id") if args.len() >= 4 => {
            let ids: Option<Vec<i64>> = args.from(3).map(number).collect();
            match ids {
                Some(ids) => Some(ids),
                None => {
                    session.reply().error("ERR Invalid client ID");
                    return;
                }
            }
        }
        Some(_) => {
            session.reply().error(SYNTAX);
            return;
        }
    };
    let own = session.client.id;
    let lines: String = session
        .front
        .clients
        .all()
        .iter()
        .filter(|client| wanted.as_ref().is_none_or(|ids| ids.contains(&(client.id as i64))))
        .map(|client| client.line(if client.id == own { "client|list" } else { "NULL" }))
        .collect();
    session.reply().verbatim(&lines);
}

/// CLIENT KILL address, or CLIENT KILL filter value ...
fn client_kill(session: &mut Session<'_>, args: Args<'_>) -> Flow {
    let old_form = args.len() == 3;
    let filter = match KillFilter::parse(args) {
        Ok(filter) => filter,
        Err(error) => {
            session.reply().error(&error);
            return Flow::Next;
        }
    };
    let (mut killed, mut own) = (0, false);
    for client in session.front.clients.all() {
        let itself = client.id == session.client.id;
        if !filter.admits(&client) || (itself && filter.skip_me) {
            continue;
        }
        killed += 1;
        if itself {
            own = true;
        } else {
            client.end(Shutdown::Both);
        }
    }
    match (old_form, killed) {
        (true, 0) => session.reply().error("ERR No such client"),
        (true, _) => session.reply().ok(),
        (false, _) => session.reply().integer(killed),
    }
    if own { Flow::Close } else { Flow::Next }
}

#[derive(Default)]
struct KillFilter {
    id: Option<u64>,
    peer: Option<String>,
    local: Option<String>,
    nobody: bool,
    skip_me: bool,
}

impl KillFilter {
    fn parse(args: Args<'_>) -> Result<Self, String> {
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        if args.len() == 3 {
            return Ok(Self { peer: Some(text(args.at(2))), ..Self::default() });
        }
        let mut filter = Self { skip_me: true, ..Self::default() };
        let mut at = 2;
        while at < args.len() {
            let value = args.get(at + 1).ok_or(SYNTAX)?;
            match args.at(at).to_ascii_lowercase().as_slice() {
                b"id" => {
                    let id =
                        number(value).and_then(|id| u64::try_from(id).ok()).filter(|&id| id > 0);
                    filter.id = Some(id.ok_or("ERR client-id should be greater than 0")?);
                }
                b"addr" => filter.peer = Some(text(value)),
                b"laddr" => filter.local = Some(text(value)),
                b"user" => filter.nobody |= value != b"default",
                b"type" => filter.nobody |= !value.eq_ignore_ascii_case(b"normal"),
                b"skipme" if value.eq_ignore_ascii_case(b"yes") => filter.skip_me = true,
                b"skipme" if value.eq_ignore_ascii_case(b"no") => filter.skip_me = false,
                _ => return Err(SYNTAX.into()),
            }
            at += 2;
        }
        Ok(filter)
    }

    fn admits(&self, client: &Client) -> bool {
        !self.nobody
            && self.id.is_none_or(|id| id == client.id)
            && self.peer.as_ref().is_none_or(|peer| *peer == client.peer.to_string())
            && self.local.as_ref().is_none_or(|local| *local == client.local.to_string())
    }
}
