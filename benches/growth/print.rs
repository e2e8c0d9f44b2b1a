//! The table of what grows.

use std::io;
use std::io::Write;

use super::subject::Series;
use super::support::median;
use super::support::process::Run;

pub fn head() {
    println!("| job | per | fixed | 1x | 4x | 16x | 16x/1x | 16x/4x | MiB 1x | MiB 4x | MiB 16x |");
    println!("| --- | --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |");
}

/// The runs at each size, the first of which is next to nothing.
pub fn row(series: Series, job: &str, units: [usize; 4], runs: &[Vec<Run>; 4]) {
    let [fixed, one, four, sixteen] = runs.each_ref().map(|runs| seconds(runs));
    let per = |wall: f64, n: usize| wall / units[n] as f64;
    let (one, four, sixteen) = (per(one, 1), per(four, 2), per(sixteen, 3));
    print!("| {job} | {} | {} | {} | {} | {} ", series.unit(), time(fixed), time(one), time(four), time(sixteen));
    print!("| {:.2} | {:.2} ", sixteen / one, sixteen / four);
    runs[1..].iter().for_each(|runs| print!("| {} ", memory(runs)));
    println!("|");
    // Rows come minutes after one another.
    let _ = io::stdout().flush();
}

pub fn seconds(runs: &[Run]) -> f64 {
    median(runs.iter().map(|run| run.wall)).as_secs_f64()
}

pub fn time(seconds: f64) -> String {
    match seconds {
        0.0..0.001 => format!("{:.1} µs", seconds * 1e6),
        0.001..1.0 => format!("{:.2} ms", seconds * 1e3),
        _ => format!("{seconds:.3} s"),
    }
}

pub fn memory(runs: &[Run]) -> String {
    let seen: Vec<u64> = runs.iter().filter_map(|run| run.memory).collect();
    if seen.is_empty() { "-".to_owned() } else { format!("{:.1}", median(seen) as f64 / 1024.0) }
}
