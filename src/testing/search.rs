//! The search of Docker's first protocol.

use serde_json::json;

use super::answer::Answer;
use super::refusal::Code;
use super::refusal::Reply;
use super::request::Request;

const DEFAULT_LIMIT: usize = 25;

/// A repository that a search may find.
///
/// ```
/// use layercake::testing::SearchResult;
///
/// let ubuntu = SearchResult::new("ubuntu").description("A Debian-based system").stars(17_000).official();
/// assert!(ubuntu.is_official);
/// ```
#[non_exhaustive]
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SearchResult {
    /// The repository.
    pub name: String,
    /// What it says of itself.
    pub description: String,
    /// How many like it.
    pub stars: u64,
    /// Whether Docker answers for it.
    pub is_official: bool,
    /// Whether Docker built it.
    pub is_automated: bool,
}

impl SearchResult {
    /// A repository that nobody knows.
    pub fn new(name: impl Into<String>) -> SearchResult {
        SearchResult {
            name: name.into(),
            description: String::new(),
            stars: 0,
            is_official: false,
            is_automated: false,
        }
    }

    /// The same with a description.
    #[must_use = "the result itself is not changed"]
    pub fn description(self, text: impl Into<String>) -> SearchResult {
        SearchResult { description: text.into(), ..self }
    }

    /// The same with so many stars.
    #[must_use = "the result itself is not changed"]
    pub fn stars(self, stars: u64) -> SearchResult {
        SearchResult { stars, ..self }
    }

    /// The same as an official image.
    #[must_use = "the result itself is not changed"]
    pub fn official(self) -> SearchResult {
        SearchResult { is_official: true, ..self }
    }

    /// The same as an automated build.
    #[must_use = "the result itself is not changed"]
    pub fn automated(self) -> SearchResult {
        SearchResult { is_automated: true, ..self }
    }
}

/// Answers where there is a search.
pub(super) fn ping(offered: Option<&[SearchResult]>) -> Reply {
    offered.ok_or(Code::NoEndpoint)?;
    Ok(Answer::json(&json!(true)).with("x-docker-registry-version", "0.9.1"))
}

/// The results whose name or description has the term, in the order they were offered.
pub(super) fn search(offered: Option<&[SearchResult]>, request: &Request) -> Reply {
    let offered = offered.ok_or(Code::NoEndpoint)?;
    let query = request.query();
    let term = query.first("q").unwrap_or_default();
    let limit = match query.first("n").map(str::parse) {
        None | Some(Ok(0)) => DEFAULT_LIMIT,
        Some(Ok(limit)) => limit,
        Some(Err(_)) => return Err(Code::PaginationInvalid.into()),
    };
    let fits = |result: &&SearchResult| result.name.contains(term) || result.description.contains(term);
    let results: Vec<_> = offered.iter().filter(fits).take(limit).map(to_json).collect();
    Ok(Answer::json(&json!({ "query": term, "num_results": results.len(), "results": results })))
}

fn to_json(result: &SearchResult) -> serde_json::Value {
    json!({
        "name": result.name, "description": result.description, "star_count": result.stars,
        "is_official": result.is_official, "is_automated": result.is_automated,
    })
}
