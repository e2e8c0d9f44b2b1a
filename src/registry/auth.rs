//! Finding the way in: anonymous, with user name and password, or with a token (distribution, "Token
//! Authentication").
//!
//! What was found out about a registry is kept: requests that follow carry the token, or the password, from the
//! start. Threads that find a token expired fetch one new token between them.

use std::collections::HashMap;
use std::collections::HashSet;
use std::sync::Arc;
use std::sync::Mutex;
use std::time::Duration;

use percent_encoding::NON_ALPHANUMERIC;
use percent_encoding::utf8_percent_encode;
use serde_json::Value;

use super::challenge;
use super::challenge::Challenge;
use super::clock::Time;
use super::credentials::CredentialSource;
use super::credentials::Credentials;
use super::fault::at_most;
use super::fault::refusal;
use super::http::Http;
use super::http::Payload;
use super::http::Redirects;
use super::http::Request;
use super::http::Response;
use super::reach::Lead;
use super::reach::Way;
use super::secret::Secret;
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
/// How many purposes are remembered; when there are more, all are found out again.
const MAX_KNOWN: usize = 4096;
/// How often a request is sent at most: without credentials or with old ones, with new ones, and with a token for
/// more, if the first was found to allow too little.
const ATTEMPTS: usize = 3;

/// A registry, and what we want from it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Purpose {
    /// What the host's credentials are kept under.
    host: String,
    /// The repository on it; empty where the request is about none.
    repository: String,
    /// What a token must allow, such as `repository:library/ubuntu:pull`; several are separated by spaces.
    scope: String,
}

