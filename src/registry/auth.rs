//! Finding the way in: anonymous, with user name and password, or with a token (distribution, "Token
//! Authentication").
//!
//! What was found out about a registry is kept: requests that follow carry the token, or the password, from the
//! start. Threads that find a token expired fetch one new token between them.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::Mutex;
use std::time::Duration;
use std::time::Instant;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use serde_json::Value;

use super::challenge;
use super::challenge::Challenge;
use super::credentials::CredentialSource;
use super::credentials::Credentials;
use super::fault::at_most;
use super::fault::refusal;
use super::http::Http;
use super::http::Redirects;
use super::http::Request;
use super::http::Response;
use super::http::Secret;
use super::url::Origin;
use super::url::Url;

use crate::error::Error;
use crate::error::ErrorKind;
use crate::error::Limit;
use crate::error::Result;
use crate::sync::lock;

/// The most bytes of a token server's answer: 64 KiB.
const MAX_TOKEN: u64 = 64 << 10;
/// How long a token lives whose server does not say (token.md).
const TOKEN_LIFE: u64 = 60;
/// No token is kept for longer than a day.
const LONGEST_LIFE: u64 = 24 * 60 * 60;
/// How often a request is sent at most: without credentials or with old ones, with new ones, and with a token for
/// more, if the first was found to allow too little.
const ATTEMPTS: usize = 3;

/// A registry, and what we want from it.
#[derive(Clone, Debug)]
pub(super) struct Purpose {
    /// The host as names write it, which credentials are kept under.
    pub(super) host: String,
    /// What a token must allow, such as `repository:library/ubuntu:pull`.
    pub(super) scope: String,
}

pub(super) struct Authenticator {
    source: Option<Box<dyn CredentialSource>>,
    /// Hosts of token servers that get credentials although they are not the registry's.
    trusted: Vec<String>,
    known: Mutex<HashMap<Origin, Arc<Mutex<Known>>>>,
}

/// What was found out about one registry.
#[derive(Debug, Default)]
struct Known {
    basic: Option<Secret>,
    tokens: HashMap<String, Token>,
}

#[derive(Debug)]
struct Token {
    header: Secret,
    expires: Instant,
}

impl Authenticator {
    pub(super) fn new(source: Option<Box<dyn CredentialSource>>, trusted: Vec<String>) -> Authenticator {
        Authenticator { source, trusted, known: Mutex::default() }
    }

    /// Sends a request, and answers the registry's challenges as far as there is an answer. A refusal that remains is
    /// the caller's to read.
    pub(super) fn send(&self, http: &Http, mut request: Request, purpose: &Purpose) -> Result<Response> {
        let known = self.known(&request.url.origin);
        request.authorization = lock(&known).header(purpose);
        let mut response = http.send(&request)?;
        let mut fresh = false;
        for _ in 1..ATTEMPTS {
            // Another host's challenge is not the registry's; it must not learn anything.
            if response.url().origin != request.url.origin {
                break;
            }
            let challenges = challenge::parse(response.headers("www-authenticate"));
            if !asks_for_more(&response, &challenges, fresh) {
                break;
            }
            let mut known = lock(&known);
            let current = known.header(purpose);
            if current.is_some() && current != request.authorization {
                // Another thread was here since.
                request.authorization = current;
            } else {
                let answer = self.answer(http, &mut known, &request, purpose, &challenges)?;
                if answer.is_none() || answer == request.authorization {
                    break;
                }
                request.authorization = answer;
                fresh = true;
            }
            drop(known);
            response = http.send(&request)?;
        }
        Ok(response)
    }

    fn known(&self, origin: &Origin) -> Arc<Mutex<Known>> {
        lock(&self.known).entry(origin.clone()).or_default().clone()
    }

    /// The header that answers the best of the challenges, if there is one: a token before a password.
    fn answer(
        &self,
        http: &Http,
        known: &mut Known,
        request: &Request,
        purpose: &Purpose,
        challenges: &[Challenge],
    ) -> Result<Option<Secret>> {
        let bearer = challenges.iter().find_map(|challenge| match challenge {
            Challenge::Bearer { realm, service, scope, .. } => Some((realm, service, scope)),
            Challenge::Basic => None,
        });
        if let Some((realm, service, scope)) = bearer {
            let realm = Url::parse(realm)?;
            let scope = scope.as_deref().unwrap_or(&purpose.scope);
            let token = self.fetch_token(http, &request.url.origin, realm, service.as_deref(), scope, purpose)?;
            let header = token.header.clone();
            known.tokens.insert(purpose.scope.clone(), token);
            return Ok(Some(header));
        }
        if !challenges.contains(&Challenge::Basic) {
            return Ok(None);
        }
        known.basic = self.credentials(purpose)?.map(|credentials| basic(&credentials));
        Ok(known.basic.clone())
    }

