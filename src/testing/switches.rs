//! What registries do differently, each as a switch.

use super::search::SearchResult;
use super::server::Registry;

impl Registry {
    /// Refuses to delete manifests, tags and blobs, with status 405 (D25).
    pub fn without_deletes(&self) {
        self.shared.service.change_manners(|manners| manners.without_deletes = true);
    }

    /// Has no list of referrers (D21, D23): a request for it is answered with 404, and a manifest with a subject
    /// without `OCI-Subject`.
    pub fn without_referrers(&self) {
        self.shared.service.change_manners(|manners| manners.without_referrers = true);
    }

    /// Mounts no blobs of other repositories: answers as if they had none (D17).
    pub fn without_mounts(&self) {
        self.shared.service.change_manners(|manners| manners.without_mounts = true);
    }

    /// Mounts no blobs where the client does not say from which repository (D17). Without this, any that has the
    /// blob will do.
    pub fn without_anonymous_mounts(&self) {
        self.shared.service.change_manners(|manners| manners.without_anonymous_mounts = true);
    }

    /// Takes no blob in with a single `POST`: opens a session instead (D13).
    pub fn without_single_posts(&self) {
        self.shared.service.change_manners(|manners| manners.without_single_posts = true);
    }

    /// Takes manifests in though what they lead to is not there.
    pub fn allow_sparse_manifests(&self) {
        self.shared.service.change_manners(|manners| manners.sparse = true);
    }

    /// Accepts blobs, and forgets them at once.
    pub fn forget_uploads(&self) {
        self.shared.service.change_manners(|manners| manners.forgetful = true);
    }

    /// Says whole URLs in `Location`, which are relative otherwise (D12).
    pub fn absolute_locations(&self) {
        self.locations_at(&format!("http://{}", self.host()));
    }

    /// Says URLs in `Location` that begin with this, such as `http://127.0.0.1:5000`.
    pub fn locations_at(&self, base: &str) {
        self.shared.service.change_manners(|manners| manners.location_base = Some(base.to_owned()));
    }

    /// Gives the locations of new upload sessions a query, and takes no request without it (D12).
    pub fn stateful_locations(&self) {
        self.shared.service.change_manners(|manners| manners.stateful = true);
    }

    /// Demands chunks of at least this many bytes, but for the last (D14).
    pub fn smallest_chunk(&self, bytes: u64) {
        self.shared.service.change_manners(|manners| manners.smallest_chunk = Some(bytes));
    }

    /// Refuses more than this many bytes of a blob at once with status 413, as proxies before registries do. Chunks
    /// get through.
    pub fn largest_body(&self, bytes: u64) {
        self.shared.service.change_manners(|manners| manners.largest_body = Some(bytes));
    }

    /// Lists at most so many tags, repositories or referrers at once, and links to the others (D22, D23).
    pub fn page_size(&self, items: usize) {
        self.shared.service.change_manners(|manners| manners.page_size = Some(items));
    }

    /// Answers `/v1/search` with those of these results whose name or description has the term. Without this, there is
    /// no such endpoint.
    pub fn offer_search(&self, results: Vec<SearchResult>) {
        self.shared.service.change_manners(|manners| manners.search = Some(results));
    }

    /// Breaks off all upload sessions: what clients go on with is unknown.
    pub fn forget_sessions(&self) {
        self.shared.service.sessions.forget();
    }
}
