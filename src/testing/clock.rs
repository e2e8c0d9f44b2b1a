//! A time that tests move.

use std::sync::Arc;
use std::sync::Mutex;
use std::time::Duration;

use crate::sync::lock;

/// A clock that stands still until a test moves it.
///
/// ```
/// use std::time::Duration;
/// use layercake::testing::Clock;
///
/// let clock = Clock::new();
/// let same = clock.clone();
/// clock.advance(Duration::from_secs(60));
/// assert_eq!(same.now(), Duration::from_secs(60));
/// ```
///
/// # Threads and cloning
///
/// All clones are the same clock, in all threads.
#[derive(Clone, Debug, Default)]
pub struct Clock(Arc<Mutex<Duration>>);

impl Clock {
    /// A clock at zero.
    pub fn new() -> Clock {
        Clock::default()
    }

    /// How far it was moved.
    pub fn now(&self) -> Duration {
        *lock(&self.0)
    }

    /// Moves it forward.
    pub fn advance(&self, time: Duration) {
        *lock(&self.0) += time;
    }
}

/// As a client's clock it does not wait: it goes on by what a wait would have taken.
#[cfg(feature = "registry")]
impl crate::registry::Clock for Clock {
    fn now(&self) -> Duration {
        Clock::now(self)
    }

    fn sleep(&self, delay: Duration) {
        self.advance(delay);
    }
}
