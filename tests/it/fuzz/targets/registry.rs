//! Fuzz targets of the headers that registries send, and of the file that `docker login` writes.

use layercake::fuzzing;
use layercake::registry::CredentialSource;
use layercake::registry::DockerConfig;
use serde_json::Value;

use super::check_message;

/// A secret that the corpus contains, to find it in messages.
const SECRET: &str = "s3cr3t-";

/// Parses `WWW-Authenticate` headers, one for each line. A header does not change how the others are read.
pub fn challenge(data: &[u8]) {
    let Ok(text) = str::from_utf8(data) else { return };
    let headers: Vec<&str> = text.lines().collect();
    let one_by_one: Vec<String> = headers.iter().flat_map(|header| fuzzing::challenges(&[header])).collect();
    assert_eq!(fuzzing::challenges(&headers), one_by_one, "{text:?}");
}

/// Follows `Link` headers, one for each line. They lead only to the host of the page.
pub fn link(data: &[u8]) {
    let Ok(text) = str::from_utf8(data) else { return };
    let headers: Vec<&str> = text.lines().collect();
    let host = "https://registry.example.com:8443";
    for page in ["/v2/a/tags/list?n=2", "/v2/_catalog", "/"] {
        match fuzzing::next_page(&format!("{host}{page}"), &headers) {
            Ok(None) => {}
            Ok(Some(next)) => {
                let rest = next.strip_prefix(host).unwrap_or_else(|| panic!("{text:?} leads to {next:?}"));
                assert!(rest.starts_with('/') && rest.bytes().all(|byte| byte.is_ascii_graphic()), "{next:?}");
                assert_eq!(fuzzing::next_page(&next, &[]).expect("it is an address"), None);
            }
            Err(error) => check_message(&error),
        }
    }
}

/// Parses the file that `docker login` writes and asks it for credentials. No message contains a secret.
pub fn docker_config(data: &[u8]) {
    let Ok(text) = str::from_utf8(data) else { return };
    let mut messages = Vec::new();
    match DockerConfig::parse(text) {
        Err(error) => messages.push(error.to_string()),
        Ok(config) => {
            // There are no helpers in an empty search path.
            let config = config.helper_path("");
            messages.push(format!("{config:?} {:?}", config.warnings()));
            for host in ["docker.io", "localhost:5000", "quay.io", "[::1]:5000", "host"] {
                for repository in ["", "library/ubuntu", "org/app"] {
                    match config.credentials(host, repository) {
                        Ok(found) => messages.push(format!("{found:?}")),
                        Err(error) => {
                            check_message(&error);
                            messages.push(format!("{error} {error:?}"));
                        }
                    }
                }
            }
        }
    }
    if has_one_secret(text) {
        let leak = messages.iter().find(|message| message.contains(SECRET));
        assert!(leak.is_none(), "{text:?}: {leak:?}");
    }
}

/// Whether the secret stands once in the text: in a value of an entry of `auths`, where passwords are.
fn has_one_secret(text: &str) -> bool {
    let Ok(Value::Object(document)) = serde_json::from_str(text) else { return false };
    let Some(Value::Object(entries)) = document.get("auths") else { return false };
    let fields = entries.values().filter_map(Value::as_object).flat_map(|entry| entry.values());
    let is_value = fields.filter_map(Value::as_str).any(|value| value.contains(SECRET));
    is_value && text.matches(SECRET).count() == 1
}
