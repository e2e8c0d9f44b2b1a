//! How much a registry will give.

use std::time::Duration;

use super::http::Response;

use crate::error::printable;

/// What a registry said of how many pulls it allows, with its last answer that said anything (Docker Hub's
/// `ratelimit-*` headers).
#[non_exhaustive]
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RateLimit {
    /// How many pulls are allowed in a window.
    pub limit: Option<u64>,
    /// How many are left.
    pub remaining: Option<u64>,
    /// How long a window is.
    pub window: Option<Duration>,
    /// What is counted: an address, or an account's id.
    pub source: Option<String>,
}

impl RateLimit {
    pub(super) fn of(response: &Response) -> Option<RateLimit> {
        let limit = response.header("ratelimit-limit").and_then(parse);
        let remaining = response.header("ratelimit-remaining").and_then(parse);
        let (count, window) = limit.or(remaining)?;
        Some(RateLimit {
            limit: limit.map(|_| count),
            remaining: remaining.map(|(count, _)| count),
            window: window.or(remaining.and_then(|(_, window)| window)),
            source: response.header("docker-ratelimit-source").map(|text| printable(text, 200)),
        })
    }
}

/// `100;w=21600`: a count, and the window in seconds.
fn parse(text: &str) -> Option<(u64, Option<Duration>)> {
    let mut parts = text.split(';').map(str::trim);
    let count = parts.next()?.parse().ok()?;
    let window = parts.find_map(|part| part.strip_prefix("w=")?.parse().ok());
    Some((count, window.map(Duration::from_secs)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_come_with_or_without_a_window() {
        assert_eq!(parse("100;w=21600"), Some((100, Some(Duration::from_secs(21600)))));
        assert_eq!(parse(" 76 ; x=1; w=60"), Some((76, Some(Duration::from_secs(60)))));
        assert_eq!(parse("5"), Some((5, None)));
        for rubbish in ["", "many", "-1;w=5", ";w=5"] {
            assert_eq!(parse(rubbish), None, "{rubbish:?}");
        }
        assert_eq!(parse("5;w=soon"), Some((5, None)));
    }
}
