//! Content digests: `sha256:…` and `sha512:…`.
//!
//! * [`Digest`] is a name that content gives itself: an algorithm and that algorithm's hash of the bytes.
//! * [`Algorithm`] is one of the two that this crate can verify.
//! * [`Hasher`] makes a [`Digest`] from bytes as they pass by.
//!
//! A digest is parsed once, where it enters, into a fixed number of bytes. It can therefore never be a path, a URL
//! or a header by surprise.
//!
//! ```
//! use layercake::{Algorithm, Digest};
//!
//! let digest = Digest::of(Algorithm::Sha256, b"hello\n");
//! assert_eq!(
//!     digest.to_string(),
//!     "sha256:5891b5b522d5df086d0ff0b110fbd9d21bb4fc7163af34d08286a2e846f6be03"
//! );
//! assert_eq!(digest.short().to_string(), "5891b5b522d5");
//! assert_eq!(digest.to_string().parse::<Digest>()?, digest);
//! # Ok::<(), layercake::digest::ParseDigestError>(())
//! ```
//!
//! It does not: sign, or judge whether the content is what you want; it says only that it is what was promised.

use std::fmt;
use std::str::FromStr;

use serde::Deserialize;
use serde::Deserializer;
use serde::Serialize;
use serde::Serializer;
use serde::de;
use sha2::Digest as _;

/// A hash algorithm that content can be verified with (image-spec, descriptor.md, "Registered Algorithms").
#[non_exhaustive]
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Algorithm {
    /// SHA-256: 64 hexadecimal digits. What every registry uses.
    Sha256,
    /// SHA-512: 128 hexadecimal digits.
    Sha512,
}

impl Algorithm {
    /// All of them, in the order of their names.
    pub const ALL: [Algorithm; 2] = [Algorithm::Sha256, Algorithm::Sha512];

    /// The name in front of the colon, which is also the name of the folder below `blobs/`.
    pub const fn name(self) -> &'static str {
        match self {
            Algorithm::Sha256 => "sha256",
            Algorithm::Sha512 => "sha512",
        }
    }

    /// The length of the hash in bytes.
    pub const fn size(self) -> usize {
        match self {
            Algorithm::Sha256 => 32,
            Algorithm::Sha512 => 64,
        }
    }

    fn from_name(name: &str) -> Option<Algorithm> {
        Algorithm::ALL.into_iter().find(|algorithm| algorithm.name() == name)
    }
}

impl fmt::Display for Algorithm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// The name that content gives itself, such as `sha256:44136fa3…`.
///
/// Invariants:
///
/// * the algorithm is one that this crate can verify;
/// * the hash has that algorithm's length;
/// * the text form has lower-case hexadecimal digits only, so two equal digests have one spelling
///   (image-spec, descriptor.md, "SHA-256").
///
/// It is `Copy`, and ordered by algorithm and then by hash, which is the order of the text.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Digest {
    algorithm: Algorithm,
    /// The hash; what lies behind the algorithm's length is zero.
    bytes: [u8; 64],
}

impl Digest {
    /// The digest of `content`.
    pub fn of(algorithm: Algorithm, content: &[u8]) -> Digest {
        let mut hasher = Hasher::new(algorithm);
        hasher.update(content);
        hasher.finish()
    }

    /// The SHA-256 digest of `content`.
    pub fn sha256(content: &[u8]) -> Digest {
        Digest::of(Algorithm::Sha256, content)
    }

    /// The algorithm.
    pub fn algorithm(&self) -> Algorithm {
        self.algorithm
    }

    /// The hash: 32 or 64 bytes.
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes[..self.algorithm.size()]
    }

    /// The hash as lower-case hexadecimal digits, without the algorithm.
    pub fn hex(&self) -> Hex<'_> {
        Hex(self.as_bytes())
    }

    /// The first twelve hexadecimal digits, as `docker images` and `docker pull` show them.
    pub fn short(&self) -> Hex<'_> {
        Hex(&self.bytes[..6])
    }

    fn from_hash(algorithm: Algorithm, hash: &[u8]) -> Digest {
        let mut bytes = [0; 64];
        bytes[..hash.len()].copy_from_slice(hash);
        Digest { algorithm, bytes }
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.algorithm, self.hex())
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for Digest {
    type Err = ParseDigestError;

    /// Reads `algorithm:hex` (image-spec, descriptor.md, "Digests").
    ///
    /// # Errors
    ///
    /// [`ParseDigestError`] says which part is wrong. An algorithm that has the right form and is only unknown here
    /// is [`ParseDigestError::UnsupportedAlgorithm`].
    fn from_str(text: &str) -> Result<Digest, ParseDigestError> {
        let (name, encoded) = text.split_once(':').ok_or(ParseDigestError::NoColon)?;
        if !is_algorithm_name(name) {
            return Err(ParseDigestError::AlgorithmName);
        }
        let Some(algorithm) = Algorithm::from_name(name) else {
            return Err(unsupported(name, encoded));
        };
        decode(algorithm, encoded)
    }
}

