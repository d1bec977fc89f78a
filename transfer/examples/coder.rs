//! Gigabytes of data per second that each kernel encodes on one core, beside a copy of the same bytes.
//!
//! `cargo run --release -p transfer --example coder`

#![allow(clippy::print_stdout, clippy::disallowed_methods, reason = "it measures and tells")]

use std::time::Instant;

use transfer::coder::{Code, Coder, Kernel};

const ROUNDS: usize = 9;
const ROUND_BYTES: usize = 512 << 20;

/// The median rate of `work`, which goes through `bytes`.
fn rate(bytes: usize, mut work: impl FnMut()) -> f64 {
    let repeat = (ROUND_BYTES / bytes).max(1);
    let mut rates: Vec<f64> = (0..ROUNDS)
        .map(|_| {
            let begun = Instant::now();
            (0..repeat).for_each(|_| work());
            (bytes * repeat) as f64 / begun.elapsed().as_secs_f64() / 1e9
        })
        .collect();
    rates.sort_by(f64::total_cmp);
    rates[ROUNDS / 2]
}

fn main() {
    for (data, parity) in [(6, 3), (3, 2), (10, 4)] {
        for cell in [1 << 20, 64 << 10] {
            let inputs: Vec<Vec<u8>> = (0..data).map(|unit| vec![unit as u8 + 1; cell]).collect();
            let inputs: Vec<&[u8]> = inputs.iter().map(|unit| &unit[..]).collect();
            let mut outputs = vec![vec![0; cell]; parity];
            let code = Code::ReedSolomon { data, parity };
            print!("RS-{data}-{parity}, cells of {:>4} KiB:", cell >> 10);
            for kernel in Kernel::available() {
                let coder = Coder::with_kernel(code, kernel);
                let mut outputs: Vec<&mut [u8]> =
                    outputs.iter_mut().map(|unit| &mut unit[..]).collect();
                let encode = rate(data * cell, || coder.encode(&inputs, &mut outputs));
                let left: Vec<usize> = (1..data + 1).collect();
                let plan = coder.plan(&left, &[0]).expect("one unit is lost");
                let decode = rate(data * cell, || plan.decode(&inputs, &mut outputs[..1]));
                print!("  {kernel:?} {encode:.1}, one lost {decode:.1}");
            }
            let mut copy = vec![0; cell];
            let copied = rate(cell, || copy.copy_from_slice(std::hint::black_box(inputs[0])));
            println!("  copy {copied:.1} GB/s");
        }
    }
}
