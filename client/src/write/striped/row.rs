//! One row of a group: data cells as they are filled, and the parity that belongs to them.
//!
//! Cells are cut into packets that are checksummed while their bytes are in the processor's cache; shared bytes that
//! fill a packet are not copied. Parity is computed and checksummed in strips that stay in the cache, one packet of
//! every cell at a time, so that data and parity are cut alike. What holds: the packets of a row have the places and the
//! numbers that they need in their units; a row is full at k cells, and short only if it was taken before.

use bytes::{Bytes, BytesMut};
use transfer::coder::Coder;
use transfer::stripe::Layout;
use transfer::{Checksum, PacketBuilder, PacketHeader, SealedPacket};

/// Bytes of each cell that are coded and checksummed at once: with k + m of them in the second-level cache.
const STRIP_BYTES: usize = 32 << 10;

/// How a file's rows are cut and coded.
#[derive(Clone, Debug)]
pub(super) struct Coding {
    pub(super) layout: Layout,
    pub(super) coder: Coder,
    pub(super) checksum: Checksum,
    /// Data bytes of a packet: whole chunks, no more than a cell.
    pub(super) packet_bytes: usize,
}

impl Coding {
    /// Packets of a whole cell.
    pub(super) fn cell_packets(&self) -> usize {
        self.cell_bytes().div_ceil(self.packet_bytes)
    }

    fn cell_bytes(&self) -> usize {
        usize::try_from(self.layout.cell_bytes).expect("a cell is small")
    }

    /// The header of packet `index` of a cell in `row`.
    fn header(&self, row: u64, index: usize) -> PacketHeader {
        PacketHeader {
            offset_in_block: row * self.layout.cell_bytes + (index * self.packet_bytes) as u64,
            seqno: (row * self.cell_packets() as u64) as i64 + index as i64,
            last: false,
            data_len: 0,
            sync: false,
        }
    }
}

/// A row that is being filled.
#[derive(Debug)]
pub(super) struct RowBuilder {
    row: Row,
    /// The packet that is being filled: the next one of its cell.
    packet: Option<PacketBuilder>,
}

/// The data of a row: whole, or what there is of the last one.
#[derive(Debug)]
pub(super) struct Row {
    /// Which row of its group.
    pub(super) index: u64,
    /// Bytes of data, over all cells.
    pub(super) bytes: u64,
    /// The packets of each data cell. After [`Row::add_parity`] of each cell.
    pub(super) cells: Vec<Vec<SealedPacket>>,
}

impl RowBuilder {
    /// An empty row.
    pub(super) fn new(coding: &Coding, index: u64) -> Self {
        let cells = vec![Vec::new(); coding.layout.data_units];
        Self { row: Row { index, bytes: 0, cells }, packet: None }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.row.bytes == 0
    }

    pub(super) fn is_full(&self, coding: &Coding) -> bool {
        self.row.bytes == coding.layout.stripe_bytes()
    }

    /// Copies as many of `data` as the current packet takes, and tells how many: none if the row is full.
    pub(super) fn push(&mut self, coding: &Coding, data: &[u8]) -> usize {
        if self.is_full(coding) {
            return 0;
        }
        let (cell, index, room) = self.place(coding);
        let header = coding.header(self.row.index, index);
        let builder = self.packet.get_or_insert_with(|| {
            PacketBuilder::new(coding.checksum, header.offset_in_block, coding.packet_bytes)
        });
        let taken = builder.push(&data[..data.len().min(room)]);
        self.row.bytes += taken as u64;
        if taken == room {
            let packet = self.packet.take().expect("it was just filled");
            self.row.cells[cell].push(packet.seal(header.seqno, false));
        }
        taken
    }

    /// Takes the front of shared bytes, without copying them if they fill a packet. Takes none if the row is full.
    pub(super) fn push_shared(&mut self, coding: &Coding, data: &mut Bytes) {
        if self.is_full(coding) {
            return;
        }
        let (cell, index, room) = self.place(coding);
        if self.packet.is_some() || data.len() < room {
            let taken = self.push(coding, data);
            let _taken = data.split_to(taken);
            return;
        }
        let header = coding.header(self.row.index, index);
        self.row.bytes += room as u64;
        let packet = SealedPacket::new(header, coding.checksum, data.split_to(room));
        self.row.cells[cell].push(packet);
    }

