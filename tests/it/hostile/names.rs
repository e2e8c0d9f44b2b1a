//! Names that nothing can have, or that only something of ours would have.

use layercake::ErrorKind;
use layercake::changeset::apply;

use super::applied;
use super::becomes;
use super::fails;
use crate::assert_kind;
use crate::breakouts::listing;
use crate::breakouts::options;
use crate::support::tape::Item;
use crate::support::tape::tar;

/// L7: nothing has a name that is longer than names can be; adding it is an error.
#[test]
fn names_can_be_too_long() {
    for long in [252, 256, 3000].map(|length| "n".repeat(length)) {
        let hiding = [".wh.", "d/.wh.", "d/f/.wh."].map(|start| Item::new(b'0', "").path(format!("{start}{long}nnnn")));
        let inside = [".wh.b", ".wh..wh..opq"].map(|end| Item::new(b'0', "").path(format!("{long}nnnn/{end}")));
        let layer = [&[Item::file("d/f", "f")][..], &hiding, &inside].concat();
        becomes(&tar(&layer), &["d/", "d/f: f"]);
        let error = fails(&tar(&[Item::new(b'0', "").path(format!("{long}nnnn"))]), &options());
        assert_kind!(error, ErrorKind::Io { .. });
    }
}

/// What is made for a moment takes the name of nothing that a layer has.
#[test]
fn no_name_is_ours() {
    let layer = [Item::file("a", "a"), Item::file("b", "b"), Item::file(".wh..layercake-link/x", "x")];
    let layer = [&layer[..], &[Item::file(".wh..layercake-Probe-\u{e9}/x", "x"), Item::hard_link("b", "a")]].concat();
    let done = applied(&tar(&layer));
    let again = apply(&tar(&layer)[..], &done.root, &options()).unwrap();
    assert!(again.skipped.is_empty());
    let expected = [
        ".wh..layercake-Probe-\u{e9}/",
        ".wh..layercake-Probe-\u{e9}/x: x",
        ".wh..layercake-link/",
        ".wh..layercake-link/x: x",
    ];
    assert_eq!(listing(&done.root), [&expected[..], &["a: a", "b = a"]].concat());
}
