//! One replica's state: being written, finalized, temporary, waiting for recovery, under recovery. Pure.
//!
//! ```text
//!   create ──> BeingWritten ──finish──> Finalized        open_temporary ──> Temporary ──finish──> Finalized
//!                 ^   ^                     │                                   │
//!                 │   └──append, recover────┘                                   └──promote──> BeingWritten
//!   the DataNode stopped while BeingWritten: WaitingRecovery
//!   Finalized, BeingWritten, WaitingRecovery ──begin_recovery──> UnderRecovery ──finish_recovery──> Finalized
//! ```
//!
//! The generation stamp fences: an operation that carries an older stamp than the replica's is refused, and so is one
//! for a newer generation than the replica has. What always holds: `visible <= written`; the stamp never falls; a
//! refused operation changes nothing. It knows no files: whoever changes them does so first, then tells this.

use proto::{BlockId, Code, Error, GenerationStamp, Result};

/// Where a replica is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum State {
    /// A pipeline writes it, or did so and may come back.
    BeingWritten,
    /// Whole and durable.
    Finalized,
    /// A transfer from another DataNode writes it; nobody may see it.
    Temporary,
    /// It was being written when this DataNode stopped. Only a block recovery can use it.
    WaitingRecovery,
    /// A block recovery settles its length.
    UnderRecovery,
}

/// The lengths between which a pipeline that goes on after a failure expects a replica to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Expected {
    /// Bytes that the writer knows to be acknowledged.
    pub acked_min: u64,
    /// Bytes that the writer has sent.
    pub sent_max: u64,
}

/// What a block recovery learns of a replica.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RecoveryInfo {
    /// Its stamp before the recovery.
    pub stamp: GenerationStamp,
    /// Bytes in its files.
    pub length: u64,
    /// Its state before the recovery.
    pub state: State,
}

/// A replica: identity, state, and how far it is written and visible.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Replica {
    block: BlockId,
    stamp: GenerationStamp,
    state: State,
    written: u64,
    visible: u64,
    recovery: Option<(GenerationStamp, State)>,
}

impl Replica {
    /// A new replica that a pipeline writes.
    pub fn create(block: BlockId, stamp: GenerationStamp) -> Self {
        Self { block, stamp, state: State::BeingWritten, written: 0, visible: 0, recovery: None }
    }

    /// A new replica that a transfer writes.
    pub fn open_temporary(block: BlockId, stamp: GenerationStamp) -> Self {
        Self { state: State::Temporary, ..Self::create(block, stamp) }
    }

    /// A replica found whole on disk.
    pub fn finalized(block: BlockId, stamp: GenerationStamp, length: u64) -> Self {
        let state = State::Finalized;
        Self { block, stamp, state, written: length, visible: length, recovery: None }
    }

    /// A replica found half-written at start; `length` is what its checksums confirm.
    pub fn waiting(block: BlockId, stamp: GenerationStamp, length: u64) -> Self {
        Self { state: State::WaitingRecovery, ..Self::finalized(block, stamp, length) }
    }

    /// Which block.
    pub fn block(&self) -> BlockId {
        self.block
    }

    /// Its generation.
    pub fn stamp(&self) -> GenerationStamp {
        self.stamp
    }

    /// Its state.
    pub fn state(&self) -> State {
        self.state
    }

    /// Its state as the NameNode should know it: a recovery that has begun hides nothing.
    pub fn reported_state(&self) -> State {
        self.recovery.map_or(self.state, |(_, original)| original)
    }

    /// The stamp of the recovery that it is under.
    pub fn recovery_stamp(&self) -> Option<GenerationStamp> {
        self.recovery.map(|(recovery, _)| recovery)
    }

    /// Bytes in its files.
    pub fn written(&self) -> u64 {
        self.written
    }

    /// Bytes that a reader may see: those that were acknowledged here. None of a temporary replica.
    pub fn visible(&self) -> u64 {
        if self.state == State::Temporary { 0 } else { self.visible }
    }

    /// A writer continues a finished replica of exactly `length` bytes under `new`.
    pub fn append(
        &mut self,
        asked: GenerationStamp,
        new: GenerationStamp,
        length: u64,
    ) -> Result<()> {
        self.fence(asked, new)?;
        self.expect_state(&[State::Finalized], "append to")?;
        self.expect_length(length)?;
        self.write_on(new);
        Ok(())
    }

    /// Sets up an append again after a DataNode of its pipeline failed.
    pub fn recover_append(
        &mut self,
        asked: GenerationStamp,
        new: GenerationStamp,
        length: u64,
    ) -> Result<()> {
        self.fence(asked, new)?;
        self.expect_state(&[State::Finalized, State::BeingWritten], "append again to")?;
        self.expect_length(length)?;
        self.write_on(new);
        Ok(())
    }

    /// Sets up a pipeline again in the middle of a block. What was not acknowledged here is cut off: the writer
    /// sends it again. The caller cuts the files to [`Self::visible`].
    ///
    /// A replica that was already finished (the failure hit the last packet) is opened again.
    pub fn recover_streaming(
        &mut self,
        asked: GenerationStamp,
        new: GenerationStamp,
        expected: Expected,
    ) -> Result<()> {
        self.fence(asked, new)?;
        self.expect_state(&[State::Finalized, State::BeingWritten], "go on with")?;
        if self.visible < expected.acked_min || self.visible > expected.sent_max {
            return Err(Error::new(
                Code::Stale,
                format!(
                    "{} has {} acknowledged bytes, the writer expects {} to {}",
                    self.name(),
                    self.visible,
                    expected.acked_min,
                    expected.sent_max
                ),
            ));
        }
        self.written = self.visible;
        self.write_on(new);
        Ok(())
    }

