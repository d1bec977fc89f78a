//! Equal keys as one group, whose values are streamed: a group is never held in memory.

use proto::Result;

use super::merge::Merged;

/// The values of one key, in order, each once.
#[derive(Debug)]
pub struct Values<'g, 'a> {
    merged: &'g mut Merged<'a>,
    key: &'g [u8],
    at: At,
    read: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum At {
    /// The merge stands at a value that was not given yet.
    Fresh,
    /// The merge stands at the value that was given last.
    Given,
    /// The merge stands at the first record of another key.
    Behind,
    /// There are no more records.
    End,
}

impl Values<'_, '_> {
    /// The next value; `None` after the last.
    #[allow(clippy::should_implement_trait, reason = "it lends; an iterator cannot")]
    #[inline]
    pub fn next(&mut self) -> Result<Option<&[u8]>> {
        if self.at == At::Given {
            self.at = match self.merged.step()? {
                false => At::End,
                true if self.merged.current().0 == self.key => At::Fresh,
                true => At::Behind,
            };
        }
        if self.at != At::Fresh {
            return Ok(None);
        }
        self.at = At::Given;
        self.read += 1;
        Ok(Some(self.merged.current().1))
    }

    /// How many were given so far.
    pub(crate) fn read(&self) -> u64 {
        self.read
    }

    /// Skips what is left. True if another group follows.
    fn finish(mut self) -> Result<(bool, u64)> {
        while self.next()?.is_some() {}
        Ok((self.at == At::Behind, self.read))
    }
}

/// How much a walk over groups saw.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Groups {
    /// Different keys.
    pub groups: u64,
    /// Records.
    pub records: u64,
}

/// Calls `each` with every key and its values, in order. Values that it leaves are skipped.
pub fn for_each_group<'a>(
    merged: &mut Merged<'a>,
    mut each: impl FnMut(&[u8], &mut Values<'_, 'a>) -> Result<()>,
) -> Result<Groups> {
    let mut seen = Groups::default();
    let mut key = Vec::new();
    let mut more = merged.step()?;
    while more {
        key.clear();
        key.extend_from_slice(merged.current().0);
        let mut values = Values { merged, key: &key, at: At::Fresh, read: 0 };
        each(&key, &mut values)?;
        let (another, records) = values.finish()?;
        more = another;
        seen.groups += 1;
        seen.records += records;
    }
    Ok(seen)
}
