//! A way through layers as overlayfs shows them, one upon another.
//!
//! Each step looks at one name in the directories that were reached: however deep these are, it costs the same.

use std::rc::Rc;

use rustix::fs::AtFlags;
use rustix::fs::FileType;
use rustix::fs::Stat;
use rustix::io::Errno;

use crate::changeset::overlay::Found;
use crate::changeset::overlay::Overlay;
use crate::error::Error;
use crate::error::Result;
use crate::fs::rooted::Folder;
use crate::fs::rooted::Inode;
use crate::fs::rooted::Rooted;

/// Where a way has come to. Nothing on it is a link; what is missing, or is a file, is taken for a directory.
#[derive(Debug)]
pub(super) struct Course {
    overlay: Rc<Overlay>,
    /// The topmost layer first. None is walked through before it is looked at.
    layers: Vec<InLayer>,
    names: Vec<Vec<u8>>,
}

impl Course {
    /// From the root: of the layers below, or of `layer` above them.
    pub(super) fn new(overlay: &Rc<Overlay>, layer: Option<&Rc<Rooted>>) -> Result<Course> {
        let layers = layer.into_iter().chain(overlay.lower()).map(InLayer::new).collect::<Result<_>>()?;
        Ok(Course { overlay: Rc::clone(overlay), layers, names: Vec::new() })
    }

    /// What has this name here.
    pub(super) fn look(&mut self, name: &[u8]) -> Result<Option<Found>> {
        for layer in &mut self.layers {
            layer.catch_up(&self.overlay, &self.names)?;
            match layer.look(&self.overlay, name)? {
                Seen::Nothing => {}
                Seen::Hidden => return Ok(None),
                Seen::Here(stat) => {
                    let folder = layer.folder.again().map_err(|error| layer.error(name, error))?;
                    return Ok(Some(Found::new(folder, name, stat)));
                }
            }
        }
        Ok(None)
    }

    /// Goes on to a name.
    pub(super) fn enter(&mut self, name: &[u8]) {
        self.names.push(name.to_vec());
    }

    /// Goes up, to where the path has so many names.
    pub(super) fn leave_to(&mut self, depth: usize) -> Result<()> {
        self.names.truncate(depth);
        self.layers.iter_mut().try_for_each(|layer| layer.leave_to(depth))
    }

    pub(super) fn depth(&self) -> usize {
        self.names.len()
    }

    pub(super) fn path(&self) -> Vec<u8> {
        self.names.join(&b'/')
    }

    /// How many names a path has, if it leads to where this is, or to a directory above.
    fn passed(&self, path: &[u8]) -> Option<usize> {
        let mut names = self.names.iter();
        let mut path = path.split(|byte| *byte == b'/').filter(|name| !name.is_empty());
        path.all(|name| names.next().is_some_and(|passed| passed == name)).then(|| self.names.len() - names.len())
    }
}

/// What one walk through a layer knows of those below, where it has passed: else each step would begin at the root.
#[derive(Debug, Default)]
pub(super) struct Passage(Option<Passed>);

#[derive(Debug)]
struct Passed {
    below: Course,
    /// How many names lead to where the layer hides all that lies below.
    covered: Option<usize>,
}

impl Passage {
    /// At a directory of the layer.
    pub(super) fn at(overlay: &Rc<Overlay>, path: &[u8], covered: Option<usize>) -> Result<Passage> {
        let mut below = Course::new(overlay, None)?;
        path.split(|byte| *byte == b'/').filter(|name| !name.is_empty()).for_each(|name| below.enter(name));
        Ok(Passage(Some(Passed { below, covered })))
    }

    /// How many names a directory's path has, if it was passed.
    pub(super) fn depth_of(&self, path: &[u8]) -> Option<usize> {
        self.0.as_ref().and_then(|passed| passed.below.passed(path))
    }

