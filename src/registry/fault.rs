//! Turning a registry's refusal into an error.

use std::io;
use std::time::Duration;
use std::time::SystemTime;

use serde_json::Value;

use super::http::Response;

use crate::error::Error;
use crate::error::ErrorKind;
use crate::error::RegistryError;
use crate::error::Result;
use crate::error::printable;

/// The most bytes of an error's body that are read: 64 KiB.
const MAX_BODY: u64 = 64 << 10;
/// How many errors of a body are kept, and how much of each text.
const MAX_ERRORS: usize = 8;
const MAX_TEXT: usize = 400;

/// The error that an unwanted answer is (distribution-spec, "Error Codes"; the body may be of any form).
pub(super) fn refusal(response: Response) -> Error {
    let mut error = RegistryError::new(response.method(), response.url().to_string(), response.status());
    error.retry_after = response.header("retry-after").and_then(|text| retry_after(text, SystemTime::now()));
    let body = response.read_to_limit(MAX_BODY).unwrap_or_default();
    error.errors = listed_errors(&body);
    if error.errors.is_empty() {
        error.body = printable(&String::from_utf8_lossy(&body), MAX_TEXT);
    }
    error.into()
}

/// `{"errors":[{"code":…,"message":…}]}`.
fn listed_errors(body: &[u8]) -> Vec<(String, String)> {
    let Ok(body) = serde_json::from_slice::<Value>(body) else { return Vec::new() };
    let text = |value: &Value, field: &str| match value.get(field) {
        Some(Value::String(text)) => printable(text, MAX_TEXT),
        _ => String::new(),
    };
    match body.get("errors").and_then(Value::as_array) {
        Some(errors) => errors.iter().take(MAX_ERRORS).map(|e| (text(e, "code"), text(e, "message"))).collect(),
        None => Vec::new(),
    }
}

/// Seconds, or a date (RFC 9110, section 10.2.3).
fn retry_after(text: &str, now: SystemTime) -> Option<Duration> {
    match text.trim().parse() {
        Ok(seconds) => Some(Duration::from_secs(seconds)),
        Err(_) => httpdate::parse_http_date(text).ok().map(|date| date.duration_since(now).unwrap_or_default()),
    }
}

/// When a connection failed.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Phase {
    Request,
    Answer,
}

/// The kind of an error of the operating system on a connection to this host.
pub(super) fn of_io(error: &io::Error, host: String, is_https: bool, phase: Phase) -> ErrorKind {
    let reason = error.to_string();
    // The standard library gives an unknown host no kind of its own.
    let is_unknown_host = || reason.starts_with("failed to lookup address");
    match error.kind() {
        io::ErrorKind::ConnectionRefused
        | io::ErrorKind::HostUnreachable
        | io::ErrorKind::NetworkUnreachable
        | io::ErrorKind::AddrNotAvailable
        | io::ErrorKind::NotFound => ErrorKind::Connect { host, reason },
        _ if phase == Phase::Request && is_unknown_host() => ErrorKind::Connect { host, reason },
        io::ErrorKind::TimedOut => ErrorKind::TimedOut { host, which: "idle" },
        io::ErrorKind::InvalidData if is_https => ErrorKind::Tls { host, reason },
        _ => ErrorKind::Network { host, reason },
    }
}

/// Whether trying again may mend an error. A host that never answered is not asked twice: its name is most likely
/// misspelt, and whoever waits wants to know.
pub(super) fn may_pass(error: &Error, has_reached: impl FnOnce(&str) -> bool) -> bool {
    match error.kind() {
        ErrorKind::Connect { host, .. } | ErrorKind::TimedOut { host, which: "connect" } => has_reached(host),
        _ => error.is_retryable(),
    }
}

/// Whether a registry refused for good.
pub(crate) fn is_refused(error: &Error) -> bool {
    matches!(error.kind(), ErrorKind::Registry(error) if is_refusal(error.status))
}

/// The same of a status. Servers of plain files say 501 to what they do not know, such as HEAD.
pub(super) fn is_refusal(status: u16) -> bool {
    (status < 500 && status != 429) || status == 501
}

/// Reads at most `limit` bytes; one more is too many.
pub(super) fn at_most(response: Response, limit: u64, exceeded: impl FnOnce() -> Error) -> Result<Vec<u8>> {
    if response.content_length().is_some_and(|length| length > limit) {
        return Err(exceeded());
    }
    let body = response.read_to_limit(limit.saturating_add(1))?;
    if body.len() as u64 > limit { Err(exceeded()) } else { Ok(body) }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// D29: seconds and dates.
    #[test]
    fn retry_after_is_seconds_or_a_date() {
        let now = httpdate::parse_http_date("Sun, 06 Nov 1994 08:49:07 GMT").unwrap();
        assert_eq!(retry_after("120", now), Some(Duration::from_secs(120)));
        assert_eq!(retry_after("Sun, 06 Nov 1994 08:49:37 GMT", now), Some(Duration::from_secs(30)));
        assert_eq!(retry_after("Sun, 06 Nov 1994 08:00:00 GMT", now), Some(Duration::ZERO));
        assert_eq!(retry_after("soon", now), None);
    }

    /// D28: lists of errors, legacy and unknown codes, bodies of any form.
    #[test]
    fn bodies_of_errors_are_read_in_any_form() {
        let body = br#"{"errors":[{"code":"TAG_INVALID","message":"no\nsuch","detail":{}},{"code":7}]}"#;
        let expected = vec![("TAG_INVALID".to_owned(), "no such".to_owned()), (String::new(), String::new())];
        assert_eq!(listed_errors(body), expected);
        assert_eq!(listed_errors(b"<html>"), Vec::new());
        assert_eq!(listed_errors(b"[]"), Vec::new());
    }
}
