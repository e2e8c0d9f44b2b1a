//! What a registry has: repositories, and tags of one.

use serde::Deserialize;

use super::Access;
use super::Purpose;
use super::Registry;
use super::Repository;
use super::fault::at_most;
use super::fault::refusal;
use super::http::Request;
use super::http::Response;
use super::listing::Listing;
use super::repository::silent;
use super::url::Url;

use crate::error::Error;
use crate::error::Limit;
use crate::error::Result;
use crate::error::printable;
use crate::json;
use crate::json::Shape;
use crate::manifest::MAX_DOCUMENT;
use crate::reference::ImageReference;

/// How many entries are asked for at once: what no registry refuses.
const PAGE: &str = "1000";

impl Registry {
    /// The repositories of a host, page by page, in its order (distribution, "Catalog"). Many public registries do not
    /// tell.
    ///
    /// ```
    /// # use layercake::{testing, ImageReference, Registry, Store};
    /// # let dir = tempfile::tempdir()?;
    /// # let served = Store::create(dir.path().join("served"))?;
    /// # testing::Fixture::demo().tag(&served, &"example.com/greeter:1".parse()?)?;
    /// # let server = testing::Registry::start(&served)?;
    /// # let host = server.host();
    /// let names = Registry::new().repositories(&host)?.collect::<Result<Vec<String>, _>>()?;
    /// assert_eq!(names, ["greeter"]);
    /// # Ok::<(), layercake::Error>(())
    /// ```
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Protocol`](crate::ErrorKind::Protocol) if this is no host. An item is an error if a page cannot be
    /// had: the registry refuses, its pages lead in circles or to other hosts, there are more than 10,000 of them, or a
    /// name is none.
    pub fn repositories(&self, host: &str) -> Result<Listing<String>> {
        let place = self.0.place(host)?;
        let first = place.origin.url("/v2/_catalog".to_owned()).with_query("n", PAGE);
        let purpose = Purpose::new(&place.host, "", &[Access::Catalog]);
        let registry = self.clone();
        let ask = move |url: &Url| {
            let watch = silent();
            registry.retrying(&watch, || accept(registry.send(Request::get(url.clone()), &purpose, &watch)?))
        };
        let read = |response: Response| {
            let page: RepositoryPage = page(response)?;
            check(page.repositories.unwrap_or_default(), is_repository)
        };
        Ok(Listing::new(first, Box::new(ask), Box::new(read)))
    }
}

impl Repository {
    /// The tags, page by page, in the registry's order (distribution-spec, "Listing Tags").
    ///
    /// # Errors
    ///
    /// An item is an error if a page cannot be had: the registry refuses (404 if it does not know the repository), its
    /// pages lead in circles or to other hosts, there are more than 10,000 of them, or a tag is none.
    pub fn tags(&self) -> Listing<String> {
        let first = self.0.url(format!("/v2/{}/tags/list", self.name())).with_query("n", PAGE);
        let endpoint = self.0.clone();
        let ask = move |url: &Url| {
            let watch = silent();
            endpoint.registry().retrying(&watch, || {
                accept(endpoint.send(Request::get(url.clone()), &[Access::Pull(endpoint.name())], &watch)?)
            })
        };
        let read = |response: Response| {
            let page: TagPage = page(response)?;
            check(page.tags.unwrap_or_default(), is_tag)
        };
        Listing::new(first, Box::new(ask), Box::new(read))
    }
}

/// Some registries say `null` where there is nothing.
#[derive(Deserialize)]
struct TagPage {
    tags: Option<Vec<String>>,
}

#[derive(Deserialize)]
struct RepositoryPage {
    repositories: Option<Vec<String>>,
}

pub(super) fn accept(response: Response) -> Result<Response> {
    if response.status() == 200 { Ok(response) } else { Err(refusal(response)) }
}

/// A page's JSON.
pub(super) fn page<T: serde::de::DeserializeOwned>(response: Response) -> Result<T> {
    page_of(response, &Shape::Any)
}

/// The same, where fields are known that other readers could take for others.
pub(super) fn page_of<T: serde::de::DeserializeOwned>(response: Response, shape: &'static Shape) -> Result<T> {
    let body = at_most(response, MAX_DOCUMENT, || Error::limit(Limit::DocumentSize, MAX_DOCUMENT))?;
    json::check(&body, shape).map_err(|error| Error::invalid_document("list", error))?;
    serde_json::from_slice(&body).map_err(|error| Error::invalid_document("list", error))
}

/// Whether a reference can be made of it, in which it is the repository and nothing else.
fn is_repository(name: &str) -> bool {
    format!("host.example/{name}").parse::<ImageReference>().is_ok_and(|reference| reference.repository() == name)
}

fn is_tag(tag: &str) -> bool {
    format!("host.example/name:{tag}").parse::<ImageReference>().is_ok_and(|reference| reference.tag() == Some(tag))
}

fn check(names: Vec<String>, is_one: impl Fn(&str) -> bool) -> Result<Vec<String>> {
    match names.iter().find(|name| !is_one(name)) {
        Some(name) => Err(Error::invalid_document("list", format!("{:?} is no name", printable(name, 100)))),
        None => Ok(names),
    }
}