    /// Goes back to a directory that was passed, and looks for what lies below at a name in it.
    pub(super) fn look(&mut self, path: &[u8], name: &[u8]) -> Result<Option<Found>> {
        let depth = self.depth_of(path);
        let (Some(Passed { below, covered }), Some(depth)) = (&mut self.0, depth) else { return Ok(None) };
        below.leave_to(depth)?;
        if covered.is_some_and(|from| from <= depth) { Ok(None) } else { below.look(name) }
    }

    /// Goes on to a directory that was made where it looked.
    pub(super) fn enter(&mut self, name: &[u8]) {
        if let Some(passed) = &mut self.0 {
            passed.below.enter(name);
        }
    }
}

/// What a layer says of a name.
enum Seen {
    Here(Stat),
    /// Whatever lies below is not visible.
    Hidden,
    Nothing,
}

/// Where a way has come to in one layer: to a directory, and so many names beyond what the layer has.
#[derive(Debug)]
struct InLayer {
    layer: Rc<Rooted>,
    folder: Folder,
    /// Whether the directory hides what lies below.
    opaque: bool,
    /// The directories above it, and whether they do.
    above: Vec<(Inode, bool)>,
    beyond: usize,
    /// Whether what lies below is hidden there.
    hidden: bool,
}

impl InLayer {
    fn new(layer: &Rc<Rooted>) -> Result<InLayer> {
        let (layer, folder) = (Rc::clone(layer), layer.root()?);
        Ok(InLayer { layer, folder, opaque: false, above: Vec::new(), beyond: 0, hidden: false })
    }

    fn depth(&self) -> usize {
        self.above.len() + self.beyond
    }

    fn catch_up(&mut self, overlay: &Overlay, names: &[Vec<u8>]) -> Result<()> {
        for name in &names[self.depth()..] {
            self.enter(overlay, name)?;
        }
        Ok(())
    }

    fn look(&self, overlay: &Overlay, name: &[u8]) -> Result<Seen> {
        let nothing = |hidden| if hidden { Seen::Hidden } else { Seen::Nothing };
        if self.beyond > 0 {
            return Ok(nothing(self.hidden));
        }
        match rustix::fs::statat(&self.folder, name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) if overlay.is_whiteout(&self.folder, name, &stat) => Ok(Seen::Hidden),
            Ok(stat) => Ok(Seen::Here(stat)),
            Err(Errno::NOENT | Errno::NAMETOOLONG) => Ok(nothing(self.opaque)),
            Err(error) => Err(self.error(name, error)),
        }
    }

    /// Goes on to a name. What is no directory hides what lies below.
    fn enter(&mut self, overlay: &Overlay, name: &[u8]) -> Result<()> {
        let hidden = match self.look(overlay, name)? {
            Seen::Here(stat) if FileType::from_raw_mode(stat.st_mode) == FileType::Directory => {
                return self.descend(overlay, name).map_err(|error| self.error(name, error));
            }
            Seen::Here(_) | Seen::Hidden => true,
            Seen::Nothing => false,
        };
        self.beyond += 1;
        self.hidden = hidden;
        Ok(())
    }

    fn descend(&mut self, overlay: &Overlay, name: &[u8]) -> Result<(), Errno> {
        let child = self.folder.child(name)?;
        self.above.push((self.folder.inode()?, self.opaque));
        self.opaque |= overlay.is_opaque(&child);
        self.folder = child;
        Ok(())
    }

    fn leave_to(&mut self, depth: usize) -> Result<()> {
        self.beyond -= self.depth().saturating_sub(depth).min(self.beyond);
        while self.above.len() > depth
            && let Some((inode, opaque)) = self.above.pop()
        {
            self.folder = self.folder.above(inode).map_err(|error| self.error(b"..", error))?;
            self.opaque = opaque;
        }
        Ok(())
    }

    fn error(&self, name: &[u8], error: Errno) -> Error {
        self.layer.error("look at", &self.folder.join(name), error)
    }
}
