//! The matrix of ways out of a root.
