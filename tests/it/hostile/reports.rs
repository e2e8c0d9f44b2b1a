//! Lists of what was left out, made as long as can be.

use layercake::ErrorKind;
use layercake::changeset::Layout;
use layercake::changeset::SkippedPart;
use layercake::checkout::CheckoutMode;
use layercake::checkout::CheckoutOptions;
use layercake::error::Limit;
use layercake::testing::Fixture;

use super::applied;
use super::exceeds;
use crate::assert_kind;
use crate::breakouts::options;
use crate::support::Scratch;
use crate::support::failure;
use crate::support::platform;
use crate::support::tape::Item;
use crate::support::tape::tar;

/// What the list of a report may take.
const MOST: u64 = 32 << 20;

/// A path that is nearly as long as paths may be.
fn deep() -> String {
    vec!["d".repeat(250); 15].join("/")
}

/// Devices that are left out by overlayfs' directories, by way of a short link.
fn left_out(count: usize) -> Vec<Item> {
    let mut items = vec![Item::dir(deep()), Item::symlink("s", deep())];
    items.extend((0..count).map(|n| Item::device(b'3', format!("s/{n}"), 0, 0)));
    items
}

/// P9: a name may have a MiB in the extended header, and no attribute has one of more than 255 bytes: the beginning is
/// reported, fit for a terminal. The story: 559 KB of layer took 526 MB.
#[test]
fn long_names_of_attributes_are_reported_short() {
    let name = format!("user.\u{1b}{}", "a".repeat(1_000_000));
    let done = applied(&tar(&[Item::file("f", "").xattr(&name, "")]));
    let [skipped] = &done.report.skipped[..] else { panic!("{} things", done.report.skipped.len()) };
    assert_eq!(skipped.what, SkippedPart::Xattr(format!("{}…", &name[..255])));
    let shown = format!("f: attribute user. {}…: ", "a".repeat(249));
    assert!(skipped.to_string().starts_with(&shown), "{skipped}");
}

/// P9: what is reported is bounded by bytes too. One header makes 20 thousand things of it, each with a path of 4 KB.
#[test]
fn reports_take_so_many_bytes() {
    let path = format!("{}/f", deep());
    let item = (0..20_000).fold(Item::file(path, ""), |item, n| item.xattr(&format!("user.overlay.{n}"), ""));
    assert_eq!(exceeds(&tar(&[item]), &options()), (Limit::ReportedBytes, MOST));
}

/// P9: so is what is remembered of things that were left out, which may have longer paths than those reported.
#[test]
fn what_is_remembered_takes_so_many_bytes() {
    let overlay = options().layout(Layout::Overlay);
    assert_eq!(exceeds(&tar(&left_out(9_000)), &overlay), (Limit::ReportedBytes, MOST));
}

/// P9: each layer that is unpacked in the store has a record with all of that, those below counted: one layer that
/// leaves much out, and many above it, are much too much.
#[test]
fn records_of_many_layers_take_so_many_bytes() {
    let scratch = Scratch::new();
    let store = scratch.store("store");
    let base = Fixture::new(platform("linux/amd64")).raw_layer(tar(&left_out(3_000)));
    let options = CheckoutOptions::new().mode(CheckoutMode::Copy);
    let image = |above: u32| {
        let layer = |fixture: Fixture, n| fixture.raw_layer(tar(&[Item::file(format!("f{n}"), "")]));
        store.image_at(&(0..above).fold(base.clone(), layer).write(&store).unwrap()).unwrap()
    };
    let error = failure(image(4).checkout_with(scratch.path("many"), &options));
    assert_kind!(error, ErrorKind::LimitExceeded { limit: Limit::ReportedBytes, maximum: MOST });
    // Where some of them are there already it is the same.
    image(1).checkout_with(scratch.path("few"), &options).unwrap().discard().unwrap();
    let error = failure(image(4).checkout_with(scratch.path("many"), &options));
    assert_kind!(error, ErrorKind::LimitExceeded { limit: Limit::ReportedBytes, maximum: MOST });
}
