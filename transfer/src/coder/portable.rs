//! The kernel that runs everywhere: one coefficient at a time, by reed-solomon-erasure's tables, in steps that stay in
//! the cache.

use reed_solomon_erasure::galois_8;

use super::Matrix;

/// Bytes of each unit that are worked on at once.
const STEP_BYTES: usize = 16 << 10;

pub(super) fn run(rows: &Matrix, inputs: &[&[u8]], outputs: &mut [&mut [u8]]) {
    let length = inputs[0].len();
    for start in (0..length).step_by(STEP_BYTES) {
        let end = (start + STEP_BYTES).min(length);
        for (row, output) in outputs.iter_mut().enumerate() {
            let output = &mut output[start..end];
            for (column, (&factor, input)) in rows.row(row).iter().zip(inputs).enumerate() {
                let input = &input[start..end];
                if column == 0 {
                    galois_8::mul_slice(factor, input, output);
                } else {
                    galois_8::mul_slice_xor(factor, input, output);
                }
            }
        }
    }
}
