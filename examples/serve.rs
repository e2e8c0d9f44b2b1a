//! `docker run registry`: a registry on this machine that serves a store, for docker, podman and skopeo to pull from.
//! With `--writable` they can push, too. It listens on loopback addresses only, and answers every user of the machine.
//!
//! ```sh
//! serve --store /srv/images
//! serve --listen 127.0.0.1:0 --quiet
//! serve --writable
//! podman pull --tls-verify=false 127.0.0.1:5055/layercake/demo
//! ```
//!
//! An image that the store calls `example.com/team/app:1` is served as `127.0.0.1:5055/team/app:1`. An image that is
//! pushed gets that name in the store; names of other registries are neither replaced nor removed. The requests are
//! listed on stderr, unless `--quiet` is given. It serves until it is killed; if stdin is a pipe, until that ends.

mod support;

use std::io;
use std::io::Write;
use std::net::SocketAddr;
use std::os::fd::AsFd;
use std::os::unix::fs::FileTypeExt;
use std::process::ExitCode;
use std::sync::mpsc;
use std::sync::mpsc::RecvTimeoutError;
use std::time::Duration;

use layercake::Store;
use layercake::testing::{Protection, Registry};
use lexopt::prelude::*;

const USAGE: &str = "usage: serve [--store DIR] [--listen ADDR] [--writable] [--quiet]";
/// How often requests are listed.
const PAUSE: Duration = Duration::from_millis(100);

fn main() -> ExitCode {
    support::run(serve)
}

fn serve() -> support::Result {
    let mut common = support::Common::default();
    let mut listen = SocketAddr::from(([127, 0, 0, 1], 5055));
    let mut protection = Protection::full();
    let mut quiet = false;
    let mut args = lexopt::Parser::from_env();
    while let Some(arg) = args.next()? {
        match arg {
            Long("help") | Short('h') => return support::print(USAGE),
            Long("listen") => listen = args.value()?.parse()?,
            Long("quiet") | Short('q') => quiet = true,
            Long("writable") => protection = protection.writable(),
            Long("store") => common.take("store", &mut args)?,
            other => return Err(other.unexpected().into()),
        }
    }
    let store = Store::open_or_create(common.store_path()?)?;
    let registry = Registry::start_protected(&store, listen, protection)?;
    writeln!(io::stdout(), "serving {} at {}", store.path().display(), registry.host())?;
    let end = end_of_stdin()?;
    while end.recv_timeout(PAUSE) == Err(RecvTimeoutError::Timeout) {
        list(&registry, quiet);
    }
    list(&registry, quiet);
    Ok(())
}

/// Is told when stdin ends, if that is a pipe. A terminal or `/dev/null` says nothing.
fn end_of_stdin() -> io::Result<mpsc::Receiver<()>> {
    let (tell, told) = mpsc::channel();
    let stdin = io::stdin().as_fd().try_clone_to_owned().map(std::fs::File::from)?;
    let kind = stdin.metadata()?.file_type();
    std::thread::spawn(move || {
        if kind.is_fifo() || kind.is_socket() {
            let _ = io::copy(&mut &stdin, &mut io::sink());
            let _ = tell.send(());
        } else {
            // Without a word, and without hanging up.
            loop {
                std::thread::park();
            }
        }
    });
    Ok(told)
}

/// Lists the requests that came since the last time.
fn list(registry: &Registry, quiet: bool) {
    for request in registry.take_requests().iter().filter(|_| !quiet) {
        let _ = writeln!(io::stderr(), "{} {}", request.method, support::printable(&request.path));
    }
}
