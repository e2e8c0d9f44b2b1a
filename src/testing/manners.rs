//! What registries do differently.

use super::search::SearchResult;

/// What this registry does otherwise than the best of its kind.
#[derive(Clone, Debug, Default)]
pub(super) struct Manners {
    pub(super) without_deletes: bool,
    pub(super) without_referrers: bool,
    pub(super) without_mounts: bool,
    pub(super) without_anonymous_mounts: bool,
    pub(super) without_single_posts: bool,
    pub(super) forgetful: bool,
    pub(super) sparse: bool,
    pub(super) stateful: bool,
    pub(super) location_base: Option<String>,
    pub(super) smallest_chunk: Option<u64>,
    pub(super) largest_body: Option<u64>,
    pub(super) page_size: Option<usize>,
    pub(super) search: Option<Vec<SearchResult>>,
}

impl Manners {
    /// A path as a `Location` says it: relative, unless something else was asked for (D12).
    pub(super) fn locate(&self, path: &str) -> String {
        format!("{}{path}", self.location_base.as_deref().unwrap_or_default())
    }
}
