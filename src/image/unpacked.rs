//! Layers that are unpacked once, in the store, and shared by all working copies.
//!
//! Each has a directory as overlayfs wants it in `lowerdir`, named for the stack of layers that it is the top of
//! (image-spec, config.md, "Layer ChainID"), because what it looks like depends on those below. Beside the directory,
//! out of reach of what is in it, lies the record that says that it is whole: it is written last and removed first.
//! Who uses the directory holds a shared lock on the record.

use std::collections::HashSet;
use std::fs::File;
use std::io;
use std::os::fd::AsFd;
use std::path::Path;
use std::time::Duration;

use rustix::fs::FileType;
use rustix::io::Errno;

use super::record::Record;
use crate::changeset::Applier;
use crate::changeset::Below;
use crate::changeset::Layout;
use crate::changeset::Options;
use crate::changeset::Ownership;
use crate::changeset::Skipped;
use crate::changeset::Tars;
use crate::changeset::apply_next;
use crate::changeset::check_bytes;
use crate::changeset::id_maps;
use crate::changeset::run;
use crate::digest::Digest;
use crate::error::Context;
use crate::error::Error;
use crate::error::ErrorKind;
use crate::error::Limit;
use crate::error::Result;
use crate::event::Event;
use crate::fs::aside::Aside;
use crate::fs::aside::SyncScope;
use crate::fs::atomic;
use crate::fs::dir::Dir;
use crate::fs::disk_usage::allocated;
use crate::fs::lock::DirLock;
use crate::fs::lock::Lock;
use crate::fs::lock::Locked;
use crate::fs::lock::Sharing;
use crate::fs::remove;
use crate::fs::remove::Nothing;
use crate::fs::rooted::Inode;
use crate::fs::rooted::Rooted;
use crate::image::Image;
use crate::image::Layer;
use crate::store::Durability;

/// How long one process waits for another that unpacks the same layers.
const LIMIT: Duration = Duration::from_secs(900);
/// Disk space that a record takes is a multiple of this on most file systems.
const BLOCK: u64 = 4096;
/// And how long for others to let go of layers that are damaged.
const PATIENCE: Duration = Duration::from_secs(2);

/// The unpacked layers of an image. They stay for as long as this is there.
#[derive(Debug)]
pub(crate) struct UnpackedLayers {
    /// The folder that they lie in.
    pub(crate) dir: Dir,
    /// The stacks that they are the top of, base first. Each has a directory of its name.
    pub(crate) chains: Vec<Digest>,
    /// What could not be unpacked, and why.
    pub(crate) skipped: Vec<Skipped>,
    #[expect(dead_code, reason = "locked while they are open")]
    records: Vec<Locked<File>>,
}

/// What is known of the lowest of an image's layers.
#[derive(Default)]
struct Known {
    records: Vec<(Record, Locked<File>)>,
}

impl Image {
    /// The image's layers, unpacked; those that are not yet are now.
    ///
    /// `owners` is the folder of trees with these owners, [`folder_of`] them unless another user made them.
    pub(crate) fn unpacked_layers(&self, owners: &str, options: &Options<'_>) -> Result<UnpackedLayers> {
        let options = options.clone().layout(Layout::Overlay);
        let layers = self.layers()?;
        options.limits.check(Limit::Layers, layers.len() as u64)?;
        let chains = self.config()?.chain_ids()?;
        let dir = self.store().unpacked_dir(owners)?;
        let mut known = Known::of(&dir, &chains)?;
        if let Some(base) = chains.first().filter(|_| known.records.len() < chains.len()) {
            if owners != folder_of(&options.ownership) {
                let reason = format!("layers are missing, and only their owner can unpack them ({owners})");
                return Err(Error::invalid_input(reason));
            }
            // Stacks that have something in common have the base in common: one process unpacks it, others wait.
            let _making = DirLock::shared(dir.again()?, LIMIT)?;
            let _lock = Lock::acquire(&dir, &format!("lock-{}", &base.hex().to_string()[..1]), LIMIT)?;
            let found = Known::of(&dir, &chains)?;
            known = if found.records.len() < chains.len() {
                let unpack = || self.unpack_above(&dir, &chains, &layers, &found, &options);
                unpack().context(|| format!("unpack image {}", self.id().short()))?;
                Known::all_of(&dir, &chains)?
            } else {
                found
            };
        }
        let (records, locked): (Vec<Record>, Vec<Locked<File>>) = known.records.into_iter().unzip();
        let skipped: Vec<Skipped> = records.into_iter().flat_map(|record| record.skipped).collect();
        if options.strict
            && let Some(first) = skipped.first()
        {
            return Err(Error::from(ErrorKind::NotApplied { what: vec![first.to_string()] }));
        }
        Ok(UnpackedLayers { dir, chains, skipped, records: locked })
    }

