//! Kernels for x86-64: all coefficients of up to four outputs at once, so that each input byte is loaded once for four
//! outputs and no sum leaves the registers.
//!
//! Multiplication by a constant is linear over GF(2). With GFNI it is one affine instruction by an 8 x 8 matrix of bits;
//! with AVX2 alone it is two look-ups by half bytes. The last bytes, fewer than a register, go through a padded copy.

use std::arch::x86_64::*;

use reed_solomon_erasure::galois_8;

/// Outputs that are computed together.
const TOGETHER: usize = 4;

/// Multiplication by `factor` as the matrix that `gf2p8affineqb` takes: byte 7 - i makes bit i.
pub(super) fn affine_of(factor: u8) -> u64 {
    let mut matrix = 0;
    for bit in 0..8 {
        let row = (0..8).fold(0u64, |row, column| {
            let product = galois_8::mul(factor, 1 << column);
            row | u64::from(product >> bit & 1) << column
        });
        matrix |= row << (8 * (7 - bit));
    }
    matrix
}

/// Products with 0 to 15, then with 0, 16 to 240.
pub(super) fn half_bytes_of(factor: u8) -> [u8; 32] {
    std::array::from_fn(|at| {
        let byte = if at < 16 { at as u8 } else { ((at - 16) as u8) << 4 };
        galois_8::mul(factor, byte)
    })
}

/// Runs a kernel of `$together` outputs over all outputs, in groups.
macro_rules! in_groups {
    ($kernel:ident, $cells:expr, $inputs:expr, $outputs:expr) => {{
        let columns = $inputs.len();
        let cells = $cells.chunks(TOGETHER * columns);
        for (cells, outputs) in cells.zip($outputs.chunks_mut(TOGETHER)) {
            match outputs.len() {
                1 => $kernel::<1>(cells, $inputs, outputs),
                2 => $kernel::<2>(cells, $inputs, outputs),
                3 => $kernel::<3>(cells, $inputs, outputs),
                _ => $kernel::<4>(cells, $inputs, outputs),
            }
        }
    }};
}

/// # Safety
/// The processor has the instructions; all inputs and outputs are of one length, and there is a cell for each pair.
#[target_feature(enable = "gfni,avx512f,avx512bw")]
pub(super) unsafe fn run_gfni_avx512(cells: &[u64], inputs: &[&[u8]], outputs: &mut [&mut [u8]]) {
    // SAFETY: passed on as it was promised.
    unsafe { in_groups!(gfni_avx512, cells, inputs, outputs) }
}

/// # Safety
/// As [`run_gfni_avx512`].
#[target_feature(enable = "gfni,avx2")]
pub(super) unsafe fn run_gfni_avx2(cells: &[u64], inputs: &[&[u8]], outputs: &mut [&mut [u8]]) {
    // SAFETY: passed on as it was promised.
    unsafe { in_groups!(gfni_avx2, cells, inputs, outputs) }
}

/// # Safety
/// As [`run_gfni_avx512`].
#[target_feature(enable = "avx2")]
pub(super) unsafe fn run_avx2(cells: &[[u8; 32]], inputs: &[&[u8]], outputs: &mut [&mut [u8]]) {
    // SAFETY: passed on as it was promised.
    unsafe { in_groups!(avx2, cells, inputs, outputs) }
}

#[target_feature(enable = "gfni,avx512f,avx512bw")]
unsafe fn gfni_avx512<const M: usize>(cells: &[u64], inputs: &[&[u8]], outputs: &mut [&mut [u8]]) {
    let (length, columns) = (inputs[0].len(), inputs.len());
    let mut at = 0;
    while at + 128 <= length {
        let mut sums = [[_mm512_setzero_si512(); 2]; M];
        for (column, input) in inputs.iter().enumerate() {
            // SAFETY: at + 128 is within every input.
            let bytes = unsafe {
                let from = input.as_ptr().add(at);
                [_mm512_loadu_si512(from.cast()), _mm512_loadu_si512(from.add(64).cast())]
            };
            for (row, sum) in sums.iter_mut().enumerate() {
                let matrix = _mm512_set1_epi64(cells[row * columns + column] as i64);
                for (sum, bytes) in sum.iter_mut().zip(bytes) {
                    let product = _mm512_gf2p8affine_epi64_epi8::<0>(bytes, matrix);
                    *sum = _mm512_xor_si512(*sum, product);
                }
            }
        }
        for (output, sum) in outputs.iter_mut().zip(sums) {
            // SAFETY: at + 128 is within every output.
            unsafe {
                let to = output.as_mut_ptr().add(at);
                _mm512_storeu_si512(to.cast(), sum[0]);
                _mm512_storeu_si512(to.add(64).cast(), sum[1]);
            }
        }
        at += 128;
    }
    while at < length {
        let left = (length - at).min(64);
        let mask = u64::MAX >> (64 - left);
        let mut sums = [_mm512_setzero_si512(); M];
        for (column, input) in inputs.iter().enumerate() {
            // SAFETY: the mask keeps the load within the input.
            let bytes = unsafe { _mm512_maskz_loadu_epi8(mask, input.as_ptr().add(at).cast()) };
            for (row, sum) in sums.iter_mut().enumerate() {
                let matrix = _mm512_set1_epi64(cells[row * columns + column] as i64);
                let product = _mm512_gf2p8affine_epi64_epi8::<0>(bytes, matrix);
                *sum = _mm512_xor_si512(*sum, product);
            }
        }
        for (output, sum) in outputs.iter_mut().zip(sums) {
            // SAFETY: the mask keeps the store within the output.
            unsafe { _mm512_mask_storeu_epi8(output.as_mut_ptr().add(at).cast(), mask, sum) };
        }
        at += left;
    }
}

