//! Things put on what stands: where they go, and what must be said of the directories on the way.

use std::collections::HashMap;
use std::io::Sink;
use std::io::Write;

use tar::EntryType;

use crate::changeset::Fields;
use crate::changeset::Output;
use crate::changeset::Packed;
use crate::changeset::Skipped;
use crate::changeset::TarWriter;
use crate::changeset::check_stored;
use crate::changeset::clean;
use crate::changeset::hiding;
use crate::changeset::join;
use crate::changeset::split;
use crate::digest::Digest;
use crate::error::Error;
use crate::error::Result;
use crate::error::printable;
use crate::fs::rooted::MAX_LINKS;
use crate::fs::rooted::push;
use crate::image::Standing;
use crate::image::merged::Kind;
use crate::image::merged::ROOT;
use crate::memory::MemoryReservation;
use crate::memory::allocated;

/// The mode of directories that nobody described.
const NEW_MODE: u32 = 0o755;
/// The bytes of an element of each map; half of a map may be free.
const FOLDER_BYTES: usize = 2 * size_of::<(Vec<u8>, Vec<u8>)>();
const PUT_BYTES: usize = 2 * size_of::<(Vec<u8>, bool)>();

/// A layer that grows on what stands. It takes the entries of a tree, or of one thing, and puts them where
/// [`tree`](Onto::tree) or [`thing`](Onto::thing) said.
///
/// A directory that stands stays as it is: it gets the entry that it has already, because programs make directories
/// without one as they like. Links to directories are followed as they are when a layer is applied, so no entry's path
/// leads through one.
pub(crate) struct Onto<'a, W> {
    standing: &'a Standing,
    tar: TarWriter<W>,
    /// What came, as it came.
    plain: TarWriter<Sink>,
    /// Where the source's directories went, by their paths there.
    folders: HashMap<Vec<u8>, Vec<u8>>,
    /// Where the only thing of the source goes.
    thing: Option<Vec<u8>>,
    /// What has an entry, and whether it is a directory.
    put: HashMap<Vec<u8>, bool>,
    /// The time of directories that are made on the way.
    seconds: i64,
    is_empty: bool,
    /// The memory of the paths.
    memory: MemoryReservation,
}

/// Where a path leads, by directories alone.
struct Way {
    path: Vec<u8>,
    /// What stands there; none if something on the way does not.
    node: Option<usize>,
}

