//! What was asked.

use percent_encoding::percent_decode_str;

/// A request that was made.
#[non_exhaustive]
#[derive(Clone, Debug)]
pub struct Request {
    /// Which of the registry's connections it came by, counted from 0.
    pub connection: usize,
    /// The method, such as `GET`.
    pub method: String,
    /// Path and query.
    pub path: String,
    /// Names and values, in their order.
    pub headers: Vec<(String, String)>,
    /// How many bytes of a body came; known before the answer is sent.
    pub body_length: u64,
    /// The body, or its first 64 KiB; known at the same time.
    pub body: Vec<u8>,
    /// The client wants the connection closed after the answer.
    pub(super) is_last: bool,
}

impl Request {
    /// The value of a header, whatever the case of its name.
    pub fn header(&self, name: &str) -> Option<&str> {
        let found = self.headers.iter().find(|(found, _)| found.eq_ignore_ascii_case(name));
        found.map(|(_, value)| value.as_str())
    }

    /// The value of a parameter of the query, decoded.
    pub fn parameter(&self, name: &str) -> Option<String> {
        self.query().first(name).map(str::to_owned)
    }

    pub(super) fn query(&self) -> Query {
        Query::parse(self.path.split_once('?').map(|(_, query)| query).unwrap_or_default())
    }

    pub(super) fn is_head(&self) -> bool {
        self.method == "HEAD"
    }
}

/// Names and values of a query, or of a form.
pub(super) struct Query(Vec<(String, String)>);

impl Query {
    pub(super) fn parse(text: &str) -> Query {
        let decode = |text: &str| percent_decode_str(&text.replace('+', " ")).decode_utf8_lossy().into_owned();
        let pair = |pair: &str| {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            (decode(name), decode(value))
        };
        Query(text.split('&').filter(|text| !text.is_empty()).map(pair).collect())
    }

    pub(super) fn first(&self, name: &str) -> Option<&str> {
        self.all(name).next()
    }

    pub(super) fn all(&self, name: &str) -> impl Iterator<Item = &str> {
        self.0.iter().filter(move |(found, _)| found == name).map(|(_, value)| value.as_str())
    }
}
