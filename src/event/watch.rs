//! Who watches an operation.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering;
use std::time::Duration;

use super::Cancel;
use super::Event;
use super::LONGEST_SLEEP;
use super::Observer;

use crate::error::ErrorKind;
use crate::error::Result;

/// Who watches an operation: the caller's observer and switch, and a flag that ends the operation from inside.
pub(crate) struct Watch<'a> {
    pub(crate) observer: &'a dyn Observer,
    pub(crate) cancel: Cancel,
    pub(crate) stop: Arc<AtomicBool>,
}

impl<'a> Watch<'a> {
    /// How long a pause goes on after the flag was set, at most.
    const SLICE: Duration = Duration::from_millis(100);

    pub(crate) fn new(observer: &'a dyn Observer, cancel: Cancel) -> Watch<'a> {
        Watch { observer, cancel, stop: Arc::default() }
    }

    pub(crate) fn tell(&self, event: &Event<'_>) {
        self.observer.event(event);
    }

    /// Fails if the operation is to end.
    pub(crate) fn check(&self) -> Result<()> {
        if self.stop.load(Ordering::Relaxed) {
            return Err(ErrorKind::Cancelled.into());
        }
        self.cancel.check()
    }

    /// Waits, unless the operation is to end.
    pub(crate) fn sleep(&self, delay: Duration) -> Result<()> {
        let mut left = delay.min(LONGEST_SLEEP);
        while !left.is_zero() {
            self.check()?;
            let slice = left.min(Watch::SLICE);
            self.cancel.sleep(slice)?;
            left -= slice;
        }
        self.check()
    }
}