impl<'a, W: Write> Onto<'a, W> {
    pub(crate) fn new(standing: &'a Standing, writer: W, seconds: i64) -> Onto<'a, W> {
        let (tar, plain) = (TarWriter::new(writer), TarWriter::new(std::io::sink()));
        let (folders, put) = (HashMap::new(), HashMap::new());
        let memory = standing.budget().reservation();
        Onto { standing, tar, plain, folders, thing: None, put, seconds, is_empty: true, memory }
    }

    /// What is in the source's root goes into the directory at `path`.
    pub(crate) fn tree(&mut self, path: &[u8]) -> Result<()> {
        let way = self.way(path)?;
        self.stand(&way.path)?;
        self.keep_folder(Vec::new(), way.path)
    }

    /// The only thing of the source goes to `path`, and is called as its last component says.
    pub(crate) fn thing(&mut self, path: &[u8]) -> Result<()> {
        let (parent, name) = split(path);
        if name.is_empty() {
            return Err(Error::invalid_input("it cannot take the place of the root: say where it goes"));
        }
        let way = self.way(parent)?;
        self.thing = Some(join(&way.path, name));
        Ok(())
    }

    /// Hides what has a path.
    pub(crate) fn remove(&mut self, path: &[u8]) -> Result<()> {
        let (parent, name) = split(path);
        let way = self.way(parent)?;
        if name.is_empty() || way.node.and_then(|node| self.child(node, name)).is_none() {
            return Err(Error::not_found(shown(path)));
        }
        self.stand(&way.path)?;
        self.is_empty = false;
        self.tar.put(Fields::new(EntryType::Regular, hiding(&join(&way.path, name))))
    }

    /// Ends the tar. Says what was packed, unless that changes nothing, and the digest of what came.
    pub(crate) fn finish(self, skipped: Vec<Skipped>) -> Result<(Option<Packed>, Digest)> {
        let plain = self.plain.finish(Vec::new())?.diff_id;
        let packed = self.tar.finish(skipped)?;
        Ok(((!self.is_empty).then_some(packed), plain))
    }

    fn child(&self, node: usize, name: &[u8]) -> Option<usize> {
        match &self.standing.tree().node(node).kind {
            Kind::Directory(directory) => directory.children.get(name).map(|name| name.node()),
            _ => None,
        }
    }

    /// Where a path leads as a directory's. What is missing on it is to be made.
    fn way(&self, path: &[u8]) -> Result<Way> {
        let mut names: Vec<Vec<u8>> = Vec::new();
        // Of the directories on the way those that stand, from the root.
        let mut nodes = vec![ROOT];
        let mut ahead = Vec::new();
        push(&mut ahead, path);
        let mut links = 0;
        while let Some(name) = ahead.pop() {
            if name == b".." {
                names.pop();
                nodes.truncate(names.len() + 1);
                continue;
            }
            let here = nodes.last().filter(|_| nodes.len() == names.len() + 1);
            let found = here.and_then(|here| self.child(*here, &name));
            match found.map(|node| (node, &self.standing.tree().node(node).kind)) {
                None => names.push(name),
                Some((node, Kind::Directory(_))) => {
                    names.push(name);
                    nodes.push(node);
                }
                Some((_, Kind::Symlink(_))) if links == MAX_LINKS => {
                    return Err(Error::invalid_input(format!("{}: links lead in circles", shown(path))));
                }
                Some((_, Kind::Symlink(target))) => {
                    links += 1;
                    if target.starts_with(b"/") {
                        names.clear();
                        nodes.truncate(1);
                    }
                    push(&mut ahead, target);
                }
                Some(_) => {
                    names.push(name);
                    let found = shown(&names.join(&b'/'));
                    return Err(Error::invalid_input(format!("{found} is no directory, and something goes into it")));
                }
            }
        }
        let node = nodes.last().copied().filter(|_| nodes.len() == names.len() + 1);
        Ok(Way { path: names.join(&b'/'), node })
    }

    /// Sees to it that a directory and those above it have entries.
    fn stand(&mut self, path: &[u8]) -> Result<()> {
        let mut node = Some(ROOT);
        let ends = path.iter().enumerate().filter(|(_, byte)| **byte == b'/').map(|(at, _)| at);
        for end in ends.chain([path.len()]).filter(|end| *end > 0) {
            let path = &path[..end];
            node = node.and_then(|node| self.child(node, split(path).1));
            match self.put.get(path) {
                Some(true) => continue,
                Some(false) => return twice(path),
                None => {}
            }
            check_stored(path)?;
            let new =
                || Fields { mode: NEW_MODE, seconds: self.seconds, ..Fields::new(EntryType::Directory, Vec::new()) };
            let fields = match node {
                Some(node) => self.standing.directory(node, path),
                None => Fields { path: [path, b"/"].concat(), ..new() },
            };
            self.is_empty &= node.is_some();
            self.keep_put(path, true)?;
            self.tar.put(fields)?;
        }
        Ok(())
    }

    /// Keeps the place of a directory of the source.
    fn keep_folder(&mut self, source: Vec<u8>, path: Vec<u8>) -> Result<()> {
        self.memory.grow(FOLDER_BYTES + allocated(source.len()) + allocated(path.len()))?;
        self.folders.insert(source, path);
        Ok(())
    }

    /// Keeps the path of an entry. Says whether it had one already.
    fn keep_put(&mut self, path: &[u8], is_directory: bool) -> Result<bool> {
        self.memory.grow(PUT_BYTES + allocated(path.len()))?;
        Ok(self.put.insert(path.to_vec(), is_directory).is_some())
    }

    fn put_directory(&mut self, fields: Fields) -> Result<()> {
        let source = clean(&fields.path);
        let (parent, name) = split(&source);
        let way = self.way(&join(&self.folder(parent)?, name))?;
        if way.node.is_none() && !self.put.contains_key(&way.path) {
            self.stand(split(&way.path).0)?;
            check_stored(&way.path)?;
            self.keep_put(&way.path, true)?;
            self.is_empty = false;
            self.tar.put(Fields { path: [&way.path, &b"/"[..]].concat(), ..fields })?;
        }
        self.stand(&way.path)?;
        self.keep_folder(source, way.path)
    }

    fn put_thing(&mut self, mut fields: Fields) -> Result<()> {
        let path = self.place(&fields.path)?;
        if fields.kind == EntryType::Link {
            fields.link = self.place(&fields.link)?;
        }
        let (parent, name) = split(&path);
        let there = self.way(parent)?.node.and_then(|node| self.child(node, name));
        if there.is_some_and(|node| matches!(self.standing.tree().node(node).kind, Kind::Directory(_))) {
            let path = shown(&path);
            return Err(Error::invalid_input(format!(
                "{path} is a directory, and something else would take its place"
            )));
        }
        check_stored(&path)?;
        self.stand(parent)?;
        if self.keep_put(&path, false)? {
            return twice(&path);
        }
        self.is_empty = false;
        self.tar.put(Fields { path, ..fields })
    }

    /// Where what is no directory goes.
    fn place(&self, source: &[u8]) -> Result<Vec<u8>> {
        match &self.thing {
            Some(path) => Ok(path.clone()),
            None => {
                let (parent, name) = split(source);
                Ok(join(&self.folder(parent)?, name))
            }
        }
    }

    fn folder(&self, source: &[u8]) -> Result<Vec<u8>> {
        let found = self.folders.get(source).cloned();
        found.ok_or_else(|| Error::invalid_input(format!("{} came before its directory", shown(source))))
    }
}

impl<W: Write> Output for Onto<'_, W> {
    fn put(&mut self, fields: Fields) -> Result<()> {
        self.plain.put(fields.clone())?;
        match fields.kind {
            EntryType::Directory => self.put_directory(fields),
            _ => self.put_thing(fields),
        }
    }

    fn write(&mut self, bytes: &[u8]) -> Result<()> {
        self.plain.write(bytes)?;
        self.tar.write(bytes)
    }

    fn pad(&mut self) -> Result<()> {
        self.plain.pad()?;
        self.tar.pad()
    }
}

fn twice<T>(path: &[u8]) -> Result<T> {
    Err(Error::invalid_input(format!("two things go to {}", shown(path))))
}

fn shown(path: &[u8]) -> String {
    format!("/{}", printable(&String::from_utf8_lossy(path), 4096))
}
