//! Moving images: from registries, to registries, between stores.
//!
//! * [`Pull`] is a pull that is being set up; [`Registry::pull`](crate::Registry::pull) makes one.
//! * [`PullPolicy`] says when the registry is asked at all.
//! * [`PullPlan`] is what a pull would do, before it does it, and can be kept.
//! * [`Pulled`] is what happened, [`PullStatus`] in one word, [`Transferred`] in bytes.
//! * [`PulledRootFs`] is what [`Pull::unpack`] did: a pull and a root file system in one pass.
//! * [`Freshness`] is what [`Registry::check`](crate::Registry::check) finds out: whether a pull would bring anything.
//! * [`Push`] is a push that is being set up; [`Registry::push`](crate::Registry::push) and
//!   [`Registry::copy`](crate::Registry::copy) make one. [`Copied`] is what happened.
//! * [`Repair`] is a repair of a store that is being set up; [`Registry::repair`](crate::Registry::repair) makes one.
//! * [`copy()`] copies from any [`Source`] to any [`Target`]; [`Transfer`] is that, being set up.
//!
//! ```
//! # use layercake::testing;
//! use layercake::transfer::{PullPolicy, PullStatus};
//! use layercake::{Event, ImageReference, Registry, Store};
//!
//! # let dir = tempfile::tempdir()?;
//! # let served = Store::create(dir.path().join("served"))?;
//! # let name: ImageReference = "example.com/greeter:1".parse()?;
//! # testing::Fixture::demo().tag(&served, &name)?;
//! # let server = testing::Registry::start(&served)?;
//! # let image = server.reference("greeter:1")?;
//! let store = Store::open_or_create(dir.path().join("store"))?;
//! let registry = Registry::new();
//!
//! let pulled = registry.pull(&image).to(&store)?;
//! assert_eq!(pulled.status, PullStatus::DownloadedNewer);
//!
//! let again = registry
//!     .pull(&image)
//!     .policy(PullPolicy::IfMissing)
//!     .observer(&|event: &Event<'_>| eprintln!("{event:?}"))
//!     .to(&store)?;
//! assert_eq!(again.status, PullStatus::UpToDate);
//! assert_eq!(again.fetched.bytes, 0);
//! # Ok::<(), layercake::Error>(())
//! ```

mod arrivals;
mod check;
mod copy;
mod ends;
mod jobs;
mod plan;
mod pull;
mod pulled;
mod push;
mod repair;
mod run;
mod unpack;

use std::num::NonZeroUsize;

pub use check::Freshness;
pub use copy::Copied;
pub use copy::Source;
pub use copy::Target;
pub use copy::Transfer;
pub use copy::copy;
pub use plan::PullPlan;
pub use pull::Pull;
pub use pull::PullPolicy;
pub use pulled::PullStatus;
pub use pulled::Pulled;
pub use pulled::Transferred;
pub use push::Push;
pub use repair::Repair;
pub use unpack::PulledRootFs;

/// How many blobs move at once, unless the caller says otherwise.
const JOBS: NonZeroUsize = NonZeroUsize::new(4).expect("four is not zero");
