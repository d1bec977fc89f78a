//! Bytes that a table hands out: a slice of the map, or a part of a decompressed block that is
//! shared.
//!
//! Reading does not depend on which it is: a [`Value`] is a `[u8]`. A cache of decompressed blocks
//! can hand out the shared form without a change to any caller.

use std::fmt;
use std::ops::{Deref, Range};
use std::sync::Arc;

/// A key or a value, borrowed from the table's map where the block is not compressed.
#[derive(Clone)]
pub struct Value<'t>(Inner<'t>);

#[derive(Clone)]
enum Inner<'t> {
    Mapped(&'t [u8]),
    Shared { block: Arc<Vec<u8>>, at: u32, bytes: u32 },
}

impl<'t> Value<'t> {
    pub(crate) fn mapped(bytes: &'t [u8]) -> Self {
        Self(Inner::Mapped(bytes))
    }

    /// The part `range` of `block`, which must lie within it.
    pub(crate) fn shared(block: Arc<Vec<u8>>, range: Range<usize>) -> Self {
        assert!(range.start <= range.end && range.end <= block.len(), "a value lies in its block");
        let at = u32::try_from(range.start).expect("blocks are shorter than 4 GiB");
        let bytes = u32::try_from(range.len()).expect("blocks are shorter than 4 GiB");
        Self(Inner::Shared { block, at, bytes })
    }

    /// The bytes as a slice of the map, if they can be had without the block's own memory.
    pub fn as_mapped(&self) -> Option<&'t [u8]> {
        match &self.0 {
            Inner::Mapped(bytes) => Some(bytes),
            Inner::Shared { .. } => None,
        }
    }
}

impl Deref for Value<'_> {
    type Target = [u8];

    #[inline]
    fn deref(&self) -> &[u8] {
        match &self.0 {
            Inner::Mapped(bytes) => bytes,
            Inner::Shared { block, at, bytes } => &block[*at as usize..(*at + *bytes) as usize],
        }
    }
}

impl AsRef<[u8]> for Value<'_> {
    fn as_ref(&self) -> &[u8] {
        self
    }
}

impl PartialEq<[u8]> for Value<'_> {
    fn eq(&self, other: &[u8]) -> bool {
        **self == *other
    }
}

impl PartialEq for Value<'_> {
    fn eq(&self, other: &Self) -> bool {
        **self == **other
    }
}

impl Eq for Value<'_> {}

impl fmt::Debug for Value<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&crate::escape(self))
    }
}
