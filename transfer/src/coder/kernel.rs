//! Which instructions a coder computes with, chosen when the program runs.

use super::{Matrix, portable};

/// A way to multiply a matrix with bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kernel {
    /// GF(2) affine instructions on 64 bytes.
    #[cfg(target_arch = "x86_64")]
    GfniAvx512,
    /// GF(2) affine instructions on 32 bytes.
    #[cfg(target_arch = "x86_64")]
    GfniAvx2,
    /// Look-ups of half bytes by shuffles of 32 bytes.
    #[cfg(target_arch = "x86_64")]
    Avx2,
    /// Tables; any processor.
    Portable,
}

/// A matrix in the form in which a kernel reads it: row by row, an entry for each column.
#[derive(Debug)]
pub(super) enum Prepared {
    /// Multiplication by a coefficient as an 8 x 8 matrix of bits.
    #[cfg(target_arch = "x86_64")]
    Affine(Vec<u64>),
    /// Products of a coefficient with each low and each high half byte.
    #[cfg(target_arch = "x86_64")]
    HalfBytes(Vec<[u8; 32]>),
    /// As it is.
    Plain,
}

impl Kernel {
    /// All that this processor can run, the fastest first.
    pub fn available() -> Vec<Self> {
        let mut kernels = Vec::new();
        #[cfg(target_arch = "x86_64")]
        {
            let gfni = is_x86_feature_detected!("gfni");
            let avx2 = is_x86_feature_detected!("avx2");
            let avx512 =
                is_x86_feature_detected!("avx512f") && is_x86_feature_detected!("avx512bw");
            if gfni && avx512 {
                kernels.push(Self::GfniAvx512);
            }
            if gfni && avx2 {
                kernels.push(Self::GfniAvx2);
            }
            if avx2 {
                kernels.push(Self::Avx2);
            }
        }
        kernels.push(Self::Portable);
        kernels
    }

    /// The fastest that this processor can run.
    pub fn best() -> Self {
        Self::available()[0]
    }

    pub(super) fn prepare(self, rows: &Matrix) -> Prepared {
        #[cfg(target_arch = "x86_64")]
        {
            let cells = (0..rows.rows()).flat_map(|row| rows.row(row).iter().copied());
            match self {
                Self::GfniAvx512 | Self::GfniAvx2 => {
                    return Prepared::Affine(cells.map(super::x86::affine_of).collect());
                }
                Self::Avx2 => {
                    return Prepared::HalfBytes(cells.map(super::x86::half_bytes_of).collect());
                }
                Self::Portable => {}
            }
        }
        Prepared::Plain
    }

    /// Computes each output: the sum over the inputs, each times the coefficient in the output's row. All are of one
    /// length that is not 0, with an input for each column and an output for each row.
    pub(super) fn run(
        self,
        rows: &Matrix,
        prepared: &Prepared,
        inputs: &[&[u8]],
        outputs: &mut [&mut [u8]],
    ) {
        #[cfg(target_arch = "x86_64")]
        match (self, prepared) {
            (Self::GfniAvx512, Prepared::Affine(matrices)) => {
                // SAFETY: the kernel is only given out where the processor has these instructions; the lengths are
                // as `Work::run` checked them.
                return unsafe { super::x86::run_gfni_avx512(matrices, inputs, outputs) };
            }
            (Self::GfniAvx2, Prepared::Affine(matrices)) => {
                // SAFETY: as above.
                return unsafe { super::x86::run_gfni_avx2(matrices, inputs, outputs) };
            }
            (Self::Avx2, Prepared::HalfBytes(tables)) => {
                // SAFETY: as above.
                return unsafe { super::x86::run_avx2(tables, inputs, outputs) };
            }
            _ => {}
        }
        debug_assert!(matches!(prepared, Prepared::Plain), "{self:?} has its own form");
        portable::run(rows, inputs, outputs);
    }
}
