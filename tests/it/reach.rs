//! Names in answers of a registry that resolve to addresses where the registry has no business (SSRF).
//!
//! The tests run in a network of their own, in which this machine has a public and a private address, and with names
//! of their own.

use std::fs;
use std::io::Read;
use std::io::Write;
use std::net::TcpListener;
use std::process::Command;
use std::sync::Arc;
use std::sync::Mutex;

use layercake::Error;
use layercake::ErrorKind;
use layercake::registry::Builder;

use crate::assert_kind;
use crate::support::Scratch;
use crate::support::failure;
use crate::support::name;
use crate::support::quick;
use crate::support::tools::installed;
use crate::support::tools::is_root;
use crate::support::tools::run;

const PUBLIC: &str = "203.0.113.7";
const PRIVATE: &str = "10.9.8.7";
const HOSTS: &str =
    "127.0.0.1 localhost loopback.test\n203.0.113.7 registry.test public.test\n10.9.8.7 private.test inside.test\n";
const HOSTS_PATH: &str = "LAYERCAKE_TEST_HOSTS";

#[test]
fn answers_lead_to_no_local_place_by_a_name() {
    if !is_root() || !installed(&["unshare", "ip", "mount"]) {
        return;
    }
    let scratch = Scratch::new();
    let hosts = scratch.path("hosts");
    fs::write(&hosts, HOSTS).unwrap();
    let mut command = Command::new("unshare");
    command.args(["--net", "--mount"]).arg(std::env::current_exe().unwrap());
    let ran =
        run(command.args(["--exact", "reach::helper_in_a_network_of_its_own", "--nocapture"]).env(HOSTS_PATH, &hosts));
    if ran.err.contains("unshare failed") {
        println!("ignored: needs namespaces: {}", ran.err);
        return;
    }
    assert!(ran.ok().contains("1 passed"));
}

/// Runs in the namespaces that the test above makes, and else does nothing.
#[test]
fn helper_in_a_network_of_its_own() {
    let Some(hosts) = std::env::var_os(HOSTS_PATH) else { return };
    run(Command::new("ip").args(["link", "set", "lo", "up"])).ok();
    for address in [PUBLIC, PRIVATE] {
        run(Command::new("ip").args(["addr", "add", &format!("{address}/32"), "dev", "lo"])).ok();
    }
    run(Command::new("mount").arg("--bind").arg(&hosts).arg("/etc/hosts")).ok();
    realms_on_names_are_checked();
    redirects_to_names_are_checked();
    uploads_to_names_are_checked();
    a_name_that_changes_is_checked_again(hosts.as_ref());
}

/// A server that answers everything with the same, and counts.
struct Server {
    port: u16,
    count: Arc<Mutex<usize>>,
}

impl Server {
    fn start(address: &str, answer: impl Fn(&str) -> String + Send + 'static) -> Server {
        let listener = TcpListener::bind((address, 0)).unwrap();
        let (port, count) = (listener.local_addr().unwrap().port(), Arc::<Mutex<usize>>::default());
        let counted = Arc::clone(&count);
        std::thread::spawn(move || {
            for mut connection in listener.incoming().flatten() {
                let mut head = Vec::new();
                while !head.ends_with(b"\r\n\r\n") {
                    let mut byte = [0];
                    if connection.read(&mut byte).unwrap_or(0) == 0 {
                        break;
                    }
                    head.push(byte[0]);
                }
                *counted.lock().unwrap() += 1;
                let answer = answer(&String::from_utf8_lossy(&head));
                let _ = connection.write_all(answer.as_bytes());
            }
        });
        Server { port, count }
    }

    /// Says 404 to everything.
    fn idle(address: &str) -> Server {
        Server::start(address, |_| "HTTP/1.1 404 x\r\ncontent-length: 0\r\nconnection: close\r\n\r\n".to_owned())
    }

    fn visits(&self) -> usize {
        std::mem::take(&mut *self.count.lock().unwrap())
    }
}

fn challenge(realm: &str) -> String {
    format!(
        "HTTP/1.1 401 x\r\nwww-authenticate: Bearer realm=\"{realm}\",service=\"s\"\r\ncontent-length: 0\r\n\
         connection: close\r\n\r\n"
    )
}

