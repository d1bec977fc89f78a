//! The codes against Hadoop's own coefficients, and every kernel against plain sums of products.

use proptest::prelude::*;
use reed_solomon_erasure::galois_8;

use super::*;

const CODES: [Code; 5] = [
    Code::ReedSolomon { data: 6, parity: 3 },
    Code::ReedSolomon { data: 3, parity: 2 },
    Code::ReedSolomon { data: 10, parity: 4 },
    Code::Xor { data: 2 },
    Code::ReedSolomon { data: 7, parity: 6 },
];

fn noise(seed: u64, length: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state as u8
    };
    std::iter::repeat_with(next).take(length).collect()
}

fn units(code: Code, kernel: Kernel, length: usize, seed: u64) -> Vec<Vec<u8>> {
    let coder = Coder::with_kernel(code, kernel);
    let data: Vec<_> =
        (0..code.data()).map(|unit| noise(seed.wrapping_add(unit as u64), length)).collect();
    // What was in the outputs before must not matter.
    let mut parity: Vec<_> = (0..code.parity_units())
        .map(|unit| noise((!seed).wrapping_add(unit as u64), length))
        .collect();
    let inputs: Vec<&[u8]> = data.iter().map(|unit| &unit[..]).collect();
    let mut outputs: Vec<&mut [u8]> = parity.iter_mut().map(|unit| &mut unit[..]).collect();
    coder.encode(&inputs, &mut outputs);
    data.into_iter().chain(parity).collect()
}

#[test]
fn parity_rows_are_hadoops() {
    let rows = |data, parity| {
        let matrix = Code::ReedSolomon { data, parity }.parity();
        (0..parity).map(|row| matrix.row(row).to_vec()).collect::<Vec<_>>()
    };
    assert_eq!(rows(3, 2), [[244, 142, 1], [71, 167, 122]]);
    assert_eq!(
        rows(6, 3),
        [
            [122, 186, 71, 167, 142, 244],
            [186, 122, 167, 71, 244, 142],
            [173, 157, 221, 152, 61, 170]
        ]
    );
    assert_eq!(Code::Xor { data: 2 }.parity().row(0), [1, 1]);
}

#[test]
fn every_kernel_gives_the_plain_sum_of_products_at_every_length() {
    for kernel in Kernel::available() {
        for code in CODES {
            for length in (1..=300).chain([4096, 4097, 20_000]) {
                let units = units(code, kernel, length, length as u64);
                let parity = code.parity();
                for row in 0..code.parity_units() {
                    let expected = (0..length).map(|at| {
                        let terms = parity.row(row).iter().zip(&units);
                        terms.fold(0, |sum, (factor, unit)| sum ^ galois_8::mul(*factor, unit[at]))
                    });
                    let same = expected.eq(units[code.data() + row].iter().copied());
                    assert!(same, "{kernel:?} {code:?} length {length} row {row}");
                }
            }
        }
    }
}

#[test]
fn any_k_units_give_all_others() {
    let code = Code::ReedSolomon { data: 6, parity: 3 };
    for kernel in Kernel::available() {
        let units = units(code, kernel, 1000, 7);
        let coder = Coder::with_kernel(code, kernel);
        for mask in (0u32..1 << 9).filter(|mask| mask.count_ones() == 6) {
            let (left, lost): (Vec<_>, Vec<_>) = (0..9).partition(|unit| mask >> unit & 1 == 1);
            let plan = coder.plan(&left, &lost).unwrap();
            let sources: Vec<&[u8]> = plan.sources().iter().map(|&unit| &units[unit][..]).collect();
            let mut wanted = vec![vec![0xaa; 1000]; lost.len()];
            let mut outputs: Vec<&mut [u8]> = wanted.iter_mut().map(|unit| &mut unit[..]).collect();
            plan.decode(&sources, &mut outputs);
            for (unit, bytes) in lost.iter().zip(&wanted) {
                assert!(*bytes == units[*unit], "{kernel:?}: unit {unit} from {left:?}");
            }
        }
    }
}

#[test]
fn what_cannot_be_decoded_is_told() {
    let coder = Coder::new(Code::ReedSolomon { data: 3, parity: 2 });
    assert_eq!(
        coder.plan(&[0, 4, 4, 0], &[1]).unwrap_err(),
        CodingError::TooFewUnits { have: 2, need: 3 }
    );
    let error = coder.plan(&[0, 1, 5], &[2]).unwrap_err();
    assert_eq!(error, CodingError::NoSuchUnit { unit: 5, units: 5 });
}

#[test]
fn nothing_of_nothing_is_nothing() {
    for kernel in Kernel::available() {
        assert!(units(CODES[0], kernel, 0, 1).iter().all(Vec::is_empty));
    }
}

proptest! {
    #[test]
    fn lost_units_come_back(
        data in 1usize..20,
        parity in 1usize..9,
        length in 0usize..700,
        seed in any::<u64>(),
        order in any::<prop::sample::Index>(),
    ) {
        let code = Code::ReedSolomon { data, parity };
        let kernels = Kernel::available();
        let units = units(code, kernels[0], length, seed >> 1);
        let start = order.index(code.units());
        let turned: Vec<_> = (0..code.units()).map(|unit| (unit + start) % code.units()).collect();
        let (left, lost) = turned.split_at(data);
        for kernel in kernels {
            let plan = Coder::with_kernel(code, kernel).plan(left, lost).unwrap();
            let sources: Vec<&[u8]> = plan.sources().iter().map(|&unit| &units[unit][..]).collect();
            let mut wanted = vec![vec![1; length]; lost.len()];
            let mut outputs: Vec<&mut [u8]> = wanted.iter_mut().map(|unit| &mut unit[..]).collect();
            plan.decode(&sources, &mut outputs);
            for (unit, bytes) in lost.iter().zip(&wanted) {
                prop_assert_eq!(bytes, &units[*unit]);
            }
        }
    }
}
