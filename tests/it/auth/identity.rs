//! Tokens in the place of passwords.

use std::time::Duration;

use layercake::ErrorKind;
use layercake::Registry;
use layercake::registry::Credentials;
use layercake::testing::Fault;

use super::pull;
use super::thief;
use crate::assert_kind;
use crate::support::Served;
use crate::support::client;
use crate::support::failure;
use crate::support::quick;
use crate::support::two_layers;

/// As a token server may make it: with characters that a form has to escape.
const IDENTITY: &str = "identity+/=&Wonderland";

fn with(credentials: Credentials) -> Registry {
    quick().credentials(move |_: &str, _: &str| Ok(Some(credentials.clone()))).build().unwrap()
}

fn identified() -> Registry {
    with(Credentials::identity_token(IDENTITY))
}

/// A3: an identity token is exchanged for tokens by a form, and the registry never sees it.
#[test]
fn an_identity_token_is_exchanged() {
    let (served, image) = Served::with(&two_layers());
    served.registry.require_tokens(Duration::from_secs(300));
    served.registry.require_identity_token(IDENTITY);
    pull(&identified(), &image).unwrap();
    let requests = served.registry.requests();
    let exchanges: Vec<_> = requests.iter().filter(|request| request.path.starts_with("/token")).collect();
    assert_eq!((exchanges.len(), exchanges[0].method.as_str()), (1, "POST"));
    assert_eq!(exchanges[0].header("content-type"), Some("application/x-www-form-urlencoded"));
    assert_eq!(exchanges[0].header("authorization"), None);
    assert!(requests.iter().all(|request| !format!("{request:?}").contains("Wonderland")));
    let wrong = failure(pull(&with(Credentials::identity_token("other")), &image));
    assert_kind!(wrong, ErrorKind::Registry(refusal) if refusal.status == 401);
    assert_kind!(failure(pull(&client(), &image)), ErrorKind::Registry(_));
}

/// A3: where the token server knows no forms, it is asked in the old way.
#[test]
fn without_forms_an_identity_token_is_a_password() {
    for status in [404, 405] {
        let (served, image) = Served::with(&two_layers());
        served.registry.require_tokens(Duration::from_secs(300));
        served.registry.require_identity_token(IDENTITY);
        served.registry.without_oauth(status);
        pull(&identified(), &image).unwrap();
        assert_eq!((served.count("POST", "/token"), served.count("GET", "/token")), (1, 1));
    }
    let (served, image) = Served::with(&two_layers());
    served.registry.require_tokens(Duration::from_secs(300));
    served.registry.require_identity_token(IDENTITY);
    served.registry.without_oauth(403);
    assert_kind!(failure(pull(&identified(), &image)), ErrorKind::Registry(refusal) if refusal.status == 403);
    assert_eq!(served.count("GET", "/token"), 0);
}

/// X2, P10: an identity token goes to no stranger, not even by a redirect; and to no registry that wants passwords.
#[test]
fn an_identity_token_stays_with_its_server() {
    let (_scratch, stranger) = thief();
    let (served, image) = Served::with(&two_layers());
    served.registry.require_tokens_of(&format!("http://{}/token", stranger.host()), Duration::from_secs(300));
    assert_kind!(failure(pull(&identified(), &image)), ErrorKind::Authentication { .. });
    served.registry.require_tokens(Duration::from_secs(300));
    for status in [301, 302, 307, 308] {
        served.registry.clear_faults();
        let elsewhere = format!("http://{}/token", stranger.host());
        served.registry.fault(Fault::on("/token").redirect(&elsewhere).status(status));
        assert!(pull(&identified(), &image).is_err(), "{status}");
    }
    assert!(stranger.requests().is_empty());

    let (served, image) = Served::with(&two_layers());
    served.registry.require_login("alice", "secret");
    let refused = failure(pull(&identified(), &image));
    assert_kind!(refused, ErrorKind::Registry(refusal) if refusal.status == 401);
    assert!(served.registry.requests().iter().all(|request| request.header("authorization").is_none()));
}

/// A5: a token for the registry itself is shown to it, and no token server is asked.
#[test]
fn a_registry_token_is_shown_as_it_is() {
    let (served, image) = Served::with(&two_layers());
    served.registry.require_tokens(Duration::from_secs(300));
    let holder = with(Credentials::registry_token("made-elsewhere"));
    assert_kind!(failure(pull(&holder, &image)), ErrorKind::Registry(refusal) if refusal.status == 401);
    let requests = served.registry.requests();
    assert_eq!(served.count("GET", "/token") + served.count("POST", "/token"), 0);
    assert!(requests.iter().any(|request| request.header("authorization") == Some("Bearer made-elsewhere")));
}

/// A2: a token that allows too little is no error of its own: the registry says so, and is asked once more.
#[test]
fn a_token_may_allow_less_than_was_asked_for() {
    let (served, image) = Served::with(&two_layers());
    let store = served.scratch.store("store");
    client().pull(&image).to(&store).unwrap();
    served.registry.require_tokens(Duration::from_secs(300));
    served.registry.grant_only(&["pull"]);
    client().pull(&image).to(&served.scratch.store("pulled")).unwrap();
    let there = served.registry.reference("other:1").unwrap();
    let error = failure(client().push(&store.image(&image).unwrap()).jobs(1).to(&there));
    assert_kind!(error, ErrorKind::Registry(refusal) if refusal.status == 401 && refusal.method == "POST");
    assert!(served.count("GET", "/token") <= 8, "it does not ask for ever");
}

/// Case 172: neither errors nor what is printed for debugging has a token.
#[test]
fn tokens_are_not_printed() {
    for credentials in [Credentials::identity_token(IDENTITY), Credentials::registry_token(IDENTITY)] {
        let (served, image) = Served::with(&two_layers());
        served.registry.require_tokens(Duration::from_secs(300));
        let shown = format!("{credentials:?}");
        let registry = with(credentials);
        let error = failure(pull(&registry, &image));
        for text in [shown, error.to_string(), format!("{error:?}"), format!("{registry:?}")] {
            assert!(!text.contains("Wonderland"), "{text}");
        }
    }
}
