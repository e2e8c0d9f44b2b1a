//! Cost oracles (P9): memory, bytes on the disk and work of an operation, and how they grow with its input.

mod memory;
mod overlay;
