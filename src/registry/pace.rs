//! How often a host is asked, and on how many connections at once.

use std::collections::HashMap;
use std::num::NonZeroUsize;
use std::sync::Arc;
use std::sync::Condvar;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::thread::ThreadId;
use std::time::Duration;

use super::clock::Time;
use super::host::Host;
use super::url::Origin;

use crate::error::Result;
use crate::event::Watch;
use crate::sync::lock;

/// How long a wait for a connection goes on after the operation was ended, at most.
const SLICE: Duration = Duration::from_millis(50);

/// The limits of all hosts that have some.
///
/// A thread that has a connection to any of them gets the next at once, to whichever: what it copies from one host to
/// another, or to the same, would otherwise wait for itself or for somebody who waits for it.
#[derive(Default)]
pub(super) struct Pace {
    limits: HashMap<Origin, Limits>,
    busy: Arc<Use>,
}

struct Limits {
    connections: Option<NonZeroUsize>,
    /// The least time between the beginnings of two requests.
    interval: Duration,
    /// When the next request may begin, by the client's clock.
    next: Mutex<Duration>,
}

/// Which connections are in use.
#[derive(Default)]
struct Use {
    /// To each host, and by which threads.
    held: Mutex<Vec<(u64, Origin, ThreadId)>>,
    freed: Condvar,
}

/// The right to use a connection, until it is dropped.
pub(super) struct Permit {
    id: u64,
    busy: Arc<Use>,
}

impl Pace {
    pub(super) fn new(hosts: &[(Origin, Host)]) -> Pace {
        let limits = |host: &Host| Limits {
            connections: host.connections,
            interval: host.requests_per_second.map_or(Duration::ZERO, |count| {
                Duration::from_secs(1) / u32::try_from(count.get()).unwrap_or(u32::MAX)
            }),
            next: Mutex::default(),
        };
        let limits = hosts.iter().map(|(origin, host)| (origin.clone(), limits(host)));
        Pace { limits: limits.collect(), busy: Arc::default() }
    }

    /// Waits until a request to this host may begin.
    pub(super) fn enter(&self, origin: &Origin, time: &Time, watch: &Watch<'_>) -> Result<Option<Permit>> {
        let Some(limits) = self.limits.get(origin) else { return Ok(None) };
        let permit = match limits.connections {
            Some(most) => Some(self.busy.take(origin, most, watch)?),
            None => None,
        };
        let wait = limits.turn(time.now());
        if !wait.is_zero() {
            time.sleep(wait, watch)?;
        }
        Ok(permit)
    }
}

impl Limits {
    /// Takes the next turn; how long it is until then.
    fn turn(&self, now: Duration) -> Duration {
        if self.interval.is_zero() {
            return Duration::ZERO;
        }
        let mut next = lock(&self.next);
        let turn = now.max(*next);
        *next = turn + self.interval;
        turn - now
    }
}

impl Use {
    fn take(self: &Arc<Use>, origin: &Origin, most: NonZeroUsize, watch: &Watch<'_>) -> Result<Permit> {
        let thread = std::thread::current().id();
        let mut held = lock(&self.held);
        loop {
            let is_holder = held.iter().any(|(_, _, holder)| *holder == thread);
            if is_holder || held.iter().filter(|(_, to, _)| to == origin).count() < most.get() {
                let id = fastrand::u64(..);
                held.push((id, origin.clone(), thread));
                return Ok(Permit { id, busy: Arc::clone(self) });
            }
            held = self.freed.wait_timeout(held, SLICE).unwrap_or_else(PoisonError::into_inner).0;
            watch.check()?;
        }
    }
}

impl Permit {
    /// Makes it this thread's: what is read here is held here, whoever began it.
    pub(super) fn adopt(&self) {
        let thread = std::thread::current().id();
        if let Some((_, _, holder)) = lock(&self.busy.held).iter_mut().find(|(id, ..)| *id == self.id) {
            *holder = thread;
        }
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        lock(&self.busy.held).retain(|(id, ..)| *id != self.id);
        self.busy.freed.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::Cancel;
    use crate::event::Silent;

    fn origin(host: &str) -> Origin {
        Origin::new(true, host).unwrap()
    }

    fn pace(host: &Host) -> Pace {
        Pace::new(&[(origin("a.example"), host.clone()), (origin("b.example"), host.clone())])
    }

    #[test]
    fn requests_have_turns() {
        let pace = pace(&Host::new().requests_per_second(4));
        let limits = &pace.limits[&origin("a.example")];
        let now = Duration::from_secs(7);
        let waits: Vec<u128> = (0..3).map(|_| limits.turn(now).as_millis()).collect();
        assert_eq!(waits, [0, 250, 500]);
        assert_eq!(limits.turn(now + Duration::from_secs(9)), Duration::ZERO);
        let _ = Pace::new(&[(origin("a.example"), Host::new().requests_per_second(usize::MAX))]);
    }

    /// One thread may have several, to several hosts; others wait until all of them are back, or until they are told to
    /// stop.
    #[test]
    fn connections_are_counted_by_thread() {
        let pace = pace(&Host::new().connections(1));
        let time = Time::real();
        let watch = |cancel: &Cancel| Watch::new(&Silent, cancel.clone());
        let enter = |host: &str, cancel: &Cancel| pace.enter(&origin(host), &time, &watch(cancel));
        let patient = Cancel::new();
        let first = enter("a.example", &patient).unwrap();
        let second = enter("a.example", &patient).unwrap();
        let third = enter("b.example", &patient).unwrap();
        std::thread::scope(|scope| {
            let thrown = Cancel::new();
            thrown.cancel();
            assert!(scope.spawn(move || enter("a.example", &thrown).is_err()).join().unwrap());
            let waiting = scope.spawn(|| enter("a.example", &patient).map(|permit| permit.is_some()));
            drop((first, third));
            assert!(!waiting.is_finished());
            drop(second);
            assert!(waiting.join().unwrap().unwrap());
        });
    }
}