    fn fetch_token(
        &self,
        http: &Http,
        registry: &Origin,
        realm: Url,
        service: Option<&str>,
        scope: &str,
        purpose: &Purpose,
    ) -> Result<Token> {
        check_realm(registry, &realm.origin)?;
        let credentials = self.credentials(purpose)?;
        if credentials.is_some() && !self.belongs(registry, &realm.origin) {
            let reason = format!(
                "{registry} sends its users to {}, a host that is not known to belong to it: trust that token server \
                 explicitly, or leave out the credentials",
                realm.origin
            );
            return Err(ErrorKind::Authentication { reason }.into());
        }
        let mut url = realm;
        if let Some(service) = service {
            url = url.with_query("service", service);
        }
        for scope in scope.split_ascii_whitespace() {
            url = url.with_query("scope", scope);
        }
        let mut request = Request { redirects: Redirects::SameOrigin, ..Request::get(url) };
        request.authorization = credentials.as_ref().map(basic);
        let asked = Instant::now();
        let response = http.send(&request)?;
        if response.status() != 200 {
            return Err(refusal(response).context("token server"));
        }
        let body = at_most(response, MAX_TOKEN, || Error::limit(Limit::TokenSize, MAX_TOKEN))?;
        read_token(&body, asked)
    }

    fn credentials(&self, purpose: &Purpose) -> Result<Option<Credentials>> {
        match &self.source {
            Some(source) => source.credentials(&purpose.host),
            None => Ok(None),
        }
    }

    /// Whether a token server may get the credentials of a registry: it is the same host, a neighbour under the same
    /// domain (`auth.docker.io` of `registry-1.docker.io`), or trusted by the caller.
    fn belongs(&self, registry: &Origin, realm: &Origin) -> bool {
        let same = |a: &str, b: &str| a == b || (is_this_machine(a) && is_this_machine(b));
        let trusted = |trusted: &String| trusted.eq_ignore_ascii_case(&realm.host) || **trusted == realm.authority();
        same(&registry.host, &realm.host)
            || is_neighbour(&registry.host, &realm.host)
            || self.trusted.iter().any(trusted)
    }
}

impl Known {
    /// The header for requests of this purpose, as far as it is known and still good.
    fn header(&self, purpose: &Purpose) -> Option<Secret> {
        let token = self.tokens.get(&purpose.scope).filter(|token| token.expires > Instant::now());
        token.map(|token| token.header.clone()).or_else(|| self.basic.clone())
    }
}

/// A realm is the registry's word and nobody else's (CVE-2026-24845, CVE-2026-33540): no weaker transport than the
/// registry's, and no address of a private network from a registry outside of it.
fn check_realm(registry: &Origin, realm: &Origin) -> Result<()> {
    let refuse = |why: &str| {
        let reason = format!("{registry} sends its users to {realm}, {why}");
        Err(ErrorKind::Authentication { reason }.into())
    };
    if registry.https && !realm.https {
        return refuse("which is not encrypted");
    }
    if realm.host != registry.host && realm.is_private_address() && !registry.is_private_address() {
        return refuse("a private address");
    }
    if realm.is_local_address() && !realm.is_loopback() {
        return refuse("an address of the local link");
    }
    Ok(())
}

/// The usual ways to write this machine; other loopback addresses may be other services.
fn is_this_machine(host: &str) -> bool {
    matches!(host, "localhost" | "127.0.0.1" | "[::1]")
}

/// Whether both hosts are names under one domain that is nobody's registry of domains.
fn is_neighbour(registry: &str, realm: &str) -> bool {
    let is_address = |host: &str| host.starts_with('[') || host.ends_with(|c: char| c.is_ascii_digit());
    if is_address(registry) || is_address(realm) {
        return false;
    }
    let under = |domain: &str| {
        is_owned_domain(domain)
            && (realm == domain || realm.strip_suffix(domain).is_some_and(|rest| rest.ends_with('.')))
    };
    under(registry) || registry.split_once('.').is_some_and(|(_, parent)| under(parent))
}

/// Two parts at least, and not of the form `co.uk`, `com.au` or `org.br`, under which strangers live.
fn is_owned_domain(domain: &str) -> bool {
    match domain.rsplit_once('.') {
        Some((rest, top)) => rest.contains('.') || !(top.len() == 2 && rest.len() <= 3),
        None => false,
    }
}

/// Whether new credentials may help: none were good enough (401) and those that were sent are old, or a token did not
/// allow enough.
fn asks_for_more(response: &Response, challenges: &[Challenge], fresh: bool) -> bool {
    let insufficient = |challenge: &Challenge| matches!(challenge, Challenge::Bearer { insufficient: true, .. });
    match response.status() {
        401 if !fresh => !challenges.is_empty(),
        401 | 403 => challenges.iter().any(insufficient),
        _ => false,
    }
}

fn basic(credentials: &Credentials) -> Secret {
    let pair = format!("{}:{}", credentials.username(), credentials.password());
    Secret::new(format!("Basic {}", BASE64_STANDARD.encode(pair)))
}

