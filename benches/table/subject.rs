//! The images.

use std::cell::OnceCell;
use std::path::Path;
use std::path::PathBuf;

use layercake::Compression;

use super::support::image::Image;
use super::support::made;
use super::support::registry::Registry;
use super::support::scratch::Room;
use super::support::scratch::Scratch;
use super::support::setting;

#[derive(Clone, Copy, PartialEq)]
pub enum Kind {
    Reference,
    Alpine,
    SmallFiles,
    BigFile,
    ThinLayers,
    Zstd,
}

/// An image, and where jobs are done with it.
pub struct Subject<'a> {
    pub image: Image,
    scratch: &'a Scratch,
    memory: Scratch,
    registry: OnceCell<(Registry, String)>,
    tree: OnceCell<PathBuf>,
    home: Room,
}

impl Kind {
    pub const ALL: [Kind; 6] =
        [Kind::Reference, Kind::Alpine, Kind::SmallFiles, Kind::BigFile, Kind::ThinLayers, Kind::Zstd];

    /// As it is named on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Kind::Reference => "reference",
            Kind::Alpine => "alpine",
            Kind::SmallFiles => "small-files",
            Kind::BigFile => "big-file",
            Kind::ThinLayers => "thin-layers",
            Kind::Zstd => "zstd",
        }
    }

    /// As the table names it.
    pub fn title(self) -> &'static str {
        match self {
            Kind::Reference => "reference",
            Kind::Alpine => "alpine",
            Kind::SmallFiles => "small files",
            Kind::BigFile => "one big file",
            Kind::ThinLayers => "thin layers",
            Kind::Zstd => "reference, zstd",
        }
    }

    /// What is made of trees is made of files on the disk, which are out of the way before anything is measured.
    fn image(self, home: &Room) -> Option<Image> {
        let (layout, room) = (home.path.join("layout"), home.room("made"));
        let (home, trees) = (&home.path, room.path.join("trees"));
        let of = |trees: &[PathBuf]| Image::of_trees(trees, &layout);
        Some(match self {
            Kind::Reference => reference(&layout, &trees),
            Kind::Alpine => {
                let archive = std::env::var_os("LAYERCAKE_BENCH_ALPINE").or_else(|| {
                    eprintln!("alpine is left out: LAYERCAKE_BENCH_ALPINE names no archive");
                    None
                })?;
                // Archives are not compressed, and what registries have is.
                Image::loaded(Path::new(&archive), &home.join("plain")).compressed(Compression::Gzip, &layout)
            }
            Kind::SmallFiles => of(&[made::small_files(trees.clone(), setting("LAYERCAKE_BENCH_FILES", 100_000))]),
            Kind::BigFile => of(&[made::big_file(trees.clone(), setting("LAYERCAKE_BENCH_MIB", 1024))]),
            Kind::ThinLayers => of(&made::thin_layers(&trees, setting("LAYERCAKE_BENCH_LAYERS", 60))),
            Kind::Zstd if cfg!(feature = "zstd") => {
                reference(&home.join("gzip"), &trees).compressed(Compression::Zstd, &layout)
            }
            Kind::Zstd => return None,
        })
    }
}

/// The one that is given, or one of 4,100 files and 64 MiB of noise, or a part of that if less is to be made.
fn reference(layout: &Path, trees: &Path) -> Image {
    match std::env::var("LAYERCAKE_BENCH_IMAGE") {
        Ok(source) => Image::given(&source, layout),
        Err(_) => {
            let (files, mebibytes) = (setting("LAYERCAKE_BENCH_FILES", 4000), setting("LAYERCAKE_BENCH_MIB", 64));
            Image::of_trees(&made::system(trees, files.min(4000), mebibytes.min(64)), layout)
        }
    }
}

impl<'a> Subject<'a> {
    pub fn make(kind: Kind, scratch: &'a Scratch) -> Option<Subject<'a>> {
        let home = scratch.room("image");
        let image = kind.image(&home)?;
        let memory = Scratch::in_memory();
        Some(Subject { image, scratch, memory, registry: OnceCell::new(), tree: OnceCell::new(), home })
    }

    /// Its name in a registry that has it.
    pub fn remote(&self) -> &str {
        let fill = || {
            let registry = self.new_registry();
            let name = registry.fill(&self.image, "bench/app:latest");
            (registry, name)
        };
        &self.registry.get_or_init(fill).1
    }

    /// An empty registry.
    pub fn new_registry(&self) -> Registry {
        Registry::start(self.scratch.path())
    }

    /// Room on the disk, empty.
    pub fn room(&self, what: &str) -> Room {
        self.scratch.room(what)
    }

    /// Room in memory, empty.
    pub fn room_in_memory(&self) -> Room {
        self.memory.room("target")
    }

    /// A tree of which a layer can be made: that of its lowest one.
    pub fn tree(&self) -> &Path {
        self.tree.get_or_init(|| {
            let tree = self.home.path.join("tree");
            self.image.unpack_lowest(&tree);
            tree
        })
    }
}
