//! What time it is, and waiting.

use std::time::Duration;
use std::time::Instant;

use crate::error::Result;
use crate::event::Watch;

/// A clock for a client, in the place of the real one: for tests that need not wait. Given to
/// [`Builder::clock`](super::Builder::clock).
pub trait Clock: Send + Sync {
    /// The time since some beginning. It never goes back.
    fn now(&self) -> Duration;

    /// Waits before the next attempt; or says that it did.
    fn sleep(&self, delay: Duration);
}

/// The time of one client.
pub(super) enum Time {
    Real(Instant),
    Given(Box<dyn Clock>),
}

impl Time {
    pub(super) fn real() -> Time {
        Time::Real(Instant::now())
    }

    pub(super) fn now(&self) -> Duration {
        match self {
            Time::Real(start) => start.elapsed(),
            Time::Given(clock) => clock.now(),
        }
    }

    pub(super) fn sleep(&self, delay: Duration, watch: &Watch<'_>) -> Result<()> {
        match self {
            Time::Real(_) => watch.sleep(delay),
            Time::Given(clock) => {
                clock.sleep(delay);
                watch.check()
            }
        }
    }
}
