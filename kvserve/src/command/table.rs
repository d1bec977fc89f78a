//! The table of commands: arity, where keys stand, what COMMAND tells of each. And the names of commands that write,
//! which a read-only server refuses by the right words.
//!
//! Arity counts the name; a negative one is a minimum.

/// One command that this server answers.
#[derive(Debug)]
pub struct Spec {
    /// Lower case.
    pub name: &'static str,
    /// Number of arguments with the name; negative: at least.
    pub arity: i32,
    /// Index of the first key; 0: none.
    pub first_key: i32,
    /// Index of the last key; -1: the last argument.
    pub last_key: i32,
    /// Redis' group of commands.
    pub group: &'static str,
    /// One sentence.
    pub summary: &'static str,
}

const fn spec(
    name: &'static str,
    arity: i32,
    keys: (i32, i32),
    group: &'static str,
    summary: &'static str,
) -> Spec {
    Spec { name, arity, first_key: keys.0, last_key: keys.1, group, summary }
}

/// All commands, by name.
pub static COMMANDS: &[Spec] = &[
    spec("asking", 1, (0, 0), "cluster", "Refused: cluster support is disabled"),
    spec("auth", -2, (0, 0), "connection", "Authenticates the connection"),
    spec("client", -2, (0, 0), "connection", "Tells and changes what is known of connections"),
    spec("cluster", -2, (0, 0), "cluster", "Refused: cluster support is disabled"),
    spec("command", -1, (0, 0), "server", "Tells which commands there are"),
    spec("config", -2, (0, 0), "server", "Tells settings"),
    spec("dbsize", 1, (0, 0), "server", "Counts the keys of the store"),
    spec("echo", 2, (0, 0), "connection", "Answers what it was told"),
    spec("exists", -2, (1, -1), "generic", "Counts which of the keys exist"),
    spec("get", 2, (1, 1), "string", "Gets the value of a key"),
    spec("getrange", 4, (1, 1), "string", "Gets a part of the value of a key"),
    spec(
        "granary.scan",
        -3,
        (0, 0),
        "granary",
        "Gets records by prefix, in the order of their keys",
    ),
    spec("granary.use", 2, (0, 0), "granary", "Chooses the store that this connection reads"),
    spec("granary.version", 1, (0, 0), "granary", "Tells the version that answers"),
    spec("hello", -1, (0, 0), "connection", "Chooses the version of the protocol"),
    spec("info", -1, (0, 0), "server", "Tells about the server"),
    spec("keys", 2, (0, 0), "generic", "Lists the keys that match a pattern"),
    spec("mget", -2, (1, -1), "string", "Gets the values of keys"),
    spec("ping", -1, (0, 0), "connection", "Answers PONG"),
    spec("pttl", 2, (1, 1), "generic", "Tells that a key never expires"),
    spec("quit", -1, (0, 0), "connection", "Closes the connection"),
    spec("randomkey", 1, (0, 0), "generic", "Gets some key"),
    spec("readonly", 1, (0, 0), "cluster", "Refused: cluster support is disabled"),
    spec("readwrite", 1, (0, 0), "cluster", "Refused: cluster support is disabled"),
    spec("reset", 1, (0, 0), "connection", "Puts the connection back to its start"),
    spec("scan", -2, (0, 0), "generic", "Walks the keys in pieces"),
    spec("select", 2, (0, 0), "connection", "Accepts database 0"),
    spec("strlen", 2, (1, 1), "string", "Gets the length of the value of a key"),
    spec("time", 1, (0, 0), "server", "Tells the time"),
    spec("ttl", 2, (1, 1), "generic", "Tells that a key never expires"),
    spec("type", 2, (1, 1), "generic", "Tells whether a key exists"),
];

