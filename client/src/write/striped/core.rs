//! One block group that is being written: every decision about it, without IO.
//!
//! The group begins with its first row: which units have bytes is known then, since only a group's last row may be
//! short. The core asks for a place, has those units opened, hands each row's cells to them, and at the end has every
//! unit acknowledge all it was sent, fences units that were lost on the way by a new stamp, and ends the others.
//!
//! ```text
//!              Row          Placed         all answered            End            all drained
//! New ─────────────> Placing ────> Opening ────────────> Writing ──────> Draining ───────────> Ending ──> Finished
//!                       ^             |                                      | some were lost     ^
//!                       +-- Abandon --+                                      v                    |
//!                                                    Minting ──> Restamping ──> Telling ──────────+
//!                                                       ^             | another was lost
//!                                                       +-------------+
//! ```
//!
//! What always holds:
//! - A unit is sent its cells in order, each once, and none after it was lost. There is nothing to send again: a new
//!   stamp is asked for only when every unit that is left has acknowledged all it was sent.
//! - No more than m of the units that have bytes are lost in a group that is finished; with one more it fails.
//! - When the group is finished, every unit that was lost before it had acknowledged all its bytes has an older stamp
//!   than the group. One that is lost while it is ended has the right bytes: it is whole, or not finished.
//! - A group is placed anew only before anything was sent; not for a lost unit if the NameNode had no node for another.
//!
//! It knows nothing of bytes, nodes, time or the NameNode.

use std::collections::VecDeque;

use transfer::stripe::Layout;

/// What happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// The next row is ready: so many bytes of data. Only a group's last row may be short.
    Row {
        /// Bytes of data, at least 1.
        bytes: u64,
    },
    /// No further row follows.
    End,
    /// The NameNode gave the group a place.
    Placed {
        /// The group's stamp.
        stamp: u64,
        /// For each unit whether there is a node for it.
        present: Vec<bool>,
    },
    /// A unit takes cells.
    Opened {
        /// Which.
        unit: usize,
    },
    /// A unit cannot go on, whatever it was doing.
    Lost {
        /// Which.
        unit: usize,
    },
    /// A unit has acknowledged all it was sent.
    Drained {
        /// Which.
        unit: usize,
    },
    /// The NameNode minted a stamp.
    Minted {
        /// The stamp.
        stamp: u64,
    },
    /// A unit has taken the new stamp.
    Restamped {
        /// Which.
        unit: usize,
    },
    /// The NameNode knows the new stamp and who has it.
    Told,
    /// A unit is finished, and on stable storage.
    Ended {
        /// Which.
        unit: usize,
    },
}

/// What to do. Effects are carried out in order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Effect {
    /// Ask the NameNode for a group, without the nodes that failed. Answer: [`Event::Placed`].
    Place,
    /// Give the group back: nothing was sent.
    Abandon,
    /// Make a unit on its node. Answer: [`Event::Opened`].
    Open {
        /// Which.
        unit: usize,
        /// Its stamp.
        stamp: u64,
    },
    /// Send a unit its cell of the current row. No answer.
    Send {
        /// Which.
        unit: usize,
        /// Which row of the group.
        row: u64,
        /// Bytes of the cell, at least 1.
        bytes: u64,
    },
    /// Wait until a unit has acknowledged everything. Answer: [`Event::Drained`].
    Drain {
        /// Which.
        unit: usize,
    },
    /// Ask the NameNode for a new stamp. Answer: [`Event::Minted`].
    Mint,
    /// Let a unit, which has `bytes`, take a stamp. Answer: [`Event::Restamped`].
    Restamp {
        /// Which.
        unit: usize,
        /// The stamp.
        stamp: u64,
        /// Bytes that it has.
        bytes: u64,
    },
    /// Tell the NameNode the new stamp and which units have it. Answer: [`Event::Told`].
    Tell {
        /// The stamp.
        stamp: u64,
        /// For each unit whether it is there.
        units: Vec<bool>,
        /// Bytes of data in the group.
        bytes: u64,
    },
    /// Finish a unit at its length. Answer: [`Event::Ended`].
    Finish {
        /// Which.
        unit: usize,
        /// Bytes that it has.
        bytes: u64,
    },
    /// The group is written.
    Finished {
        /// Bytes of data in it.
        bytes: u64,
        /// Its stamp.
        stamp: u64,
    },
    /// Too many units are lost.
    Failed {
        /// Which.
        lost: Vec<usize>,
    },
}

