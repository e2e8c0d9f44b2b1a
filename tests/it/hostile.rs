//! Layers that mean harm.
