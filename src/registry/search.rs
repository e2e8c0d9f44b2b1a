//! Searching for repositories.

use serde::Deserialize;

use super::Purpose;
use super::Registry;
use super::catalog::accept;
use super::catalog::page;
use super::credentials::is_docker_hub;
use super::http::Request;
use super::repository::silent;

use crate::error::Context;
use crate::error::Error;
use crate::error::ErrorKind;
use crate::error::Result;
use crate::reference::DEFAULT_HOST;

/// The host that searches `docker.io`.
const HUB_INDEX: &str = "index.docker.io";
/// How many hits there are at most, unless the caller says otherwise, and how many a caller may ask for.
const USUAL: usize = 25;
const MOST: usize = 100;
/// How many names of a catalog are looked at.
const MOST_NAMES: usize = 100_000;

/// A repository that was found.
#[non_exhaustive]
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SearchHit {
    /// Its name, as the registry has it: on Docker Hub `nginx` and `bitnami/nginx`.
    pub name: String,
    /// What its owner says of it; any text at all, control characters too.
    pub description: String,
    /// How many people like it.
    pub stars: u64,
    /// Whether it is one of Docker's own selection.
    pub is_official: bool,
    /// Whether it is built from a public repository of sources. Docker Hub no longer says so of any.
    pub is_automated: bool,
}

/// A search that is being set up. Made by [`Registry::search`]; [`run`](Search::run) runs it.
#[must_use = "nothing is searched before `run`"]
#[derive(Clone, Debug)]
pub struct Search {
    registry: Registry,
    term: String,
    host: Option<String>,
    limit: usize,
    stars: u64,
    official: Option<bool>,
    automated: Option<bool>,
}

impl Registry {
    /// A search for repositories whose names or descriptions have this term, on Docker Hub. A term that begins with a
    /// host (`localhost:5000/wordpress`) is searched for there.
    pub fn search(&self, term: &str) -> Search {
        let registry = self.clone();
        Search { registry, term: term.to_owned(), host: None, limit: USUAL, stars: 0, official: None, automated: None }
    }
}

impl Search {
    /// The host to search on, named as in images' names; then the term is all of it the term.
    pub fn host(self, host: &str) -> Search {
        Search { host: Some(host.to_owned()), ..self }
    }

    /// How many repositories to ask for: 1 to 100, or 0 for the usual 25. Filters then leave some out.
    pub fn limit(self, limit: usize) -> Search {
        Search { limit: if limit == 0 { USUAL } else { limit }, ..self }
    }

    /// Only repositories with at least so many stars.
    pub fn stars(self, least: u64) -> Search {
        Search { stars: self.stars.max(least), ..self }
    }

    /// Only repositories that are official; or, with `false`, that are not.
    pub fn official(self, wanted: bool) -> Search {
        Search { official: Some(wanted), ..self }
    }

    /// Only repositories that are built automatically; or, with `false`, that are not.
    pub fn automated(self, wanted: bool) -> Search {
        Search { automated: Some(wanted), ..self }
    }

    /// Searches. The hits come in the registry's order.
    ///
    /// A registry without search is asked for its [catalog](Registry::repositories), whose names are searched for the
    /// term; the name that is the term comes first, and nothing is known of descriptions and stars.
    ///
    /// # Errors
    ///
    /// * [`ErrorKind::InvalidInput`]: the limit is not from 1 to 100, or the term has a scheme.
    /// * [`ErrorKind::Registry`]: the registry refuses, and has no catalog either.
    /// * [`ErrorKind::InvalidDocument`], [`ErrorKind::LimitExceeded`]: its answer is not what it should be.
    /// * The kinds of connections that fail.
    pub fn run(&self) -> Result<Vec<SearchHit>> {
        self.try_run().context(|| format!("search for {:?}", self.term))
    }

    fn try_run(&self) -> Result<Vec<SearchHit>> {
        if !(1..=MOST).contains(&self.limit) {
            return Err(Error::invalid_input(format!("limit {} is outside the range of [1, {MOST}]", self.limit)));
        }
        if self.term.contains("://") {
            return Err(Error::invalid_input("a term has no scheme"));
        }
        let (host, term) = self.split();
        let mut hits = match self.ask(&host, &term) {
            Ok(hits) => hits,
            Err(error) if is_no_index(&error) && host != DEFAULT_HOST => self.look_through(&host, &term, error)?,
            Err(error) => return Err(error),
        };
        hits.retain(|hit| self.wants(hit));
        Ok(hits)
    }

