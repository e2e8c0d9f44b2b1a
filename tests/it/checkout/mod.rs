//! Working copies: made in three ways, changed, asked what changed, committed, discarded.

mod crash;
mod laws;
mod life;
mod mounted;
mod places;
mod records;
mod strangers;
mod trouble;

use std::path::Path;

use layercake::Checkout;
use layercake::Image;
use layercake::Store;
use layercake::changeset::ChangeKind;
use layercake::changeset::Changes;
use layercake::checkout::CheckoutMode;
use layercake::checkout::CheckoutOptions;

use crate::support::tools::is_root;
use crate::support::tools::mounts_overlays;

/// The modes that can be had anywhere, and here.
fn modes() -> Vec<CheckoutMode> {
    let overlay = (is_root() && mounts_overlays()).then_some(CheckoutMode::Overlay);
    overlay.into_iter().chain([CheckoutMode::Copy]).collect()
}

#[track_caller]
fn checkout(image: &Image, path: &Path, mode: CheckoutMode) -> Checkout {
    let made = image.checkout_with(path, &CheckoutOptions::new().mode(mode));
    made.unwrap_or_else(|error| panic!("{mode}: {error}"))
}

/// The changes as `A path`, `M path`, `D path`.
fn listed(changes: &Changes) -> Vec<String> {
    let letter = |kind| match kind {
        ChangeKind::Added => 'A',
        ChangeKind::Modified => 'M',
        ChangeKind::Deleted => 'D',
    };
    changes.iter().map(|change| format!("{} {}", letter(change.kind), change.path.display())).collect()
}

fn records(store: &Store) -> usize {
    let Ok(entries) = std::fs::read_dir(store.path().join("layercake/checkouts")) else { return 0 };
    let names = entries.map(|entry| entry.unwrap().file_name());
    names.filter(|name| name.to_string_lossy().ends_with(".json")).count()
}
