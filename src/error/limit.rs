//! What there can be too much of.

use std::fmt;

/// The limits of [`ErrorKind::LimitExceeded`](super::ErrorKind::LimitExceeded).
#[non_exhaustive]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Limit {
    /// The bytes of a manifest, an index or a configuration.
    DocumentSize,
    /// The bytes of a token server's answer.
    TokenSize,
    /// The bytes of a layout's `index.json`.
    LayoutSize,
    /// How deep indexes nest.
    IndexDepth,
    /// How many nested indexes are read in search of a platform.
    NestedIndexes,
    /// How many entries of indexes that name no platform are looked into.
    UnnamedEntries,
    /// How many layers an image has.
    Layers,
    /// How often a registry redirects one request.
    Redirects,
    /// How many pages a list of a registry has.
    Pages,
    /// How many documents an index leads to.
    Documents,
    /// How many names an archive gives to its images.
    Names,
    /// The bytes that come out of one compressed layer.
    UnpackedSize,
    /// How many bytes come out of a compressed layer for each that goes in.
    ExpansionRatio,
    /// How many entries the layers of an image have.
    Entries,
    /// The bytes of one file in a layer.
    FileSize,
    /// The bytes of a path in a layer, or of a link's target.
    PathLength,
    /// The steps that targets of symbolic links add to the paths of a layer's entries.
    LinkSteps,
    /// The bytes of an extended header or a long name in a layer.
    ExtensionSize,
    /// How many pieces a file with holes has.
    SparseSegments,
    /// How many things are reported that could not be applied, or came twice.
    Reported,
    /// The bytes of memory that such a list takes, or of the file that it is written to.
    ReportedBytes,
    /// The bytes of memory that an operation keeps: names, link targets, extended attributes, lists of changes.
    Memory,
    /// The bytes of the window of a zstd frame: the memory that its decoder needs.
    Window,
    /// The bytes that follow the end of a tar, of a gzip stream or of a zstd stream without adding content.
    TrailerSize,
}

impl fmt::Display for Limit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Limit::DocumentSize => "bytes of a document",
            Limit::TokenSize => "bytes of a token reply",
            Limit::LayoutSize => "bytes of index.json",
            Limit::IndexDepth => "depth of nested indexes",
            Limit::NestedIndexes => "number of nested indexes",
            Limit::UnnamedEntries => "number of entries without platform",
            Limit::Layers => "number of layers",
            Limit::Redirects => "number of redirects",
            Limit::Pages => "number of pages",
            Limit::Documents => "number of documents",
            Limit::Names => "number of names",
            Limit::UnpackedSize => "unpacked bytes of a layer",
            Limit::ExpansionRatio => "expansion ratio of a layer",
            Limit::Entries => "number of entries",
            Limit::FileSize => "bytes of a file",
            Limit::PathLength => "bytes of a path",
            Limit::LinkSteps => "steps through symbolic links",
            Limit::ExtensionSize => "bytes of an extended header",
            Limit::SparseSegments => "pieces of a sparse file",
            Limit::Reported => "number of things left out",
            Limit::ReportedBytes => "bytes of the list of things left out",
            Limit::Memory => "bytes of memory for the operation",
            Limit::Window => "bytes of a zstd window",
            Limit::TrailerSize => "bytes behind the content of a stream",
        })
    }
}