    /// Sets up the close of a block again: the replica must have exactly `length` bytes. The caller finishes it.
    pub fn recover_close(
        &mut self,
        asked: GenerationStamp,
        new: GenerationStamp,
        length: u64,
    ) -> Result<()> {
        self.recover_append(asked, new, length)
    }

    /// A transfer brought all that is visible elsewhere: a pipeline may go on with it.
    pub fn promote(&mut self) {
        assert_eq!(self.state, State::Temporary, "only a transfer's replica is promoted");
        self.state = State::BeingWritten;
        self.visible = self.written;
    }

    /// The files now hold `end` bytes.
    pub fn wrote(&mut self, end: u64) {
        assert!(self.is_open(), "{} is not open for writing", self.name());
        assert!(end >= self.written, "a replica's files grow");
        self.written = end;
    }

    /// Every DataNode from here on acknowledged the first `end` bytes.
    pub fn acked(&mut self, end: u64) {
        assert!(end <= self.written, "{}: what is acknowledged was written", self.name());
        self.visible = self.visible.max(end);
    }

    /// All bytes are durable under the final name.
    pub fn finish(&mut self) {
        assert!(self.is_open(), "{} is not open for writing", self.name());
        self.state = State::Finalized;
        self.visible = self.written;
    }

    /// Whether a writer who knows the replica by `asked` may go on with it under `new`: neither is older than it is.
    pub fn check_stamps(&self, asked: GenerationStamp, new: GenerationStamp) -> Result<()> {
        self.fence(asked, new)
    }

    /// Whether a recovery may begin: nothing newer has begun, or settled the replica.
    pub fn check_recovery(&self, asked: GenerationStamp, recovery: GenerationStamp) -> Result<()> {
        self.fence(asked, recovery)?;
        if self.stamp >= recovery {
            return Err(stale(format!("{} is not older than recovery {recovery}", self.name())));
        }
        if let Some((running, _)) = self.recovery
            && running > recovery
        {
            return Err(stale(format!(
                "{} is under recovery {running}, newer than {recovery}",
                self.name()
            )));
        }
        Ok(())
    }

    /// A block recovery with stamp `recovery` begins. The caller has stopped the writer.
    pub fn begin_recovery(
        &mut self,
        asked: GenerationStamp,
        recovery: GenerationStamp,
    ) -> Result<RecoveryInfo> {
        self.expect_state(
            &[State::Finalized, State::BeingWritten, State::WaitingRecovery, State::UnderRecovery],
            "recover",
        )?;
        self.check_recovery(asked, recovery)?;
        let original = self.reported_state();
        self.recovery = Some((recovery, original));
        self.state = State::UnderRecovery;
        Ok(RecoveryInfo { stamp: self.stamp, length: self.written, state: original })
    }

    /// Whether recovery `recovery` may settle this replica at `length` bytes. The caller then changes the files.
    pub fn check_finish_recovery(&self, recovery: GenerationStamp, length: u64) -> Result<()> {
        match self.recovery {
            Some((running, _)) if running == recovery => {}
            Some((running, _)) => {
                return Err(stale(format!(
                    "{} is under recovery {running}, not {recovery}",
                    self.name()
                )));
            }
            None => {
                return Err(stale(format!("{} is under no recovery", self.name())));
            }
        }
        if length > self.written {
            return Err(Error::new(
                Code::InvalidArgument,
                format!("{} has {} bytes, cannot become {length}", self.name(), self.written),
            ));
        }
        Ok(())
    }

    /// The files were cut to `length` and are durable under the recovery's stamp.
    pub fn finish_recovery(&mut self, recovery: GenerationStamp, length: u64) {
        assert_eq!(self.check_finish_recovery(recovery, length), Ok(()), "it was checked");
        *self = Self::finalized(self.block, recovery, length);
    }

    /// `blk_N_GS`, as messages name a replica.
    pub fn name(&self) -> String {
        format!("{}_{} ({:?})", self.block, self.stamp.0, self.state)
    }

    fn is_open(&self) -> bool {
        matches!(self.state, State::BeingWritten | State::Temporary)
    }

    /// The state is one that is written under `new`; lengths were checked.
    fn write_on(&mut self, new: GenerationStamp) {
        assert!(new >= self.stamp, "a stamp never falls");
        self.state = State::BeingWritten;
        self.stamp = new;
        self.visible = self.written;
    }

    /// The replica must be of generation `asked` or newer, and not newer than `new`.
    fn fence(&self, asked: GenerationStamp, new: GenerationStamp) -> Result<()> {
        if self.stamp < asked {
            return Err(stale(format!("{} is older than the requested {asked}", self.name())));
        }
        if self.stamp > new {
            return Err(stale(format!("{} is newer than the caller's {new}", self.name())));
        }
        Ok(())
    }

    fn expect_state(&self, states: &[State], what: &str) -> Result<()> {
        if states.contains(&self.state) {
            return Ok(());
        }
        Err(Error::new(
            Code::Stale,
            format!("cannot {what} {}, expected one of {states:?}", self.name()),
        ))
    }

    fn expect_length(&self, length: u64) -> Result<()> {
        if self.written == length {
            return Ok(());
        }
        Err(stale(format!("{} has {} bytes, expected {length}", self.name(), self.written)))
    }
}

fn stale(what: String) -> Error {
    Error::new(Code::Stale, what)
}

#[cfg(test)]
mod tests;
