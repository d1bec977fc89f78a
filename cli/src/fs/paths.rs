//! Paths of the cluster as users write them, and patterns over them. No IO: listings are asked for through a function.
//!
//! A relative path stands under `/user/<user>`, as in HDFS; `.` is that folder. `..` is refused, not resolved.
//! `*`, `?`, `[a-z]` and `{a,b}` match within one component; a leading dot must be written out. A path that exists as it
//! is written is never taken as a pattern.

use glob::{MatchOptions, Pattern};
use proto::{Error, FsPath};

use crate::failure::{Exit, Failure, Result};

/// Alternatives that the braces of one pattern may stand for.
const BRACE_ALTERNATIVES_MAX: usize = 1_000;
/// Paths that one pattern may stand for.
const MATCHES_MAX: usize = 1_000_000;

const OPTIONS: MatchOptions = MatchOptions {
    case_sensitive: true,
    require_literal_separator: true,
    require_literal_leading_dot: true,
};

/// Makes a user's text absolute.
pub fn absolute(text: &str, user: &str) -> String {
    let text = text.strip_prefix("./").unwrap_or(text);
    match text {
        "" | "." => format!("/user/{user}"),
        _ if text.starts_with('/') => text.to_owned(),
        _ => format!("/user/{user}/{text}"),
    }
}

/// Parses a user's path.
pub fn parse(text: &str, user: &str) -> Result<FsPath> {
    if text.is_empty() {
        return Err(Failure::usage("path \"\": empty").hint("`.` is your folder under /user"));
    }
    Ok(FsPath::parse(&absolute(text, user))?)
}

/// Whether a text may be a pattern.
pub fn is_pattern(text: &str) -> bool {
    text.contains(['*', '?', '[', '{'])
}

/// The paths that exist and match `pattern` (absolute), in order. `list` gives the names in a folder, or nothing if it
/// is none; `exists` tells whether a path is there.
pub async fn expand<L, E>(pattern: &str, list: L, exists: E) -> Result<Vec<FsPath>>
where
    L: AsyncFn(&FsPath) -> Result<Vec<String>, Error>,
    E: AsyncFn(&FsPath) -> Result<bool, Error>,
{
    let mut found = Vec::new();
    for alternative in braces(pattern)? {
        found.extend(expand_one(&alternative, &list, &exists).await?);
    }
    found.sort();
    found.dedup();
    if found.is_empty() {
        return Err(Failure::new(Exit::NotFound, format!("{pattern}: nothing matches")));
    }
    Ok(found)
}

async fn expand_one<L, E>(pattern: &str, list: &L, exists: &E) -> Result<Vec<FsPath>>
where
    L: AsyncFn(&FsPath) -> Result<Vec<String>, Error>,
    E: AsyncFn(&FsPath) -> Result<bool, Error>,
{
    let mut paths = vec![FsPath::root()];
    let mut certain = true; // whether all of `paths` are known to exist
    for component in pattern.split('/').filter(|name| !name.is_empty()) {
        if !component.contains(['*', '?', '[']) {
            paths = paths.iter().map(|path| path.join(component)).collect::<Result<_, _>>()?;
            certain = false;
            continue;
        }
        let matcher = Pattern::new(component)
            .map_err(|error| Failure::usage(format!("pattern {component:?}: {}", error.msg)))?;
        let mut next = Vec::new();
        for folder in &paths {
            let names = list(folder).await?;
            for name in names.iter().filter(|name| matcher.matches_with(name, OPTIONS)) {
                next.push(folder.join(name)?);
            }
            if next.len() > MATCHES_MAX {
                let message = format!("{pattern}: more than {MATCHES_MAX} paths match");
                return Err(Failure::usage(message).hint("name the folder and use -r"));
            }
        }
        paths = next;
        certain = true;
    }
    if certain {
        return Ok(paths);
    }
    let mut there = Vec::new();
    for path in paths {
        if exists(&path).await? {
            there.push(path);
        }
    }
    Ok(there)
}

/// What `{a,b}` stands for; braces may nest. A brace without its partner is an ordinary character.
fn braces(pattern: &str) -> Result<Vec<String>> {
    let mut open = vec![pattern.to_owned()];
    let mut done = Vec::new();
    while let Some(text) = open.pop() {
        match first_brace(&text) {
            None => done.push(text),
            Some((start, end)) => {
                for part in split_alternatives(&text[start + 1..end]).into_iter().rev() {
                    open.push(format!("{}{part}{}", &text[..start], &text[end + 1..]));
                }
            }
        }
        if done.len() + open.len() > BRACE_ALTERNATIVES_MAX {
            let message = format!("{pattern}: braces stand for more than {BRACE_ALTERNATIVES_MAX}");
            return Err(Failure::usage(message));
        }
    }
    Ok(done)
}

