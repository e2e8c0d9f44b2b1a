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
    /// Checks that the pieces are in order, inside the file, and together as long as what is stored.
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
        let segments = segments.into_iter().filter(|segment| segment.length > 0).collect();
        Ok(Sparse { segments, size })
    }
}

/// What the records `GNU.sparse.*` of an extended header say.
#[derive(Debug, Default)]
pub(super) struct SparseRecords {
    major: Option<u64>,
    minor: Option<u64>,
    /// `size` in versions 0.0 and 0.1, `realsize` in 1.0.
    size: Option<u64>,
    pub(super) name: Option<Vec<u8>>,
    /// Offsets and lengths in turn.
    map: Vec<u64>,
    seen: bool,
}

impl SparseRecords {
    pub(super) fn take(&mut self, key: &[u8], value: &[u8]) -> Result<()> {
        let number = || decimal("a number of a sparse file", value);
        self.seen = true;
        match key {
            b"major" => self.major = Some(number()?),
            b"minor" => self.minor = Some(number()?),
            b"size" | b"realsize" => self.size = Some(number()?),
            b"name" if value.is_empty() || value.contains(&0) => return invalid("a sparse file has no proper name"),
            b"name" => self.name = Some(value.to_vec()),
            b"map" => self.map = parse_list(value)?,
            // 0.0: these come in turn, one record each.
            b"offset" if self.map.len().is_multiple_of(2) => self.map.push(number()?),
            b"numbytes" if self.map.len() % 2 == 1 => self.map.push(number()?),
            b"offset" | b"numbytes" => return invalid("the records of a sparse file are out of order"),
            // How many pieces there will be: the pieces themselves say so.
            b"numblocks" => {}
            _ => return invalid("a record of a sparse file is unknown"),
        }
        self.check_count()
    }

    pub(super) fn is_empty(&self) -> bool {
        !self.seen
    }

    fn check_count(&self) -> Result<()> {
        if self.map.len() as u64 > 2 * MAX_SEGMENTS {
            return Err(Error::limit(Limit::SparseSegments, MAX_SEGMENTS));
        }
        Ok(())
    }

    /// The map, if there is one. In version 1.0 it stands before the content, in `stored` bytes that then become
    /// fewer.
    pub(super) fn map(self, content: &mut impl Read, stored: &mut u64) -> Result<Option<Sparse>> {
        if !self.seen {
            return Ok(None);
        }
        let Some(size) = self.size else { return invalid("a sparse file has no size") };
        let numbers = match (self.major, self.minor) {
            (None | Some(0), None | Some(0 | 1)) => self.map,
            (Some(1), Some(0)) if self.map.is_empty() => read_list(content, stored)?,
            _ => return invalid("a sparse file is of an unknown version"),
        };
        if !numbers.len().is_multiple_of(2) {
            return invalid("the map of a sparse file is incomplete");
        }
        let segments = numbers.chunks_exact(2).map(|pair| Segment { offset: pair[0], length: pair[1] }).collect();
        Sparse::new(segments, size, *stored).map(Some)
    }
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
    add(&mut segments, &header.sparse)?;
    let mut more = header.isextended[0] != 0;
    while more {
        let mut block = GnuExtSparseHeader::new();
        blocks.read_exact(block.as_mut_bytes())?;
        add(&mut segments, &block.sparse)?;
        if segments.len() as u64 > MAX_SEGMENTS {
            return Err(Error::limit(Limit::SparseSegments, MAX_SEGMENTS));
        }
        more = block.isextended[0] != 0;
    }
    Sparse::new(segments, size, stored)
}

/// A slot that is all zero bytes ends the list; one that is half filled is refused.
fn add(segments: &mut Vec<Segment>, slots: &[GnuSparseHeader]) -> Result<()> {
    for slot in slots {
        match (slot.offset[0], slot.numbytes[0]) {
            (0, 0) => break,
            (0, _) | (_, 0) => return invalid("the map of a sparse file has half a piece"),
            _ => {}
        }
        let offset = unsigned("offset of a piece", &slot.offset)?;
        segments.push(Segment { offset, length: unsigned("length of a piece", &slot.numbytes)? });
    }
    Ok(())
}