/// One thing that a token must allow.
#[derive(Clone, Copy, Debug)]
pub(super) enum Access<'a> {
    Pull(&'a str),
    Push(&'a str),
    Delete(&'a str),
    Catalog,
}

impl Purpose {
    /// The scope that stands first should be the one that matters most: some registries look at no other.
    pub(super) fn new(host: &str, repository: &str, access: &[Access<'_>]) -> Purpose {
        let scope = |access: &Access<'_>| match access {
            Access::Pull(name) => format!("repository:{name}:pull"),
            Access::Push(name) => format!("repository:{name}:pull,push"),
            Access::Delete(name) => format!("repository:{name}:delete"),
            Access::Catalog => "registry:catalog:*".to_owned(),
        };
        let scopes: Vec<String> = access.iter().map(scope).collect();
        Purpose { host: host.to_owned(), repository: repository.to_owned(), scope: scopes.join(" ") }
    }

    /// The scopes that a token server is asked for: those of the operation. A challenge cannot add repositories or
    /// actions to them, since a registry could so collect tokens for more than it is asked to do. Only the actions that
    /// allow deleting are taken from it, within the same repository: some registries have no action `delete`.
    fn scopes(&self, challenged: Option<&str>) -> Vec<String> {
        let scopes = self.scope.split(' ').filter(|scope| !scope.is_empty());
        let mut found = Vec::new();
        for scope in scopes.map(|scope| deleting(scope, challenged.unwrap_or_default())) {
            if !found.contains(&scope) {
                found.push(scope);
            }
        }
        found
    }
}

/// A scope as it is, but one for deleting with what the challenge says of the same repository: also `pull`, and
/// `push` where the registry names no `delete`.
fn deleting(scope: &str, challenged: &str) -> String {
    let Some(repository) = scope.strip_suffix(":delete") else { return scope.to_owned() };
    let of_repository = |other: &'_ str| other.strip_prefix(repository)?.strip_prefix(':').map(str::to_owned);
    let asked: Vec<String> = challenged.split_ascii_whitespace().filter_map(of_repository).collect();
    let has = |action: &str| asked.iter().any(|actions| actions.split(',').any(|other| other == action));
    let pull = if has("pull") { "pull," } else { "" };
    let push = if has("push") && !has("delete") { "push," } else { "" };
    format!("{repository}:{pull}{push}delete")
}

pub(super) struct Authenticator {
    source: Option<Box<dyn CredentialSource>>,
    time: Arc<Time>,
    /// Hosts of token servers that get credentials although they are not the registry's.
    trusted: Vec<String>,
    /// What was found out, by registry and purpose: whoever waits for a token holds up nobody who wants another.
    known: Mutex<HashMap<(Origin, Purpose), Shared>>,
    /// The registries that want credentials with each request, without a token server.
    direct: Mutex<HashSet<Origin>>,
}

/// The same for all threads that want it.
type Shared = Arc<Mutex<Known>>;

/// What was found out about one registry, for one purpose.
#[derive(Debug, Default)]
struct Known {
    grant: Option<Grant>,
    /// What the registry wanted to see when it was asked without one.
    challenges: Vec<Challenge>,
}

/// What a registry's challenge says of its token server.
struct Realm<'a> {
    url: Url,
    service: Option<&'a str>,
    scopes: Vec<String>,
    /// Whether it does not belong to the registry, and must not know who we are.
    as_nobody: bool,
    /// The registry's answer that names it.
    lead: Lead,
}

/// What lets a request in.
#[derive(Debug)]
struct Grant {
    header: Secret,
    /// When, by the client's clock; a password does not.
    expires: Option<Duration>,
}

impl Authenticator {
    pub(super) fn new(
        source: Option<Box<dyn CredentialSource>>,
        trusted: Vec<String>,
        time: Arc<Time>,
    ) -> Authenticator {
        Authenticator { source, time, trusted, known: Mutex::default(), direct: Mutex::default() }
    }

    /// Sends a request, and answers the registry's challenges as far as there is an answer. A refusal that remains is
    /// the caller's to read.
    pub(super) fn send(&self, http: &Http, mut request: Request<'_>, purpose: &Purpose) -> Result<Response> {
        let origin = request.url.origin.clone();
        let known = self.known(&origin, purpose);
        let brings_much = matches!(request.payload, Payload::Stream(..));
        request.authorization = self.header(http, &mut lock(&known), &origin, purpose, brings_much)?;
        let mut response = http.send(&request)?;
        let mut fresh = false;
        for _ in 1..ATTEMPTS {
            // Another host's challenge is not the registry's; it must not learn anything.
            if response.url().origin != origin {
                break;
            }
            let challenges = challenge::parse(response.headers("www-authenticate"));
            if !asks_for_more(&response, &challenges, fresh) {
                break;
            }
            let mut known = lock(&known);
            let current = known.grant.as_ref().filter(|grant| self.is_good(grant)).map(|grant| grant.header.clone());
            if current.is_some() && current != request.authorization {
                // Another thread was here since.
                request.authorization = current;
            } else {
                let answer = self.answer(http, &mut known, &origin, purpose, &challenges)?;
                if answer.is_none() || answer == request.authorization {
                    break;
                }
                request.authorization = answer;
                fresh = true;
            }
            drop(known);
            // First, so that the next request has its connection.
            drop(response);
            response = http.send(&request)?;
        }
        Ok(response)
    }

    fn known(&self, origin: &Origin, purpose: &Purpose) -> Shared {
        let mut known = lock(&self.known);
        if known.len() > MAX_KNOWN {
            known.clear();
        }
        known.entry((origin.clone(), purpose.clone())).or_default().clone()
    }

    fn is_good(&self, grant: &Grant) -> bool {
        grant.expires.is_none_or(|expires| expires > self.time.now())
    }

    /// The header for requests of this purpose, as far as it is known and still good. Before a request that brings much
    /// a token is renewed: what is refused would have to be sent again.
    fn header(
        &self,
        http: &Http,
        known: &mut Known,
        origin: &Origin,
        purpose: &Purpose,
        brings_much: bool,
    ) -> Result<Option<Secret>> {
        match &known.grant {
            Some(grant) if self.is_good(grant) => Ok(Some(grant.header.clone())),
            Some(_) if brings_much => {
                let challenges = std::mem::take(&mut known.challenges);
                self.answer(http, known, origin, purpose, &challenges)
            }
            None if lock(&self.direct).contains(origin) => self.log_in(known, purpose),
            _ => Ok(None),
        }
    }

    /// Asks for the credentials, which go to the registry itself.
    fn log_in(&self, known: &mut Known, purpose: &Purpose) -> Result<Option<Secret>> {
        let header = self.credentials(purpose)?.and_then(|credentials| credentials.header(false));
        known.grant = header.clone().map(|header| Grant { header, expires: None });
        Ok(header)
    }

    /// The header that answers the best of the challenges, if there is one: a token before a password.
    fn answer(
        &self,
        http: &Http,
        known: &mut Known,
        registry: &Origin,
        purpose: &Purpose,
        challenges: &[Challenge],
    ) -> Result<Option<Secret>> {
        known.challenges = challenges.to_vec();
        let bearer = challenges.iter().find_map(|challenge| match challenge {
            Challenge::Bearer { realm, service, scope, .. } => Some((realm, service, scope)),
            Challenge::Basic => None,
        });
        let Some((realm, service, scope)) = bearer else {
            if !challenges.contains(&Challenge::Basic) {
                return Ok(None);
            }
            lock(&self.direct).insert(registry.clone());
            return self.log_in(known, purpose);
        };
        let credentials = self.credentials(purpose)?;
        let grant = match credentials.as_ref().filter(|credentials| credentials.is_registry_token()) {
            Some(token) => token.header(false).map(|header| Grant { header, expires: None }),
            None => {
                let scopes = purpose.scopes(scope.as_deref());
                let url = Url::parse(realm)?;
                let as_nobody = !self.belongs(registry, &url.origin);
                let way = Way::Realm { trusted: self.trusts(&url.origin) };
                let lead = Lead { from: registry.clone(), way };
                let realm = Realm { url, service: service.as_deref(), scopes, as_nobody, lead };
                Some(self.fetch_token(http, registry, &realm, credentials.as_ref())?)
            }
        };
        let header = grant.as_ref().map(|grant| grant.header.clone());
        known.grant = grant;
        Ok(header)
    }

    fn fetch_token(
        &self,
        http: &Http,
        registry: &Origin,
        realm: &Realm<'_>,
        credentials: Option<&Credentials>,
    ) -> Result<Grant> {
        http.limit(&realm.lead, &realm.url.origin)?;
        if credentials.is_some() && realm.as_nobody {
            let reason = format!(
                "{registry} sends its users to {}, a host that is not known to belong to it: trust that token server \
                 explicitly, or leave out the credentials",
                realm.url.origin
            );
            return Err(ErrorKind::Authentication { reason }.into());
        }
        let asked = self.time.now();
        let exchanged = match credentials.and_then(Credentials::identity) {
            Some(identity) => exchange(http, realm, identity)?,
            None => None,
        };
        let response = match exchanged {
            Some(response) => response,
            None => ask(http, realm, credentials)?,
        };
        if response.status() != 200 {
            return Err(refusal(response).context("token server"));
        }
        let body = at_most(response, MAX_TOKEN, || Error::limit(Limit::TokenSize, MAX_TOKEN))?;
        read_token(&body, asked)
    }

    fn credentials(&self, purpose: &Purpose) -> Result<Option<Credentials>> {
        match &self.source {
            Some(source) => source.credentials(&purpose.host, &purpose.repository),
            None => Ok(None),
        }
    }

    /// Whether a token server may get the credentials of a registry: it is the same host, a neighbour under the same
    /// domain (`auth.docker.io` of `registry-1.docker.io`), or trusted by the caller.
    fn belongs(&self, registry: &Origin, realm: &Origin) -> bool {
        let same = |a: &str, b: &str| a == b || (is_this_machine(a) && is_this_machine(b));
        same(&registry.host, &realm.host) || is_neighbour(&registry.host, &realm.host) || self.trusts(realm)
    }

    /// Whether the caller trusts a token server explicitly.
    fn trusts(&self, realm: &Origin) -> bool {
        let trusted = |trusted: &String| trusted.eq_ignore_ascii_case(&realm.host) || **trusted == realm.authority();
        self.trusted.iter().any(trusted)
    }
}

/// Asks for a token with a query (token.md).
fn ask(http: &Http, realm: &Realm<'_>, credentials: Option<&Credentials>) -> Result<Response> {
    let mut url = realm.url.clone();
    if let Some(service) = realm.service {
        url = url.with_query("service", service);
    }
    for scope in &realm.scopes {
        url = url.with_query("scope", scope);
    }
    let authorization = credentials.and_then(|credentials| credentials.header(true));
    let (as_nobody, lead) = (realm.as_nobody, Some(realm.lead.clone()));
    http.send(&Request { redirects: Redirects::SameOrigin, authorization, as_nobody, lead, ..Request::get(url) })
}

/// Asks for a token with an identity token in a form (oauth.md). None where the server knows no such thing.
fn exchange(http: &Http, realm: &Realm<'_>, identity: &Secret) -> Result<Option<Response>> {
    let scopes = realm.scopes.join(" ");
    let fields = [
        ("grant_type", "refresh_token"),
        ("service", realm.service.unwrap_or_default()),
        ("client_id", "layercake"),
        ("scope", &scopes),
        ("refresh_token", identity.reveal()),
    ];
    let encode = |(name, value): &(&str, &str)| format!("{name}={}", utf8_percent_encode(value, NON_ALPHANUMERIC));
    let form = fields.iter().map(encode).collect::<Vec<_>>().join("&");
    let request = Request::send("POST", realm.url.clone(), Payload::Bytes(form.as_bytes()));
    let request = Request { as_nobody: realm.as_nobody, lead: Some(realm.lead.clone()), ..request };
    let response = http.send(&request.header("content-type", "application/x-www-form-urlencoded"))?;
    Ok(Some(response).filter(|response| !matches!(response.status(), 404 | 405)))
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

/// `{"token":…,"access_token":…,"expires_in":…}`, either of the first two. The life of the token is counted from
/// before it was asked for, on our own clock.
fn read_token(body: &[u8], asked: Duration) -> Result<Grant> {
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
    Ok(Grant { header: Secret::new(format!("Bearer {token}")), expires: Some(asked + life) })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn origin(url: &str) -> Origin {
        Url::parse(url).unwrap().origin
    }

    fn belongs(registry: &str, realm: &str) -> bool {
        Authenticator::new(None, vec!["login.example.net".to_owned()], Arc::new(Time::real()))
            .belongs(&origin(registry), &origin(realm))
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

    /// A2: either field, a minute if nothing is said.
    #[test]
    fn tokens_are_read_from_either_field() {
        let now = Duration::from_secs(7);
        let life = |body: &str| (read_token(body.as_bytes(), now).unwrap().expires.unwrap() - now).as_secs();
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
            let error = read_token(body.as_bytes(), Duration::ZERO).unwrap_err();
            assert!(matches!(error.kind(), ErrorKind::Authentication { .. }), "{body:?}: {error}");
        }
    }
}
