//! References, digests and media types.

use std::collections::HashSet;
use std::time::Duration;
use std::time::Instant;

use layercake::Algorithm;
use layercake::Descriptor;
use layercake::Digest;
use layercake::ImageReference;
use layercake::MediaType;
use layercake::digest::ParseDigestError;
use layercake::reference::Namespace;
use layercake::reference::Problem;

use crate::support::name;

const SHA256: &str = "sha256:44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a";

/// SPEC 2.1, cases 176 to 180: the familiar and the canonical spelling.
#[test]
fn familiar_names_become_canonical_ones() {
    for (text, canonical, familiar) in [
        ("ubuntu", "docker.io/library/ubuntu", "ubuntu"),
        ("ubuntu:22.04", "docker.io/library/ubuntu:22.04", "ubuntu:22.04"),
        ("library/ubuntu", "docker.io/library/ubuntu", "ubuntu"),
        ("docker.io/ubuntu", "docker.io/library/ubuntu", "ubuntu"),
        ("index.docker.io/ubuntu", "docker.io/library/ubuntu", "ubuntu"),
        ("DOCKER.io/ubuntu", "docker.io/library/ubuntu", "ubuntu"),
        ("user/app", "docker.io/user/app", "user/app"),
        ("index.docker.io/user/app:1", "docker.io/user/app:1", "user/app:1"),
        ("a/b/c", "docker.io/a/b/c", "a/b/c"),
        ("library/a/b", "docker.io/library/a/b", "library/a/b"),
        ("localhost/app", "localhost/app", "localhost/app"),
        ("localhost:5000/app", "localhost:5000/app", "localhost:5000/app"),
        ("localhost:5000", "docker.io/library/localhost:5000", "localhost:5000"),
        ("host:5000/app:1", "host:5000/app:1", "host:5000/app:1"),
        ("127.0.0.1/app", "127.0.0.1/app", "127.0.0.1/app"),
        ("[::1]:5000/app", "[::1]:5000/app", "[::1]:5000/app"),
        ("[2001:db8::1]/a", "[2001:db8::1]/a", "[2001:db8::1]/a"),
        ("test:5000", "docker.io/library/test:5000", "test:5000"),
        ("test.com:5000", "docker.io/library/test.com:5000", "test.com:5000"),
        ("Foo/bar", "Foo/bar", "Foo/bar"),
        ("EXAMPLE.com/a", "EXAMPLE.com/a", "EXAMPLE.com/a"),
        ("xn--n3h.com/a", "xn--n3h.com/a", "xn--n3h.com/a"),
        ("a__b/c--d", "docker.io/a__b/c--d", "a__b/c--d"),
        ("docker:dind", "docker.io/library/docker:dind", "docker:dind"),
        ("library/oci:1", "docker.io/library/oci:1", "library/oci:1"),
        ("file:5000/app", "file:5000/app", "file:5000/app"),
        // What stands behind docker.io may look like a host; then the familiar spelling keeps docker.io.
        ("docker.io/my.org/app", "docker.io/my.org/app", "docker.io/my.org/app"),
        ("docker.io/localhost/app", "docker.io/localhost/app", "docker.io/localhost/app"),
    ] {
        let reference = name(text);
        assert_eq!(reference.to_string(), canonical, "{text}");
        assert_eq!(reference.familiar().to_string(), familiar, "{text}");
        assert_eq!(name(canonical), reference, "{text}");
        assert_eq!(name(familiar), reference, "{text}");
    }
}

#[test]
fn tag_and_digest_may_stand_together() {
    let reference = name(&format!("ubuntu:22.04@{SHA256}"));
    assert_eq!(reference.tag(), Some("22.04"));
    assert_eq!(reference.digest().map(|digest| digest.to_string()).as_deref(), Some(SHA256));
    assert_eq!(reference.identifier().to_string(), SHA256, "the digest wins");
    assert_eq!(reference.exact().to_string(), format!("docker.io/library/ubuntu@{SHA256}"));
    assert_eq!(reference.or_latest(), reference);
    assert_eq!(name("ubuntu").or_latest().to_string(), "docker.io/library/ubuntu:latest");
    assert_eq!(name("ubuntu").identifier().to_string(), "latest");
}

