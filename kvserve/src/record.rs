//! The small text files in a server's folder: a head line, lines of `name value`, and a CRC32 of all before it.
//!
//! ```text
//! granary-kvserve-current 1
//! version 7
//! crc32 0a1b2c3d
//! ```
//!
//! Described in `docs/formats/kvserve-folder.md`. Decoding is total; a newer format version is refused, not guessed
//! at. Writing is one function: temporary file, sync, rename, sync of the folder.

use std::fs::File;
use std::io::Write;
use std::path::Path;

use proto::{Code, Error, Result};

/// The format version that is written and read.
pub const FORMAT_VERSION: u32 = 1;
/// Bytes of a file that are read at most: 10,000 tables fit.
const BYTES_MAX: u64 = 4 << 20;

/// The text of a record of this `kind`.
pub fn encode(kind: &str, lines: &[(&str, String)]) -> String {
    let mut text = format!("granary-kvserve-{kind} {FORMAT_VERSION}\n");
    for (name, value) in lines {
        text.push_str(name);
        text.push(' ');
        text.push_str(value);
        text.push('\n');
    }
    let crc = crc32fast::hash(text.as_bytes());
    text.push_str(&format!("crc32 {crc:08x}\n"));
    text
}

/// The lines of a record of this `kind`.
pub fn decode<'t>(kind: &str, text: &'t str) -> Result<Vec<(&'t str, &'t str)>> {
    let corrupt = |what: String| Error::new(Code::Corrupt, what);
    let body_end = text
        .strip_suffix('\n')
        .and_then(|trimmed| trimmed.rfind('\n'))
        .ok_or_else(|| corrupt(format!("{} bytes, no complete record", text.len())))?
        + 1;
    let (body, last) = text.split_at(body_end);
    let expected = format!("crc32 {:08x}\n", crc32fast::hash(body.as_bytes()));
    if last != expected {
        return Err(corrupt(format!(
            "last line {:?}, expected {:?}",
            last.trim_end(),
            expected.trim_end()
        )));
    }
    let mut lines = body.lines();
    let head = lines.next().unwrap_or_default();
    let version = head
        .strip_prefix("granary-kvserve-")
        .and_then(|rest| rest.strip_prefix(kind))
        .and_then(|rest| rest.strip_prefix(' '))
        .ok_or_else(|| corrupt(format!("head line {head:?}, expected granary-kvserve-{kind}")))?;
    if version != FORMAT_VERSION.to_string() {
        let what = format!("format version {version}; this program reads {FORMAT_VERSION}");
        return Err(Error::new(Code::Incompatible, what));
    }
    Ok(lines.map(|line| line.split_once(' ').unwrap_or((line, ""))).collect())
}

/// Reads a record's text; `None` if there is no such file.
pub fn read(path: &Path) -> Result<Option<String>> {
    let failed = |error: &std::io::Error| Error::io(format!("read {}", path.display()), error);
    let bytes = match std::fs::metadata(path) {
        Ok(metadata) => metadata.len(),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(failed(&error)),
    };
    if bytes > BYTES_MAX {
        let what = format!("{}: {bytes} bytes, at most {BYTES_MAX}", path.display());
        return Err(Error::new(Code::Corrupt, what));
    }
    let bytes = std::fs::read(path).map_err(|error| failed(&error))?;
    let text = String::from_utf8(bytes)
        .map_err(|_| Error::new(Code::Corrupt, format!("{}: not UTF-8", path.display())))?;
    Ok(Some(text))
}

/// Puts `text` in place of `path` so that after a power cut there is the old file or the new one.
pub fn persist(path: &Path, text: &str) -> Result<()> {
    let failed = |error: std::io::Error| Error::io(format!("write {}", path.display()), &error);
    let temporary = path.with_extension("tmp");
    let mut file = File::create(&temporary).map_err(failed)?;
    file.write_all(text.as_bytes()).and_then(|()| file.sync_all()).map_err(failed)?;
    std::fs::rename(&temporary, path).map_err(failed)?;
    sync_folder(path.parent().expect("a record lies in a folder"))
}

/// Makes names in a folder durable.
pub fn sync_folder(folder: &Path) -> Result<()> {
    File::open(folder)
        .and_then(|folder| folder.sync_all())
        .map_err(|error| Error::io(format!("sync folder {}", folder.display()), &error))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> String {
        encode("current", &[("version", "7".into())])
    }

    #[test]
    fn a_record_has_these_bytes() {
        // Head with kind and format version, one line per field, CRC32 (IEEE) of all lines before.
        assert_eq!(sample(), "granary-kvserve-current 1\nversion 7\ncrc32 3d581731\n");
        assert_eq!(decode("current", &sample()).unwrap(), [("version", "7")]);
    }

    #[test]
    fn a_changed_or_missing_byte_is_found_wherever_it_is() {
        let good = sample().into_bytes();
        for at in 0..good.len() {
            for bit in 0..8 {
                let mut bad = good.clone();
                bad[at] ^= 1 << bit;
                let found =
                    String::from_utf8(bad).ok().map(|text| decode("current", &text).is_ok());
                assert_ne!(found, Some(true), "bit {bit} of byte {at}");
            }
            let cut = std::str::from_utf8(&good[..at]).unwrap();
            assert!(decode("current", cut).is_err(), "cut to {at} bytes");
        }
    }

    #[test]
    fn another_kind_or_a_newer_version_is_refused() {
        assert_eq!(decode("identity", &sample()).unwrap_err().code, Code::Corrupt);
        let body = "granary-kvserve-current 2\n";
        let newer = format!("{body}crc32 {:08x}\n", crc32fast::hash(body.as_bytes()));
        assert_eq!(decode("current", &newer).unwrap_err().code, Code::Incompatible);
    }
}