/// What a unit is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Unit {
    /// It has no bytes, or is not begun.
    Idle,
    /// It was asked to do something, and has not answered.
    Busy,
    /// It has done what it was asked.
    Ready,
    /// Nothing goes there any more.
    Lost,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    New,
    Placing,
    Opening,
    Writing,
    Draining,
    Minting,
    Restamping,
    Telling,
    Ending,
    Over,
}

/// A block group that is being written.
#[derive(Clone, Debug)]
pub struct Group {
    layout: Layout,
    tries_left: u32,
    phase: Phase,
    units: Vec<Unit>,
    /// Bytes of data in the rows that were taken.
    bytes: u64,
    rows: u64,
    stamp: u64,
    /// A stamp that was minted, and not told yet.
    minted: u64,
    /// Whether the place had a node for each unit that has bytes.
    full_place: bool,
    /// Whether a unit was lost that the NameNode counts on.
    unfenced: bool,
    /// Whether `End` came while the group was not open yet.
    end_wanted: bool,
    effects: VecDeque<Effect>,
}

impl Group {
    /// A group that is placed at most `tries_max` times.
    pub fn new(layout: Layout, tries_max: u32) -> Self {
        assert!(tries_max > 0, "a group is placed once at least");
        Self {
            layout,
            tries_left: tries_max,
            phase: Phase::New,
            units: vec![Unit::Idle; layout.units()],
            bytes: 0,
            rows: 0,
            stamp: 0,
            minted: 0,
            full_place: false,
            unfenced: false,
            end_wanted: false,
            effects: VecDeque::new(),
        }
    }

    /// Whether it takes the next row, or the end.
    pub fn takes_rows(&self) -> bool {
        matches!(self.phase, Phase::New | Phase::Writing)
    }

    /// The next thing to do.
    pub fn next_effect(&mut self) -> Option<Effect> {
        self.effects.pop_front()
    }

    /// Takes an event.
    pub fn handle(&mut self, event: Event) {
        match event {
            _ if self.phase == Phase::Over => {}
            Event::Row { bytes } => self.take_row(bytes),
            Event::End => self.take_end(),
            Event::Placed { stamp, present } => self.placed(stamp, &present),
            Event::Minted { stamp } => self.minted(stamp),
            Event::Told => self.told(),
            Event::Lost { unit } => self.lost(unit),
            Event::Opened { unit }
            | Event::Drained { unit }
            | Event::Restamped { unit }
            | Event::Ended { unit } => {
                if self.units[unit] == Unit::Busy {
                    self.units[unit] = Unit::Ready;
                    self.go_on();
                }
            }
        }
    }

    fn take_row(&mut self, bytes: u64) {
        assert!(self.takes_rows(), "rows are given when they are taken");
        assert!(bytes > 0 && bytes <= self.layout.stripe_bytes(), "a row holds 1 byte to a stripe");
        let before = self.rows * self.layout.stripe_bytes();
        assert!(self.bytes == before, "a short row is a group's last");
        self.bytes += bytes;
        self.rows += 1;
        if self.phase == Phase::New {
            self.place();
        } else {
            self.send_row();
        }
    }

    fn take_end(&mut self) {
        assert!(self.bytes > 0, "a group has a row");
        if self.phase == Phase::Writing {
            self.drain();
        } else {
            self.end_wanted = true;
        }
    }

    fn place(&mut self) {
        assert!(self.tries_left > 0, "it was checked");
        self.tries_left -= 1;
        self.phase = Phase::Placing;
        self.effects.push_back(Effect::Place);
    }

    fn placed(&mut self, stamp: u64, present: &[bool]) {
        assert!(self.phase == Phase::Placing && present.len() == self.units.len());
        self.stamp = stamp;
        self.phase = Phase::Opening;
        self.full_place = true;
        self.unfenced = false;
        for (unit, present) in present.iter().enumerate() {
            self.units[unit] = match (self.has_bytes(unit), present) {
                (false, _) => Unit::Idle,
                (true, true) => Unit::Busy,
                (true, false) => Unit::Lost,
            };
            match self.units[unit] {
                Unit::Busy => self.effects.push_back(Effect::Open { unit, stamp }),
                Unit::Lost => self.full_place = false,
                Unit::Idle | Unit::Ready => {}
            }
        }
        self.go_on();
    }