#[test]
fn the_three_namespaces_are_told_apart() {
    let hosted = |host, port| Namespace::SelfHosted { host, port };
    assert_eq!(name("ubuntu").namespace(), Namespace::Root);
    assert_eq!(name("docker.io/library/ubuntu").namespace(), Namespace::Root);
    assert_eq!(name("jpetazzo/clock").namespace(), Namespace::User("jpetazzo"));
    assert_eq!(name("localhost:5000/wordpress").namespace(), hosted("localhost", Some(5000)));
    assert_eq!(name("quay.io/org/app").namespace(), hosted("quay.io", None));
    assert_eq!(name("[::1]:5000/app").namespace(), hosted("[::1]", Some(5000)));
    assert_eq!(name("[::1]/app").namespace(), hosted("[::1]", None));
}

/// SPEC 2.1, D1, D2, cases 178 to 190: what is wrong, and where.
#[test]
fn malformed_names_are_refused_with_the_place() {
    let long_tag = format!("a:{}", "t".repeat(129));
    let long = "a".repeat(256);
    for (text, at, problem) in [
        ("", 0, Problem::Empty),
        ("foo/Bar", 4, Problem::Uppercase),
        ("Uppercase:tag", 0, Problem::Uppercase),
        ("a//b", 2, Problem::EmptyComponent),
        ("/a", 0, Problem::EmptyComponent),
        ("a/", 2, Problem::EmptyComponent),
        ("a/../b", 2, Problem::Separator),
        ("a/./b", 2, Problem::Separator),
        (".a", 0, Problem::Separator),
        ("a_", 1, Problem::Separator),
        ("a___b", 1, Problem::Separator),
        ("a.-b", 1, Problem::Separator),
        ("ubuntu:", 7, Problem::Tag),
        ("ubuntu:.x", 7, Problem::Tag),
        ("ubuntu:-x", 7, Problem::Tag),
        (&long_tag, 2, Problem::Tag),
        (&long, 0, Problem::RepositoryTooLong),
        ("host:0/a", 5, Problem::Port),
        ("host:65536/a", 5, Problem::Port),
        ("host:/a", 5, Problem::Port),
        ("host:abc/a", 5, Problem::Port),
        (":/a", 0, Problem::Host),
        ("[fe80::1%eth0]:5000/a", 8, Problem::Character('%')),
        ("[::ffff:1.2.3.4]/a", 0, Problem::Host),
        ("[::1/a", 0, Problem::Host),
        ("a..b/c", 0, Problem::Host),
        ("-a.com/c", 0, Problem::Host),
        ("http://host/a", 0, Problem::Scheme),
        ("docker://host/a", 0, Problem::Scheme),
        ("file:///x", 0, Problem::Scheme),
        ("oci:dir", 0, Problem::Scheme),
        ("a b", 1, Problem::Character(' ')),
        ("a\r\n", 1, Problem::Character('\r')),
        ("a\0", 1, Problem::Character('\0')),
        ("a%2fb", 1, Problem::Character('%')),
        ("a?b", 1, Problem::Character('?')),
        ("a#b", 1, Problem::Character('#')),
        ("a\\b", 1, Problem::Character('\\')),
        ("ümlaut", 0, Problem::Character('ü')),
        ("a／b", 1, Problem::Character('／')),
        ("a\u{202e}b", 1, Problem::Character('\u{202e}')),
    ] {
        let error = text.parse::<ImageReference>().expect_err(text);
        assert_eq!((error.problem(), error.at()), (&problem, at), "{text:?}: {error}");
    }
}

#[test]
fn messages_are_dockers_where_docker_has_one() {
    let message = |text: &str| text.parse::<ImageReference>().unwrap_err().to_string();
    let id = "a".repeat(64);
    assert_eq!(
        message(&id),
        format!("invalid repository name ({id}), cannot specify 64-byte hexadecimal strings"),
        "case 181"
    );
    assert_eq!(
        message("docker.io/Foo/Bar"),
        "invalid reference format: repository name (docker.io/Foo/Bar) must be lowercase, at byte 10"
    );
    assert_eq!(
        message(&"a".repeat(300)),
        "invalid reference format: repository name must not be more than 255 characters"
    );
    assert_eq!(message("a b"), "invalid reference format: unexpected character ' ', at byte 1 of \"a b\"");
    let tagged = format!("{id}:1");
    assert_eq!(name(&tagged).familiar().to_string(), tagged);
    let official = format!("library/{id}");
    assert_eq!(name(&official).familiar().to_string(), official, "the id alone would not parse");
}