fn pull(builder: Builder, host: &str) -> Error {
    let scratch = Scratch::new();
    let registry = builder.plain_http(host).build().unwrap();
    failure(registry.pull(&name(&format!("{host}/app:1"))).to(&scratch.store("store")))
}

fn realms_on_names_are_checked() {
    for (registry, at, realm, token_at, is_allowed) in [
        ("registry.test", PUBLIC, "loopback.test", "127.0.0.1", false),
        ("registry.test", PUBLIC, "private.test", PRIVATE, false),
        ("registry.test", PUBLIC, "public.test", PUBLIC, true),
        ("inside.test", PRIVATE, "private.test", PRIVATE, true),
        ("inside.test", PRIVATE, "public.test", PUBLIC, true),
        ("inside.test", PRIVATE, "loopback.test", "127.0.0.1", false),
        ("localhost", "127.0.0.1", "loopback.test", "127.0.0.1", true),
    ] {
        let tokens = Server::idle(token_at);
        let address = format!("http://{realm}:{}/token", tokens.port);
        let server = Server::start(at, move |_| challenge(&address));
        let host = format!("{registry}:{}", server.port);
        let error = pull(quick(), &host);
        assert_eq!(tokens.visits() > 0, is_allowed, "{registry} {realm}: {error}");
        if !is_allowed {
            assert_kind!(error, ErrorKind::Authentication { .. });
            assert!(error.to_string().contains("whose name resolves to"), "{error}");
        }
        pull(quick().trust_token_server(realm), &host);
        assert!(tokens.visits() > 0, "a token server that the caller trusts may be anywhere");
    }
}

fn redirects_to_names_are_checked() {
    for (to, at, is_allowed) in
        [("loopback.test", "127.0.0.1", false), ("private.test", PRIVATE, true), ("public.test", PUBLIC, true)]
    {
        let target = Server::idle(at);
        let location = format!("http://{to}:{}/x", target.port);
        let server = Server::start(PUBLIC, move |_| {
            format!("HTTP/1.1 307 x\r\nlocation: {location}\r\ncontent-length: 0\r\nconnection: close\r\n\r\n")
        });
        let error = pull(quick(), &format!("registry.test:{}", server.port));
        assert_eq!(target.visits() > 0, is_allowed, "{to}: {error}");
        if !is_allowed {
            assert_kind!(error, ErrorKind::Protocol { .. });
        }
    }
}

fn uploads_to_names_are_checked() {
    for (to, at, is_allowed) in
        [("loopback.test", "127.0.0.1", false), ("private.test", PRIVATE, false), ("public.test", PUBLIC, true)]
    {
        let target = Server::idle(at);
        let location = format!("http://{to}:{}/x?signature=1", target.port);
        let server = Server::start(PUBLIC, move |head| {
            let status = if head.starts_with("POST") { 202 } else { 404 };
            format!("HTTP/1.1 {status} x\r\nlocation: {location}\r\ncontent-length: 0\r\nconnection: close\r\n\r\n")
        });
        let host = format!("registry.test:{}", server.port);
        let registry = quick().plain_http(&host).build().unwrap();
        let repository = registry.repository(&name(&format!("{host}/app"))).unwrap();
        let content = b"content".to_vec();
        let source = |from: u64| {
            let rest = std::io::Cursor::new(content[from as usize..].to_vec());
            Ok::<Box<dyn Read>, Error>(Box::new(rest))
        };
        let blob = layercake::Descriptor::of(layercake::MediaType::OCTET_STREAM, &content);
        let error = failure(repository.push_blob(&blob, &source));
        assert_eq!(target.visits() > 0, is_allowed, "{to}: {error}");
    }
}

/// DNS rebinding: the registry's own name resolves to this machine once the registry has answered.
fn a_name_that_changes_is_checked_again(hosts: &std::path::Path) {
    let tokens = Server::idle("127.0.0.1");
    let (address, hosts) = (format!("http://registry.test:{}/token", tokens.port), hosts.to_owned());
    let server = Server::start(PUBLIC, {
        let hosts = hosts.clone();
        move |_| {
            fs::write(&hosts, "127.0.0.1 localhost registry.test\n").unwrap();
            challenge(&address)
        }
    });
    let error = pull(quick(), &format!("registry.test:{}", server.port));
    fs::write(&hosts, HOSTS).unwrap();
    assert_kind!(error, ErrorKind::Authentication { .. });
    assert_eq!(tokens.visits(), 0);
}
