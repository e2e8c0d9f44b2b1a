//! Files with holes: GNU's four ways to write them down.

use std::io::Read;

use tar::GnuExtSparseHeader;
use tar::GnuHeader;
use tar::GnuSparseHeader;

use super::number::decimal;
use super::number::invalid;
use super::number::unsigned;
use crate::error::Error;
use crate::error::Limit;
use crate::error::Result;

/// A map of more pieces is refused: the honest ones have tens.
const MAX_SEGMENTS: u64 = 64 << 10;
const BLOCK: usize = 512;

/// A piece of a file that is stored; what lies between pieces is zero.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Segment {
    pub(crate) offset: u64,
    pub(crate) length: u64,
}

/// A file with holes: its pieces, in order and apart, and its size with the holes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Sparse {
    pub(crate) segments: Vec<Segment>,
    pub(crate) size: u64,
}

impl Sparse {
    /// Checks that the pieces are in order, inside the file, and together as long as what is stored, and that the last
    /// one ends with the file: where it does not, GNU tar makes a shorter file. Tools end the map with an empty piece.
    fn new(segments: Vec<Segment>, size: u64, stored: u64) -> Result<Sparse> {
        let mut end = 0;
        let mut sum: u64 = 0;
        for segment in &segments {
            let next = segment.offset.checked_add(segment.length).filter(|next| *next <= size);
            let (true, Some(next)) = (segment.offset >= end, next) else {
                return invalid("the pieces of a sparse file overlap or lie outside of it");
            };
            end = next;
            sum = sum.saturating_add(segment.length);
        }
        if sum != stored {
            return invalid(format!("the pieces of a sparse file are {sum} bytes, and {stored} are stored"));
        }
        if !segments.is_empty() && end != size {
            return invalid("ambiguous: the map of a sparse file ends before the file does");
        }
        let segments = segments.into_iter().filter(|segment| segment.length > 0).collect();
        Ok(Sparse { segments, size })
    }
}

/// The records `GNU.sparse.*` of an extended header.
///
/// Readers take different subsets of them for a sparse file, so only the three complete sets that tools write are
/// accepted, and each record once.
#[derive(Debug, Default)]
pub(super) struct SparseRecords {
    /// As they are written: Go compares the text.
    major: Option<Vec<u8>>,
    minor: Option<Vec<u8>>,
    size: Option<u64>,
    real_size: Option<u64>,
    blocks: Option<u64>,
    pub(super) name: Option<Vec<u8>>,
    /// Offsets and lengths in turn, of one record in version 0.1.
    map: Option<Vec<u64>>,
    /// The same in version 0.0, of one record each.
    pieces: Vec<u64>,
    seen: bool,
}

impl SparseRecords {
    pub(super) fn take(&mut self, key: &[u8], value: &[u8]) -> Result<()> {
        let number = || decimal("a number of a sparse file", value);
        self.seen = true;
        match key {
            b"major" => once(&mut self.major, value.to_vec())?,
            b"minor" => once(&mut self.minor, value.to_vec())?,
            b"size" => once(&mut self.size, number()?)?,
            b"realsize" => once(&mut self.real_size, number()?)?,
            b"numblocks" => once(&mut self.blocks, number()?)?,
            b"name" if value.is_empty() || value.contains(&0) => return invalid("a sparse file has no proper name"),
            b"name" => once(&mut self.name, value.to_vec())?,
            // GNU tar makes room for the pieces when it reads how many there will be.
            b"map" | b"offset" | b"numbytes" if self.blocks.is_none() => {
                return invalid("the map of a sparse file stands before the number of its pieces");
            }
            b"map" => once(&mut self.map, parse_list(value)?)?,
            b"offset" if self.pieces.len().is_multiple_of(2) => self.pieces.push(number()?),
            b"numbytes" if self.pieces.len() % 2 == 1 => self.pieces.push(number()?),
            b"offset" | b"numbytes" => return invalid("the records of a sparse file are out of order"),
            _ => return invalid("a record of a sparse file is unknown"),
        }
        self.check_count()
    }

