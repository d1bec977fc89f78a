//! Commands about the server: INFO, CONFIG, COMMAND, CLUSTER, TIME.
#![allow(clippy::disallowed_methods, reason = "TIME tells the clock")]

use std::fmt::Write;
use std::sync::atomic::Ordering::Relaxed;
use std::time::SystemTime;

use super::connection::REDIS_VERSION;
use super::glob::matches;
use super::table::{COMMANDS, Found, Spec, arity_fits, find};
use super::{unknown_subcommand, wrong_arity};
use crate::resp::{Args, Reply};
use crate::session::{Front, Session};

/// What Redis without cluster support answers.
pub const NO_CLUSTER: &str = "ERR This instance has cluster support disabled";

/// TIME: seconds and microseconds.
pub fn time(session: &mut Session<'_>) {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    let mut reply = session.reply();
    reply.array(2);
    reply.bulk(now.as_secs().to_string().as_bytes());
    reply.bulk(now.subsec_micros().to_string().as_bytes());
}

/// CLUSTER: refused.
pub fn cluster(session: &mut Session<'_>, args: Args<'_>) {
    const KNOWN: [&str; 14] = [
        "info",
        "keyslot",
        "myid",
        "slots",
        "shards",
        "nodes",
        "countkeysinslot",
        "getkeysinslot",
        "links",
        "replicas",
        "slaves",
        "meet",
        "forget",
        "reset",
    ];
    let subcommand = args.at(1).to_ascii_lowercase();
    if KNOWN.iter().any(|known| known.as_bytes() == subcommand) {
        session.reply().error(NO_CLUSTER);
    } else {
        session.reply().error(&unknown_subcommand("cluster", args.at(1)));
    }
}

/// CONFIG GET pattern ...; CONFIG SET is refused, RESETSTAT does nothing.
pub fn config(session: &mut Session<'_>, args: Args<'_>) {
    match args.at(1).to_ascii_lowercase().as_slice() {
        b"get" if args.len() >= 3 => {
            let settings = redis_settings(&session.front);
            let wanted = |name: &str| {
                args.from(2).any(|pattern| matches(&pattern.to_ascii_lowercase(), name.as_bytes()))
            };
            let found: Vec<_> = settings.into_iter().filter(|(name, _)| wanted(name)).collect();
            let mut reply = session.reply();
            reply.map(found.len());
            for (name, value) in found {
                reply.bulk(name.as_bytes());
                reply.bulk(value.as_bytes());
            }
        }
        b"set" if args.len() >= 4 => session
            .reply()
            .error("ERR settings are not changed at run time: edit the configuration and restart"),
        b"resetstat" if args.len() == 2 => session.reply().ok(),
        known @ (b"get" | b"set" | b"resetstat") => {
            let name = format!("config|{}", String::from_utf8_lossy(known));
            session.reply().error(&wrong_arity(&name));
        }
        _ => session.reply().error(&unknown_subcommand("config", args.at(1))),
    }
}

/// Settings by the names that Redis has for them, sorted.
fn redis_settings(front: &Front) -> Vec<(&'static str, String)> {
    let config = &front.config;
    vec![
        ("appendonly", "no".into()),
        ("databases", "1".into()),
        ("maxclients", config.connections_max.to_string()),
        ("maxmemory", "0".into()),
        ("maxmemory-policy", "noeviction".into()),
        ("proto-max-bulk-len", config.argument_bytes_max.to_string()),
        ("save", String::new()),
        ("timeout", (config.idle_timeout_ms / 1000).to_string()),
    ]
}

/// INFO [section ...].
pub fn info(session: &mut Session<'_>, args: Args<'_>) {
    let wanted: Vec<Vec<u8>> = args.from(1).map(<[u8]>::to_ascii_lowercase).collect();
    let all = wanted.is_empty()
        || wanted.iter().any(|w| [&b"all"[..], b"default", b"everything"].contains(&w.as_slice()));
    let mut text = String::new();
    for (name, lines) in sections(&session.front) {
        if !all && !wanted.iter().any(|w| w.eq_ignore_ascii_case(name.as_bytes())) {
            continue;
        }
        if !text.is_empty() {
            text.push_str("\r\n");
        }
        text.push_str(&format!("# {name}\r\n"));
        for (field, value) in lines {
            text.push_str(&format!("{field}:{value}\r\n"));
        }
    }
    session.reply().verbatim(&text);
}

