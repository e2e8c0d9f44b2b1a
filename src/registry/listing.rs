//! Lists that come in pages (distribution-spec, "Listing Tags"; RFC 8288).

use std::collections::HashSet;
use std::collections::VecDeque;
use std::collections::hash_map::RandomState;
use std::fmt;
use std::hash::BuildHasher;

use super::http::Response;
use super::url::Url;

use crate::error::Error;
use crate::error::ErrorKind;
use crate::error::Limit;
use crate::error::Result;

/// How many pages a list has at most.
const MAX_PAGES: u64 = 10_000;

type Ask = Box<dyn Fn(&Url) -> Result<Response> + Send>;
type Read<T> = Box<dyn FnMut(Response) -> Result<Vec<T>> + Send>;

/// A list that a registry gives in pages, which are fetched as they are needed. After an error it ends.
pub struct Listing<T> {
    ask: Ask,
    read: Read<T>,
    next: Option<Url>,
    items: VecDeque<T>,
    /// The pages that were fetched: hashes of their addresses.
    visited: HashSet<u64>,
    key: RandomState,
}

impl<T> Listing<T> {
    pub(super) fn new(first: Url, ask: Ask, read: Read<T>) -> Listing<T> {
        Listing {
            ask,
            read,
            next: Some(first),
            items: VecDeque::new(),
            visited: HashSet::new(),
            key: RandomState::new(),
        }
    }

    fn fetch(&mut self, url: &Url) -> Result<()> {
        if self.visited.len() as u64 >= MAX_PAGES {
            return Err(Error::limit(Limit::Pages, MAX_PAGES));
        }
        if !self.visited.insert(self.key.hash_one(url.full())) {
            return Err(ErrorKind::Protocol { reason: format!("the pages of {url} lead in circles") }.into());
        }
        let response = (self.ask)(url)?;
        let next = next_page(url, response.headers("link"))?;
        self.items.extend((self.read)(response)?);
        self.next = next;
        Ok(())
    }
}

impl<T> Iterator for Listing<T> {
    type Item = Result<T>;

    fn next(&mut self) -> Option<Result<T>> {
        loop {
            if let Some(item) = self.items.pop_front() {
                return Some(Ok(item));
            }
            let url = self.next.take()?;
            if let Err(error) = self.fetch(&url) {
                return Some(Err(error));
            }
        }
    }
}

impl<T> fmt::Debug for Listing<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Listing").field("next", &self.next).finish_non_exhaustive()
    }
}

/// Returns the address of the next page from the `Link` headers of a page. It must be on the same host: the request for
/// it carries the same credentials.
pub(super) fn next_page<'a>(url: &Url, mut links: impl Iterator<Item = &'a str>) -> Result<Option<Url>> {
    let Some(target) = links.find_map(next_target) else { return Ok(None) };
    let next = url.join(target)?;
    if next.origin != url.origin {
        let reason = format!("the next page of {url} is at {}, another host", next.origin);
        return Err(ErrorKind::Protocol { reason }.into());
    }
    Ok(Some(next))
}

/// The target of the link with `rel=next`: `</v2/a/tags/list?last=x>; rel="next"`.
fn next_target(header: &str) -> Option<&str> {
    let mut rest = header;
    while let Some((_, link)) = rest.split_once('<') {
        let (target, after) = link.split_once('>')?;
        let parameters = after.split('<').next().unwrap_or_default();
        let is_next = |parameter: &str| {
            let (name, value) = parameter.split_once('=')?;
            let value = value.trim().trim_end_matches(',').trim().trim_matches('"');
            let is_relation = name.trim().eq_ignore_ascii_case("rel");
            (is_relation && value.split(' ').any(|one| one.eq_ignore_ascii_case("next"))).then_some(())
        };
        if parameters.split(';').find_map(is_next).is_some() {
            return Some(target);
        }
        rest = after;
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    /// D22.
    #[test]
    fn the_next_page_is_found_among_links() {
        for (header, expected) in [
            (r#"</v2/a?last=b>; rel="next""#, Some("/v2/a?last=b")),
            ("<x>;rel=next", Some("x")),
            (r#"<p>; rel="prev", <n,1>; title="<"; REL="last NEXT""#, None),
            (r#"<p>; rel="prev", <n,1>; REL="last NEXT""#, Some("n,1")),
            (r#"<p>; rel="prev""#, None),
            ("<p", None),
            ("", None),
        ] {
            assert_eq!(next_target(header), expected, "{header}");
        }
    }
}
