//! Numbers and times, as headers write them.

use crate::error::ErrorKind;
use crate::error::Result;

/// A moment, as a file system knows it: before 1970 the seconds are negative.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Timestamp {
    /// Seconds since 1970-01-01T00:00:00Z.
    pub seconds: i64,
    /// Nanoseconds behind that second, fewer than a billion.
    pub nanoseconds: u32,
}

/// A refusal of the bytes of a layer.
pub(crate) fn invalid<T>(reason: impl Into<String>) -> Result<T> {
    Err(ErrorKind::InvalidLayer { reason: reason.into() }.into())
}

/// A field of a header: octal digits, or base 256 where the first bit is set (GNU; negative where the second is).
/// A blank field is zero, as some old tools write them.
pub(super) fn field(what: &str, bytes: &[u8]) -> Result<i64> {
    let number = match bytes.first() {
        Some(first) if first & 0x80 != 0 => base_256(bytes),
        _ => octal(bytes),
    };
    number.map_or_else(|| invalid(format!("the {what} in the header is no number")), Ok)
}

/// The same, where less than zero makes no sense.
pub(super) fn unsigned(what: &str, bytes: &[u8]) -> Result<u64> {
    let number = field(what, bytes)?;
    u64::try_from(number).or_else(|_| invalid(format!("the {what} in the header is negative")))
}

fn octal(bytes: &[u8]) -> Option<i64> {
    let is_blank = |byte: &u8| matches!(byte, b' ' | 0);
    let start = bytes.iter().position(|byte| !is_blank(byte)).unwrap_or(bytes.len());
    let digits = bytes[start..].iter().take_while(|byte| !is_blank(byte)).count();
    let (digits, behind) = bytes[start..].split_at(digits);
    if !behind.iter().all(is_blank) {
        return None;
    }
    digits.iter().try_fold(0_i64, |number, digit| match digit {
        b'0'..=b'7' => number.checked_mul(8)?.checked_add(i64::from(digit - b'0')),
        _ => None,
    })
}

/// Two's complement, without the marking bit.
fn base_256(bytes: &[u8]) -> Option<i64> {
    let negative = bytes[0] & 0x40 != 0;
    let first = if negative { i64::from(bytes[0]) - 0x100 } else { i64::from(bytes[0] & 0x3f) };
    bytes[1..].iter().try_fold(first, |number, byte| number.checked_mul(256)?.checked_add(i64::from(*byte)))
}

/// A decimal number, of nothing but digits.
pub(super) fn decimal(what: &str, text: &[u8]) -> Result<u64> {
    let digits = !text.is_empty() && text.iter().all(u8::is_ascii_digit);
    let number = std::str::from_utf8(text).ok().filter(|_| digits).and_then(|text| text.parse().ok());
    number.map_or_else(|| invalid(format!("{what} is no number")), Ok)
}

/// A decimal time of any precision (POSIX pax, "mtime"); what is finer than a nanosecond is cut off. Seconds that no
/// file system knows become the last that one might.
pub(super) fn time(text: &[u8]) -> Result<Timestamp> {
    let (negative, text) = match text.strip_prefix(b"-") {
        Some(rest) => (true, rest),
        None => (false, text),
    };
    let (whole, fraction) = match text.iter().position(|byte| *byte == b'.') {
        Some(dot) => (&text[..dot], &text[dot + 1..]),
        None => (text, &[][..]),
    };
    let digits = |part: &[u8]| part.iter().all(u8::is_ascii_digit);
    if whole.is_empty() || !digits(whole) || !digits(fraction) {
        return invalid("the time of change is no number");
    }
    let add = |number: i64, digit: &u8| number.saturating_mul(10).saturating_add(i64::from(digit - b'0'));
    let seconds = whole.iter().fold(0, add);
    let nanoseconds = fraction.iter().chain(b"000000000").take(9).fold(0, add);
    Ok(match (negative, nanoseconds) {
        (false, _) => Timestamp { seconds, nanoseconds: below_a_billion(nanoseconds) },
        (true, 0) => Timestamp { seconds: -seconds, nanoseconds: 0 },
        (true, _) => {
            let seconds = (-seconds).saturating_sub(1);
            Timestamp { seconds, nanoseconds: below_a_billion(1_000_000_000 - nanoseconds) }
        }
    })
}

fn below_a_billion(nanoseconds: i64) -> u32 {
    u32::try_from(nanoseconds).expect("nine digits fit")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_of_headers() {
        let parse = |bytes: &[u8]| field("size", bytes).ok();
        assert_eq!(parse(b"0000644\0"), Some(0o644));
        assert_eq!(parse(b"   644 \0"), Some(0o644));
        assert_eq!(parse(b"\0\0\0\0\0\0\0\0"), Some(0));
        assert_eq!(parse(b"77777777777\0"), Some((1 << 33) - 1));
        assert_eq!(parse(b"0000648\0"), None);
        assert_eq!(parse(b"-000644\0"), None);
        assert_eq!(parse(b"12\x0034\0\0\0"), None);
        assert_eq!(parse(b"\x80\0\0\0\0\x20\0\0"), Some(1 << 21));
        assert_eq!(parse(b"\xff\xff\xff\xff\xff\xff\xff\xff"), Some(-1));
        assert_eq!(parse(b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xfe\0"), Some(-512));
        assert_eq!(parse(b"\x80\0\0\x01\0\0\0\0\0\0\0\0"), None);
        assert_eq!(parse(b"\x80\0\0\0\x7f\xff\xff\xff\xff\xff\xff\xff"), Some(i64::MAX));
    }

    #[test]
    fn times_with_fractions_and_before_1970() {
        let parse = |text: &str| time(text.as_bytes()).ok().map(|time| (time.seconds, time.nanoseconds));
        assert_eq!(parse("1"), Some((1, 0)));
        assert_eq!(parse("1.5"), Some((1, 500_000_000)));
        assert_eq!(parse("-1.5"), Some((-2, 500_000_000)));
        assert_eq!(parse("-1"), Some((-1, 0)));
        assert_eq!(parse("0.1234567899"), Some((0, 123_456_789)));
        assert_eq!(parse("-0.0000000001"), Some((0, 0)));
        assert_eq!(parse("99999999999999999999"), Some((i64::MAX, 0)));
        for wrong in ["", "-", ".5", "1e3", "1.x", "+1", " 1"] {
            assert_eq!(parse(wrong), None, "{wrong:?}");
        }
    }
}