    /// The row as it is, and an empty one that follows it.
    pub(super) fn take(&mut self, coding: &Coding, next: u64) -> Row {
        if let Some(packet) = self.packet.take() {
            let cell = ((self.row.bytes - 1) / coding.layout.cell_bytes) as usize;
            let seqno = coding.header(self.row.index, self.row.cells[cell].len()).seqno;
            self.row.cells[cell].push(packet.seal(seqno, false));
        }
        std::mem::replace(self, Self::new(coding, next)).row
    }

    /// The cell and the packet of it that the next byte goes to, and how many bytes that packet takes yet.
    fn place(&self, coding: &Coding) -> (usize, usize, usize) {
        let cell_bytes = coding.cell_bytes();
        let at = usize::try_from(self.row.bytes).expect("a row is small");
        let (cell, within) = (at / cell_bytes, at % cell_bytes);
        let index = within / coding.packet_bytes;
        let end = ((index + 1) * coding.packet_bytes).min(cell_bytes);
        (cell, index, end - within)
    }
}

impl Row {
    /// Computes the parity cells and puts them behind the data cells.
    pub(super) fn add_parity(&mut self, coding: &Coding) {
        let mut parity = vec![Vec::new(); coding.layout.parity_units];
        for index in 0..self.cells[0].len() {
            let packets = self.parity_packets(coding, index);
            parity.iter_mut().zip(packets).for_each(|(cell, packet)| cell.push(packet));
        }
        self.cells.append(&mut parity);
    }

    /// The parity of one packet of every data cell. What a cell lacks counts as zeros.
    fn parity_packets(&self, coding: &Coding, index: usize) -> Vec<SealedPacket> {
        let bytes = self.cells[0][index].data.len();
        let data: Vec<Bytes> = self.cells.iter().map(|cell| filled(cell, index, bytes)).collect();
        let sum_bytes = coding.checksum.sum_bytes(bytes);
        let mut parity: Vec<_> = (0..coding.layout.parity_units)
            .map(|_| (BytesMut::zeroed(bytes), vec![0; sum_bytes]))
            .collect();
        for begin in (0..bytes).step_by(STRIP_BYTES) {
            let end = (begin + STRIP_BYTES).min(bytes);
            let inputs: Vec<&[u8]> = data.iter().map(|cell| &cell[begin..end]).collect();
            let mut outputs: Vec<&mut [u8]> =
                parity.iter_mut().map(|(cell, _)| &mut cell[begin..end]).collect();
            coding.coder.encode(&inputs, &mut outputs);
            let sums_at = coding.checksum.sum_bytes(begin)..coding.checksum.sum_bytes(end);
            for (cell, sums) in &mut parity {
                coding.checksum.compute(&cell[begin..end], &mut sums[sums_at.clone()]);
            }
        }
        let header = coding.header(self.index, index);
        let seal = |(cell, sums): (BytesMut, Vec<u8>)| {
            SealedPacket::with_sums(header, &sums, cell.freeze())
        };
        parity.into_iter().map(seal).collect()
    }
}

