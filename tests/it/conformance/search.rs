//! The search of Docker's first protocol.

use layercake::testing::SearchResult;
use serde_json::json;

use super::start;

#[test]
fn a_search_finds_what_was_offered() {
    let (served, mut http) = start();
    for path in ["/v1/_ping", "/v1/search?q=a"] {
        http.ask("GET", path).refused(404, "NAME_UNKNOWN");
    }
    let ubuntu = SearchResult::new("ubuntu").description("Debian-based").stars(17).official();
    served.registry.offer_search(vec![ubuntu, SearchResult::new("me/debian").automated(), SearchResult::new("x")]);
    http.ask("GET", "/v1/_ping").ok(200);
    let found = http.ask("GET", "/v1/search?q=ebian&n=10").ok(200);
    let ubuntu = json!({
        "name": "ubuntu", "description": "Debian-based", "star_count": 17, "is_official": true, "is_automated": false,
    });
    let debian = json!({
        "name": "me/debian", "description": "", "star_count": 0, "is_official": false, "is_automated": true,
    });
    assert_eq!(found.json(), json!({ "query": "ebian", "num_results": 2, "results": [ubuntu, debian] }));
    assert_eq!(http.ask("GET", "/v1/search?q=ebian&n=1").ok(200).json()["num_results"], 1);
    assert_eq!(http.ask("GET", "/v1/search?q=me%2Fd").ok(200).json()["query"], "me/d");
    assert_eq!(http.ask("GET", "/v1/search?q=none").ok(200).json()["results"], json!([]));
}
