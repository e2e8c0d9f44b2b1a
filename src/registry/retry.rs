//! When to try again, and how long to wait before.
//!
//! * [`Retry`] decides, after each failure that trying again may mend. A closure is one.
//! * [`Backoff`] is the usual decision: a few times, with pauses that double and are a little random.
//! * [`Never`] never tries again.

use std::time::Duration;

use crate::error::Error;
use crate::error::ErrorKind;

/// How much further a blob must be since its last failure for the count of failures to begin anew.
pub(super) const PROGRESS: u64 = 64 << 10;
/// How often a blob goes on after failures, whatever progress it made between.
pub(super) const MAX_FAILURES: u32 = 100;

/// A request that failed in a way that may pass.
#[non_exhaustive]
#[derive(Debug)]
pub struct Failure<'a> {
    /// Which attempt failed, from 1. A download or an upload that got 64 KiB further since the last failure starts again at 1; after
    /// 100 failures in all it is not asked about, and fails.
    pub attempt: u32,
    /// Why.
    pub error: &'a Error,
    /// How long the server asked to wait, if it did (`Retry-After`).
    pub retry_after: Option<Duration>,
}

impl<'a> Failure<'a> {
    /// A failure of this attempt; what the server asked for is taken from the error.
    pub fn new(attempt: u32, error: &'a Error) -> Failure<'a> {
        let retry_after = match error.kind() {
            ErrorKind::Registry(error) => error.retry_after,
            _ => None,
        };
        Failure { attempt, error, retry_after }
    }
}

/// Decides what happens after a failure.
pub trait Retry: Send + Sync {
    /// How long to wait before the next attempt; none to give up.
    fn delay(&self, failure: &Failure<'_>) -> Option<Duration>;
}

impl<F: Fn(&Failure<'_>) -> Option<Duration> + Send + Sync> Retry for F {
    fn delay(&self, failure: &Failure<'_>) -> Option<Duration> {
        self(failure)
    }
}

/// Gives up at the first failure.
#[derive(Clone, Copy, Debug, Default)]
pub struct Never;

impl Retry for Never {
    fn delay(&self, _: &Failure<'_>) -> Option<Duration> {
        None
    }
}

/// Tries a few times, with pauses that double, each cut short by a random part of its half, so that clients that
/// failed together do not come back together. A server that asks for a longer pause gets it, up to a limit; asked
/// for more than that, this gives up.
///
/// ```
/// use std::time::Duration;
/// use layercake::{Registry, registry::Backoff};
///
/// let patient = Backoff { attempts: 10, longest: Duration::from_secs(60), ..Backoff::default() };
/// let registry = Registry::builder().retry(patient).build()?;
/// # Ok::<(), layercake::Error>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Backoff {
    /// How often to try, the first time included. 5 by default.
    pub attempts: u32,
    /// The first pause. Half a second by default.
    pub first: Duration,
    /// No pause of its own choice is longer. 10 seconds by default.
    pub longest: Duration,
    /// The longest pause that a server may ask for. A minute by default.
    pub longest_asked: Duration,
}

impl Default for Backoff {
    fn default() -> Backoff {
        Backoff {
            attempts: 5,
            first: Duration::from_millis(500),
            longest: Duration::from_secs(10),
            longest_asked: Duration::from_secs(60),
        }
    }
}

impl Backoff {
    /// The decision, for a random number from 0 to 1.
    fn decide(&self, failure: &Failure<'_>, random: f64) -> Option<Duration> {
        let asked = failure.retry_after.unwrap_or_default();
        if failure.attempt >= self.attempts || asked > self.longest_asked {
            return None;
        }
        let doublings = failure.attempt.saturating_sub(1).min(31);
        let pause = self.first.saturating_mul(1 << doublings).min(self.longest);
        Some(pause.mul_f64(1.0 - random.clamp(0.0, 1.0) / 2.0).max(asked))
    }
}

impl Retry for Backoff {
    fn delay(&self, failure: &Failure<'_>) -> Option<Duration> {
        self.decide(failure, fastrand::f64())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::RegistryError;

    fn failure(attempt: u32, error: &Error) -> Failure<'_> {
        Failure::new(attempt, error)
    }

    #[test]
    fn pauses_double_up_to_the_longest() {
        let error = Error::from(ErrorKind::Cancelled);
        let backoff = Backoff { attempts: 8, ..Backoff::default() };
        let pauses: Vec<_> =
            (1..=8).map(|attempt| backoff.decide(&failure(attempt, &error), 0.0).map(|d| d.as_millis())).collect();
        let expected = [500, 1000, 2000, 4000, 8000, 10000, 10000].map(Some);
        assert_eq!(pauses[..7], expected);
        assert_eq!(pauses[7], None);
    }

    #[test]
    fn chance_shortens_a_pause_to_half_of_it_at_most() {
        let error = Error::from(ErrorKind::Cancelled);
        let backoff = Backoff::default();
        assert_eq!(backoff.decide(&failure(1, &error), 1.0), Some(Duration::from_millis(250)));
        assert_eq!(backoff.decide(&failure(1, &error), 0.5), Some(Duration::from_millis(375)));
    }

    /// D29.
    #[test]
    fn a_server_gets_the_pause_it_asks_for_within_reason() {
        let mut refusal = RegistryError::new("GET", "https://example.com/v2/", 429);
        refusal.retry_after = Some(Duration::from_secs(7));
        let error = Error::from(refusal.clone());
        assert_eq!(Backoff::default().decide(&failure(1, &error), 1.0), Some(Duration::from_secs(7)));

        refusal.retry_after = Some(Duration::from_secs(3600));
        let error = Error::from(refusal);
        assert_eq!(Backoff::default().decide(&failure(1, &error), 1.0), None);
    }
}
