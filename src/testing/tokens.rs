//! Tokens: which were issued, and whether they allow what is asked.

use std::collections::HashMap;
use std::time::Duration;
use std::time::Instant;

use super::answer::Answer;
use super::clock::Clock;
use super::scope::Scope;

/// The tokens that were issued, and how.
#[derive(Debug)]
pub(super) struct Tokens {
    realm: String,
    pub(super) life: Duration,
    started: Instant,
    issued: HashMap<String, (Vec<Scope>, Duration)>,
    refresh: Vec<String>,
}

impl Tokens {
    pub(super) fn new(realm: String, life: Duration) -> Tokens {
        Tokens { realm, life, started: Instant::now(), issued: HashMap::new(), refresh: Vec::new() }
    }

    pub(super) fn expire(&mut self) {
        self.issued.clear();
    }

    /// The answer to a request that carries no token that allows what is needed.
    pub(super) fn refuse(&self, header: &str, needed: &[Scope], clock: Option<&Clock>) -> Option<Answer> {
        let now = self.now(clock);
        let token = header.strip_prefix("Bearer ").and_then(|token| self.issued.get(token));
        let granted = token.filter(|(_, expires)| *expires > now).map(|(scopes, _)| scopes);
        if granted.is_some_and(|granted| needed.iter().all(|scope| scope.is_within(granted))) {
            return None;
        }
        let mut challenge = format!("Bearer realm=\"{}\",service=\"layercake\"", self.realm);
        if !needed.is_empty() {
            let scopes: Vec<String> = needed.iter().map(Scope::to_string).collect();
            challenge.push_str(&format!(",scope=\"{}\"", scopes.join(" ")));
        }
        if granted.is_some() {
            challenge.push_str(",error=\"insufficient_scope\"");
        }
        Some(Answer::unauthorized(&challenge))
    }

    pub(super) fn issue(&mut self, scopes: Vec<Scope>, clock: Option<&Clock>) -> String {
        let token = format!("token-{:016x}", fastrand::u64(..));
        let expires = self.now(clock) + self.life;
        self.issued.insert(token.clone(), (scopes, expires));
        token
    }

    /// A refresh token, which does not expire.
    pub(super) fn issue_refresh(&mut self) -> String {
        let token = format!("token-refresh-{:016x}", fastrand::u64(..));
        self.refresh.push(token.clone());
        token
    }

    /// Whether this refresh token was issued.
    pub(super) fn has_refresh(&self, token: &str) -> bool {
        self.refresh.iter().any(|issued| issued == token)
    }

    fn now(&self, clock: Option<&Clock>) -> Duration {
        clock.map_or_else(|| self.started.elapsed(), Clock::now)
    }
}
