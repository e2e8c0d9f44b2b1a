//! Where the bytes are.

use std::collections::HashMap;
use std::collections::HashSet;

use super::Store;
use super::checkouts::Checkouts;
use super::garbage::GcOptions;
use super::graph::Graph;
use super::graph::is_document;
use super::index::Index;
use super::lease::Leases;
use super::names::Name;
use super::unpacked::Listed;
use super::unpacked::chains_of;
use super::unpacked::disk_bytes;
use super::unpacked::folders;

use crate::descriptor::Descriptor;
use crate::digest::Digest;
use crate::error::Context;
use crate::error::Error;
use crate::error::ErrorKind;
use crate::error::Result;

/// Where a store's bytes are. Made by [`Store::usage`].
#[non_exhaustive]
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// What names lead to, each once, in the layout's order.
    pub images: Vec<ImageUsage>,
    /// How many blobs there are.
    pub blobs: u64,
    /// The bytes of all blobs.
    pub bytes: u64,
    /// The bytes of blobs that no name leads to.
    pub unreferenced: u64,
    /// The bytes of unfinished blobs.
    pub partial: u64,
    /// Disk space of unpacked layers, as `du` counts it. It is counted once, when they are made.
    pub unpacked: u64,
    items: Vec<Item>,
}

/// What one image, or an index of several, takes.
#[non_exhaustive]
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ImageUsage {
    /// What it is called; entries without names too.
    pub names: Vec<Name>,
    /// The image or index.
    pub root: Descriptor,
    /// The bytes of all blobs that it leads to and that are there.
    pub content: u64,
    /// Of these, what other images lead to too.
    pub shared: u64,
    /// Of these, what only this leads to.
    pub unique: u64,
    /// Disk space of its layers where they are unpacked.
    pub unpacked: u64,
    /// What [`Store::remove`] and [`Store::gc`] would free if it had no name any more: what is unique to it, packed and
    /// unpacked, and neither leased nor used by a working copy.
    pub reclaimable: u64,
    items: Vec<usize>,
}

/// A blob, or an unpacked layer.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Item {
    digest: Digest,
    size: u64,
    is_blob: bool,
    is_pinned: bool,
    images: Vec<usize>,
}

impl Usage {
    /// The blobs that several images lead to: digest, size, and the places in [`images`](Usage::images).
    pub fn shared_blobs(&self) -> impl Iterator<Item = (Digest, u64, &[usize])> {
        let shared = self.items.iter().filter(|item| item.is_blob && item.images.len() > 1);
        shared.map(|item| (item.digest, item.size, &item.images[..]))
    }

    /// Whether a lease or a working copy needs anything of an image.
    pub(super) fn is_in_use(&self, image: &ImageUsage) -> bool {
        image.items.iter().any(|place| self.items[*place].is_pinned)
    }

    /// What removing all these images would free, by their places in [`images`](Usage::images): more than the sum of
    /// what each would, where they share something among themselves only.
    pub fn freed_by(&self, images: &[usize]) -> u64 {
        let wanted: HashSet<usize> = images.iter().copied().collect();
        let items: HashSet<usize> =
            wanted.iter().filter_map(|place| self.images.get(*place)).flat_map(|image| image.items.clone()).collect();
        let goes = |item: &&Item| !item.is_pinned && item.images.iter().all(|image| wanted.contains(image));
        items.iter().map(|place| &self.items[*place]).filter(goes).map(|item| item.size).sum()
    }
}

impl Store {
    /// Where the bytes are: of each image what is its own and what it shares, packed and unpacked.
    ///
    /// ```
    /// use layercake::{testing::Fixture, ImageReference, Store};
    ///
    /// # let dir = tempfile::tempdir()?;
    /// # let store = Store::create(dir.path().join("store"))?;
    /// let name: ImageReference = "example.com/greeter:1".parse()?;
    /// Fixture::demo().tag(&store, &name)?;
    /// let usage = store.usage()?;
    /// let [image] = &usage.images[..] else { panic!("there is one image") };
    /// assert_eq!((image.unique, image.shared), (usage.bytes, 0));
    /// # Ok::<(), layercake::Error>(())
    /// ```
    ///
    /// # Errors
    ///
    /// Those of [`entries`](Store::entries); [`ErrorKind::InvalidDocument`] for a record that cannot be read. A damaged
    /// document leads nowhere here; [`check`](Store::check) finds it.
    pub fn usage(&self) -> Result<Usage> {
        let store = self.unleased();
        let count = || Counting::new(&store)?.run();
        count().context(|| "count what is used")
    }
}

