//! Erasure coding of one stripe: parity from data, and lost units from those that are left.
//!
//! | module | owns |
//! |---|---|
//! | [`matrix`] | the codes as matrices over GF(2^8), and their inverses |
//! | `kernel` | matrix times bytes, by the fastest instructions that this processor has |
//! | `portable`, `x86` | the kernels |
//!
//! The codes are Hadoop's, byte for byte: "rs" is a Cauchy code whose parity row i has 1 / ((k + i) xor j) in column j,
//! over the polynomial 0x11D; "xor" is the plain sum. Units 0 to k - 1 are data, k to k + m - 1 parity.
//!
//! Always holds: a lost unit comes back from exactly k others, whichever. All units of a call have one length: whoever
//! has a shorter cell fills it up with zeros.
//!
//! Knows neither cells nor block groups, and does no IO.

mod kernel;
pub mod matrix;
mod portable;
#[cfg(target_arch = "x86_64")]
mod x86;

#[cfg(test)]
mod tests;

use std::sync::Arc;

pub use kernel::Kernel;
pub use matrix::{Code, Matrix};

/// Why a plan cannot be made.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CodingError {
    /// There are not enough different units to decode from.
    #[error("{have} of the units are left, {need} are needed to decode")]
    TooFewUnits {
        /// Different units that are there.
        have: usize,
        /// Data units of the code.
        need: usize,
    },
    /// A unit has a number that the code does not have.
    #[error("unit {unit} does not exist: the code has {units} units")]
    NoSuchUnit {
        /// Its number.
        unit: usize,
        /// Units of the code.
        units: usize,
    },
}

/// Encodes and decodes by one code.
#[derive(Clone, Debug)]
pub struct Coder {
    code: Code,
    kernel: Kernel,
    encode: Arc<Work>,
}

/// A matrix made ready for a kernel: a row for each output, a column for each input.
#[derive(Debug)]
struct Work {
    rows: Matrix,
    prepared: kernel::Prepared,
}

impl Work {
    fn new(kernel: Kernel, rows: Matrix) -> Self {
        let prepared = kernel.prepare(&rows);
        Self { rows, prepared }
    }

    fn run(&self, kernel: Kernel, inputs: &[&[u8]], outputs: &mut [&mut [u8]]) {
        assert_eq!(inputs.len(), self.rows.columns(), "an input for each column");
        assert_eq!(outputs.len(), self.rows.rows(), "an output for each row");
        let length = inputs.first().map_or(0, |input| input.len());
        let alike = inputs.iter().all(|input| input.len() == length)
            && outputs.iter().all(|output| output.len() == length);
        assert!(alike, "all units of a call have one length");
        if length > 0 {
            kernel.run(&self.rows, &self.prepared, inputs, outputs);
        }
    }
}

impl Coder {
    /// With the fastest kernel of this processor.
    pub fn new(code: Code) -> Self {
        Self::with_kernel(code, Kernel::best())
    }

    /// With a kernel that was found in [`Kernel::available`].
    pub fn with_kernel(code: Code, kernel: Kernel) -> Self {
        let encode = Arc::new(Work::new(kernel, code.parity()));
        Self { code, kernel, encode }
    }

    /// Its code.
    pub fn code(&self) -> Code {
        self.code
    }

    /// What it computes with.
    pub fn kernel(&self) -> Kernel {
        self.kernel
    }

    /// Computes all parity units from all data units.
    ///
    /// # Panics
    /// If there are not k inputs and m outputs, all of one length.
    pub fn encode(&self, data: &[&[u8]], parity: &mut [&mut [u8]]) {
        self.encode.run(self.kernel, data, parity);
    }

    /// Plans how the units `wanted` come from others: any k of `left`, the first ones in the order given. The plan holds
    /// for any number of stripes.
    pub fn plan(&self, left: &[usize], wanted: &[usize]) -> Result<Plan, CodingError> {
        let (sources, rows) = self.code.decoding(left, wanted)?;
        Ok(Plan { sources, kernel: self.kernel, work: Work::new(self.kernel, rows) })
    }
}

/// How lost units come from those that are left.
#[derive(Debug)]
pub struct Plan {
    sources: Vec<usize>,
    kernel: Kernel,
    work: Work,
}

impl Plan {
    /// The k units to read, in the order in which [`Plan::decode`] takes them.
    pub fn sources(&self) -> &[usize] {
        &self.sources
    }

    /// Computes the wanted units, in the order in which they were asked for.
    ///
    /// # Panics
    /// If there is not an input for each source and an output for each wanted unit, all of one length.
    pub fn decode(&self, sources: &[&[u8]], wanted: &mut [&mut [u8]]) {
        self.work.run(self.kernel, sources, wanted);
    }
}