/// Commands of Redis that change something, with their arity, by name.
static WRITES: &[(&str, i32)] = &[
    ("append", 3),
    ("bitfield", -2),
    ("bitop", -4),
    ("blmove", 6),
    ("blmpop", -5),
    ("blpop", -3),
    ("brpop", -3),
    ("brpoplpush", 4),
    ("bzmpop", -5),
    ("bzpopmax", -3),
    ("bzpopmin", -3),
    ("copy", -3),
    ("decr", 2),
    ("decrby", 3),
    ("del", -2),
    ("expire", -3),
    ("expireat", -3),
    ("flushall", -1),
    ("flushdb", -1),
    ("geoadd", -5),
    ("georadius", -6),
    ("georadiusbymember", -5),
    ("geosearchstore", -8),
    ("getdel", 2),
    ("getex", -2),
    ("getset", 3),
    ("hdel", -3),
    ("hincrby", 4),
    ("hincrbyfloat", 4),
    ("hmset", -4),
    ("hset", -4),
    ("hsetnx", 4),
    ("incr", 2),
    ("incrby", 3),
    ("incrbyfloat", 3),
    ("linsert", 5),
    ("lmove", 5),
    ("lmpop", -4),
    ("lpop", -2),
    ("lpush", -3),
    ("lpushx", -3),
    ("lrem", 4),
    ("lset", 4),
    ("ltrim", 4),
    ("migrate", -6),
    ("move", 3),
    ("mset", -3),
    ("msetnx", -3),
    ("persist", 2),
    ("pexpire", -3),
    ("pexpireat", -3),
    ("pfadd", -2),
    ("pfmerge", -2),
    ("psetex", 4),
    ("rename", 3),
    ("renamenx", 3),
    ("restore", -4),
    ("rpop", -2),
    ("rpoplpush", 3),
    ("rpush", -3),
    ("rpushx", -3),
    ("sadd", -3),
    ("sdiffstore", -3),
    ("set", -3),
    ("setbit", 4),
    ("setex", 4),
    ("setnx", 3),
    ("setrange", 4),
    ("sinterstore", -3),
    ("smove", 4),
    ("sort", -2),
    ("spop", -2),
    ("srem", -3),
    ("sunionstore", -3),
    ("swapdb", 3),
    ("unlink", -2),
    ("xadd", -5),
    ("xdel", -3),
    ("xtrim", -4),
    ("zadd", -4),
    ("zdiffstore", -4),
    ("zincrby", 4),
    ("zinterstore", -4),
    ("zmpop", -4),
    ("zpopmax", -2),
    ("zpopmin", -2),
    ("zrangestore", -5),
    ("zrem", -3),
    ("zremrangebylex", 4),
    ("zremrangebyrank", 4),
    ("zremrangebyscore", 4),
    ("zunionstore", -4),
];

/// What a name stands for.
#[derive(Clone, Copy, Debug)]
pub enum Found {
    /// A command that is answered.
    Answered(&'static Spec),
    /// A command that writes, with its name and arity.
    Write(&'static str, i32),
    /// Nothing that is known here.
    Unknown,
}

/// Looks a name up; it may be in any case.
pub fn find(name: &[u8]) -> Found {
    let mut lower = [0; 24];
    let Some(lower) = lower.get_mut(..name.len()) else { return Found::Unknown };
    lower.copy_from_slice(name);
    lower.make_ascii_lowercase();
    if let Ok(at) = COMMANDS.binary_search_by(|spec| spec.name.as_bytes().cmp(lower)) {
        return Found::Answered(&COMMANDS[at]);
    }
    match WRITES.binary_search_by(|(name, _)| name.as_bytes().cmp(lower)) {
        Ok(at) => Found::Write(WRITES[at].0, WRITES[at].1),
        Err(_) => Found::Unknown,
    }
}

/// Whether so many arguments, the name included, fit an arity.
pub fn arity_fits(arity: i32, arguments: usize) -> bool {
    let wanted = arity.unsigned_abs() as usize;
    if arity < 0 { arguments >= wanted } else { arguments == wanted }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_tables_are_sorted_for_the_search_and_disjoint() {
        assert!(COMMANDS.is_sorted_by(|a, b| a.name < b.name));
        assert!(WRITES.is_sorted_by(|a, b| a.0 < b.0));
        assert!(COMMANDS.iter().all(|s| WRITES.iter().all(|w| w.0 != s.name)));
        for spec in COMMANDS {
            let upper = spec.name.to_ascii_uppercase();
            assert!(matches!(find(upper.as_bytes()), Found::Answered(s) if s.name == spec.name));
        }
        assert!(matches!(find(b"sEt"), Found::Write("set", -3)));
        assert!(matches!(find(b"nosuch"), Found::Unknown));
        assert!(matches!(find(&[b'a'; 1000]), Found::Unknown));
    }
}