    /// Where to search, and for what.
    fn split(&self) -> (String, String) {
        let (host, term) = match (&self.host, self.term.split_once('/')) {
            (Some(host), _) => (host.as_str(), self.term.as_str()),
            (None, Some((first, rest))) if first.contains(['.', ':']) || first == "localhost" => (first, rest),
            (None, _) => (DEFAULT_HOST, self.term.as_str()),
        };
        if is_docker_hub(host) {
            return (DEFAULT_HOST.to_owned(), term.strip_prefix("library/").unwrap_or(term).to_owned());
        }
        (host.to_owned(), term.to_owned())
    }

    /// Asks as Docker does.
    fn ask(&self, host: &str, term: &str) -> Result<Vec<SearchHit>> {
        let registry = &self.registry;
        let index = registry.0.place(if host == DEFAULT_HOST { HUB_INDEX } else { host })?;
        let limit = self.limit.to_string();
        let url = index.origin.url("/v1/search".to_owned()).with_query("q", term).with_query("n", &limit);
        let purpose = Purpose::new(&index.host, "", &[]);
        let watch = silent();
        let answer = registry.retrying(&watch, || {
            let request = Request::get(url.clone()).header("x-docker-token", "true");
            page::<Answer>(accept(registry.send(request, &purpose, &watch)?)?)
        })?;
        Ok(answer.results.unwrap_or_default().into_iter().take(self.limit).map(SearchHit::from).collect())
    }

    /// Searches the names of a registry that has no search, and so refused.
    fn look_through(&self, host: &str, term: &str, refused: Error) -> Result<Vec<SearchHit>> {
        let mut hits: Vec<SearchHit> = Vec::new();
        let term = term.to_ascii_lowercase();
        for name in self.registry.repositories(host)?.take(MOST_NAMES) {
            let name = match name {
                Ok(name) => name,
                // It has neither: the first answer says more.
                Err(error) if is_no_index(&error) => return Err(refused),
                Err(error) => return Err(error),
            };
            if name == term {
                hits.insert(0, SearchHit { name, ..SearchHit::default() });
                hits.truncate(self.limit);
            } else if name.contains(&term) && hits.len() < self.limit {
                hits.push(SearchHit { name, ..SearchHit::default() });
            }
        }
        Ok(hits)
    }

    fn wants(&self, hit: &SearchHit) -> bool {
        hit.stars >= self.stars
            && self.official.is_none_or(|wanted| hit.is_official == wanted)
            && self.automated.is_none_or(|wanted| hit.is_automated == wanted)
    }
}

/// Whether an answer says that there is no such thing here.
fn is_no_index(error: &Error) -> bool {
    match error.kind() {
        ErrorKind::Registry(refused) => (400..500).contains(&refused.status) && refused.status != 429,
        ErrorKind::InvalidDocument { .. } => true,
        _ => false,
    }
}

#[derive(Deserialize)]
struct Answer {
    results: Option<Vec<Entry>>,
}

#[derive(Deserialize)]
struct Entry {
    name: String,
    #[serde(default)]
    description: Option<String>,
    #[serde(default)]
    star_count: i64,
    #[serde(default)]
    is_official: bool,
    #[serde(default)]
    is_automated: bool,
}

impl From<Entry> for SearchHit {
    fn from(entry: Entry) -> SearchHit {
        SearchHit {
            name: entry.name,
            description: entry.description.unwrap_or_default(),
            stars: u64::try_from(entry.star_count).unwrap_or(0),
            is_official: entry.is_official,
            is_automated: entry.is_automated,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn split(term: &str) -> (String, String) {
        Registry::new().search(term).split()
    }

    /// Section 2.3: which index a term means.
    #[test]
    fn a_term_may_name_its_index() {
        let pair = |host: &str, term: &str| (host.to_owned(), term.to_owned());
        assert_eq!(split("nginx"), pair("docker.io", "nginx"));
        assert_eq!(split("library/nginx"), pair("docker.io", "nginx"));
        assert_eq!(split("docker.io/library/nginx"), pair("docker.io", "nginx"));
        assert_eq!(split("index.docker.io/bitnami/nginx"), pair("docker.io", "bitnami/nginx"));
        assert_eq!(split("bitnami/nginx"), pair("docker.io", "bitnami/nginx"));
        assert_eq!(split("localhost/nginx"), pair("localhost", "nginx"));
        assert_eq!(split("localhost:5000/a/b"), pair("localhost:5000", "a/b"));
        let named = Registry::new().search("example.com/a").host("localhost:5000");
        assert_eq!(named.split(), pair("localhost:5000", "example.com/a"));
    }
}
