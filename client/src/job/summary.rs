//! Records that are computed from all other records of the output, such as a list of the most frequent keys.
//!
//! A summary observes what the reduce functions emit, partition by partition, and makes some records whose keys it names
//! beforehand. The partitions of those keys are reduced twice: once to be observed, and at the end to be written with the
//! summary's records in their places. Reduce functions must therefore give the same output for the same input.

use std::any::Any;
use std::collections::BTreeSet;

use proto::{Code, Error, Result};

use super::partition::Partitions;
use super::record::Sink;

type State = Box<dyn Any + Send>;
type Observe = dyn Fn(&mut dyn Any, &[u8], &[u8]) + Send + Sync;

/// A key and its value.
pub type Pair = (Vec<u8>, Vec<u8>);

/// A summary, with the type of its state hidden.
pub(crate) struct Summary {
    keys: BTreeSet<Vec<u8>>,
    start: Box<dyn Fn() -> State + Send + Sync>,
    observe: Box<Observe>,
    finish: Box<dyn Fn(Vec<State>) -> Vec<Pair> + Send + Sync>,
}

impl Summary {
    pub fn new<S: Send + 'static>(
        keys: impl IntoIterator<Item = Vec<u8>>,
        start: impl Fn() -> S + Send + Sync + 'static,
        observe: impl Fn(&mut S, &[u8], &[u8]) + Send + Sync + 'static,
        finish: impl Fn(Vec<S>) -> Vec<Pair> + Send + Sync + 'static,
    ) -> Self {
        const OWN: &str = "states come from start";
        Self {
            keys: keys.into_iter().collect(),
            start: Box::new(move || Box::new(start())),
            observe: Box::new(move |state, key, value| {
                observe(state.downcast_mut().expect(OWN), key, value);
            }),
            finish: Box::new(move |states| {
                let own = |state: State| *state.downcast::<S>().expect(OWN);
                finish(states.into_iter().map(own).collect())
            }),
        }
    }

    /// The partitions that can only be written at the end.
    pub fn partitions(&self, partitions: Partitions) -> BTreeSet<u16> {
        self.keys.iter().map(|key| partitions.of(key)).collect()
    }

    /// The records of all states, which come in the order of their partitions. Ascending.
    pub fn records(&self, states: Vec<State>) -> Result<Vec<Pair>> {
        let mut records = (self.finish)(states);
        records.sort();
        for (key, _) in &records {
            if !self.keys.contains(key) {
                let message =
                    format!("the summary made key {}, which it did not name", sstable::escape(key));
                return Err(Error::new(Code::InvalidArgument, message));
            }
        }
        Ok(records)
    }

    pub fn start(&self) -> State {
        (self.start)()
    }
}

/// Lets a summary see what goes by. Without an inner sink, it goes nowhere.
pub(crate) struct Observed<'a> {
    pub inner: Option<&'a mut dyn Sink>,
    pub summary: &'a Summary,
    pub state: &'a mut State,
}

impl Sink for Observed<'_> {
    fn emit(&mut self, key: &[u8], value: &[u8]) -> Result<()> {
        (self.summary.observe)(&mut **self.state, key, value);
        self.inner.as_mut().map_or(Ok(()), |inner| inner.emit(key, value))
    }
}

/// Puts a summary's records between those that go by.
pub(crate) struct Inserted<'a> {
    pub inner: &'a mut dyn Sink,
    /// Ascending; those that were not put in yet.
    pub records: &'a [Pair],
}

impl Inserted<'_> {
    /// Puts in what comes after everything that went by.
    pub fn finish(self) -> Result<()> {
        self.records.iter().try_for_each(|(key, value)| self.inner.emit(key, value))
    }
}

impl Sink for Inserted<'_> {
    fn emit(&mut self, key: &[u8], value: &[u8]) -> Result<()> {
        while let [(next, its_value), rest @ ..] = self.records
            && next.as_slice() <= key
        {
            if next == key {
                let message = format!(
                    "key {} is the summary's: nothing else may emit it",
                    sstable::escape(key)
                );
                return Err(Error::new(Code::InvalidArgument, message));
            }
            self.inner.emit(next, its_value)?;
            self.records = rest;
        }
        self.inner.emit(key, value)
    }
}
