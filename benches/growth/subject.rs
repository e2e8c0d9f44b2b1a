//! What there is more and more of.

use std::cell::OnceCell;
use std::fs::File;
use std::io::Write;
use std::path::Path;
use std::path::PathBuf;

use super::names;
use super::support::image::Image;
use super::support::made;
use super::support::ours::Work;
use super::support::registry::Registry;
use super::support::scratch::Room;
use super::support::scratch::Scratch;
use super::support::setting;

#[derive(Clone, Copy, PartialEq)]
pub enum Series {
    Files,
    Bytes,
    Layers,
    Names,
}

/// An image of so many units, or a store of so many names.
pub struct Subject {
    pub units: usize,
    image: Option<Image>,
    /// In this order these are dropped: what is in a directory before the directory.
    registry: OnceCell<(Registry, String)>,
    copy: OnceCell<Work>,
    memory: Scratch,
    home: Room,
}

impl Series {
    pub const ALL: [Series; 4] = [Series::Files, Series::Bytes, Series::Layers, Series::Names];

    /// As it is named on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Series::Files => "files",
            Series::Bytes => "bytes",
            Series::Layers => "layers",
            Series::Names => "names",
        }
    }

    /// What one of it is called.
    pub fn unit(self) -> &'static str {
        match self {
            Series::Files => "file",
            Series::Bytes => "MiB",
            Series::Layers => "layer",
            Series::Names => "name",
        }
    }

    /// What many of it are called.
    pub fn plural(self) -> &'static str {
        if self == Series::Bytes { self.unit() } else { self.name() }
    }

    /// How many units there are at so many times; at none, as few as there can be.
    pub fn units(self, times: usize) -> usize {
        let base = match self {
            Series::Files => 5000,
            Series::Bytes => 32,
            Series::Layers => 5,
            Series::Names => 500,
        };
        match (times, self) {
            (0, Series::Bytes) => 0,
            // A name is moved from one image to another.
            (0, Series::Names) => 2,
            (0, _) => 1,
            _ => (base * setting("LAYERCAKE_BENCH_SCALE", 100) / 100).max(1) * times,
        }
    }
}

impl Subject {
    pub fn make(series: Series, units: usize, scratch: &Scratch) -> Subject {
        let home = scratch.room("growth");
        let (layout, trees) = (home.path.join("layout"), home.path.join("trees"));
        let of = |trees: Vec<PathBuf>| Some(Image::of_trees(&trees, &layout));
        let image = match series {
            Series::Files => of(vec![made::small_files(trees.clone(), units)]),
            Series::Bytes => of(vec![made::big_file(trees.clone(), units)]),
            Series::Layers => of(made::thin_layers(&trees, units)),
            Series::Names => {
                names::fill(layout, units);
                None
            }
        };
        let memory = Scratch::in_memory();
        Subject { units, image, registry: OnceCell::new(), copy: OnceCell::new(), memory, home }
    }

    /// The image's layout, or the store of names.
    pub fn layout(&self) -> PathBuf {
        self.home.path.join("layout")
    }

    /// What the image's only layer was made of.
    pub fn tree(&self) -> PathBuf {
        self.home.path.join("trees")
    }

    /// Its name in a registry that has it.
    pub fn remote(&self) -> &str {
        let fill = || {
            let registry = Registry::start(&self.home.path);
            let name = registry.fill(self.image.as_ref().expect("only images are pulled"), "bench/app:latest");
            (registry, name)
        };
        &self.registry.get_or_init(fill).1
    }

    /// A working copy, made by copying, in which one file is changed each time.
    pub fn changed_copy(&self) -> &Work {
        let make = || Work::make(&self.layout(), "copy", self.home.path.join("copy")).expect("it can be checked out").0;
        let work = self.copy.get_or_init(make);
        let file = first_file(&work.root());
        let mut file = File::options().append(true).open(file).expect("the file can be written to");
        writeln!(file, "one more").expect("the file can be written to");
        work
    }

    /// Room in memory, empty.
    pub fn room(&self) -> Room {
        self.memory.room("target")
    }

    /// Room beside the layout, empty.
    pub fn room_on_disk(&self) -> Room {
        self.home.room("room")
    }
}

fn first_file(root: &Path) -> PathBuf {
    root.join("d0000/f0")
}
