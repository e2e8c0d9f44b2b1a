//! Sizes and ages as Docker writes them.

use std::time::Duration;
use std::time::SystemTime;

/// `7.8MB`: decimal units, three digits; `1e+03kB` where rounding makes a fourth, as Docker has it.
pub fn size(bytes: u64) -> String {
    const UNITS: [&str; 9] = ["B", "kB", "MB", "GB", "TB", "PB", "EB", "ZB", "YB"];
    let mut size = bytes as f64;
    let mut unit = 0;
    while size >= 1000.0 && unit < UNITS.len() - 1 {
        size /= 1000.0;
        unit += 1;
    }
    format!("{}{}", three_digits(size), UNITS[unit])
}

/// C's `%.3g`, for numbers from 0 to below 1000.
fn three_digits(number: f64) -> String {
    let rounded = format!("{number:.2e}");
    let (digits, exponent) = rounded.split_once('e').unwrap_or((&rounded, "0"));
    let exponent: usize = exponent.parse().unwrap_or(0);
    if exponent > 2 {
        let digits = if digits.contains('.') { digits.trim_end_matches('0').trim_end_matches('.') } else { digits };
        return format!("{digits}e+{exponent:02}");
    }
    let fixed = format!("{number:.*}", 2 - exponent);
    if fixed.contains('.') { fixed.trim_end_matches('0').trim_end_matches('.').to_owned() } else { fixed }
}

/// `2 weeks`.
pub fn duration(duration: Duration) -> String {
    let seconds = duration.as_secs();
    let minutes = seconds / 60;
    let hours = (duration.as_secs_f64() / 3600.0 + 0.5) as u64;
    match () {
        () if seconds < 1 => "Less than a second".to_owned(),
        () if seconds == 1 => "1 second".to_owned(),
        () if seconds < 60 => format!("{seconds} seconds"),
        () if minutes == 1 => "About a minute".to_owned(),
        () if minutes < 60 => format!("{minutes} minutes"),
        () if hours == 1 => "About an hour".to_owned(),
        () if hours < 48 => format!("{hours} hours"),
        () if hours < 24 * 7 * 2 => format!("{} days", hours / 24),
        () if hours < 24 * 30 * 2 => format!("{} weeks", hours / 24 / 7),
        () if hours < 24 * 365 * 2 => format!("{} months", hours / 24 / 30),
        () => format!("{} years", seconds / 3600 / 24 / 365),
    }
}

/// `2 weeks ago`; `N/A` where nothing is known, or only Go's zero time, the beginning of the year 1.
pub fn age(created: Option<SystemTime>, now: SystemTime) -> String {
    const YEAR_1: u64 = 62_135_596_800;
    let zero = SystemTime::UNIX_EPOCH.checked_sub(Duration::from_secs(YEAR_1));
    match created {
        Some(created) if Some(created) != zero => {
            format!("{} ago", duration(now.duration_since(created).unwrap_or_default()))
        }
        _ => "N/A".to_owned(),
    }
}