    /// Unpacks the layers above those that are.
    fn unpack_above(
        &self,
        dir: &Dir,
        chains: &[Digest],
        layers: &[Layer],
        known: &Known,
        options: &Options<'_>,
    ) -> Result<()> {
        let done = known.records.len();
        let path = |chain: &Digest| dir.path().join(chain.hex().to_string());
        for chain in &chains[done..] {
            clear(dir, &chain.hex().to_string(), self.store().durability())?;
        }
        let asides: Vec<Aside> = chains[done..].iter().map(|chain| Aside::new(&path(chain))).collect::<Result<_>>()?;
        let sources = layers[done..].iter().map(Layer::source);
        let records = run(sources, options.limits, |tars| {
            let mut below = known.last();
            let mut records = Vec::new();
            let mut reported = known.bytes_of_lists();
            let lower: Vec<Rooted> =
                chains[..done].iter().rev().map(|chain| Rooted::open(&path(chain))).collect::<Result<_>>()?;
            let mut lower = Below::new(lower, options);
            for (n, aside) in asides.iter().enumerate() {
                let root = Rooted::new(aside.open()?, &path(&chains[done + n]));
                let layer = &layers[done + n];
                let apply = || unpack_layer(lower, root, &below, layer, tars, options);
                (below, lower) = apply().context(|| format!("layer {} of {}", done + n + 1, layers.len()))?;
                // All records are held together, and each has the places of those below.
                reported += below.bytes_of_lists();
                check_bytes(reported)?;
                records.push(below.clone());
            }
            Ok(records)
        })
        .map_err(|error| super::unpack::explain(error, &layers[done..]))?;
        self.publish(dir, &chains[done..], asides, &records)
    }

    /// Gives the directories their names, and then writes that they are whole.
    fn publish(&self, dir: &Dir, chains: &[Digest], asides: Vec<Aside>, records: &[Record]) -> Result<()> {
        let durability = self.store().durability();
        if durability == Durability::Full {
            rustix::fs::syncfs(dir).map_err(|error| Error::io("sync", dir.path(), error.into()))?;
        }
        // File systems that allocate late know only now how much that is.
        let texts = chains.iter().zip(records).zip(&asides).map(|((chain, record), aside)| {
            let tree = allocated(aside.dir()?)?;
            let length = record.to_bytes(*chain)?.len() as u64;
            let disk = tree.saturating_add(length.next_multiple_of(BLOCK));
            Record { disk, ..record.clone() }.to_bytes(*chain)
        });
        let texts: Vec<Vec<u8>> = texts.collect::<Result<_>>()?;
        asides.into_iter().try_for_each(|aside| aside.publish(SyncScope::Nothing))?;
        durability.sync_dir(dir)?;
        for (chain, text) in chains.iter().zip(texts) {
            let name = format!("{}.json", chain.hex());
            atomic::replace(dir, &format!("{name}.new"), dir, &name, &text, durability)?;
        }
        Ok(())
    }
}

impl Known {
    /// Takes hold of what is whole, from the base up.
    fn of(dir: &Dir, chains: &[Digest]) -> Result<Known> {
        let mut known = Known::default();
        for chain in chains {
            let name = chain.hex().to_string();
            let Some(file) = hold(dir, &format!("{name}.json"))? else { break };
            // One that cannot be read now may be of layers that are in use.
            let record =
                Record::read(&file, chain).map_err(|error| Error::io("read", &dir.path().join(&name), error))?;
            let Some(record) = record else { break };
            // Not a link, which could lead overlayfs anywhere.
            if !dir.stat(&name)?.is_some_and(|stat| FileType::from_raw_mode(stat.st_mode).is_dir()) {
                break;
            }
            known.records.push((record, file));
        }
        Ok(known)
    }

    /// The same of what was written just now, while nobody may remove it: all of it has to be there.
    fn all_of(dir: &Dir, chains: &[Digest]) -> Result<Known> {
        let known = Known::of(dir, chains)?;
        match chains.get(known.records.len()) {
            None => Ok(known),
            Some(chain) => {
                let error = io::Error::new(io::ErrorKind::InvalidData, "it was written just now, and is not whole");
                Err(Error::io("read", &dir.path().join(format!("{}.json", chain.hex())), error))
            }
        }
    }

    fn bytes_of_lists(&self) -> u64 {
        self.records.iter().map(|(record, _)| record.bytes_of_lists()).sum()
    }

    fn last(&self) -> Record {
        self.records.last().map(|(record, _)| record.clone()).unwrap_or_default()
    }
}

