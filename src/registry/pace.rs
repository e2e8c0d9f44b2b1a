//! How often a host is asked, and on how many connections at once.

use std::collections::HashMap;
use std::num::NonZeroUsize;
use std::sync::Arc;
use std::sync::Condvar;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::thread::ThreadId;
use std::time::Duration;
use std::time::Instant;

use crate::sync::lock;

/// The limits of one host.
pub(super) struct Pace {
    connections: Option<Arc<Connections>>,
    /// The least time between the beginnings of two requests.
    interval: Duration,
    /// When the next request may begin.
    next: Mutex<Option<Instant>>,
}

struct Connections {
    most: NonZeroUsize,
    /// Which threads use how many. One that has a connection gets the next at once: what it copies from a host to the
    /// same host would otherwise wait for itself.
    used: Mutex<HashMap<ThreadId, usize>>,
    freed: Condvar,
}

/// The right to use a connection, until it is dropped.
pub(super) struct Permit {
    connections: Arc<Connections>,
    thread: ThreadId,
}

impl Pace {
    pub(super) fn new(connections: Option<NonZeroUsize>, per_second: Option<NonZeroUsize>) -> Pace {
        let limit = |most| Arc::new(Connections { most, used: Mutex::default(), freed: Condvar::new() });
        Pace {
            connections: connections.map(limit),
            interval: per_second.map_or(Duration::ZERO, |count| Duration::from_secs(1) / count.get() as u32),
            next: Mutex::default(),
        }
    }

    /// Waits until a request may begin.
    pub(super) fn enter(&self) -> Option<Permit> {
        let permit = self.connections.as_ref().map(Connections::enter);
        let wait = self.turn(Instant::now());
        if !wait.is_zero() {
            std::thread::sleep(wait);
        }
        permit
    }

    /// Takes the next turn; how long it is until then.
    fn turn(&self, now: Instant) -> Duration {
        if self.interval.is_zero() {
            return Duration::ZERO;
        }
        let mut next = lock(&self.next);
        let turn = next.map_or(now, |next| next.max(now));
        *next = Some(turn + self.interval);
        turn - now
    }
}

impl Connections {
    fn enter(self: &Arc<Connections>) -> Permit {
        let thread = std::thread::current().id();
        let mut used = lock(&self.used);
        while !used.contains_key(&thread) && used.len() >= self.most.get() {
            used = self.freed.wait(used).unwrap_or_else(PoisonError::into_inner);
        }
        *used.entry(thread).or_default() += 1;
        Permit { connections: Arc::clone(self), thread }
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        let mut used = lock(&self.connections.used);
        if let Some(count) = used.get_mut(&self.thread) {
            *count -= 1;
            if *count == 0 {
                used.remove(&self.thread);
            }
        }
        self.connections.freed.notify_one();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_have_turns() {
        let pace = Pace::new(None, NonZeroUsize::new(4));
        let now = Instant::now();
        let waits: Vec<u128> = (0..3).map(|_| pace.turn(now).as_millis()).collect();
        assert_eq!(waits, [0, 250, 500]);
        assert_eq!(pace.turn(now + Duration::from_secs(9)), Duration::ZERO);
        assert_eq!(Pace::new(None, None).turn(now), Duration::ZERO);
    }

    /// One thread may have several; others wait until all of them are back.
    #[test]
    fn connections_are_counted_by_thread() {
        let pace = Pace::new(NonZeroUsize::new(1), None);
        let (first, second) = (pace.enter(), pace.enter());
        let (sender, receiver) = std::sync::mpsc::channel();
        std::thread::scope(|scope| {
            scope.spawn(|| {
                drop(pace.enter());
                sender.send(()).unwrap();
            });
            drop(first);
            assert!(receiver.try_recv().is_err());
            drop(second);
            receiver.recv().unwrap();
        });
    }
}
