//! Whom we trust, and whom we show that we are: certificates of one host.

use std::fs;
use std::path::Path;
use std::process::Command;

use layercake::ErrorKind;
use layercake::registry::Host;

use crate::assert_kind;
use crate::interop::DockerRegistry;
use crate::support::Scratch;
use crate::support::client;
use crate::support::failure;
use crate::support::quick;
use crate::support::tools::installed;
use crate::support::tools::run;
use crate::support::two_layers;

/// A certificate for 127.0.0.1, signed by an authority of its own; and one for a client.
struct Certificates<'a>(&'a Scratch);

impl Certificates<'_> {
    fn openssl(&self, arguments: &str) {
        let mut command = Command::new("openssl");
        command.current_dir(self.0.path(".")).args(arguments.split(' '));
        run(&mut command).ok();
    }

    fn make(scratch: &Scratch) -> Certificates<'_> {
        let this = Certificates(scratch);
        this.openssl("req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=authority -keyout ca.key -out ca.crt");
        for (name, extension) in [("server", "subjectAltName=IP:127.0.0.1"), ("client", "extendedKeyUsage=clientAuth")]
        {
            fs::write(scratch.path("extension"), extension).unwrap();
            this.openssl(&format!("req -newkey rsa:2048 -nodes -subj /CN={name} -keyout {name}.key -out {name}.csr"));
            this.openssl(&format!(
                "x509 -req -in {name}.csr -CA ca.crt -CAkey ca.key -CAcreateserial -days 2 -extfile extension -out {name}.cert"
            ));
        }
        this
    }

    fn text(&self, name: &str) -> String {
        fs::read_to_string(self.0.path(name)).unwrap()
    }

    fn tls(&self, clients: bool) -> String {
        let path = |name: &str| self.0.path(name).display().to_string();
        let clients = if clients { format!(", clientcas: [{}]", path("ca.crt")) } else { String::new() };
        format!(", tls: {{certificate: {}, key: {}{clients}}}", path("server.cert"), path("server.key"))
    }
}

/// Certificates of an authority that the caller names, and no others; X4: and https is not given up for http.
#[test]
fn private_authorities_are_trusted_where_they_are_named() {
    if !installed(&["docker-registry", "openssl"]) {
        return;
    }
    let scratch = Scratch::new();
    let certificates = Certificates::make(&scratch);
    let registry = DockerRegistry::start_with_http(&scratch.path("registry"), &certificates.tls(false));
    let image = registry.image("app:1");
    let store = scratch.store("store");
    let pushed = two_layers().write(&store).and_then(|root| store.image_at(&root)).unwrap();
    let push = |host: Host| quick().host(image.host(), host.https()).build().unwrap().push(&pushed).to(&image);

    assert_kind!(failure(push(Host::new())), ErrorKind::Tls { .. });
    assert!(failure(client().push(&pushed).to(&image)).to_string().contains("HTTP"), "plain http is not https");
    push(Host::new().certificate_authority(certificates.text("ca.crt"))).unwrap();
    push(Host::new().insecure()).unwrap();
    assert_kind!(
        failure(push(Host::new().certificate_authority(certificates.text("client.cert")))),
        ErrorKind::Tls { .. }
    );
    let rubbish = Host::new().certificate_authority("rubbish");
    assert_kind!(failure(quick().host("example.com", rubbish).build()), ErrorKind::InvalidInput(_));
    let elsewhere = quick().host("example.com", Host::new().insecure()).https(image.host()).build().unwrap();
    assert_kind!(failure(elsewhere.ping(image.host())), ErrorKind::Tls { .. });
}

/// Certificates of clients, from a directory as other tools have it.
#[test]
fn clients_show_certificates_from_a_directory() {
    if !installed(&["docker-registry", "openssl"]) {
        return;
    }
    let scratch = Scratch::new();
    let certificates = Certificates::make(&scratch);
    let registry = DockerRegistry::start_with_http(&scratch.path("registry"), &certificates.tls(true));
    let host = registry.image("app").host().to_owned();
    let directory = scratch.path("certs.d").join(&host);
    fs::create_dir_all(&directory).unwrap();
    let copy = |name: &str| fs::copy(scratch.path(name), directory.join(name)).map(drop).unwrap();
    let build = |path: &Path| quick().certificates_in(path).map(|builder| builder.https(&host).build());
    copy("ca.crt");
    fs::write(directory.join("README"), "not a certificate").unwrap();
    let anonymous = build(&scratch.path("certs.d")).unwrap().unwrap();
    assert!(anonymous.ping(&host).is_err(), "no certificate was shown");
    copy("client.cert");
    assert_kind!(failure(build(&scratch.path("certs.d"))), ErrorKind::Io { .. });
    copy("client.key");
    build(&scratch.path("certs.d")).unwrap().unwrap().ping(&host).unwrap();
    assert!(build(&scratch.path("missing")).is_ok(), "no directory, no certificates");
}