/// A cell's packet, filled up with zeros to `bytes`.
fn filled(cell: &[SealedPacket], index: usize, bytes: usize) -> Bytes {
    let data = cell.get(index).map(|packet| packet.data.clone()).unwrap_or_default();
    if data.len() == bytes {
        return data;
    }
    let mut whole = BytesMut::zeroed(bytes);
    whole[..data.len()].copy_from_slice(&data);
    whole.freeze()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use transfer::coder::Code;

    use super::*;

    fn coding(k: usize, m: usize, cell_chunks: usize, packet_chunks: usize) -> Coding {
        let checksum = Checksum::NATIVE;
        let chunk = checksum.chunk_bytes();
        let code = Code::ReedSolomon { data: k, parity: m };
        let cell_bytes = (cell_chunks * chunk) as u64;
        Coding {
            layout: Layout { data_units: k, parity_units: m, cell_bytes },
            coder: Coder::new(code),
            checksum,
            packet_bytes: packet_chunks.min(cell_chunks) * chunk,
        }
    }

    /// A unit's bytes, from packets that follow each other and whose checksums fit.
    fn unit_of(coding: &Coding, rows: &[Row], unit: usize) -> Vec<u8> {
        let mut bytes = Vec::new();
        let packets = rows.iter().flat_map(|row| &row.cells[unit]);
        for (seqno, packet) in (0i64..).zip(packets) {
            assert_eq!(packet.header.offset_in_block, bytes.len() as u64);
            assert_eq!(packet.header.seqno, seqno);
            let frame = [&packet.head[..], &packet.data[..]].concat();
            let received = transfer::packet::Packet::decode(frame.into()).unwrap();
            received.verify(coding.checksum, "packet").unwrap();
            bytes.extend_from_slice(&packet.data);
        }
        bytes
    }

    proptest! {
        #[test]
        fn pieces_of_any_size_become_units_of_the_layout_that_decode(
            k in 1usize..5, m in 1usize..4, cell in 1usize..5, packet in 1usize..4,
            length in 1usize..20_000,
            pieces in prop::collection::vec((1usize..3_000, any::<bool>()), 1..20),
        ) {
            let coding = coding(k, m, cell, packet);
            let layout = coding.layout;
            let content: Vec<u8> = (0..length).map(|at| (at * 31 % 253) as u8).collect();
            let shared = Bytes::from(content.clone());
            let (mut rows, mut at) = (Vec::new(), 0);
            let mut builder = RowBuilder::new(&coding, 0);
            for (piece, is_shared) in pieces.iter().cycle() {
                let mut data = shared.slice(at..(at + piece).min(length));
                let before = data.len();
                if *is_shared {
                    builder.push_shared(&coding, &mut data);
                } else {
                    let taken = builder.push(&coding, &data);
                    let _taken = data.split_to(taken);
                }
                prop_assert!(data.len() < before, "a row that is not full takes something");
                at += before - data.len();
                if builder.is_full(&coding) || at == length {
                    let index = rows.len() as u64;
                    rows.push(builder.take(&coding, index + 1));
                }
                if at == length {
                    break;
                }
            }
            rows.iter_mut().for_each(|row| row.add_parity(&coding));
            prop_assert_eq!(rows.iter().map(|row| row.bytes).sum::<u64>(), length as u64);
            let units: Vec<_> = (0..k + m).map(|unit| unit_of(&coding, &rows, unit)).collect();
            for (unit, bytes) in units.iter().enumerate() {
                prop_assert_eq!(bytes.len() as u64, layout.unit_length(length as u64, unit));
            }
            for piece in layout.pieces(0..length as u64) {
                let got = &units[piece.unit][piece.unit_offset as usize..][..piece.length as usize];
                prop_assert_eq!(got, &content[piece.offset as usize..][..piece.length as usize]);
            }
            let filled = |unit: usize| {
                let mut bytes = units[unit].clone();
                bytes.resize(units[0].len(), 0);
                bytes
            };
            let left: Vec<usize> = (m.min(k)..k + m).collect();
            let lost: Vec<usize> = (0..m.min(k)).collect();
            let plan = coding.coder.plan(&left, &lost).unwrap();
            let sources: Vec<_> = plan.sources().iter().map(|&unit| filled(unit)).collect();
            let sources: Vec<&[u8]> = sources.iter().map(|bytes| &bytes[..]).collect();
            let mut decoded = vec![vec![0; units[0].len()]; lost.len()];
            let mut outputs: Vec<&mut [u8]> = decoded.iter_mut().map(|unit| &mut unit[..]).collect();
            plan.decode(&sources, &mut outputs);
            for (unit, bytes) in decoded.iter().enumerate() {
                prop_assert!(*bytes == filled(unit), "unit {} comes back", unit);
            }
        }
    }
}