/// Cases 180, 185 and 186: digests of names, credentials in names.
#[test]
fn malformed_digests_of_names_are_refused() {
    let digits = &SHA256[7..];
    for digest in [
        "md5:d41d8cd98f00b204e9800998ecf8427e".to_owned(),
        "sha256:".to_owned(),
        "sha256:abc".to_owned(),
        format!("sha256:{}", digits.to_uppercase()),
        format!("sha256:{}", &digits[1..]),
        format!("sha256:{digits}0"),
        format!("sha512:{digits}"),
        format!("SHA256:{digits}"),
        format!("{SHA256}@{SHA256}"),
    ] {
        let text = format!("name@{digest}");
        let error = text.parse::<ImageReference>().expect_err(&text);
        assert!(matches!(error.problem(), Problem::Digest(_)), "{text}: {error}");
        assert_eq!(error.at(), 5, "{text}");
    }
    assert!("user:pw@host/a".parse::<ImageReference>().is_err());
}

#[test]
fn lengths_have_limits() {
    assert!(format!("host.com/{}", "a".repeat(255)).parse::<ImageReference>().is_ok());
    assert!(format!("host.com/{}", "a".repeat(256)).parse::<ImageReference>().is_err());
    assert!("a".repeat(255 - "library/".len()).parse::<ImageReference>().is_ok());
    assert!("a".repeat(256 - "library/".len()).parse::<ImageReference>().is_err());
    assert!(format!("a:{}", "t".repeat(128)).parse::<ImageReference>().is_ok());
    let start = Instant::now();
    assert!("a".repeat(1 << 20).parse::<ImageReference>().is_err());
    assert!("/".repeat(100_000).parse::<ImageReference>().is_err());
    assert!("a/".repeat(100_000).parse::<ImageReference>().is_err());
    let error = format!("a{}", "\u{1}".repeat(1 << 20)).parse::<ImageReference>().unwrap_err();
    assert!(error.to_string().len() < 3000, "the text of an error is short");
    assert!(start.elapsed() < Duration::from_secs(1), "case 191");
}

/// Case 192: whatever parses says the same in both spellings, and has nothing outside the grammar.
#[test]
fn parsing_and_displaying_are_inverse() {
    let pieces =
        ["a", "b9", "localhost", "x.y", ".", "_", "__", "-", "--", "/", ":", "@", "[::1]", "A", "5000", SHA256];
    let mut generator = fastrand::Rng::with_seed(1);
    let mut parsed = HashSet::new();
    for _ in 0..200_000 {
        let text: String = (0..generator.usize(1..8)).map(|_| pieces[generator.usize(..pieces.len())]).collect();
        let Ok(reference) = text.parse::<ImageReference>() else { continue };
        for spelling in [reference.to_string(), reference.familiar().to_string()] {
            assert_eq!(spelling.parse().as_ref(), Ok(&reference), "{text} as {spelling}");
            let allowed = |c: char| c.is_ascii_alphanumeric() || "._-/:@[]".contains(c);
            assert!(spelling.chars().all(allowed), "{spelling}");
        }
        let json = serde_json::to_string(&reference).unwrap();
        assert_eq!(serde_json::from_str::<ImageReference>(&json).unwrap(), reference);
        parsed.insert(reference);
    }
    assert!(parsed.len() > 1000, "only {} names were made", parsed.len());
    let mut sorted: Vec<_> = parsed.iter().collect();
    sorted.sort();
    assert!(sorted.windows(2).all(|pair| pair[0] < pair[1]), "order follows equality");
}

#[test]
fn new_tags_are_checked() {
    assert_eq!(name("ubuntu").with_tag("22.04").unwrap().to_string(), "docker.io/library/ubuntu:22.04");
    for tag in ["", "a/b", "a b", ".a", "../x", "é"] {
        assert!(name("ubuntu").with_tag(tag).is_err(), "{tag:?}");
    }
}