#[target_feature(enable = "gfni,avx2")]
unsafe fn gfni_avx2<const M: usize>(cells: &[u64], inputs: &[&[u8]], outputs: &mut [&mut [u8]]) {
    let columns = inputs.len();
    let product = |row: usize, column: usize, bytes: __m256i| {
        let matrix = _mm256_set1_epi64x(cells[row * columns + column] as i64);
        _mm256_gf2p8affine_epi64_epi8::<0>(bytes, matrix)
    };
    // SAFETY: as promised by the caller.
    unsafe { by_32_bytes::<M>(inputs, outputs, product) }
}

#[target_feature(enable = "avx2")]
unsafe fn avx2<const M: usize>(cells: &[[u8; 32]], inputs: &[&[u8]], outputs: &mut [&mut [u8]]) {
    let columns = inputs.len();
    let low_half = _mm256_set1_epi8(0x0f);
    let product = |row: usize, column: usize, bytes: __m256i| {
        // SAFETY: a cell has 32 bytes.
        let tables = unsafe { _mm256_loadu_si256(cells[row * columns + column].as_ptr().cast()) };
        let lows = _mm256_permute2x128_si256::<0x00>(tables, tables);
        let highs = _mm256_permute2x128_si256::<0x11>(tables, tables);
        let low = _mm256_and_si256(bytes, low_half);
        let high = _mm256_and_si256(_mm256_srli_epi64::<4>(bytes), low_half);
        _mm256_xor_si256(_mm256_shuffle_epi8(lows, low), _mm256_shuffle_epi8(highs, high))
    };
    // SAFETY: as promised by the caller.
    unsafe { by_32_bytes::<M>(inputs, outputs, product) }
}

/// Sums products of 32 bytes for `M` outputs.
#[target_feature(enable = "avx2")]
unsafe fn by_32_bytes<const M: usize>(
    inputs: &[&[u8]],
    outputs: &mut [&mut [u8]],
    product: impl Fn(usize, usize, __m256i) -> __m256i,
) {
    let length = inputs[0].len();
    let mut at = 0;
    while at < length {
        let left = (length - at).min(32);
        let mut sums = [_mm256_setzero_si256(); M];
        for (column, input) in inputs.iter().enumerate() {
            let bytes = if left == 32 {
                // SAFETY: at + 32 is within every input.
                unsafe { _mm256_loadu_si256(input.as_ptr().add(at).cast()) }
            } else {
                let mut padded = [0u8; 32];
                padded[..left].copy_from_slice(&input[at..]);
                // SAFETY: 32 bytes.
                unsafe { _mm256_loadu_si256(padded.as_ptr().cast()) }
            };
            for (row, sum) in sums.iter_mut().enumerate() {
                *sum = _mm256_xor_si256(*sum, product(row, column, bytes));
            }
        }
        for (output, sum) in outputs.iter_mut().zip(sums) {
            if left == 32 {
                // SAFETY: at + 32 is within every output.
                unsafe { _mm256_storeu_si256(output.as_mut_ptr().add(at).cast(), sum) };
            } else {
                let mut padded = [0u8; 32];
                // SAFETY: 32 bytes.
                unsafe { _mm256_storeu_si256(padded.as_mut_ptr().cast(), sum) };
                output[at..].copy_from_slice(&padded[..left]);
            }
        }
        at += left;
    }
}