/// The first `{` that has its `}`, and where that is.
fn first_brace(text: &str) -> Option<(usize, usize)> {
    let start = text.find('{')?;
    let mut depth = 0usize;
    for (index, byte) in text.bytes().enumerate().skip(start) {
        match byte {
            b'{' => depth += 1,
            b'}' => depth -= 1,
            _ => {}
        }
        if depth == 0 {
            return Some((start, index));
        }
    }
    None
}

/// Splits at the commas outside inner braces.
fn split_alternatives(text: &str) -> Vec<&str> {
    let (mut parts, mut start, mut depth) = (Vec::new(), 0, 0usize);
    for (index, byte) in text.bytes().enumerate() {
        match byte {
            b'{' => depth += 1,
            b'}' => depth = depth.saturating_sub(1),
            b',' if depth == 0 => {
                parts.push(&text[start..index]);
                start = index + 1;
            }
            _ => {}
        }
    }
    parts.push(&text[start..]);
    parts
}

#[cfg(test)]
mod tests {
    use super::*;

    const TREE: &[&str] = &["/a/one.log", "/a/two.log", "/a/.hidden", "/b/one.txt", "/b/c/one.log"];

    fn expanded(pattern: &str) -> Result<Vec<String>> {
        let list = async |folder: &FsPath| {
            let inside = TREE.iter().filter_map(|path| {
                let prefix = if folder.is_root() { "" } else { folder.as_str() };
                path.strip_prefix(prefix)?.strip_prefix('/')?.split('/').next()
            });
            let mut names: Vec<String> = inside.map(str::to_owned).collect();
            names.dedup();
            Ok(names)
        };
        let exists = async |path: &FsPath| {
            Ok(TREE.iter().any(|known| path.contains(&FsPath::parse(known).unwrap())))
        };
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let paths = runtime.block_on(expand(pattern, list, exists))?;
        Ok(paths.iter().map(|path| path.as_str().to_owned()).collect())
    }

    #[test]
    fn patterns_match_by_component() {
        assert_eq!(expanded("/a/*.log").unwrap(), ["/a/one.log", "/a/two.log"]);
        assert_eq!(expanded("/*/one.*").unwrap(), ["/a/one.log", "/b/one.txt"]);
        assert_eq!(expanded("/*/c").unwrap(), ["/b/c"]);
        assert_eq!(expanded("/[ab]/t?o.log").unwrap(), ["/a/two.log"]);
        assert_eq!(expanded("/{a,b/{c,d}}/one.log").unwrap(), ["/a/one.log", "/b/c/one.log"]);
        assert_eq!(expanded("/a/*").unwrap(), ["/a/one.log", "/a/two.log"]);
        assert_eq!(expanded("/a/.*").unwrap(), ["/a/.hidden"]);
    }

    #[test]
    fn a_pattern_without_a_match_is_not_found() {
        let failure = expanded("/x/*").unwrap_err();
        assert_eq!(
            (failure.exit, failure.message.as_str()),
            (Exit::NotFound, "/x/*: nothing matches")
        );
        assert_eq!(expanded("/a/[").unwrap_err().exit, Exit::Usage);
    }

    #[test]
    fn braces_are_bounded_and_lone_ones_are_ordinary() {
        assert!(braces(&"{a,b}".repeat(20)).is_err());
        assert_eq!(braces("a{b").unwrap(), ["a{b"]);
        assert_eq!(braces("}a{b,c}").unwrap(), ["}ab", "}ac"]);
    }

    #[test]
    fn relative_paths_stand_in_the_users_folder() {
        assert_eq!(parse("x/y", "ann").unwrap().as_str(), "/user/ann/x/y");
        assert_eq!(parse("./x", "ann").unwrap().as_str(), "/user/ann/x");
        assert_eq!(parse(".", "ann").unwrap().as_str(), "/user/ann");
        assert_eq!(parse("/x", "ann").unwrap().as_str(), "/x");
        assert_eq!(parse("../x", "ann").unwrap_err().exit, Exit::Usage);
        assert_eq!(parse("", "ann").unwrap_err().exit, Exit::Usage);
    }
}
