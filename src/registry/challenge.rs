//! What a registry wants to see before it answers: `WWW-Authenticate`.

use http_auth::parser::ChallengeParser;

/// One way in that a registry offers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Challenge {
    /// User name and password with each request.
    Basic,
    /// A token from a token server.
    Bearer {
        /// The token server's address, as the registry writes it.
        realm: String,
        service: Option<String>,
        /// What the token must allow; several are separated by spaces.
        scope: Option<String>,
        /// Whether a token was seen, and does not allow enough (RFC 6750, section 3.1).
        insufficient: bool,
    },
}

/// The ways in that all `WWW-Authenticate` headers of an answer offer, in their order. What is no challenge, or of an
/// unknown scheme (`Negotiate`), is passed over.
pub(super) fn parse<'a>(headers: impl Iterator<Item = &'a str>) -> Vec<Challenge> {
    let mut found = Vec::new();
    for header in headers {
        for challenge in ChallengeParser::new(header).map_while(Result::ok) {
            found.extend(known(&challenge));
        }
    }
    found
}

fn known(challenge: &http_auth::ChallengeRef<'_>) -> Option<Challenge> {
    if challenge.scheme.eq_ignore_ascii_case("basic") {
        return Some(Challenge::Basic);
    }
    if !challenge.scheme.eq_ignore_ascii_case("bearer") {
        return None;
    }
    let parameter = |name: &str| {
        let found = challenge.params.iter().find(|(found, _)| found.eq_ignore_ascii_case(name));
        found.map(|(_, value)| value.to_unescaped())
    };
    Some(Challenge::Bearer {
        realm: parameter("realm")?,
        service: parameter("service"),
        scope: parameter("scope").filter(|scope| !scope.is_empty()),
        insufficient: parameter("error").is_some_and(|error| error == "insufficient_scope"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bearer(realm: &str, service: &str, scope: &str) -> Challenge {
        Challenge::Bearer {
            realm: realm.into(),
            service: Some(service.into()),
            scope: Some(scope.into()),
            insufficient: false,
        }
    }

    /// A1: all headers, all challenges, schemes in any case, quoted strings with escapes.
    #[test]
    fn every_challenge_of_every_header_is_read() {
        let headers = [
            "Negotiate",
            r#"bEaReR realm="https://auth.example.com/token",service="a \"b\"",scope="repository:a:pull,push repository:b:pull", BASIC realm="x""#,
        ];
        let scope = "repository:a:pull,push repository:b:pull";
        let expected = vec![bearer("https://auth.example.com/token", "a \"b\"", scope), Challenge::Basic];
        assert_eq!(parse(headers.into_iter()), expected);
    }

    #[test]
    fn rubbish_is_no_challenge() {
        for header in ["", ",,,", "Bearer", "Bearer realm", "\u{fffd}", "Bearer service=\"x\"", "Bearer realm=\"x"] {
            assert_eq!(parse([header].into_iter()), Vec::new(), "{header:?}");
        }
    }
}
