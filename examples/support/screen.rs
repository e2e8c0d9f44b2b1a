//! Where the transcripts go: lines to stdout, and bars to stderr where that is a terminal.

#![allow(dead_code, reason = "each example uses a part of this")]

use std::collections::HashMap;
use std::io;
use std::io::IsTerminal;
use std::io::Write;
use std::sync::Mutex;
use std::sync::MutexGuard;
use std::sync::PoisonError;
use std::time::Duration;

use indicatif::MultiProgress;
use indicatif::ProgressBar;
use indicatif::ProgressDrawTarget;
use indicatif::ProgressStyle;
use layercake::Descriptor;
use layercake::Digest;

use crate::support;

pub struct Screen {
    pub quiet: bool,
    /// Whether layers get lines; where bars tell of them they do not.
    pub lines: bool,
    screen: MultiProgress,
    bars: Mutex<HashMap<Digest, ProgressBar>>,
}

impl Screen {
    pub fn new(quiet: bool) -> Screen {
        let bars = !quiet && io::stderr().is_terminal();
        let target = if bars { ProgressDrawTarget::stderr() } else { ProgressDrawTarget::hidden() };
        let shown_by_bars = bars && io::stdout().is_terminal();
        let lines = !quiet && !shown_by_bars;
        Screen { quiet, lines, screen: MultiProgress::with_draw_target(target), bars: Mutex::default() }
    }

    pub fn line(&self, text: &str) {
        if !self.quiet {
            // A reader that has gone away is noticed at the last line.
            let _ = writeln!(io::stdout(), "{text}");
        }
    }

    pub fn layer(&self, blob: &Descriptor, text: &str) {
        if self.lines {
            self.line(&format!("{}: {text}", blob.digest.short()));
        }
    }

    pub fn retrying(&self, blob: &Descriptor, delay: Duration) {
        let seconds = delay.as_secs_f64().ceil().max(1.0);
        let unit = if seconds == 1.0 { "second" } else { "seconds" };
        self.layer(blob, &format!("Retrying in {seconds} {unit}"));
    }

    pub fn warn(&self, text: &str) {
        self.screen.suspend(|| support::warn(text));
    }

    /// Begins a blob's bar.
    pub fn start(&self, blob: &Descriptor, message: &'static str) {
        let style = ProgressStyle::with_template("{prefix}: {msg} [{bar:50}] {decimal_bytes}/{decimal_total_bytes}");
        let bar = ProgressBar::new(blob.size)
            .with_style(style.expect("the template is valid").progress_chars("=> "))
            .with_prefix(blob.digest.short().to_string())
            .with_message(message);
        self.bars().insert(blob.digest, self.screen.add(bar));
    }

    pub fn advance(&self, blob: &Descriptor, bytes: u64) {
        if let Some(bar) = self.bars().get(&blob.digest) {
            bar.set_position(bytes);
        }
    }

    pub fn finish(&self, blob: &Descriptor, message: &'static str) {
        if let Some(bar) = self.bars().get(&blob.digest) {
            bar.finish_with_message(message);
        }
    }

    /// Takes the bars away.
    pub fn clear(&self) -> io::Result<()> {
        self.screen.clear()
    }

    fn bars(&self) -> MutexGuard<'_, HashMap<Digest, ProgressBar>> {
        self.bars.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
