//! The one parsed path type: what is not a [`FsPath`] never reaches the namespace.
//!
//! A path is absolute, UTF-8, with components of 1 to 255 bytes. `.`, `..`, NUL, and empty components are refused,
//! not resolved: who wants them resolved does so before (a shell, the kernel), and `..` in a request from the wire is
//! an attack or a mistake. One trailing slash is taken off.

use std::fmt;

use crate::limits::{NAME_BYTES_MAX, PATH_BYTES_MAX, PATH_DEPTH_MAX};
use crate::{Code, Error, Result};

/// An absolute, normal path of the file system: `/`, or `/a/b` without a trailing slash.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FsPath(String);

impl FsPath {
    /// Parses a path. Errors are [`Code::InvalidPath`] and say which rule is broken.
    pub fn parse(text: &str) -> Result<Self> {
        let bad = |why: String| {
            let shown: String = text.chars().take(200).collect();
            Err(Error::new(Code::InvalidPath, format!("path {shown:?}: {why}")))
        };
        if !text.starts_with('/') {
            return bad("not absolute (it must begin with /)".into());
        }
        if text.len() > PATH_BYTES_MAX {
            return bad(format!("{} bytes, at most {PATH_BYTES_MAX}", text.len()));
        }
        let trimmed = text.strip_suffix('/').unwrap_or(text);
        if trimmed.is_empty() {
            return Ok(Self::root());
        }
        if trimmed.matches('/').count() > PATH_DEPTH_MAX {
            return bad(format!("more than {PATH_DEPTH_MAX} components"));
        }
        for name in trimmed[1..].split('/') {
            if let Err(why) = check_name(name) {
                return bad(why);
            }
        }
        Ok(Self(trimmed.to_owned()))
    }

    /// `/`.
    pub fn root() -> Self {
        Self("/".to_owned())
    }

    /// The path as text: `/`, or `/a/b`.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether this is `/`.
    pub fn is_root(&self) -> bool {
        self.0 == "/"
    }

    /// The components from the root down; none for `/`.
    pub fn components(&self) -> impl DoubleEndedIterator<Item = &str> + Clone {
        self.0[1..].split('/').filter(|name| !name.is_empty())
    }

    /// The last component; `None` for `/`.
    pub fn name(&self) -> Option<&str> {
        if self.is_root() { None } else { self.0.rsplit('/').next() }
    }

    /// The folder that holds this; `None` for `/`.
    pub fn parent(&self) -> Option<Self> {
        if self.is_root() {
            return None;
        }
        let cut = self.0.rfind('/').expect("a path begins with /");
        Some(if cut == 0 { Self::root() } else { Self(self.0[..cut].to_owned()) })
    }

    /// This path with one more component.
    pub fn join(&self, name: &str) -> Result<Self> {
        if name.contains('/') {
            return Err(Error::new(Code::InvalidPath, format!("name {name:?} contains /")));
        }
        let mut text = self.0.clone();
        if !self.is_root() {
            text.push('/');
        }
        text.push_str(name);
        Self::parse(&text)
    }

    /// Whether `other` is this path or lies under it.
    pub fn contains(&self, other: &Self) -> bool {
        self.is_root()
            || other
                .0
                .strip_prefix(&self.0)
                .is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    }
}

/// Checks one component of a path. The error says which rule is broken.
fn check_name(name: &str) -> Result<(), String> {
    match name {
        "" => Err("an empty component (//)".into()),
        "." | ".." => Err(format!("component {name:?} is not resolved here")),
        _ if name.len() > NAME_BYTES_MAX => {
            Err(format!("a component of {} bytes, at most {NAME_BYTES_MAX}", name.len()))
        }
        _ if name.contains('\0') => Err("a NUL byte".into()),
        _ => Ok(()),
    }
}

impl fmt::Display for FsPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for FsPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}

impl std::str::FromStr for FsPath {
    type Err = Error;
    fn from_str(text: &str) -> Result<Self> {
        Self::parse(text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn normal_paths_parse_and_print_alike() {
        for text in ["/", "/a", "/a/b.c", "/a/ b", "/\u{e4}/...", "/a/.b"] {
            assert_eq!(FsPath::parse(text).unwrap().as_str(), text);
        }
        assert_eq!(FsPath::parse("/a/b/").unwrap().as_str(), "/a/b");
    }

    #[test]
    fn paths_that_break_a_rule_are_refused_by_name() {
        let long = format!("/{}", "x".repeat(256));
        let deep = "/a".repeat(PATH_DEPTH_MAX + 1);
        let huge = format!("/{}", "abc/".repeat(3000));
        for (text, why) in [
            ("", "absolute"),
            ("a/b", "absolute"),
            ("//", "empty"),
            ("/a//b", "empty"),
            ("/a/../b", "\"..\""),
            ("/.", "\".\""),
            ("/a\0b", "NUL"),
            (&long, "256 bytes"),
            (&deep, "components"),
            (&huge, "bytes"),
        ] {
            let error = FsPath::parse(text).unwrap_err();
            assert_eq!(error.code, Code::InvalidPath);
            assert!(error.message.contains(why), "{error:?} should tell {why}");
        }
    }

    #[test]
    fn parent_name_join_and_contains_agree() {
        let path = FsPath::parse("/a/b").unwrap();
        assert_eq!(path.parent().unwrap().join(path.name().unwrap()).unwrap(), path);
        assert_eq!(path.components().collect::<Vec<_>>(), ["a", "b"]);
        assert!(FsPath::root().contains(&path) && path.contains(&path));
        assert!(!FsPath::parse("/a/bc").unwrap().contains(&path));
        assert!(!path.contains(&FsPath::parse("/a/bc").unwrap()));
        assert_eq!(FsPath::root().parent(), None);
        assert!(path.join("x/y").is_err() && path.join("..").is_err());
    }
}
