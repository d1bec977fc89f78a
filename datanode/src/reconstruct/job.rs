//! What a command to reconstruct means: a group, whom to read, whom to write. Pure.
//!
//! Anything may come: numbers are checked before they are used. Units without a byte are stored nowhere: as sources they
//! are known to be zeros, as targets there is nothing to do.

use proto::erasure::Policy;
use proto::granary::{Block, DatanodeAddress, ReconstructUnits, UnitLocation};
use proto::{Code as ErrorCode, Error, Result, limits};
use transfer::coder::Code;
use transfer::stripe::{Layout, UNITS_MAX, group_of, is_striped};

/// A unit and a DataNode.
#[derive(Clone, Debug, PartialEq)]
pub struct Holder {
    /// Which unit.
    pub unit: usize,
    /// Who has it, or shall have it.
    pub datanode: DatanodeAddress,
}

/// A group of which units can be computed.
#[derive(Clone, Debug, PartialEq)]
pub struct Job {
    /// The group: id, stamp, bytes of data.
    pub group: Block,
    /// Its stripes.
    pub layout: Layout,
    /// Its code.
    pub code: Code,
    /// Units that can be read, in the order of preference. Each has bytes.
    pub sources: Vec<Holder>,
    /// Units to be computed. Each has bytes.
    pub targets: Vec<Holder>,
}

impl Job {
    /// What the command means. `InvalidArgument` if it makes no sense; `Unsupported` if its code is not known here.
    pub fn check(command: ReconstructUnits) -> Result<Self> {
        let group = command.group.ok_or_else(|| invalid("it names no group".into()))?;
        let (layout, code) = shape(command.erasure_policy, group)?;
        let sources = holders(&layout, group, command.sources)?;
        let targets = holders(&layout, group, command.targets)?;
        if let Some(both) = targets.iter().find(|t| sources.iter().any(|s| s.unit == t.unit)) {
            return Err(invalid(format!("unit {} is a source and a target", both.unit)));
        }
        let job = Self { group, layout, code, sources, targets };
        let readable = job.sources.len() + job.empty_units().len();
        if job.targets.is_empty() || readable < layout.data_units {
            return Err(invalid(format!(
                "blk_{}: {} units with bytes to compute, {readable} to read, {} are needed",
                group.id,
                job.targets.len(),
                layout.data_units
            )));
        }
        Ok(job)
    }

    /// Data units without a byte: zeros, that need not be read.
    pub fn empty_units(&self) -> Vec<usize> {
        (0..self.layout.data_units).filter(|&unit| self.unit_length(unit) == 0).collect()
    }

    /// Bytes of a unit.
    pub fn unit_length(&self, unit: usize) -> u64 {
        self.layout.unit_length(self.group.length, unit)
    }

    /// A unit as the block that a DataNode holds.
    pub fn unit_block(&self, unit: usize) -> Block {
        Block {
            id: transfer::stripe::unit_block(self.group.id, unit),
            length: self.unit_length(unit),
            ..self.group
        }
    }
}

/// Layout and code of a group, after its id and its length were looked at.
pub fn shape(policy: u32, group: Block) -> Result<(Layout, Code)> {
    let found = u8::try_from(policy).ok().and_then(Policy::by_id);
    let policy = found.ok_or_else(|| invalid(format!("there is no erasure policy {policy}")))?;
    let code = Code::of(policy).ok_or_else(|| {
        Error::new(ErrorCode::Unsupported, format!("nothing is coded by {} here", policy.name))
    })?;
    let layout = Layout::from(policy);
    if !is_striped(group.id) || group_of(group.id).1 != 0 {
        return Err(invalid(format!("blk_{} is no block group", group.id)));
    }
    if layout.unit_length(group.length, 0) > limits::BLOCK_BYTES_MAX {
        return Err(invalid(format!(
            "blk_{}: units of a group of {} bytes are longer than a block may be",
            group.id, group.length
        )));
    }
    Ok((layout, code))
}

