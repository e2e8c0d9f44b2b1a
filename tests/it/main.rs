//! What the library promises, theme by theme. Rules are cited by the numbers of the project's specification list.

mod archive;
mod blame;
mod breakouts;
mod builder;
mod check;
mod checkout;
mod conformance;
mod cost;
mod diff;
mod differential;
mod documents;
mod examples;
mod faithful;
mod fuzz;
mod gc;

mod history;
mod hostile;
mod image_diff;
mod images;
mod keeping;
mod layer_types;
mod layers;
mod made;
mod model;
mod mounts;
mod names;
mod places;
mod platforms;
mod private;
mod room;
mod staging;
mod store;
mod support;
mod tags;
mod unpack;
mod usage;

#[cfg(feature = "registry")]
mod auth;
#[cfg(feature = "registry")]
mod bad_input;
#[cfg(feature = "rustls")]
mod certificates;
#[cfg(feature = "registry")]
mod chaos;
#[cfg(feature = "registry")]
mod connections;
#[cfg(feature = "registry")]
mod crash;
#[cfg(feature = "registry")]
mod credentials;
#[cfg(feature = "registry")]
mod demo;
#[cfg(feature = "registry")]
mod discovery;
#[cfg(feature = "registry")]
mod helpers;
#[cfg(feature = "registry")]
mod hosts;
#[cfg(feature = "registry")]
mod interop;
#[cfg(feature = "registry")]
mod mend;
#[cfg(feature = "registry")]
mod one_pass;
#[cfg(feature = "registry")]
mod power;
#[cfg(feature = "registry")]
mod processes;
#[cfg(feature = "registry")]
mod protection;
#[cfg(feature = "registry")]
mod pull;
#[cfg(feature = "registry")]
mod push;
#[cfg(feature = "registry")]
mod reach;
#[cfg(feature = "registry")]
mod registry_examples;
#[cfg(feature = "registry")]
mod resume;
#[cfg(feature = "registry")]
mod transport;
