//! Entry points for the fuzz targets, see `crate::fuzzing`.

use super::challenge;
use super::listing;
use super::url::Url;

use crate::error::Result;

/// Parses `WWW-Authenticate` headers. Returns one debug text for each challenge.
pub fn challenges(headers: &[&str]) -> Vec<String> {
    challenge::parse(headers.iter().copied()).iter().map(|challenge| format!("{challenge:?}")).collect()
}

/// Returns the address of the next page of a list: `url` is the address of this page, `links` are its `Link` headers.
///
/// # Errors
///
/// `url` is not an address, or the link leads to another host.
pub fn next_page(url: &str, links: &[&str]) -> Result<Option<String>> {
    let next = listing::next_page(&Url::parse(url)?, links.iter().copied())?;
    Ok(next.map(|next| next.full()))
}
