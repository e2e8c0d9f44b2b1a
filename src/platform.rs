//! Platforms: what an image runs on.
//!
//! [`Platform`] is an operating system, an architecture and, for some architectures, a variant. Its spelling is
//! normalised when it is made, as containerd does, so that `x86_64` and `amd64` are one platform.
//!
//! ```
//! use layercake::Platform;
//!
//! let platform: Platform = "linux/aarch64".parse()?;
//! assert_eq!(platform.to_string(), "linux/arm64");
//! assert_eq!(platform, "linux/arm64/v8".parse()?);
//!
//! // What else an arm64 machine can run, best first.
//! let preferred: Vec<_> = platform.preferences().map(|p| p.to_string()).collect();
//! assert_eq!(preferred, ["linux/arm64", "linux/arm/v8", "linux/arm/v7", "linux/arm/v6", "linux/arm/v5"]);
//! # Ok::<(), layercake::platform::ParsePlatformError>(())
//! ```

use std::fmt;
use std::str::FromStr;

use serde::Deserialize;
use serde::Deserializer;
use serde::Serialize;

/// An operating system, an architecture and a variant (image-spec, image-index.md, `platform`).
///
/// Invariants: all parts are normalised (lower case; `macos` is `darwin`, `x86_64` is `amd64`, `aarch64` is `arm64`,
/// `armhf` is `arm/v7`, `i386` is `386`); the variant that an architecture implies is not written (`arm64/v8`,
/// `amd64/v1`), except that `arm` always has one in [`variant`](Platform::variant).
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub struct Platform {
    architecture: String,
    os: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    variant: Option<String>,
    #[serde(rename = "os.version", skip_serializing_if = "Option::is_none")]
    os_version: Option<String>,
    #[serde(rename = "os.features", skip_serializing_if = "Vec::is_empty")]
    os_features: Vec<String>,
}

impl Platform {
    /// The platform of an operating system and an architecture, in Go's or the kernel's spelling.
    pub fn new(os: &str, architecture: &str) -> Platform {
        Platform::with_variant(os, architecture, "")
    }

    /// The same with a variant, such as `v7`; an empty one is none.
    pub fn with_variant(os: &str, architecture: &str, variant: &str) -> Platform {
        let (architecture, variant) = normalise(&architecture.to_ascii_lowercase(), &variant.to_ascii_lowercase());
        let os = match os.to_ascii_lowercase() {
            os if os == "macos" => "darwin".to_owned(),
            os => os,
        };
        Platform { os, architecture, variant, os_version: None, os_features: Vec::new() }
    }

    /// The platform whose images this machine runs: `linux` (containers are Linux's, whatever the host) and the
    /// architecture that this program was compiled for.
    pub fn host() -> Platform {
        let os = if cfg!(windows) { "windows" } else { "linux" };
        let architecture = match std::env::consts::ARCH {
            "powerpc64" if cfg!(target_endian = "little") => "ppc64le",
            "powerpc64" => "ppc64",
            "loongarch64" => "loong64",
            other => other,
        };
        Platform::new(os, architecture)
    }

    /// The operating system, such as `linux`.
    pub fn os(&self) -> &str {
        &self.os
    }

    /// The architecture, such as `amd64`.
    pub fn architecture(&self) -> &str {
        &self.architecture
    }

    /// The variant, such as `v7`; none where the architecture has none or implies it.
    pub fn variant(&self) -> Option<&str> {
        self.variant.as_deref()
    }

    /// The version of the operating system; only Windows images carry one.
    pub fn os_version(&self) -> Option<&str> {
        self.os_version.as_deref()
    }

    /// Features that the operating system must have, such as `win32k`.
    pub fn os_features(&self) -> &[String] {
        &self.os_features
    }

    /// Whether this is `unknown/unknown`, which build tools write for attestations that nothing can run.
    pub fn is_unknown(&self) -> bool {
        self.os == "unknown" || self.architecture == "unknown"
    }

    /// What this platform can run, best first: itself, then older variants, then the 32-bit architecture that
    /// its processors also run (as containerd orders them).
    pub fn preferences(&self) -> impl Iterator<Item = Platform> + '_ {
        fallbacks(&self.architecture, self.variant.as_deref()).into_iter().map(|(architecture, variant)| Platform {
            architecture,
            variant,
            os: self.os.clone(),
            os_version: self.os_version.clone(),
            os_features: self.os_features.clone(),
        })
    }

    /// Whether an image of platform `image` is exactly for this one: equal system, architecture and variant, no
    /// feature that this platform lacks, and, if this platform names a version of its system, that version.
    pub fn accepts(&self, image: &Platform) -> bool {
        self.os == image.os
            && self.architecture == image.architecture
            && self.variant == image.variant
            && image.os_features.iter().all(|feature| self.os_features.contains(feature))
            && self.os_version.as_ref().is_none_or(|version| image.os_version.as_ref() == Some(version))
    }

    /// Whether an image of platform `image` runs here, on any of the [`preferences`](Platform::preferences).
    pub fn runs(&self, image: &Platform) -> bool {
        self.preferences().any(|platform| platform.accepts(image))
    }
}

impl fmt::Display for Platform {
    /// `os/architecture[/variant]`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.os, self.architecture)?;
        match self.variant() {
            Some(variant) => write!(f, "/{variant}"),
            None => Ok(()),
        }
    }
}

