//! The token server (distribution, "Token Authentication" and "OAuth2 Token Authentication").

use std::io;
use std::sync::Mutex;

use serde_json::json;

use super::answer::Answer;
use super::auth::Guard;
use super::body::Body;
use super::request::Query;
use super::request::Request;
use super::scope::Scope;

use crate::sync::lock;

/// The most bytes of a form.
const MAX_FORM: u64 = 64 << 10;

/// Answers a request to the token server. A broken body is no answer.
pub(super) fn answer(guard: &Mutex<Guard>, request: &Request, body: &mut Body<'_>) -> io::Result<Answer> {
    if request.method != "POST" {
        return Ok(lock(guard).issue(request));
    }
    if let Some(status) = lock(guard).without_oauth {
        return Ok(Answer::error(status, "UNSUPPORTED", "no OAuth2 here"));
    }
    let form = body.read_all(MAX_FORM)?.unwrap_or_default();
    Ok(lock(guard).issue_by_form(&Query::parse(&String::from_utf8_lossy(&form))))
}

impl Guard {
    /// By `GET`, with a password or without.
    fn issue(&mut self, request: &Request) -> Answer {
        if !self.may_log_in(request.header("authorization").unwrap_or_default()) {
            return Answer::unauthorized("Basic realm=\"tokens\"");
        }
        let query = request.query();
        let offline = query.first("offline_token") == Some("true");
        self.grant(&query, "token", offline)
    }

    /// By `POST`, as OAuth2 has it.
    fn issue_by_form(&mut self, form: &Query) -> Answer {
        let allowed = match form.first("grant_type") {
            Some("password") => {
                let field = |name| form.first(name).unwrap_or_default();
                self.is_login(field("username"), field("password"))
            }
            Some("refresh_token") => form.first("refresh_token").is_some_and(|token| self.knows(token)),
            _ => return oauth_error(400, "unsupported_grant_type"),
        };
        if !allowed {
            return oauth_error(401, "invalid_grant");
        }
        let offline = form.first("access_type") == Some("offline");
        self.grant(form, "access_token", offline)
    }

    fn knows(&self, refresh_token: &str) -> bool {
        let issued = self.tokens.as_ref().is_some_and(|tokens| tokens.has_refresh(refresh_token));
        issued || self.identity.as_deref() == Some(refresh_token)
    }

    /// Grants what is asked for, as far as anything is granted; to get less is no error (A2).
    fn grant(&mut self, asked: &Query, field: &str, offline: bool) -> Answer {
        let mut scopes: Vec<Scope> = asked.all("scope").flat_map(Scope::parse_all).collect();
        if let Some(grants) = &self.grants {
            scopes.iter_mut().for_each(|scope| scope.actions.retain(|action| grants.contains(action)));
        }
        let Some(tokens) = &mut self.tokens else { return Answer::error(404, "UNSUPPORTED", "no tokens here") };
        let granted: Vec<String> = scopes.iter().map(Scope::to_string).collect();
        let token = tokens.issue(scopes, self.clock.as_ref());
        let mut reply = json!({ field: token, "expires_in": tokens.life.as_secs(), "scope": granted.join(" ") });
        if offline {
            reply["refresh_token"] = json!(tokens.issue_refresh());
        }
        Answer::json(&reply)
    }
}

/// RFC 6749, section 5.2.
fn oauth_error(status: u16, error: &str) -> Answer {
    Answer::new(status, "application/json", json!({ "error": error }).to_string().into_bytes())
}