impl Serialize for Digest {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Digest {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Digest, D::Error> {
        struct Visitor;
        impl de::Visitor<'_> for Visitor {
            type Value = Digest;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a digest such as sha256:…")
            }
            fn visit_str<E: de::Error>(self, text: &str) -> Result<Digest, E> {
                text.parse().map_err(E::custom)
            }
        }
        deserializer.deserialize_str(Visitor)
    }
}

/// Bytes that are shown as lower-case hexadecimal digits. Made by [`Digest::hex`] and [`Digest::short`].
#[derive(Clone, Copy)]
pub struct Hex<'a>(&'a [u8]);

impl fmt::Display for Hex<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const DIGITS: &[u8; 16] = b"0123456789abcdef";
        let mut text = [0; 128];
        for (pair, byte) in text.chunks_exact_mut(2).zip(self.0) {
            pair[0] = DIGITS[usize::from(byte >> 4)];
            pair[1] = DIGITS[usize::from(byte & 15)];
        }
        f.pad(std::str::from_utf8(&text[..self.0.len() * 2]).map_err(|_| fmt::Error)?)
    }
}

impl fmt::Debug for Hex<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Makes a [`Digest`] from bytes as they pass by.
///
/// ```
/// use layercake::{Algorithm, Digest, digest::Hasher};
///
/// let mut hasher = Hasher::new(Algorithm::Sha256);
/// hasher.update(b"hel");
/// hasher.update(b"lo\n");
/// assert_eq!(hasher.finish(), Digest::sha256(b"hello\n"));
/// ```
#[derive(Clone, Debug)]
pub struct Hasher(State);

#[derive(Clone, Debug)]
enum State {
    Sha256(sha2::Sha256),
    Sha512(Box<sha2::Sha512>),
}

impl Hasher {
    /// A hasher that has seen nothing.
    pub fn new(algorithm: Algorithm) -> Hasher {
        Hasher(match algorithm {
            Algorithm::Sha256 => State::Sha256(sha2::Sha256::new()),
            Algorithm::Sha512 => State::Sha512(Box::default()),
        })
    }

    /// Takes the next bytes.
    pub fn update(&mut self, bytes: &[u8]) {
        match &mut self.0 {
            State::Sha256(state) => state.update(bytes),
            State::Sha512(state) => state.update(bytes),
        }
    }

    /// The digest of all bytes seen.
    #[must_use = "the digest is the only result"]
    pub fn finish(self) -> Digest {
        match self.0 {
            State::Sha256(state) => Digest::from_hash(Algorithm::Sha256, &state.finalize()),
            State::Sha512(state) => Digest::from_hash(Algorithm::Sha512, &state.finalize()),
        }
    }
}

/// Why a text is no [`Digest`].
#[non_exhaustive]
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ParseDigestError {
    /// There is no `:` between an algorithm and a hash.
    #[error("invalid digest: no ':' between algorithm and hash")]
    NoColon,
    /// What stands before the `:` is no name of an algorithm.
    #[error("invalid digest: malformed algorithm name")]
    AlgorithmName,
    /// The form is right, but this crate cannot verify such digests.
    #[error("invalid digest: unsupported algorithm {0:?}")]
    UnsupportedAlgorithm(String),
    /// The hash has a wrong number of digits.
    #[error("invalid digest: {algorithm} takes {} hexadecimal digits, found {found}", algorithm.size() * 2)]
    Length {
        /// The algorithm that was named.
        algorithm: Algorithm,
        /// How many bytes of text follow the colon.
        found: usize,
    },
    /// The hash has a character that is no lower-case hexadecimal digit.
    #[error("invalid digest: only digits 0-9 and a-f are allowed, found another at byte {at}")]
    Digit {
        /// Its position, in bytes from the start of the digest's text.
        at: usize,
    },
}

fn decode(algorithm: Algorithm, encoded: &str) -> Result<Digest, ParseDigestError> {
    if encoded.len() != algorithm.size() * 2 {
        return Err(ParseDigestError::Length { algorithm, found: encoded.len() });
    }
    let mut bytes = [0; 64];
    for (at, digit) in encoded.bytes().enumerate() {
        let value = match digit {
            b'0'..=b'9' => digit - b'0',
            b'a'..=b'f' => digit - b'a' + 10,
            _ => return Err(ParseDigestError::Digit { at: algorithm.name().len() + 1 + at }),
        };
        bytes[at / 2] = bytes[at / 2] << 4 | value;
    }
    Ok(Digest { algorithm, bytes })
}

/// `[a-z0-9]+([+._-][a-z0-9]+)*`, of a length that any registered name keeps within.
fn is_algorithm_name(name: &str) -> bool {
    name.len() <= 64
        && name
            .split(['+', '.', '_', '-'])
            .all(|part| !part.is_empty() && part.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit()))
}

fn unsupported(name: &str, encoded: &str) -> ParseDigestError {
    let valid = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'=' | b'_' | b'-');
    if encoded.is_empty() {
        return ParseDigestError::NoColon;
    }
    match encoded.bytes().position(|b| !valid(b)) {
        Some(at) => ParseDigestError::Digit { at: name.len() + 1 + at },
        None => ParseDigestError::UnsupportedAlgorithm(name.to_owned()),
    }
}