/// `{"token":…,"access_token":…,"expires_in":…}`, either of the first two. The life of the token is counted from
/// before it was asked for, on our own clock.
fn read_token(body: &[u8], asked: Instant) -> Result<Token> {
    let rubbish = |reason: &str| ErrorKind::Authentication { reason: format!("token server: {reason}") };
    let reply: Value = serde_json::from_slice(body).map_err(|_| rubbish("its answer is not JSON"))?;
    let text = |field: &str| reply.get(field).and_then(Value::as_str).filter(|text| !text.is_empty());
    let token = text("token").or_else(|| text("access_token")).ok_or_else(|| rubbish("its answer has no token"))?;
    if !token.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err(rubbish("its token has characters that tokens do not have").into());
    }
    let life = reply.get("expires_in").and_then(Value::as_u64).filter(|life| *life > 0).unwrap_or(TOKEN_LIFE);
    // A little less than promised, so that a token does not expire on its way.
    let life = Duration::from_secs(life.min(LONGEST_LIFE)).mul_f64(0.9);
    Ok(Token { header: Secret::new(format!("Bearer {token}")), expires: asked + life })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn origin(url: &str) -> Origin {
        Url::parse(url).unwrap().origin
    }

    fn belongs(registry: &str, realm: &str) -> bool {
        Authenticator::new(None, vec!["login.example.net".to_owned()]).belongs(&origin(registry), &origin(realm))
    }

    /// X2: credentials go to token servers of the registry's own domain, or to trusted ones.
    #[test]
    fn credentials_go_to_the_registrys_own_token_server() {
        for (registry, realm) in [
            ("https://registry-1.docker.io", "https://auth.docker.io"),
            ("https://registry.gitlab.com", "https://gitlab.com"),
            ("https://quay.io", "https://quay.io"),
            ("https://quay.io", "https://auth.quay.io"),
            ("http://127.0.0.1:5000", "http://127.0.0.1:5001"),
            ("http://localhost:5000", "http://127.0.0.1:5001"),
            ("https://registry.example.com", "https://login.example.net"),
        ] {
            assert!(belongs(registry, realm), "{registry} {realm}");
        }
    }

    /// X2, and cases 165 and 175: neither strangers, nor neighbours under a public suffix, nor look-alikes.
    #[test]
    fn credentials_do_not_go_to_strangers() {
        for (registry, realm) in [
            ("https://registry.example.com", "https://evil.com"),
            ("https://registry.example.com", "https://example.com.evil.com"),
            ("https://registry.example.com", "https://evilexample.com"),
            ("https://example.co.uk", "https://evil.co.uk"),
            ("https://example.com", "https://evil.com"),
            ("http://127.0.0.1:5000", "http://127.0.0.2:5001"),
            ("http://10.0.0.1", "http://10.0.0.2"),
        ] {
            assert!(!belongs(registry, realm), "{registry} {realm}");
        }
    }

    /// X2: no downgrade, no private addresses from outside, no cloud metadata from anywhere.
    #[test]
    fn realms_are_refused_where_they_cannot_be_honest() {
        for (registry, realm) in [
            ("https://registry.example.com", "http://registry.example.com/token"),
            ("https://registry.example.com", "https://10.0.0.1/token"),
            ("https://registry.example.com", "https://127.0.0.1/token"),
            ("https://registry.example.com", "https://169.254.169.254/latest"),
            ("https://registry.example.com", "https://[::ffff:10.0.0.1]/token"),
            ("http://10.0.0.1", "http://169.254.169.254/latest"),
            ("http://127.0.0.1", "http://0.0.0.0/token"),
        ] {
            assert!(check_realm(&origin(registry), &origin(realm)).is_err(), "{registry} {realm}");
        }
        assert!(check_realm(&origin("http://127.0.0.1:5000"), &origin("http://127.0.0.2:5001")).is_ok());
        assert!(check_realm(&origin("https://registry-1.docker.io"), &origin("https://auth.docker.io")).is_ok());
    }

    /// A2: either field, a minute if nothing is said.
    #[test]
    fn tokens_are_read_from_either_field() {
        let now = Instant::now();
        let life = |body: &str| read_token(body.as_bytes(), now).unwrap().expires.duration_since(now).as_secs();
        assert_eq!(life(r#"{"token":"a","expires_in":300}"#), 270);
        assert_eq!(life(r#"{"access_token":"a"}"#), 54);
        assert_eq!(life(r#"{"token":"a","expires_in":"soon"}"#), 54);
        assert_eq!(life(r#"{"token":"a","expires_in":18446744073709551615}"#), 77760);
        let header = read_token(br#"{"token":"","access_token":"b"}"#, now).unwrap().header;
        assert_eq!(header.reveal(), "Bearer b");
    }

    #[test]
    fn rubbish_is_no_token() {
        for body in ["", "[]", "{}", "<html>", r#"{"token":7}"#, r#"{"token":"a\r\nHost: b"}"#, r#"{"token":" "}"#] {
            let error = read_token(body.as_bytes(), Instant::now()).unwrap_err();
            assert!(matches!(error.kind(), ErrorKind::Authentication { .. }), "{body:?}: {error}");
        }
    }
}
