//! What became of a path, as `docker diff` writes it.

use layercake::changeset::ChangeKind;

pub fn of(kind: ChangeKind) -> char {
    match kind {
        ChangeKind::Added => 'A',
        ChangeKind::Modified => 'C',
        ChangeKind::Deleted => 'D',
    }
}