impl FromStr for Platform {
    type Err = ParsePlatformError;

    /// Reads `os/architecture` or `os/architecture/variant`.
    ///
    /// # Errors
    ///
    /// [`ParsePlatformError`] where there are fewer or more parts, or a part is empty or has other characters than
    /// letters, digits, `_`, `-` and `.`.
    fn from_str(text: &str) -> Result<Platform, ParsePlatformError> {
        let parts: Vec<&str> = text.splitn(4, '/').collect();
        if parts.iter().any(|part| !is_component(part)) {
            return Err(ParsePlatformError { text: text.chars().take(80).collect() });
        }
        match parts[..] {
            [os, architecture] => Ok(Platform::new(os, architecture)),
            [os, architecture, variant] => Ok(Platform::with_variant(os, architecture, variant)),
            _ => Err(ParsePlatformError { text: text.chars().take(80).collect() }),
        }
    }
}

impl<'de> Deserialize<'de> for Platform {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Platform, D::Error> {
        #[derive(Deserialize)]
        struct Raw {
            os: Option<String>,
            architecture: Option<String>,
            variant: Option<String>,
            #[serde(rename = "os.version")]
            os_version: Option<String>,
            #[serde(rename = "os.features")]
            os_features: Option<Vec<String>>,
        }
        let raw = Raw::deserialize(deserializer)?;
        let text = |field: Option<String>| field.unwrap_or_default();
        let platform = Platform::with_variant(&text(raw.os), &text(raw.architecture), &text(raw.variant));
        Ok(Platform {
            os_version: raw.os_version.filter(|version| !version.is_empty()),
            os_features: raw.os_features.unwrap_or_default(),
            ..platform
        })
    }
}

/// A text that is no [`Platform`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("invalid platform {text:?}: expected os/architecture or os/architecture/variant, such as linux/arm64")]
pub struct ParsePlatformError {
    text: String,
}

fn is_component(part: &str) -> bool {
    let valid = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-' | b'.');
    !part.is_empty() && part.len() <= 64 && part.bytes().all(valid)
}

/// containerd's `normalizeArch`: one spelling for each architecture, no variant where it is implied.
fn normalise(architecture: &str, variant: &str) -> (String, Option<String>) {
    let (architecture, variant) = match (architecture, variant) {
        ("i386" | "i686" | "x86", _) => ("386", ""),
        ("x86_64" | "x86-64" | "amd64", "v1") => ("amd64", ""),
        ("x86_64" | "x86-64", variant) => ("amd64", variant),
        ("aarch64" | "arm64", "8" | "v8" | "v8.0") => ("arm64", ""),
        ("aarch64" | "arm64", "9" | "v9" | "v9.0") => ("arm64", "v9"),
        ("aarch64", variant) => ("arm64", variant),
        ("armhf", _) => ("arm", "v7"),
        ("armel", _) => ("arm", "v6"),
        ("arm", "" | "7") => ("arm", "v7"),
        ("arm", "5") => ("arm", "v5"),
        ("arm", "6") => ("arm", "v6"),
        ("arm", "8") => ("arm", "v8"),
        other => other,
    };
    (architecture.to_owned(), Some(variant.to_owned()).filter(|variant| !variant.is_empty()))
}

/// containerd's `platformVector`: what runs on the architecture, best first.
fn fallbacks(architecture: &str, variant: Option<&str>) -> Vec<(String, Option<String>)> {
    let mut found = vec![(architecture.to_owned(), variant.map(str::to_owned))];
    let mut add = |architecture: &str, variant: &str| found.push(normalise(architecture, variant));
    match architecture {
        "amd64" => {
            for older in (1..version(variant).unwrap_or(1)).rev() {
                add("amd64", &format!("v{older}"));
            }
            add("386", "");
        }
        "arm" => {
            for older in (5..version(variant).unwrap_or(7)).rev() {
                add("arm", &format!("v{older}"));
            }
        }
        "arm64" => {
            for older in older_arm64(variant.unwrap_or("v8")) {
                add("arm64", &older);
            }
            for older in ["v8", "v7", "v6", "v5"] {
                add("arm", older);
            }
        }
        _ => {}
    }
    found
}

/// The number in `v7`; at most nine, so that no name from outside makes a long list.
fn version(variant: Option<&str>) -> Option<u32> {
    variant?.strip_prefix('v')?.parse().ok().filter(|number| *number <= 9)
}

/// The 64-bit ARM variants below `variant`: v9.x runs v9.(x-1) to v9.0, and v8.(x+5) to v8.0; v8.x the lower v8.
fn older_arm64(variant: &str) -> Vec<String> {
    let number = variant.strip_prefix('v').unwrap_or(variant);
    let (major, minor) = number.split_once('.').unwrap_or((number, "0"));
    let (Ok(major), Ok(minor)) = (major.parse::<u32>(), minor.parse::<u32>()) else { return Vec::new() };
    let name = |major: u32, minor: u32| if minor == 0 { format!("v{major}") } else { format!("v{major}.{minor}") };
    let minor = minor.min(9);
    let same = (0..minor).rev().map(|older| name(major, older));
    match major {
        8 => same.collect(),
        9 => same.chain((0..=minor + 5).rev().map(|older| name(8, older))).collect(),
        _ => Vec::new(),
    }
}