    fn lost(&mut self, unit: usize) {
        if self.units[unit] == Unit::Lost {
            return;
        }
        assert!(self.has_bytes(unit), "a unit without bytes is not begun");
        self.units[unit] = Unit::Lost;
        if self.phase != Phase::Ending {
            self.unfenced = true;
        }
        if self.phase != Phase::Opening && self.lost_count() > self.layout.parity_units {
            self.fail();
            return;
        }
        self.go_on();
    }

    /// Goes to the next phase if every unit has answered.
    fn go_on(&mut self) {
        if self.units.contains(&Unit::Busy) {
            return;
        }
        match self.phase {
            Phase::Opening => self.opened(),
            Phase::Draining if self.unfenced => self.mint(),
            Phase::Draining => self.finish_units(),
            // Who was lost while it took the stamp may have it or not: another one is needed.
            Phase::Restamping if self.unfenced => self.mint(),
            Phase::Restamping => self.tell(),
            Phase::Ending => self.finished(),
            Phase::New
            | Phase::Placing
            | Phase::Writing
            | Phase::Minting
            | Phase::Telling
            | Phase::Over => {}
        }
    }

    /// Every unit is open or lost: begins to write, or tries other nodes.
    fn opened(&mut self) {
        let failed = self.unfenced;
        let too_few = self.lost_count() > self.layout.parity_units;
        if self.tries_left > 0 && failed && (self.full_place || too_few) {
            self.effects.push_back(Effect::Abandon);
            self.place();
            return;
        }
        if too_few {
            self.fail();
            return;
        }
        self.phase = Phase::Writing;
        self.send_row();
        if self.end_wanted {
            self.drain();
        }
    }

    fn send_row(&mut self) {
        let row = self.rows - 1;
        for unit in 0..self.units.len() {
            let bytes = self.layout.cell_length(self.bytes, row, unit);
            if self.units[unit] == Unit::Ready && bytes > 0 {
                self.effects.push_back(Effect::Send { unit, row, bytes });
            }
        }
    }

    fn drain(&mut self) {
        self.phase = Phase::Draining;
        self.ask_all(|_, unit| Effect::Drain { unit });
    }

    fn mint(&mut self) {
        self.phase = Phase::Minting;
        self.effects.push_back(Effect::Mint);
    }

    fn minted(&mut self, stamp: u64) {
        assert!(self.phase == Phase::Minting, "a stamp was asked for");
        assert!(stamp > self.stamp.max(self.minted), "stamps rise");
        self.minted = stamp;
        // This stamp fences whoever is lost by now.
        self.unfenced = false;
        self.phase = Phase::Restamping;
        self.ask_all(|group, unit| {
            let bytes = group.layout.unit_length(group.bytes, unit);
            Effect::Restamp { unit, stamp, bytes }
        });
    }

    fn tell(&mut self) {
        self.phase = Phase::Telling;
        let units = self.units.iter().map(|unit| *unit == Unit::Ready).collect();
        self.effects.push_back(Effect::Tell { stamp: self.minted, units, bytes: self.bytes });
    }

    fn told(&mut self) {
        assert!(self.phase == Phase::Telling, "the NameNode was told");
        self.stamp = self.minted;
        if self.unfenced {
            self.mint();
        } else {
            self.finish_units();
        }
    }

    fn finish_units(&mut self) {
        self.phase = Phase::Ending;
        self.ask_all(|group, unit| {
            let bytes = group.layout.unit_length(group.bytes, unit);
            Effect::Finish { unit, bytes }
        });
    }

    fn finished(&mut self) {
        self.phase = Phase::Over;
        self.effects.push_back(Effect::Finished { bytes: self.bytes, stamp: self.stamp });
    }

    fn fail(&mut self) {
        self.phase = Phase::Over;
        let lost = |unit: &usize| self.units[*unit] == Unit::Lost;
        let lost = (0..self.units.len()).filter(lost).collect();
        self.effects.clear();
        self.effects.push_back(Effect::Failed { lost });
    }

    fn ask_all(&mut self, what: impl Fn(&Self, usize) -> Effect) {
        for unit in 0..self.units.len() {
            if self.units[unit] == Unit::Ready {
                let effect = what(self, unit);
                self.units[unit] = Unit::Busy;
                self.effects.push_back(effect);
            }
        }
    }

    /// Whether a unit has bytes: those of the first row tell.
    fn has_bytes(&self, unit: usize) -> bool {
        self.layout.cell_length(self.bytes, 0, unit) > 0
    }

    fn lost_count(&self) -> usize {
        self.units.iter().filter(|unit| **unit == Unit::Lost).count()
    }
}

#[cfg(test)]
#[path = "core_tests.rs"]
mod tests;
