//! Codes as matrices over GF(2^8) with the polynomial 0x11D. The field's arithmetic is that of reed-solomon-erasure.

use proto::erasure::{Codec, Policy};
use reed_solomon_erasure::galois_8;

use super::CodingError;

/// Units of a code, data and parity, at most: unit numbers are points of the field.
pub const UNITS_MAX: usize = 255;

/// A code: what its parity is, and of how many units.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Code {
    /// Reed-Solomon, Hadoop's codec "rs".
    ReedSolomon {
        /// Data units.
        data: usize,
        /// Parity units.
        parity: usize,
    },
    /// One parity unit: the sum of all, Hadoop's codec "xor".
    Xor {
        /// Data units.
        data: usize,
    },
}

/// Bytes in rows and columns.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Matrix {
    columns: usize,
    cells: Vec<u8>,
}

impl Matrix {
    fn from_fn(rows: usize, columns: usize, cell: impl Fn(usize, usize) -> u8) -> Self {
        let cells = (0..rows).flat_map(|row| (0..columns).map(move |column| (row, column)));
        Self { columns, cells: cells.map(|(row, column)| cell(row, column)).collect() }
    }

    /// How many rows.
    pub fn rows(&self) -> usize {
        self.cells.len().checked_div(self.columns).unwrap_or(0)
    }

    /// How many columns.
    pub fn columns(&self) -> usize {
        self.columns
    }

    /// One row.
    pub fn row(&self, row: usize) -> &[u8] {
        &self.cells[row * self.columns..][..self.columns]
    }

    /// The product of the two.
    fn times(&self, other: &Self) -> Self {
        Self::from_fn(self.rows(), other.columns, |row, column| {
            let terms = self.row(row).iter().enumerate();
            terms.fold(0, |sum, (at, cell)| sum ^ galois_8::mul(*cell, other.row(at)[column]))
        })
    }

    /// The inverse, by Gauss and Jordan; `None` if there is none.
    fn inverse(&self) -> Option<Self> {
        let n = self.columns;
        let mut left = self.clone();
        let mut right = Self::from_fn(n, n, |row, column| u8::from(row == column));
        for pivot in 0..n {
            let found = (pivot..n).find(|&row| left.row(row)[pivot] != 0)?;
            for matrix in [&mut left, &mut right] {
                for column in 0..n {
                    matrix.cells.swap(found * n + column, pivot * n + column);
                }
            }
            let scale = galois_8::div(1, left.row(pivot)[pivot]);
            for matrix in [&mut left, &mut right] {
                for cell in &mut matrix.cells[pivot * n..][..n] {
                    *cell = galois_8::mul(*cell, scale);
                }
            }
            for row in (0..n).filter(|&row| row != pivot) {
                let factor = left.row(row)[pivot];
                for matrix in [&mut left, &mut right] {
                    for column in 0..n {
                        let change = galois_8::mul(factor, matrix.cells[pivot * n + column]);
                        matrix.cells[row * n + column] ^= change;
                    }
                }
            }
        }
        Some(right)
    }
}

impl Code {
    /// The code of a policy; `None` for rs-legacy, which is known by name alone.
    pub fn of(policy: Policy) -> Option<Self> {
        let (data, parity) = (policy.data_units.into(), policy.parity_units.into());
        match policy.codec {
            Codec::ReedSolomon => Some(Self::ReedSolomon { data, parity }),
            Codec::Xor => Some(Self::Xor { data }),
            Codec::ReedSolomonLegacy => None,
        }
    }

    /// Data units: k.
    pub fn data(self) -> usize {
        match self {
            Self::ReedSolomon { data, .. } | Self::Xor { data } => data,
        }
    }

    /// Parity units: m.
    pub fn parity_units(self) -> usize {
        match self {
            Self::ReedSolomon { parity, .. } => parity,
            Self::Xor { .. } => 1,
        }
    }

    /// All units.
    pub fn units(self) -> usize {
        self.data() + self.parity_units()
    }

    /// The rows that make the parity units of the data units.
    pub fn parity(self) -> Matrix {
        let (k, m) = (self.data(), self.parity_units());
        assert!((1..=UNITS_MAX).contains(&self.units()) && k > 0, "1 to 255 units, and some data");
        Matrix::from_fn(m, k, |row, column| match self {
            Self::ReedSolomon { .. } => galois_8::div(1, (k + row) as u8 ^ column as u8),
            Self::Xor { .. } => 1,
        })
    }

    /// The row that makes any unit of the data units.
    fn row_of(self, parity: &Matrix, unit: usize) -> Vec<u8> {
        let k = self.data();
        match unit.checked_sub(k) {
            Some(row) => parity.row(row).to_vec(),
            None => (0..k).map(|column| u8::from(column == unit)).collect(),
        }
    }

    /// k units out of `left`, and the rows that make the units `wanted` of them. Prefers what comes first in `left`.
    pub(super) fn decoding(
        self,
        left: &[usize],
        wanted: &[usize],
    ) -> Result<(Vec<usize>, Matrix), CodingError> {
        let (k, units) = (self.data(), self.units());
        if let Some(&unit) = left.iter().chain(wanted).find(|unit| **unit >= units) {
            return Err(CodingError::NoSuchUnit { unit, units });
        }
        let mut sources: Vec<usize> = Vec::with_capacity(k);
        for &unit in left {
            if !sources.contains(&unit) {
                sources.push(unit);
            }
        }
        if sources.len() < k {
            return Err(CodingError::TooFewUnits { have: sources.len(), need: k });
        }
        sources.truncate(k);
        let parity = self.parity();
        let rows_of = |units: &[usize]| {
            let cells = units.iter().flat_map(|&unit| self.row_of(&parity, unit)).collect();
            Matrix { columns: k, cells }
        };
        let inverse =
            rows_of(&sources).inverse().expect("any k units of these codes determine all");
        Ok((sources, rows_of(wanted).times(&inverse)))
    }
}