fn holders(layout: &Layout, group: Block, locations: Vec<UnitLocation>) -> Result<Vec<Holder>> {
    if locations.len() > usize::from(UNITS_MAX) {
        return Err(invalid(format!("{} units, at most {UNITS_MAX}", locations.len())));
    }
    let mut holders: Vec<Holder> = Vec::with_capacity(locations.len());
    for location in locations {
        let unit = usize::try_from(location.unit).unwrap_or(usize::MAX);
        if unit >= layout.units() || holders.iter().any(|other| other.unit == unit) {
            return Err(invalid(format!(
                "unit {unit} of blk_{} is named twice or not one of {}",
                group.id,
                layout.units()
            )));
        }
        let datanode = location
            .datanode
            .ok_or_else(|| invalid(format!("unit {unit} of blk_{} is nowhere", group.id)))?;
        holders.push(Holder { unit, datanode });
    }
    holders.retain(|holder| layout.unit_length(group.length, holder.unit) > 0);
    Ok(holders)
}

fn invalid(what: String) -> Error {
    Error::new(ErrorCode::InvalidArgument, format!("reconstruct units: {what}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const GROUP: u64 = 1 << 63 | 0x40;

    fn command(policy: u32, id: u64, length: u64, from: &[u32], to: &[u32]) -> ReconstructUnits {
        let at = |units: &[u32]| {
            let location = |&unit| UnitLocation { unit, datanode: Some(Default::default()) };
            units.iter().map(location).collect()
        };
        ReconstructUnits {
            group: Some(Block { id, generation_stamp: 1, length }),
            erasure_policy: policy,
            sources: at(from),
            targets: at(to),
        }
    }

    #[test]
    fn what_makes_no_sense_is_refused() {
        let good = command(2, GROUP, 5 << 20, &[0, 1, 3], &[2]);
        assert!(Job::check(good).is_ok());
        for (why, bad) in [
            ("no policy", command(0, GROUP, 5 << 20, &[0, 1, 3], &[2])),
            ("no policy", command(300, GROUP, 5 << 20, &[0, 1, 3], &[2])),
            ("a legacy code", command(3, GROUP, 5 << 20, &[0, 1, 2, 3, 4, 5], &[6])),
            ("a plain block", command(2, 0x40, 5 << 20, &[0, 1, 3], &[2])),
            ("a unit", command(2, GROUP | 1, 5 << 20, &[0, 1, 3], &[2])),
            ("too few", command(2, GROUP, 5 << 20, &[0, 1], &[2])),
            ("twice", command(2, GROUP, 5 << 20, &[0, 1, 1], &[2])),
            ("both", command(2, GROUP, 5 << 20, &[0, 1, 2], &[2])),
            ("unknown", command(2, GROUP, 5 << 20, &[0, 1, 5], &[2])),
            ("nothing to do", command(2, GROUP, 5 << 20, &[0, 1, 3], &[])),
            ("too long", command(2, GROUP, u64::MAX, &[0, 1, 3], &[2])),
            ("empty", command(2, GROUP, 0, &[0, 1, 3], &[2])),
        ] {
            assert!(Job::check(bad).is_err(), "{why}");
        }
        assert!(Job::check(ReconstructUnits::default()).is_err());
    }

    #[test]
    fn units_without_bytes_are_neither_read_nor_written() {
        // 100 bytes: only unit 0 and parity have some.
        let job = Job::check(command(2, GROUP, 100, &[0, 1], &[2, 3, 4])).unwrap();
        assert_eq!(job.sources.iter().map(|h| h.unit).collect::<Vec<_>>(), [0]);
        assert_eq!(job.targets.iter().map(|h| h.unit).collect::<Vec<_>>(), [3, 4]);
        assert_eq!(job.empty_units(), [1, 2]);
        assert_eq!(job.unit_block(3).length, 100);
    }
}