    pub(super) fn is_empty(&self) -> bool {
        !self.seen
    }

    fn check_count(&self) -> Result<()> {
        let numbers = self.pieces.len().max(self.map.as_ref().map_or(0, Vec::len));
        if numbers as u64 > 2 * MAX_SEGMENTS {
            return Err(Error::limit(Limit::SparseSegments, MAX_SEGMENTS));
        }
        Ok(())
    }

    /// Fails if the values of other records look like pieces of version 0.0, which Python looks for in the whole payload.
    pub(super) fn refuse_look_alikes(&self, payload: &[u8]) -> Result<()> {
        if self.pieces.is_empty() {
            return Ok(());
        }
        let count = |text: &[u8]| payload.windows(text.len()).filter(|part| *part == text).count();
        if count(b"GNU.sparse.offset=") + count(b"GNU.sparse.numbytes=") != self.pieces.len() {
            return invalid("ambiguous: a value looks like a piece of a sparse file");
        }
        Ok(())
    }

    /// The map, if there is one. In version 1.0 it stands before the content, in `stored` bytes that then become
    /// fewer.
    pub(super) fn map(mut self, content: &mut impl Read, stored: &mut u64) -> Result<Option<Sparse>> {
        if !self.seen {
            return Ok(None);
        }
        let version = (self.major.take(), self.minor.take());
        let (size, numbers) = match (version.0.as_deref(), version.1.as_deref()) {
            (Some(b"1"), Some(b"0")) => (self.size_of_1_0()?, read_list(content, stored)?),
            (None, None) | (Some(b"0"), Some(b"0" | b"1")) => self.size_and_map_of_0_x()?,
            _ => return invalid("a sparse file is of an unknown version"),
        };
        if !numbers.len().is_multiple_of(2) {
            return invalid("the map of a sparse file is incomplete");
        }
        let segments = numbers.chunks_exact(2).map(|pair| Segment { offset: pair[0], length: pair[1] }).collect();
        Sparse::new(segments, size, *stored).map(Some)
    }

    fn size_of_1_0(&self) -> Result<u64> {
        match (self.real_size, self.size, self.blocks) {
            (Some(size), None, None) => Ok(size),
            (None, ..) => invalid("a sparse file has no size"),
            _ => invalid("ambiguous: a sparse file has records of two versions"),
        }
    }

    fn size_and_map_of_0_x(self) -> Result<(u64, Vec<u64>)> {
        let (Some(size), None) = (self.size, self.real_size) else {
            return invalid("a sparse file of version 0 has no GNU.sparse.size, or another size beside it");
        };
        let numbers = match (self.map, self.pieces) {
            (Some(map), pieces) if pieces.is_empty() => map,
            (None, pieces) => pieces,
            _ => return invalid("ambiguous: a sparse file has two maps"),
        };
        // Go and GNU tar take what has no pieces for a whole file.
        if numbers.is_empty() {
            return invalid("ambiguous: records of a sparse file without a map");
        }
        if self.blocks.is_none_or(|blocks| blocks.checked_mul(2) != Some(numbers.len() as u64)) {
            return invalid("the map of a sparse file has another number of pieces than it says");
        }
        Ok((size, numbers))
    }
}

fn once<T>(place: &mut Option<T>, value: T) -> Result<()> {
    if place.replace(value).is_some() {
        return invalid("a record of a sparse file comes twice");
    }
    Ok(())
}

/// 0.1: all in one record.
fn parse_list(value: &[u8]) -> Result<Vec<u64>> {
    let count = value.iter().filter(|byte| **byte == b',').count() as u64;
    if count > 2 * MAX_SEGMENTS {
        return Err(Error::limit(Limit::SparseSegments, MAX_SEGMENTS));
    }
    if value.is_empty() {
        return Ok(Vec::new());
    }
    value.split(|byte| *byte == b',').map(|number| decimal("a number of a sparse file", number)).collect()
}

