//! What hostile images cost: memory, written bytes and time, as functions of their size (P9).

mod memory;
