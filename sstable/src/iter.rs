//! Walks the records of a table in the order of their keys, block by block.
//!
//! An error ends the walk: it comes once, and then nothing more. Whether a key is still within the
//! limit is decided for a whole block where the next block's separator tells.

use crate::block::{BlockBytes, Layout};
use crate::error::Result;
use crate::reader::Table;
use crate::value::Value;

/// Where a walk ends.
#[derive(Debug)]
pub(crate) enum Limit {
    None,
    Below(Vec<u8>),
    UpTo(Vec<u8>),
    Prefix(Vec<u8>),
}

impl Limit {
    fn admits(&self, key: &[u8]) -> bool {
        match self {
            Self::None => true,
            Self::Below(end) => key < end.as_slice(),
            Self::UpTo(end) => key <= end.as_slice(),
            Self::Prefix(prefix) => key.starts_with(prefix),
        }
    }

    /// Whether all keys from the walk's start to below `next` are within the limit. None stands for
    /// the table's end.
    fn admits_all_below(&self, next: Option<&[u8]>) -> bool {
        match (self, next) {
            (Self::None, _) => true,
            (_, None) => false,
            (Self::Below(end) | Self::UpTo(end), Some(next)) => next <= end.as_slice(),
            (Self::Prefix(prefix), Some(next)) => next.starts_with(prefix),
        }
    }
}

/// Records as `(key, value)`, in ascending order of keys. Made by [`Table::iter`],
/// [`Table::range`], [`Table::prefix`].
pub struct Iter<'t> {
    table: &'t Table,
    limit: Limit,
    /// The block to open next.
    next_block: usize,
    current: Option<Current<'t>>,
    /// Where to start in the first block; taken when it is opened.
    start: Option<Vec<u8>>,
}

struct Current<'t> {
    block: BlockBytes<'t>,
    layout: Layout,
    at: usize,
    all_within: bool,
}

impl<'t> Iter<'t> {
    pub(crate) fn new(table: &'t Table, start: &[u8], limit: Limit) -> Self {
        let first = table.index().block_of(table.index_section(), start);
        let next_block = first.unwrap_or(table.index().blocks);
        let start = (!start.is_empty()).then(|| start.to_vec());
        Self { table, limit, next_block, current: None, start }
    }

    fn advance(&mut self) -> Result<Option<(Value<'t>, Value<'t>)>> {
        loop {
            let Some(current) = &mut self.current else {
                if self.next_block >= self.table.index().blocks {
                    return Ok(None);
                }
                self.current = Some(self.open_block()?);
                self.next_block += 1;
                continue;
            };
            if current.at >= current.layout.records_end {
                self.current = None;
                continue;
            }
            let bytes = current.block.bytes();
            let record = current.layout.record(bytes, current.at)?;
            if !current.all_within && !self.limit.admits(&bytes[record.key.clone()]) {
                return Ok(None);
            }
            current.at = record.next;
            return Ok(Some((current.block.value(record.key), current.block.value(record.value))));
        }
    }

    fn open_block(&mut self) -> Result<Current<'t>> {
        let block = self.table.block(self.next_block)?;
        let layout = Layout::of(block.bytes())?;
        let at = match self.start.take() {
            Some(start) => layout.lower_bound(block.bytes(), &start)?,
            None => 0,
        };
        let (index, section) = (self.table.index(), self.table.index_section());
        let next = self.next_block + 1;
        let next = (next < index.blocks).then(|| index.separator(section, next));
        Ok(Current { block, layout, at, all_within: self.limit.admits_all_below(next) })
    }

    fn end(&mut self) {
        self.current = None;
        self.next_block = usize::MAX;
    }
}

impl<'t> Iterator for Iter<'t> {
    type Item = Result<(Value<'t>, Value<'t>)>;

    #[inline]
    fn next(&mut self) -> Option<Self::Item> {
        match self.advance() {
            Ok(Some(record)) => Some(Ok(record)),
            Ok(None) => {
                self.end();
                None
            }
            Err(e) => {
                self.end();
                Some(Err(e.in_file(self.table.path())))
            }
        }
    }
}

impl std::iter::FusedIterator for Iter<'_> {}
