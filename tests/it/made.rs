//! Images made of images: edited, squashed, rebased.

mod edit;
mod rebase;
mod squash;
