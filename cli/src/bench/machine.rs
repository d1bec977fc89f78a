//! What this machine gives by itself: its disk, its memory, its loopback. Measured in the same run as everything else,
//! since a figure of a shared or virtual machine tells nothing without them.
//!
//! Plain blocking code on threads of its own: nothing of Granary is in the way.

use std::fs::File;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::time::{Duration, Instant};

use super::Size;
use super::figures::Values;
use crate::failure::{Failure, Result};

const CHUNK_BYTES: usize = 1 << 20;
const COPY_BYTES: usize = 64 << 20;
const MESSAGE_BYTES: usize = 64;
const APPEND_BYTES: usize = 128;
/// Bytes of memory that random loads are spread over.
const LOAD_BYTES: usize = 256 << 20;

/// Measures everything once, with files under `dir`.
pub fn measure(dir: &Path, size: &Size, values: &mut Values) -> Result<()> {
    disk(dir, size, values).map_err(|error| Failure::io(dir.display(), &error))?;
    memory(size, values);
    loopback(size, values).map_err(|error| Failure::io("loopback TCP", &error))
}

fn per_second(count: u64, time: Duration) -> f64 {
    count as f64 / time.as_secs_f64().max(1e-9)
}

fn disk(dir: &Path, size: &Size, values: &mut Values) -> std::io::Result<()> {
    let path = dir.join("disk");
    let chunk = super::noise(CHUNK_BYTES);
    let begun = Instant::now();
    let mut file = File::create(&path)?;
    for _ in 0..size.bytes / CHUNK_BYTES as u64 {
        file.write_all(&chunk)?;
    }
    file.sync_data()?;
    values.add("disk_write", per_second(size.bytes, begun.elapsed()));

    let mut buffer = vec![0; CHUNK_BYTES];
    let begun = Instant::now();
    let mut file = File::open(&path)?;
    let mut bytes = 0;
    loop {
        match file.read(&mut buffer)? {
            0 => break,
            count => bytes += count as u64,
        }
    }
    values.add("cached_read", per_second(bytes, begun.elapsed()));
    std::fs::remove_file(&path)?;
    appends(dir, size, values)?;
    small_files(dir, size, values)
}

/// As a journal is written: into blocks that are allocated already.
fn appends(dir: &Path, size: &Size, values: &mut Values) -> std::io::Result<()> {
    let path = dir.join("journal");
    let file = File::create(&path)?;
    let count = size.calls;
    file.write_all_at(&vec![0; count as usize * APPEND_BYTES], 0)?;
    file.sync_all()?;
    let begun = Instant::now();
    for index in 0..count {
        file.write_all_at(&[1; APPEND_BYTES], index * APPEND_BYTES as u64)?;
        file.sync_data()?;
    }
    values.add("appends", per_second(count, begun.elapsed()));
    std::fs::remove_file(&path)
}

fn small_files(dir: &Path, size: &Size, values: &mut Values) -> std::io::Result<()> {
    let folder = dir.join("small");
    std::fs::create_dir(&folder)?;
    let handle = File::open(&folder)?;
    let content = super::noise(super::SMALL_FILE_BYTES);
    let begun = Instant::now();
    for index in 0..size.files {
        let mut file = File::create(folder.join(index.to_string()))?;
        file.write_all(&content)?;
        file.sync_all()?;
        handle.sync_all()?;
    }
    values.add("small_files", per_second(size.files, begun.elapsed()));
    std::fs::remove_dir_all(&folder)
}

fn memory(size: &Size, values: &mut Values) {
    let from = super::noise(COPY_BYTES.min(size.bytes as usize));
    let mut to = vec![0; from.len()];
    let times = 4;
    let begun = Instant::now();
    for _ in 0..times {
        to.copy_from_slice(std::hint::black_box(&from));
        std::hint::black_box(&mut to);
    }
    values.add("memory_copy", per_second(times * from.len() as u64, begun.elapsed()));

    // Each load tells where the next one is: nothing can run ahead.
    let places = (LOAD_BYTES.min(size.bytes as usize) / 4).next_power_of_two();
    let step = places / 2 + 1 + (places >> 3 << 1);
    let next: Vec<u32> =
        (0..places).map(|at| ((at.wrapping_mul(0x2545_f491) ^ step) % places) as u32).collect();
    let loads = size.calls * 1_000;
    let mut at = 0usize;
    let begun = Instant::now();
    for count in 0..loads {
        // The sum keeps it from falling into a short circle.
        at = (next[at] as usize + count as usize * 4_099) % places;
    }
    std::hint::black_box(at);
    values.add("memory_load", per_second(loads, begun.elapsed()));
}

fn loopback(size: &Size, values: &mut Values) -> std::io::Result<()> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let addr = listener.local_addr()?;
    let bytes = size.bytes;
    let begun = Instant::now();
    std::thread::scope(|scope| {
        let sender = scope.spawn(move || -> std::io::Result<()> {
            let mut stream = TcpStream::connect(addr)?;
            let chunk = super::noise(CHUNK_BYTES);
            for _ in 0..bytes / CHUNK_BYTES as u64 {
                stream.write_all(&chunk)?;
            }
            Ok(())
        });
        let (mut stream, _) = listener.accept()?;
        let mut buffer = vec![0; CHUNK_BYTES];
        while stream.read(&mut buffer)? > 0 {}
        sender.join().expect("it does not panic")
    })?;
    values.add("loopback", per_second(bytes, begun.elapsed()));
    for (id, callers) in [("round_trips_1", 1), ("round_trips_32", 32)] {
        values.add(id, round_trips(&listener, callers, size.calls)?);
    }
    Ok(())
}

/// Messages to an echoing thread and back, per second, over one connection per caller.
fn round_trips(listener: &TcpListener, callers: u64, calls: u64) -> std::io::Result<f64> {
    let addr = listener.local_addr()?;
    let each = calls.div_ceil(callers);
    let begun = Instant::now();
    std::thread::scope(|scope| {
        let mut running = Vec::new();
        for _ in 0..callers {
            let mut asker = TcpStream::connect(addr)?;
            let (mut echo, _) = listener.accept()?;
            asker.set_nodelay(true)?;
            echo.set_nodelay(true)?;
            scope.spawn(move || {
                let mut message = [0; MESSAGE_BYTES];
                // The asker closes when it has enough.
                while echo.read_exact(&mut message).is_ok() && echo.write_all(&message).is_ok() {}
            });
            running.push(scope.spawn(move || -> std::io::Result<()> {
                let mut message = [1; MESSAGE_BYTES];
                for _ in 0..each {
                    asker.write_all(&message)?;
                    asker.read_exact(&mut message)?;
                }
                Ok(())
            }));
        }
        running.into_iter().try_for_each(|one| one.join().expect("it does not panic"))
    })?;
    Ok(per_second(each * callers, begun.elapsed()))
}

#[cfg(test)]
mod tests {
    use super::super::figures::MACHINE;
    use super::*;

    #[test]
    fn every_figure_of_the_machine_is_measured_and_leaves_nothing_behind() {
        let dir = tempfile::tempdir().unwrap();
        let size = Size { bytes: 2 << 20, files: 3, calls: 64, ..Size::SMALL };
        let mut values = Values::default();
        measure(dir.path(), &size, &mut values).unwrap();
        for machine in MACHINE {
            let value = values.median(machine.id).unwrap_or_else(|| panic!("{}", machine.id));
            assert!(value > 0.0 && value.is_finite(), "{}: {value}", machine.id);
        }
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
    }
}