/// I1, I2, X6, case 97: one spelling, no path, unknown algorithms told from malformed ones.
#[test]
fn digests_are_strict() {
    assert_eq!(SHA256.parse(), Ok(Digest::sha256(b"{}")));
    let sha512 = Digest::of(Algorithm::Sha512, b"{}");
    assert_eq!(sha512.to_string().len(), "sha512:".len() + 128);
    assert_eq!(sha512.to_string().parse(), Ok(sha512));
    let parse = |text: &str| text.parse::<Digest>().unwrap_err();
    assert_eq!(parse("sha256"), ParseDigestError::NoColon);
    assert_eq!(parse("sha256:../../etc/passwd"), ParseDigestError::Length { algorithm: Algorithm::Sha256, found: 16 });
    assert_eq!(parse(&SHA256.replace("44136f", "44136F")), ParseDigestError::Digit { at: 12 });
    assert_eq!(parse(&SHA256.replace("sha256", "SHA256")), ParseDigestError::AlgorithmName);
    assert_eq!(
        parse(&SHA256.replace("sha256", "sha512")),
        ParseDigestError::Length { algorithm: Algorithm::Sha512, found: 64 }
    );
    assert_eq!(parse("blake3:abc="), ParseDigestError::UnsupportedAlgorithm("blake3".to_owned()));
    assert_eq!(parse("sha256+b64u:LCa0a2j_xo_5m0U8HTBBNBNCLXBkg7-g-YpeiGJm564"), {
        ParseDigestError::UnsupportedAlgorithm("sha256+b64u".to_owned())
    });
    assert_eq!(parse("blake3:../x"), ParseDigestError::Digit { at: 7 });
    assert_eq!(parse(":abc"), ParseDigestError::AlgorithmName);
    assert_eq!(parse("a..b:abc"), ParseDigestError::AlgorithmName);
}

#[test]
fn digests_have_the_order_of_their_text() {
    let mut digests: Vec<Digest> = (0..50_u8).map(|n| Digest::sha256(&[n])).collect();
    digests.extend((0..50_u8).map(|n| Digest::of(Algorithm::Sha512, &[n])));
    digests.sort();
    assert!(digests.windows(2).all(|pair| pair[0].to_string() < pair[1].to_string()));
    assert_eq!(format!("{:>14}|", digests[0].short()).len(), 15);
}

#[test]
fn media_types_are_known_in_both_spellings() {
    for text in ["application/vnd.oci.image.index.v1+json", "application/vnd.docker.distribution.manifest.list.v2+json"]
    {
        assert!(MediaType::from(text).is_index() && !MediaType::from(text).is_manifest(), "{text}");
    }
    assert!(MediaType::from("application/vnd.oci.image.manifest.v1+json; charset=utf-8").is_manifest(), "D4");
    assert!(MediaType::from("application/vnd.docker.distribution.manifest.v1+prettyjws").is_schema1());
    assert!(MediaType::from("application/vnd.docker.image.rootfs.foreign.diff.tar.gzip").is_nondistributable());
    let unknown = MediaType::from("text/x-unheard-of");
    assert!(!unknown.is_index() && !unknown.is_manifest() && !unknown.is_config() && !unknown.is_layer(), "I4");
    assert_eq!(unknown.to_string(), "text/x-unheard-of");
}

/// I3: sizes are not negative, and fit an int64.
#[test]
fn descriptors_with_impossible_sizes_are_refused() {
    let parse = |size: &str| {
        let json = format!(r#"{{"mediaType":"a/b","digest":"{SHA256}","size":{size}}}"#);
        serde_json::from_str::<Descriptor>(&json)
    };
    assert_eq!(parse("9223372036854775807").unwrap().size, i64::MAX as u64);
    for size in ["-1", "9223372036854775808", "1.5", "1e3", "\"2\"", "null"] {
        assert!(parse(size).is_err(), "{size}");
    }
    let nulls = format!(
        r#"{{"mediaType":"a/b","digest":"{SHA256}","size":2,"annotations":null,"urls":null,"platform":null,"x":{{}}}}"#
    );
    assert_eq!(serde_json::from_str::<Descriptor>(&nulls).unwrap(), parse("2").unwrap(), "I15, I29");
}
