//! How a block's bytes are stored: as they are, or compressed, whichever pays.
//!
//! A block is compressed on its own, so that a get unpacks one block. Contexts are kept: the writer
//! owns one, readers have one per thread.

use std::cell::RefCell;

use crate::error::{Error, Result};
use crate::writer::Compression;

/// How a block is stored. Numbers are on disk and never reused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Codec {
    Raw = 0,
    Zstd = 1,
}

impl Codec {
    pub(crate) fn from_number(number: u8) -> Option<Self> {
        match number {
            0 => Some(Self::Raw),
            1 => Some(Self::Zstd),
            _ => None,
        }
    }
}

/// Compresses blocks, with the buffers that takes.
pub(crate) struct Compressor {
    zstd: Option<zstd::bulk::Compressor<'static>>,
    out: Vec<u8>,
}

impl Compressor {
    pub(crate) fn new(compression: Compression) -> Result<Self> {
        let zstd = match compression {
            Compression::None => None,
            Compression::Zstd { level } => Some(
                zstd::bulk::Compressor::new(level)
                    .map_err(|e| Error::from_io("cannot set up zstd", e))?,
            ),
        };
        Ok(Self { zstd, out: Vec::new() })
    }

    /// The bytes to store for `raw`. Compressed ones are taken only if they save an eighth.
    pub(crate) fn compress<'a>(&'a mut self, raw: &'a [u8]) -> Result<(Codec, &'a [u8])> {
        let Some(zstd) = &mut self.zstd else {
            return Ok((Codec::Raw, raw));
        };
        self.out.clear();
        self.out.reserve(zstd::zstd_safe::compress_bound(raw.len()));
        zstd.compress_to_buffer(raw, &mut self.out)
            .map_err(|e| Error::from_io("cannot compress a block", e))?;
        if self.out.len() <= raw.len() - raw.len() / 8 {
            Ok((Codec::Zstd, &self.out))
        } else {
            Ok((Codec::Raw, raw))
        }
    }
}

thread_local! {
    static DECOMPRESSOR: RefCell<Option<zstd::bulk::Decompressor<'static>>> =
        const { RefCell::new(None) };
}

/// Unpacks a zstd block of `raw_bytes`, a length that the caller has checked against the limits.
pub(crate) fn decompress(stored: &[u8], raw_bytes: usize) -> Result<Vec<u8>> {
    DECOMPRESSOR.with_borrow_mut(|slot| {
        if slot.is_none() {
            let new = zstd::bulk::Decompressor::new();
            *slot = Some(new.map_err(|e| Error::from_io("cannot set up zstd", e))?);
        }
        let zstd = slot.as_mut().expect("it was just set");
        let mut raw = Vec::with_capacity(raw_bytes);
        match zstd.decompress_to_buffer(stored, &mut raw) {
            Ok(bytes) if bytes == raw_bytes => Ok(raw),
            Ok(bytes) => Err(Error::corrupt(format!(
                "a block decompresses to {bytes} bytes, expected {raw_bytes}"
            ))),
            Err(e) => Err(Error::corrupt(format!(
                "a block of {} bytes does not decompress to {raw_bytes}: {e}",
                stored.len()
            ))),
        }
    })
}