fn unpack_layer(
    lower: Below,
    root: Rooted,
    below: &Record,
    layer: &Layer,
    tars: &mut Tars,
    options: &Options<'_>,
) -> Result<(Record, Below)> {
    let left_out: HashSet<Vec<u8>> = below.left_out.iter().cloned().collect();
    let applier = Applier::above(lower, root, options)?;
    let mut applier = applier.remembering((below.entries, below.bytes, below.claimed), left_out);
    applier.describe_root()?;
    apply_next(&mut applier, tars, options, Some(layer.descriptor()))?;
    options.observer.event(&Event::Unpacked { layer: layer.descriptor() });
    let (left_out, claimed) = (applier.left_out(), applier.claimed());
    let (lower, done) = applier.finish();
    let record = Record {
        diff_id: Some(layer.diff_id()),
        entries: done.entries,
        bytes: done.bytes,
        claimed,
        disk: 0,
        skipped: done.skipped,
        left_out,
    };
    Ok((record, lower))
}

/// Opens a record, and keeps it from being removed. None if it is not there, or about to go.
fn hold(dir: &Dir, name: &str) -> Result<Option<Locked<File>>> {
    let file = match dir.file(name) {
        Ok(file) => file,
        Err(error) if error.is_not_found() => return Ok(None),
        Err(error) => return Err(error),
    };
    let fail = |what, error: Errno| Error::io(what, &dir.path().join(name), error.into());
    let Some(file) = Locked::shared(file).map_err(|error| fail("lock", error))? else { return Ok(None) };
    let held = rustix::fs::fstat(&*file).map_err(|error| fail("look at", error))?;
    Ok(dir.stat(name)?.is_some_and(|stat| Inode::of(&stat) == Inode::of(&held)).then_some(file))
}

/// Removes what a killed process left, or one whose record was removed or damaged; not what somebody uses.
fn clear(dir: &Dir, name: &str, durability: Durability) -> Result<()> {
    let record = format!("{name}.json");
    let _alone = match dir.file(&record) {
        Ok(file) => Some(wait_until_unused(file, &dir.path().join(&record))?),
        Err(error) if error.is_not_found() => None,
        Err(error) => return Err(error),
    };
    dir.remove(&record)?;
    if dir.stat(name)?.is_none() {
        return Ok(());
    }
    // Without a record, no process takes the tree for complete. One that came back after a power cut would say so of
    // a tree of which half is gone.
    durability.sync_dir(dir)?;
    remove::remove(dir.as_fd(), name.as_bytes(), &mut Nothing)
        .map_err(|error| error.into_error(dir.path(), name.as_bytes()))
}

/// Waits for a lock on a record that nobody shares.
fn wait_until_unused(record: File, path: &Path) -> Result<Locked<File>> {
    match Locked::within(record, Sharing::Alone, PATIENCE) {
        Ok(Ok(record)) => Ok(record),
        Ok(Err((_, waited))) => Err(ErrorKind::Locked { path: path.to_owned(), waited, holder: None }.into()),
        Err(error) => Err(Error::io("lock", path, error.into())),
    }
}

/// Where layers lie that this process unpacks with these owners.
pub(crate) fn folder_of(ownership: &Ownership) -> String {
    let hashed = |text: String| Digest::sha256(text.as_bytes()).hex().to_string()[..16].to_owned();
    let folder = match ownership {
        Ownership::Preserve => "preserve".to_owned(),
        Ownership::CurrentUser => format!("user-{}", rustix::process::geteuid().as_raw()),
        Ownership::Mapped { uids, gids } => format!("mapped-{}", hashed(format!("{uids:?}{gids:?}"))),
    };
    match id_maps() {
        None => folder,
        // The same numbers are other users, and the marks have other names.
        Some(maps) => format!("{folder}-in-{}", hashed(maps)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// P11: what was unpacked and is not known is an error. The story: it was unpacked again, and again.
    #[test]
    fn what_was_written_is_known() {
        let scratch = tempfile::tempdir().unwrap();
        let dir = Dir::open(scratch.path()).unwrap();
        let (below, above) = (Digest::sha256(b"below"), Digest::sha256(b"above"));
        let write = |chain: Digest, text: &[u8]| {
            std::fs::create_dir(scratch.path().join(chain.hex().to_string())).unwrap();
            std::fs::write(scratch.path().join(format!("{}.json", chain.hex())), text).unwrap();
        };
        write(below, &Record::default().to_bytes(below).unwrap());
        write(above, b"{");
        assert_eq!(Known::all_of(&dir, &[below]).unwrap().records.len(), 1);
        let error = Known::all_of(&dir, &[below, above]).err().unwrap().to_string();
        let expected = format!("{}.json: it was written just now, and is not whole", above.hex());
        assert!(error.ends_with(&expected), "{error}");
    }
}
