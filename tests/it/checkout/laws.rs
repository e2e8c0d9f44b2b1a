//! Laws, for random images and random changes.

use std::path::Path;
use std::time::Duration;
use std::time::SystemTime;

use layercake::Digest;
use layercake::Durability;
use layercake::Image;
use layercake::changeset::apply;
use layercake::checkout::CheckoutMode;
use layercake::checkout::CommitOptions;
use layercake::testing::Fixture;

use super::checkout;
use super::modes;
use crate::support::Scratch;
use crate::support::model;
use crate::support::model::Change;
use crate::support::model::Random;
use crate::support::platform;
use crate::support::tape::tar_of;
use crate::support::tools::is_root;
use crate::support::tree::Lines;
use crate::support::tree::lines;
use crate::support::tree::said;
use crate::support::unsynced;

const STACKS: u64 = 150;

/// An image, and a layer that is to change a working copy of it.
struct Case<'a> {
    below: &'a [Vec<Change>],
    change: &'a [Change],
}

impl Case<'_> {
    /// As overlayfs has it, a file that gets another name through one of its names loses the others.
    fn tears_links(&self) -> bool {
        let links = |layer: &[Change]| layer.iter().any(|change| matches!(change, Change::HardLink { .. }));
        links(self.change) && self.below.iter().any(|layer| links(layer))
    }

    /// What layers say of the tree, without names of one file if these do not count.
    fn seen(&self, root: &Path) -> Lines {
        let lines = said(lines(root));
        if !self.tears_links() {
            return lines;
        }
        let shorter = |line: String| line.rsplit_once("Some(").map_or(line.clone(), |(start, _)| start.to_owned());
        lines.into_iter().map(|(path, line)| (path, shorter(line))).collect()
    }

    /// Changes a working copy, commits it, and compares what the commit unpacks to. Returns the layers' diff ids.
    fn commit(&self, image: &Image, scratch: &Scratch, mode: CheckoutMode) -> Vec<Digest> {
        let at = |seconds| CommitOptions::new().created(SystemTime::UNIX_EPOCH + Duration::from_secs(seconds));
        let work = checkout(image, &scratch.path("work"), mode);
        assert!(work.changes().unwrap().is_empty(), "{mode}: untouched");
        let _ = apply(&tar_of(self.change)[..], work.root(), &unsynced()).unwrap();
        let expected = self.seen(work.root());
        let child = work.commit_with(&at(1 << 32)).unwrap();
        let _ = child.unpack(scratch.path("rootfs")).unwrap();
        let found = self.seen(&scratch.path("rootfs"));
        for path in found.keys().chain(expected.keys()) {
            let name = String::from_utf8_lossy(path);
            assert_eq!(found.get(path), expected.get(path), "{mode}, {name}\n{:#?}\n{:#?}", self.below, self.change);
        }
        // Directories were changed just now, at another moment in each mode.
        let timeless = work.commit_with(&at(0)).unwrap();
        std::fs::remove_dir_all(scratch.path("rootfs")).unwrap();
        work.discard().unwrap();
        timeless.config().unwrap().diff_ids().unwrap().to_vec()
    }
}

/// commit(change(checkout(a))) unpacks to what the working copy was, in whichever mode, for random changes; and the
/// modes make one layer, byte for byte.
#[test]
fn a_commit_unpacks_to_the_working_copy() {
    if !is_root() {
        return;
    }
    let scratch = Scratch::new();
    let mut committed = 0;
    for seed in 0..STACKS {
        let layers = model::random_stack(&mut Random(seed));
        let Some((change, below)) = layers.split_last() else { continue };
        if model::apply(&layers).is_err() {
            continue;
        }
        println!("seed {seed}");
        let case = Case { below, change };
        let store = scratch.store("store").with_durability(Durability::None);
        let fixture = below.iter().fold(Fixture::new(platform("linux/amd64")), |f, layer| f.raw_layer(tar_of(layer)));
        let image = store.image_at(&fixture.write(&store).unwrap()).unwrap();
        let made: Vec<_> = modes().into_iter().map(|mode| case.commit(&image, &scratch, mode)).collect();
        let is_one = made.iter().all(|diff_ids| *diff_ids == made[0]);
        assert!(is_one || case.tears_links(), "{made:?}\n{below:#?}\n{change:#?}");
        committed += 1;
        std::fs::remove_dir_all(scratch.path("store")).unwrap();
    }
    println!("{committed} of {STACKS} stacks");
    assert!(committed * 2 > STACKS);
}