struct Counting<'a> {
    store: &'a Store,
    graph: Graph,
    sizes: HashMap<Digest, u64>,
    trees: HashMap<Digest, Vec<(String, u64)>>,
    referrers: HashMap<Digest, Vec<Descriptor>>,
    usage: Usage,
}

impl<'a> Counting<'a> {
    fn new(store: &'a Store) -> Result<Counting<'a>> {
        let sizes = store.blobs()?.collect::<Result<HashMap<_, _>>>()?;
        let usage = Usage { blobs: sizes.len() as u64, bytes: sizes.values().sum(), ..Usage::default() };
        let trees = trees(store)?;
        let (graph, referrers) = (Graph::new(store), HashMap::new());
        Ok(Counting { store, graph, sizes, trees, referrers, usage })
    }

    fn run(mut self) -> Result<Usage> {
        self.usage.unpacked = self.trees.values().flatten().map(|(_, bytes)| bytes).sum();
        self.usage.partial = self.store.partial_bytes(|_| true)?;
        let roots = self.roots()?;
        let reached: HashSet<Digest> = roots
            .iter()
            .map(|(_, starts)| self.reach(starts))
            .collect::<Result<Vec<_>>>()?
            .into_iter()
            .flatten()
            .collect();
        self.find_referrers(&reached)?;
        let mut places = HashMap::new();
        for (names, starts) in roots {
            self.image(names, &starts, &mut places)?;
        }
        self.pin()?;
        self.sum();
        Ok(self.usage)
    }

    /// The roots with their names, and what else stands for them in the layout.
    fn roots(&self) -> Result<Vec<(Vec<Name>, Vec<Descriptor>)>> {
        let text = self.store.read_index()?;
        let index = Index::parse(&text)?;
        let mut roots: Vec<(Vec<Name>, Vec<Descriptor>)> = Vec::new();
        let mut places: HashMap<Digest, usize> = HashMap::new();
        let mut by_name: HashMap<String, usize> = HashMap::new();
        for (name, entry) in index.named() {
            let root = entry.descriptor()?;
            let place = *places.entry(root.digest).or_insert_with(|| {
                roots.push((Vec::new(), vec![root.clone()]));
                roots.len() - 1
            });
            by_name.extend(entry.name().map(|name| (name.to_owned(), place)));
            roots[place].0.push(name);
        }
        for view in index.all().filter(|entry| entry.is_view()) {
            if let Some(place) = view.name().and_then(|name| by_name.get(name)) {
                roots[*place].1.push(view.descriptor()?);
            }
        }
        Ok(roots)
    }

    /// All that roots lead to and that is there, each once.
    fn reach(&mut self, starts: &[Descriptor]) -> Result<Vec<Digest>> {
        let mut seen = HashSet::new();
        let mut reached = Vec::new();
        let mut ahead = starts.to_vec();
        while let Some(descriptor) = ahead.pop() {
            if !seen.insert(descriptor.digest) || !self.sizes.contains_key(&descriptor.digest) {
                continue;
            }
            reached.push(descriptor.digest);
            ahead.extend(self.referrers.get(&descriptor.digest).into_iter().flatten().cloned());
            if !is_document(&descriptor) {
                continue;
            }
            match self.graph.node(&descriptor) {
                Ok(node) => ahead.extend(node.into_iter().flat_map(|node| node.children.clone())),
                Err(error) if is_damage(&error) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(reached)
    }

    /// What speaks of something that is kept belongs to it.
    fn find_referrers(&mut self, reached: &HashSet<Digest>) -> Result<()> {
        for (digest, size) in &self.sizes {
            if reached.contains(digest) {
                continue;
            }
            if let Some(node) = self.graph.sniff(*digest, *size)?
                && let Some(subject) = node.subject
            {
                self.referrers.entry(subject).or_default().push(node.descriptor.clone());
            }
        }
        Ok(())
    }

    fn image(
        &mut self,
        names: Vec<Name>,
        starts: &[Descriptor],
        places: &mut HashMap<(Digest, String), usize>,
    ) -> Result<()> {
        let image = self.usage.images.len();
        let mut items = Vec::new();
        let mut chains = HashSet::new();
        for digest in self.reach(starts)? {
            items.push(self.item(image, digest, String::new(), self.sizes[&digest], places));
            if !self.trees.is_empty()
                && let Some(config) = self.graph.known(digest).and_then(|node| node.config.clone())
            {
                chains.extend(chains_of(self.store, &config)?);
            }
        }
        for chain in chains {
            for (owners, bytes) in self.trees.get(&chain).cloned().unwrap_or_default() {
                items.push(self.item(image, chain, owners, bytes, places));
            }
        }
        let root = starts[0].clone();
        let none = ImageUsage { names, root, content: 0, shared: 0, unique: 0, unpacked: 0, reclaimable: 0, items };
        self.usage.images.push(none);
        Ok(())
    }

    /// The place of a blob (whose owners are nobody) or of an unpacked layer, which this image uses.
    fn item(
        &mut self,
        image: usize,
        digest: Digest,
        owners: String,
        size: u64,
        places: &mut HashMap<(Digest, String), usize>,
    ) -> usize {
        let items = &mut self.usage.items;
        let is_blob = owners.is_empty();
        let place = *places.entry((digest, owners)).or_insert_with(|| {
            items.push(Item { digest, size, is_blob, is_pinned: false, images: Vec::new() });
            items.len() - 1
        });
        items[place].images.push(image);
        place
    }

    /// What leases and working copies need is not freed.
    fn pin(&mut self) -> Result<()> {
        let defaults = GcOptions::new();
        let now = std::time::SystemTime::now();
        let leases = Leases::read(self.store, defaults.expiry, now)?;
        let checkouts = Checkouts::read(self.store, defaults.grace, now)?;
        let mut pinned: HashSet<Digest> = leases.blobs.into_keys().collect();
        for (_, root, manifest) in checkouts.pins() {
            pinned.extend(self.reach(&[root, manifest])?);
        }
        let used: HashSet<Digest> = checkouts.trees().into_iter().map(|(_, chain)| chain).collect();
        for item in &mut self.usage.items {
            item.is_pinned = if item.is_blob { pinned.contains(&item.digest) } else { used.contains(&item.digest) };
        }
        Ok(())
    }

    fn sum(&mut self) {
        let Usage { images, items, bytes, unreferenced, .. } = &mut self.usage;
        for image in images {
            for item in image.items.iter().map(|place| &items[*place]) {
                let is_shared = item.images.len() > 1;
                match (item.is_blob, is_shared) {
                    (true, true) => image.shared += item.size,
                    (true, false) => image.unique += item.size,
                    (false, _) => image.unpacked += item.size,
                }
                if !is_shared && !item.is_pinned {
                    image.reclaimable += item.size;
                }
            }
            image.content = image.shared + image.unique;
        }
        let named: u64 = items.iter().filter(|item| item.is_blob).map(|item| item.size).sum();
        *unreferenced = bytes.saturating_sub(named);
    }
}

/// The unpacked layers, by chain: their folders, and their bytes.
fn trees(store: &Store) -> Result<HashMap<Digest, Vec<(String, u64)>>> {
    let mut trees: HashMap<Digest, Vec<(String, u64)>> = HashMap::new();
    for (owners, dir) in folders(store)? {
        for chain in Listed::of(&dir)?.records {
            trees.entry(chain).or_default().push((owners.clone(), disk_bytes(&dir, chain)));
        }
    }
    Ok(trees)
}

fn is_damage(error: &Error) -> bool {
    let unclear = matches!(
        error.kind(),
        ErrorKind::InvalidDocument { .. } | ErrorKind::Schema1 | ErrorKind::UnsupportedMediaType { .. }
    );
    unclear || error.is_as_good_as_missing()
}
