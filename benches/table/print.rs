//! The table.

use std::io;
use std::io::Write;

use super::race::Entry;

const HEADS: [&str; 10] =
    ["image", "job", "layercake", "peer", "its time", "ratio", "peak MiB", "its peak", "bytes", "its bytes"];

pub fn head() {
    let is_text = |head: &str| ["image", "job", "peer"].contains(&head);
    line(&HEADS.map(str::to_owned));
    line(&HEADS.map(|head| if is_text(head) { "---" } else { "---:" }.to_owned()));
}

/// A line for each peer; if there is none, one line all the same. The first entry is layercake's.
pub fn rows(image: &str, job: &str, entries: &[Entry]) {
    let Some((ours, peers)) = entries.split_first() else { return };
    if peers.is_empty() {
        row(image, job, ours, None);
    }
    peers.iter().for_each(|peer| row(image, job, ours, Some(peer)));
}

fn row(image: &str, job: &str, ours: &Entry, peer: Option<&Entry>) {
    let of_peer = |cell: fn(&Entry) -> String| peer.map_or_else(|| "-".to_owned(), cell);
    line(&[
        image.to_owned(),
        job.to_owned(),
        wall(ours),
        of_peer(|peer| peer.name.clone()),
        of_peer(wall),
        peer.map_or_else(|| "-".to_owned(), |peer| format!("{:.2}", ours.ratio(peer))),
        memory(ours),
        of_peer(memory),
        bytes(ours),
        of_peer(bytes),
    ]);
}

fn line(cells: &[String; 10]) {
    println!("| {} |", cells.join(" | "));
    // Rows come minutes after one another.
    let _ = io::stdout().flush();
}

fn wall(entry: &Entry) -> String {
    format!("{:.3} s", entry.wall().as_secs_f64())
}

fn memory(entry: &Entry) -> String {
    entry.memory().map_or_else(|| "-".to_owned(), |kib| format!("{:.1}", kib as f64 / 1024.0))
}

/// In groups of three.
fn bytes(entry: &Entry) -> String {
    let Some(bytes) = entry.bytes else { return "-".to_owned() };
    let digits = bytes.to_string();
    let mut text = String::new();
    for (n, digit) in digits.chars().enumerate() {
        if n > 0 && (digits.len() - n).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}
