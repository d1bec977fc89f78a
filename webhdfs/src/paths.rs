//! Paths and parameters to and from URLs.
//!
//! A path is percent-decoded once: `+`, `;` and spaces in names are themselves. A query is decoded as forms are: there
//! `+` is a space. What is written into URLs is ASCII, with everything encoded that any reader could take for syntax.

use crate::{Exception, PREFIX, Result};

/// The path of the file system that a URL's path names.
pub fn path_of(url_path: &str) -> Result<String> {
    let rest = url_path.strip_prefix(PREFIX).ok_or_else(|| {
        Exception::illegal(format!("the path {url_path:?} does not begin with {PREFIX}"))
    })?;
    let path = decode(rest, Plus::Plain)?;
    Ok(if path.is_empty() { "/".to_owned() } else { path })
}

/// What `+` stands for.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Plus {
    /// Itself: in a path.
    Plain,
    /// A space: in a query.
    Space,
}

/// Decodes percent-encoded UTF-8.
pub(crate) fn decode(text: &str, plus: Plus) -> Result<String> {
    let bad = |why: &str| {
        let shown: String = text.chars().take(200).collect();
        Err(Exception::illegal(format!("{shown:?} is not percent-encoded: {why}")))
    };
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        match byte {
            b'%' => {
                let mut digit = || rest.next().and_then(|byte| char::from(byte).to_digit(16));
                match (digit(), digit()) {
                    (Some(high), Some(low)) => bytes.push((high * 16 + low) as u8),
                    _ => return bad("two hexadecimal digits must follow %"),
                }
            }
            b'+' if plus == Plus::Space => bytes.push(b' '),
            byte => bytes.push(byte),
        }
    }
    String::from_utf8(bytes).or_else(|_| bad("the bytes are not UTF-8"))
}

/// A path as it stands in a URL.
pub fn encode_path(path: &str) -> String {
    encode(path, |byte| byte == b'/')
}

/// A name or value as it stands in a query.
pub fn encode_query(text: &str) -> String {
    encode(text, |_| false)
}

fn encode(text: &str, also: impl Fn(u8) -> bool) -> String {
    let mut encoded = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) || also(byte) {
            encoded.push(char::from(byte));
        } else {
            encoded.push('%');
            for digit in [byte >> 4, byte & 15] {
                let digit = char::from_digit(digit.into(), 16).expect("four bits are one digit");
                encoded.push(digit.to_ascii_uppercase());
            }
        }
    }
    encoded
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn names_keep_what_urls_use_as_syntax() {
        for (url, path) in [
            ("/webhdfs/v1", "/"),
            ("/webhdfs/v1/", "/"),
            ("/webhdfs/v1/a%20b", "/a b"),
            ("/webhdfs/v1/a+b", "/a+b"),
            ("/webhdfs/v1/a%2Bb", "/a+b"),
            ("/webhdfs/v1/a;b", "/a;b"),
            ("/webhdfs/v1/a%3Bb%3Dc", "/a;b=c"),
            ("/webhdfs/v1/100%25", "/100%"),
            ("/webhdfs/v1/%25%32%30", "/%20"),
            ("/webhdfs/v1/%C3%A4", "/\u{e4}"),
            ("/webhdfs/v1/a%2Fb", "/a/b"),
        ] {
            assert_eq!(path_of(url).unwrap(), path, "{url}");
        }
    }

    #[test]
    fn what_is_not_percent_encoded_is_refused() {
        for url in ["/webhdfs/v1/%", "/webhdfs/v1/%2", "/webhdfs/v1/%zz", "/webhdfs/v1/%ff", "/x"] {
            assert_eq!(path_of(url).unwrap_err().status.as_u16(), 400, "{url}");
        }
    }

    proptest! {
        #[test]
        fn what_was_encoded_decodes_to_the_same(text: String) {
            prop_assert_eq!(decode(&encode_query(&text), Plus::Space).unwrap(), text.clone());
            prop_assert_eq!(decode(&encode_path(&text), Plus::Plain).unwrap(), text);
        }

        #[test]
        fn any_text_decodes_or_is_refused(text: String) {
            decode(&text, Plus::Space).ok();
        }
    }
}