/// 1.0: decimal lines in whole blocks before the content, the first of which says how many pieces follow.
fn read_list(content: &mut impl Read, stored: &mut u64) -> Result<Vec<u64>> {
    let mut lines = Lines { content, stored, block: [0; BLOCK], at: BLOCK };
    let count = lines.number()?;
    if count > MAX_SEGMENTS {
        return Err(Error::limit(Limit::SparseSegments, MAX_SEGMENTS));
    }
    (0..2 * count).map(|_| lines.number()).collect()
}

struct Lines<'a, R> {
    content: &'a mut R,
    stored: &'a mut u64,
    block: [u8; BLOCK],
    at: usize,
}

impl<R: Read> Lines<'_, R> {
    fn number(&mut self) -> Result<u64> {
        let mut text = Vec::new();
        loop {
            match self.byte()? {
                b'\n' => return decimal("a number of a sparse file", &text),
                _ if text.len() == 20 => return invalid("a number of a sparse file is too long"),
                byte => text.push(byte),
            }
        }
    }

    fn byte(&mut self) -> Result<u8> {
        if self.at == BLOCK {
            let Some(left) = self.stored.checked_sub(BLOCK as u64) else {
                return invalid("the map of a sparse file is longer than its content");
            };
            self.content.read_exact(&mut self.block)?;
            *self.stored = left;
            self.at = 0;
        }
        self.at += 1;
        Ok(self.block[self.at - 1])
    }
}

/// The old way: four pieces in the header, more in the blocks behind it.
pub(super) fn old_map(header: &GnuHeader, stored: u64, blocks: &mut impl Read) -> Result<Sparse> {
    let size = unsigned("real size", &header.realsize)?;
    let mut segments = Vec::new();
    let mut is_full = add(&mut segments, &header.sparse)?;
    let mut more = header.isextended[0] != 0;
    while more {
        if !is_full {
            return invalid("ambiguous: the map of a sparse file goes on behind its end");
        }
        let mut block = GnuExtSparseHeader::new();
        blocks.read_exact(block.as_mut_bytes())?;
        let before = segments.len();
        is_full = add(&mut segments, &block.sparse)?;
        if segments[before..].iter().any(|segment| segment.offset == 0 && segment.length > 0) {
            return invalid(
                "ambiguous: a piece at the start of a sparse file stands in a later block, where Python skips it",
            );
        }
        if segments.len() as u64 > MAX_SEGMENTS {
            return Err(Error::limit(Limit::SparseSegments, MAX_SEGMENTS));
        }
        more = block.isextended[0] != 0;
    }
    if segments.is_empty() {
        return invalid("ambiguous: a sparse file without a map");
    }
    Sparse::new(segments, size, stored)
}

/// Adds the pieces of some slots; false if the list ends in them. A slot that is all zero bytes ends it: no other may
/// follow, and one that is half filled is refused.
fn add(segments: &mut Vec<Segment>, slots: &[GnuSparseHeader]) -> Result<bool> {
    let is_empty = |slot: &GnuSparseHeader| slot.offset == [0; 12] && slot.numbytes == [0; 12];
    let filled = slots.iter().position(is_empty).unwrap_or(slots.len());
    if !slots[filled..].iter().all(is_empty) {
        return invalid("ambiguous: the map of a sparse file goes on behind its end");
    }
    for slot in &slots[..filled] {
        if slot.offset[0] == 0 || slot.numbytes[0] == 0 {
            return invalid("the map of a sparse file has half a piece");
        }
        let offset = unsigned("offset of a piece", &slot.offset)?;
        segments.push(Segment { offset, length: unsigned("length of a piece", &slot.numbytes)? });
    }
    Ok(filled == slots.len())
}
