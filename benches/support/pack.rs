//! Makes a layer of a tree, in a process of its own like the other programs.

use std::path::Path;
use std::process::Command;

use layercake::Algorithm;
use layercake::Compression;
use layercake::MediaType;
use layercake::Store;
use layercake::changeset::PackOptions;
use layercake::changeset::pack_tree;
use layercake::compression::EncoderOptions;

const OPTION: &str = "--pack";

/// Makes the layer, in a new store.
pub fn command(compression: Compression, tree: &Path, store: &Path) -> Command {
    let mut command = Command::new(std::env::current_exe().expect("a bench is a file"));
    command.args([OPTION, if compression == Compression::Zstd { "zstd" } else { "gzip" }]).arg(tree).arg(store);
    command
}

/// How large the layer is.
pub fn size(store: &Path) -> u64 {
    let blob = Store::open(store).and_then(|store| store.blobs()?.next().expect("it has one"));
    blob.expect("it can be read").1
}

/// If this process is that one: does it.
pub fn is_it(arguments: &[String]) -> bool {
    let [option, compression, tree, store] = arguments else { return false };
    if option == OPTION {
        let compression = if compression == "zstd" { Compression::Zstd } else { Compression::Gzip };
        pack(compression, tree, store).expect("the tree can be packed");
    }
    option == OPTION
}

/// A layer as a commit makes it: both its digests are known, and it is in a store for good.
fn pack(compression: Compression, tree: &str, store: &str) -> layercake::Result<()> {
    let writer = Store::create(store)?.writer(Algorithm::Sha256)?;
    let mut encoder = EncoderOptions::new(compression).encode(writer)?;
    let _ = pack_tree(tree, &mut encoder, &PackOptions::new())?;
    encoder.finish()?.commit(MediaType::OCTET_STREAM).map(drop)
}
