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

/// Reads a numeric field of a header: octal digits, or base 256 behind a byte 0x80, or 0xff for negative numbers (GNU).
/// A blank field is zero, as some old tools write them.
///
/// Go would also take other first bytes for base 256; GNU tar and Python would not.
pub(super) fn field(what: &str, bytes: &[u8]) -> Result<i64> {
    match bytes.first() {
        Some(0x80 | 0xff) => base_256(bytes).map_or_else(|| not_a_number(what), Ok),
        _ => octal_field(what, bytes),
    }
}

/// Reads a field that holds octal digits only, such as the checksum.
pub(super) fn octal_field(what: &str, bytes: &[u8]) -> Result<i64> {
    octal(bytes).map_or_else(|| not_a_number(what), Ok)
}

fn not_a_number<T>(what: &str) -> Result<T> {
    invalid(format!("the {what} in the header is not a number that every reader reads alike"))
}

/// Whether Go's `archive/tar` reads a number here, which it does in more forms than [`field`].
pub(super) fn is_go_number(bytes: &[u8]) -> bool {
    if bytes.first().is_some_and(|first| first & 0x80 != 0) {
        return base_256(bytes).is_some();
    }
    let is_blank = |byte: &u8| matches!(byte, b' ' | 0);
    let Some(start) = bytes.iter().position(|byte| !is_blank(byte)) else { return true };
    let end = bytes.iter().rposition(|byte| !is_blank(byte)).map_or(start, |last| last + 1);
    let digits = bytes[start..end].split(|byte| *byte == 0).next().unwrap_or_default();
    digits.iter().all(|digit| matches!(digit, b'0'..=b'7'))
}

/// The same, where less than zero makes no sense.
pub(super) fn unsigned(what: &str, bytes: &[u8]) -> Result<u64> {
    let number = field(what, bytes)?;
    u64::try_from(number).or_else(|_| invalid(format!("the {what} in the header is negative")))
}

/// Spaces, digits, and behind them nothing but spaces and zero bytes. Digits behind a zero byte are refused: Go reads
/// them, Python does not, and GNU tar does behind a single one.
fn octal(bytes: &[u8]) -> Option<i64> {
    let is_blank = |byte: &u8| matches!(byte, b' ' | 0);
    let start = bytes.iter().position(|byte| *byte != b' ').unwrap_or(bytes.len());
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

/// Reads a decimal time of any precision (POSIX pax, "mtime"); digits beyond the nanosecond are cut off.
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
    let add = |number: i64, digit: &u8| number.checked_mul(10)?.checked_add(i64::from(digit - b'0'));
    let Some(seconds) = whole.iter().try_fold(0, add) else { return invalid("the time of change is out of range") };
    let nanoseconds = fraction.iter().chain(b"000000000").take(9).try_fold(0, add).expect("nine digits fit");
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
        assert_eq!(parse(b"  \0\0\0\0\0\0"), Some(0));
        assert_eq!(parse(b"\x80\0\0\0\0\x20\0\0"), Some(1 << 21));
        assert_eq!(parse(b"\xff\xff\xff\xff\xff\xff\xff\xff"), Some(-1));
        assert_eq!(parse(b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xfe\0"), Some(-512));
        assert_eq!(parse(b"\x80\0\0\x01\0\0\0\0\0\0\0\0"), None);
        for two_readings in
            [&b"\x00000644\0"[..], b"\0\x000644\0\0", b" \0 644 \0", b"\x81\0\0\0\0\0\0\x01", b"\xc0\0\0\0\0\0\0\x01"]
        {
            assert_eq!(parse(two_readings), None, "{two_readings:?}");
        }
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
        assert_eq!(parse("9223372036854775807"), Some((i64::MAX, 0)));
        for wrong in ["99999999999999999999", "-99999999999999999999.5", "", "-", ".5", "1e3", "1.x", "+1", " 1"] {
            assert_eq!(parse(wrong), None, "{wrong:?}");
        }
    }
}
