//! What a check finds, as messages of gRPC.

use proto::granary::check_files_event::Event as Told;
use proto::granary::{CheckFilesEvent, CheckedBlock, CheckedFile, CheckedSums};
use tonic::Status;

use super::events::{Event, FoundBlock, FoundFile, Sums};

/// An event as a message; `None` for those that say nothing more. A check that failed ends the stream with its error.
pub fn message(event: Event) -> Option<Result<CheckFilesEvent, Status>> {
    let told = match event {
        Event::Folder(path) => Told::Folder(path),
        Event::FileChecked(file) => Told::File(checked(*file)),
        Event::Block(block) => Told::Block(block_of(*block)),
        Event::Mended(_, path) => Told::Mended(path),
        Event::Sums(sums) => Told::Sums(sums_of(&sums)),
        Event::Failed(error) => return Some(Err(error.into())),
        Event::File(_) | Event::Bad(_) | Event::BlocksTold => return None,
    };
    Some(Ok(CheckFilesEvent { event: Some(told) }))
}

fn checked(file: FoundFile) -> CheckedFile {
    CheckedFile {
        path: file.path,
        length: file.length,
        blocks: file.blocks,
        open: file.open,
        missing_blocks: file.missing,
        missing_bytes: file.missing_bytes,
        damaged_blocks: file.damaged,
        short_blocks: file.short,
        misplaced_blocks: file.misplaced,
        lost_blocks: file.lost,
        lost_bytes: file.lost_bytes,
        endangered_blocks: file.endangered,
        erasure_policy: file.coding.map_or(0, |policy| policy.id.into()),
        replication: file.replication,
    }
}

fn block_of(found: FoundBlock) -> CheckedBlock {
    CheckedBlock {
        index: found.index as u64,
        block: Some(found.block.into()),
        complete: found.complete,
        wanted: found.wanted,
        live: found.live,
        damaged: found.damaged,
        locations: found.nodes,
        needed: found.needed,
        units: found.units.into(),
    }
}

fn sums_of(sums: &Sums) -> CheckedSums {
    CheckedSums {
        healthy: sums.is_healthy(),
        folders: sums.folders,
        files: sums.files,
        bytes: sums.bytes,
        blocks: sums.blocks,
        open_files: sums.open_files,
        broken_files: sums.broken_files,
        missing_blocks: sums.missing,
        missing_bytes: sums.missing_bytes,
        damaged_blocks: sums.damaged,
        short_blocks: sums.short,
        misplaced_blocks: sums.misplaced,
        surplus_blocks: sums.over,
        replicas: sums.replicas,
        replicas_wanted: sums.replicas_wanted,
        lost_files: sums.lost_files,
        lost_blocks: sums.lost,
        lost_bytes: sums.lost_bytes,
        endangered_blocks: sums.endangered,
        repairing_blocks: sums.repairing,
    }
}