type Section = (&'static str, Vec<(String, String)>);

fn sections(front: &Front) -> Vec<Section> {
    let line = |name: &str, value: &dyn ToString| (name.to_owned(), value.to_string());
    let uptime = front.started.elapsed().as_secs();
    let (connected, accepted) = front.clients.counts();
    let counters = &front.counters;
    let mut sections = vec![
        (
            "Server",
            vec![
                line("redis_version", &REDIS_VERSION),
                line("redis_mode", &"standalone"),
                line("granary_version", &proto::SOFTWARE_VERSION),
                line("run_id", &front.uuid.replace('-', "")),
                line("process_id", &std::process::id()),
                line("uptime_in_seconds", &uptime),
                line("uptime_in_days", &(uptime / 86400)),
            ],
        ),
        (
            "Clients",
            vec![
                line("connected_clients", &connected),
                line("maxclients", &front.config.connections_max),
            ],
        ),
        (
            "Stats",
            vec![
                line("total_connections_received", &accepted),
                line("total_commands_processed", &counters.commands.load(Relaxed)),
                line("rejected_connections", &counters.refused.load(Relaxed)),
                line("keyspace_hits", &counters.hits.load(Relaxed)),
                line("keyspace_misses", &counters.misses.load(Relaxed)),
                line("read_failures", &counters.failures.load(Relaxed)),
            ],
        ),
        ("Replication", vec![line("role", &"master"), line("connected_slaves", &0)]),
        ("Cluster", vec![line("cluster_enabled", &0)]),
    ];
    let mut stores = Vec::new();
    for (at, (name, cell)) in front.stores.all().iter().enumerate() {
        let view = cell.view();
        let mut value = format!("name={name}");
        if let Some(current) = &view.current {
            write!(
                value,
                ",version={},tables={},keys={},bytes={}",
                current.number,
                current.tables().len(),
                current.records(),
                current.bytes()
            )
            .expect("writing to a string never fails");
        }
        let open: Vec<_> = view.open.keys().map(u64::to_string).collect();
        value.push_str(&format!(",open={}", open.join("+")));
        stores.push((format!("store{at}"), value));
    }
    sections.push(("Granary", stores));
    let default = front.stores.default_store().ok();
    let keys = default.and_then(|cell| cell.view().current.as_ref().map(|v| v.records()));
    let keyspace = match keys {
        Some(keys) if keys > 0 => {
            vec![line("db0", &format!("keys={keys},expires=0,avg_ttl=0"))]
        }
        _ => Vec::new(),
    };
    sections.push(("Keyspace", keyspace));
    sections
}

/// COMMAND [COUNT | LIST | INFO | DOCS | GETKEYS].
pub fn command(session: &mut Session<'_>, args: Args<'_>) {
    let Some(subcommand) = args.get(1) else {
        let mut reply = session.reply();
        reply.array(COMMANDS.len());
        COMMANDS.iter().for_each(|spec| describe(&mut reply, spec));
        return;
    };
    match subcommand.to_ascii_lowercase().as_slice() {
        b"count" => session.reply().integer(COMMANDS.len() as i64),
        b"list" => command_list(session, args),
        b"info" => command_info(session, args),
        b"docs" => command_docs(session, args),
        b"getkeys" if args.len() >= 3 => command_getkeys(session, args),
        b"getkeys" => session.reply().error(&wrong_arity("command|getkeys")),
        _ => session.reply().error(&unknown_subcommand("command", subcommand)),
    }
}

fn command_list(session: &mut Session<'_>, args: Args<'_>) {
    let pattern = match args.len() {
        2 => b"*".to_vec(),
        5 if args.at(2).eq_ignore_ascii_case(b"filterby")
            && args.at(3).eq_ignore_ascii_case(b"pattern") =>
        {
            args.at(4).to_ascii_lowercase()
        }
        _ => {
            session.reply().error("ERR syntax error");
            return;
        }
    };
    let names: Vec<_> =
        COMMANDS.iter().map(|spec| spec.name).filter(|n| matches(&pattern, n.as_bytes())).collect();
    let mut reply = session.reply();
    reply.array(names.len());
    names.iter().for_each(|name| reply.bulk(name.as_bytes()));
}

/// The commands that are named behind COMMAND INFO or DOCS; none named: all.
fn named(args: Args<'_>) -> Vec<Option<&'static Spec>> {
    if args.len() == 2 {
        return COMMANDS.iter().map(Some).collect();
    }
    let one = |name: &[u8]| match find(name) {
        Found::Answered(spec) => Some(spec),
        _ => None,
    };
    args.from(2).map(one).collect()
}

fn command_info(session: &mut Session<'_>, args: Args<'_>) {
    let specs = named(args);
    let mut reply = session.reply();
    reply.array(specs.len());
    for spec in specs {
        match spec {
            Some(spec) => describe(&mut reply, spec),
            None => reply.null_array(),
        }
    }
}

fn command_docs(session: &mut Session<'_>, args: Args<'_>) {
    let specs: Vec<_> = named(args).into_iter().flatten().collect();
    let mut reply = session.reply();
    reply.map(specs.len());
    for spec in specs {
        reply.bulk(spec.name.as_bytes());
        reply.map(2);
        for (field, value) in [("summary", spec.summary), ("group", spec.group)] {
            reply.bulk(field.as_bytes());
            reply.bulk(value.as_bytes());
        }
    }
}

fn command_getkeys(session: &mut Session<'_>, args: Args<'_>) {
    let Found::Answered(spec) = find(args.at(2)) else {
        session.reply().error("ERR Invalid command specified");
        return;
    };
    let arguments = args.len() - 2;
    if !arity_fits(spec.arity, arguments) {
        session.reply().error("ERR Invalid number of arguments specified for command");
        return;
    }
    if spec.first_key == 0 {
        session.reply().error("ERR The command has no key arguments");
        return;
    }
    let last = if spec.last_key < 0 { arguments - 1 } else { spec.last_key as usize };
    let first = spec.first_key as usize;
    let mut reply = session.reply();
    reply.array(last + 1 - first);
    for key in args.from(2 + first).take(last + 1 - first) {
        reply.bulk(key);
    }
}

/// One entry of COMMAND: name, arity, flags, first key, last key, step, categories, tips, key places, subcommands.
fn describe(reply: &mut Reply<'_>, spec: &Spec) {
    let reads = spec.first_key > 0 || ["string", "generic"].contains(&spec.group);
    reply.array(10);
    reply.bulk(spec.name.as_bytes());
    reply.integer(i64::from(spec.arity));
    let flags = if reads { ["readonly", "fast"] } else { ["loading", "stale"] };
    reply.set(flags.len());
    flags.iter().for_each(|flag| reply.simple(flag));
    reply.integer(i64::from(spec.first_key));
    reply.integer(i64::from(spec.last_key));
    reply.integer(i64::from(spec.first_key > 0));
    reply.set(1);
    reply.simple(if reads { "@read" } else { "@connection" });
    for _tips_places_subcommands in 0..3 {
        reply.array(0);
    }
}
