//! Who may do what.

use base64::Engine;
use base64::prelude::BASE64_STANDARD;

use super::answer::Answer;
use super::clock::Clock;
use super::endpoint::Endpoint;
use super::request::Request;
use super::scope::Scope;
use super::tokens::Tokens;

/// What the registry demands of its clients.
#[derive(Debug, Default)]
pub(super) struct Guard {
    login: Option<(String, String)>,
    /// The only thing that logs in, if there is one.
    pub(super) identity: Option<String>,
    pub(super) tokens: Option<Tokens>,
    /// The status of all answers to OAuth2's requests for tokens.
    pub(super) without_oauth: Option<u16>,
    /// What is granted at most, where that is not everything.
    pub(super) grants: Option<Vec<String>>,
    pub(super) clock: Option<Clock>,
}

impl Guard {
    pub(super) fn require_login(&mut self, username: &str, password: &str) {
        self.login = Some((username.to_owned(), password.to_owned()));
    }

    /// The answer to a request that may not pass.
    pub(super) fn refuse(&self, request: &Request, endpoint: Option<&Endpoint>) -> Option<Answer> {
        if matches!(endpoint, Some(Endpoint::Search | Endpoint::SearchPing)) {
            return None;
        }
        let header = request.header("authorization").unwrap_or_default();
        match &self.tokens {
            Some(tokens) => {
                let needed = endpoint.map(|endpoint| needed(endpoint, request)).unwrap_or_default();
                tokens.refuse(header, &needed, self.clock.as_ref())
            }
            None if self.may_log_in(header) => None,
            None => Some(Answer::unauthorized("Basic realm=\"layercake\"")),
        }
    }

    /// Whether this `Authorization` is of somebody known. A client that has an identity token and finds no OAuth2 sends
    /// it as a password.
    pub(super) fn may_log_in(&self, header: &str) -> bool {
        match (&self.identity, &self.login) {
            (Some(identity), _) => {
                self.without_oauth.is_some() && basic(header).is_some_and(|(_, password)| password == *identity)
            }
            (None, Some(login)) => basic(header).as_ref() == Some(login),
            (None, None) => true,
        }
    }

    pub(super) fn is_login(&self, username: &str, password: &str) -> bool {
        let known = |(user, word): &(String, String)| user == username && word == password;
        self.identity.is_none() && self.login.as_ref().is_none_or(known)
    }
}

/// Name and password of a `Basic` header.
fn basic(header: &str) -> Option<(String, String)> {
    let decoded = BASE64_STANDARD.decode(header.strip_prefix("Basic ")?).ok()?;
    let text = String::from_utf8(decoded).ok()?;
    let (username, password) = text.split_once(':')?;
    Some((username.to_owned(), password.to_owned()))
}

/// What a token must allow for a request.
fn needed(endpoint: &Endpoint, request: &Request) -> Vec<Scope> {
    if matches!(endpoint, Endpoint::Catalog) {
        return vec![Scope::new("registry:catalog", &["*"])];
    }
    let Some(name) = endpoint.repository() else { return Vec::new() };
    let session = matches!(endpoint, Endpoint::Uploads(_) | Endpoint::Upload(..));
    let actions: &[&str] = match request.method.as_str() {
        "GET" | "HEAD" if !session => &["pull"],
        "DELETE" if !session => &["delete"],
        _ => &["pull", "push"],
    };
    let mut needed = vec![Scope::of_repository(name.repository(), actions)];
    // Without `from`, nobody can say which repository it will be.
    if let (Some(_), Some(from)) = (request.parameter("mount"), request.parameter("from")) {
        needed.push(Scope::of_repository(&from, &["pull"]));
    }
    needed
}
