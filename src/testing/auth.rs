//! Who may read.

use std::collections::HashMap;
use std::time::Duration;
use std::time::Instant;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use percent_encoding::percent_decode_str;

use super::answer::Answer;
use super::request::Request;

/// What the registry demands of its clients.
#[derive(Debug, Default)]
pub(super) struct Guard {
    login: Option<(String, String)>,
    tokens: Option<Tokens>,
}

#[derive(Debug)]
struct Tokens {
    realm: String,
    life: Duration,
    issued: HashMap<String, (Vec<String>, Instant)>,
}

impl Guard {
    pub(super) fn require_login(&mut self, username: &str, password: &str) {
        self.login = Some((username.to_owned(), password.to_owned()));
    }

    pub(super) fn require_tokens(&mut self, realm: String, life: Duration) {
        self.tokens = Some(Tokens { realm, life, issued: HashMap::new() });
    }

    pub(super) fn expire_tokens(&mut self) {
        if let Some(tokens) = &mut self.tokens {
            tokens.issued.clear();
        }
    }

    /// The answer to a request that may not pass.
    pub(super) fn refuse(&self, request: &Request) -> Option<Answer> {
        let header = request.header("authorization").unwrap_or_default();
        match &self.tokens {
            Some(tokens) => tokens.refuse(request, header),
            None if self.may_log_in(header) => None,
            None => Some(unauthorized("Basic realm=\"layercake\"")),
        }
    }

    /// The answer of the token server (distribution, "Token Authentication"): what is asked for is granted.
    pub(super) fn issue(&mut self, request: &Request) -> Answer {
        if !self.may_log_in(request.header("authorization").unwrap_or_default()) {
            return unauthorized("Basic realm=\"tokens\"");
        }
        let Some(tokens) = &mut self.tokens else { return Answer::error(404, "UNSUPPORTED", "no tokens here") };
        let query = request.path.split_once('?').map(|(_, query)| query).unwrap_or_default();
        let decode = |value: &str| percent_decode_str(value).decode_utf8_lossy().into_owned();
        let scopes = query.split('&').filter_map(|pair| pair.strip_prefix("scope=")).map(decode).collect();
        let token = format!("token-{:016x}", fastrand::u64(..));
        tokens.issued.insert(token.clone(), (scopes, Instant::now() + tokens.life));
        let body = serde_json::json!({ "token": token, "expires_in": tokens.life.as_secs() });
        Answer::new(200, "application/json", body.to_string().into_bytes())
    }

    fn may_log_in(&self, header: &str) -> bool {
        let Some((username, password)) = &self.login else { return true };
        header == format!("Basic {}", BASE64_STANDARD.encode(format!("{username}:{password}")))
    }
}

impl Tokens {
    fn refuse(&self, request: &Request, header: &str) -> Option<Answer> {
        let scope = scope(&request.path);
        let granted = header.strip_prefix("Bearer ").and_then(|token| self.issued.get(token));
        let allows = |(scopes, expires): &(Vec<String>, Instant)| {
            *expires > Instant::now() && (scope.is_empty() || scopes.contains(&scope))
        };
        if granted.is_some_and(allows) {
            return None;
        }
        let mut challenge = format!("Bearer realm=\"{}\",service=\"layercake\"", self.realm);
        if !scope.is_empty() {
            challenge.push_str(&format!(",scope=\"{scope}\""));
        }
        Some(unauthorized(&challenge))
    }
}

/// What a token must allow for a request.
fn scope(path: &str) -> String {
    let path = path.strip_prefix("/v2/").unwrap_or_default();
    let name = path.rsplit_once("/manifests/").or_else(|| path.rsplit_once("/blobs/"));
    name.map(|(name, _)| format!("repository:{name}:pull")).unwrap_or_default()
}

fn unauthorized(challenge: &str) -> Answer {
    Answer::error(401, "UNAUTHORIZED", "authentication required").with("www-authenticate", challenge)
}
