//! What the endpoints of the protocol share.

use std::sync::Mutex;

use super::contents::Contents;
use super::manners::Manners;
use super::protection::Protection;
use super::sessions::Sessions;

use crate::store::Store;
use crate::sync::lock;

/// What is served, and how.
#[derive(Debug)]
pub(super) struct Service {
    /// Host and port.
    pub(super) host: String,
    pub(super) contents: Contents,
    pub(super) sessions: Sessions,
    pub(super) protection: Protection,
    manners: Mutex<Manners>,
}

impl Service {
    pub(super) fn new(store: &Store, host: String, protection: Protection) -> Service {
        let contents = Contents::new(store, protection.own_names.then(|| host.clone()));
        Service { host, contents, sessions: Sessions::default(), protection, manners: Mutex::default() }
    }

    pub(super) fn manners(&self) -> Manners {
        lock(&self.manners).clone()
    }

    pub(super) fn change_manners(&self, change: impl FnOnce(&mut Manners)) {
        change(&mut lock(&self.manners));
    }
}
