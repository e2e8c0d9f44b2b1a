//! What `docker pull` prints, from events.

use std::collections::HashMap;
use std::io;
use std::io::IsTerminal;
use std::io::Write;
use std::sync::Mutex;
use std::sync::MutexGuard;
use std::sync::PoisonError;

use indicatif::MultiProgress;
use indicatif::ProgressBar;
use indicatif::ProgressDrawTarget;
use indicatif::ProgressStyle;
use layercake::Descriptor;
use layercake::Digest;
use layercake::Event;
use layercake::ImageReference;
use layercake::Observer;
use layercake::transfer::PullStatus;
use layercake::transfer::Pulled;

/// Prints a pull: lines on stdout, and bars on stderr where that is a terminal.
pub struct Transcript<'a> {
    reference: &'a ImageReference,
    quiet: bool,
    /// Whether layers get lines; where bars tell of them they do not.
    lines: bool,
    screen: MultiProgress,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    bars: HashMap<Digest, ProgressBar>,
    /// Layers that are there already. They are told of only if others are not.
    reused: Vec<Digest>,
    started: Vec<Digest>,
}

impl<'a> Transcript<'a> {
    pub fn new(reference: &'a ImageReference, quiet: bool) -> Transcript<'a> {
        let bars = !quiet && io::stderr().is_terminal();
        let target = if bars { ProgressDrawTarget::stderr() } else { ProgressDrawTarget::hidden() };
        let shown_by_bars = bars && io::stdout().is_terminal();
        let lines = !quiet && !shown_by_bars;
        Transcript { reference, quiet, lines, screen: MultiProgress::with_draw_target(target), state: Mutex::default() }
    }

    /// The lines after the layers'.
    pub fn finish(&self, pulled: &Pulled) -> io::Result<()> {
        self.screen.clear()?;
        let mut out = io::stdout().lock();
        if !self.quiet && pulled.status == PullStatus::DownloadedNewer {
            self.state().reused.drain(..).try_for_each(|blob| writeln!(out, "{}: Already exists", blob.short()))?;
        }
        if !self.quiet && !self.lines {
            // What the bars showed stays, as lines.
            self.state().started.iter().try_for_each(|blob| writeln!(out, "{}: Pull complete", blob.short()))?;
        }
        if !self.quiet {
            let name = pulled.reference.familiar();
            writeln!(out, "Digest: {}", pulled.root.digest)?;
            match pulled.status {
                PullStatus::UpToDate => writeln!(out, "Status: Image is up to date for {name}")?,
                _ => writeln!(out, "Status: Downloaded newer image for {name}")?,
            }
        }
        writeln!(out, "{}", pulled.reference)
    }

    fn line(&self, text: &str) {
        if !self.quiet {
            // A reader that has gone away is noticed at the last line.
            let _ = writeln!(io::stdout(), "{text}");
        }
    }

    fn layer(&self, blob: Digest, text: &str) {
        if self.lines {
            self.line(&format!("{}: {text}", blob.short()));
        }
    }

    /// Says which layers are there already; where bars tell of layers, at the end.
    fn tell_reused(&self, state: &mut State) {
        if self.lines {
            state.reused.drain(..).for_each(|digest| self.layer(digest, "Already exists"));
        }
    }

    fn start(&self, blob: &Descriptor) {
        let mut state = self.state();
        self.tell_reused(&mut state);
        state.started.push(blob.digest);
        let style = ProgressStyle::with_template("{prefix}: {msg} [{bar:50}] {decimal_bytes}/{decimal_total_bytes}");
        let bar = ProgressBar::new(blob.size)
            .with_style(style.expect("the template is valid").progress_chars("=> "))
            .with_prefix(blob.digest.short().to_string())
            .with_message("Downloading");
        state.bars.insert(blob.digest, self.screen.add(bar));
        drop(state);
        self.layer(blob.digest, "Pulling fs layer");
    }

    fn finish_layer(&self, blob: &Descriptor) {
        for text in ["Verifying Checksum", "Download complete", "Pull complete"] {
            self.layer(blob.digest, text);
        }
        if let Some(bar) = self.state().bars.get(&blob.digest) {
            bar.finish_with_message("Pull complete");
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Observer for Transcript<'_> {
    fn event(&self, event: &Event<'_>) {
        match event {
            Event::Selected { .. } => {
                let exact = self.reference.exact();
                let what =
                    exact.digest().map_or_else(|| exact.tag().unwrap_or_default().to_owned(), |_| exact.to_string());
                self.line(&format!("{what}: Pulling from {}", exact.repository()));
            }
            Event::Reused { blob } => {
                let mut state = self.state();
                state.reused.push(blob.digest);
                if !state.started.is_empty() {
                    self.tell_reused(&mut state);
                }
            }
            Event::Started { blob, .. } => self.start(blob),
            Event::Progress { blob, bytes } => {
                if let Some(bar) = self.state().bars.get(&blob.digest) {
                    bar.set_position(*bytes);
                }
            }
            Event::Retrying { blob: Some(blob), delay, .. } => {
                let seconds = delay.as_secs_f64().ceil().max(1.0);
                let unit = if seconds == 1.0 { "second" } else { "seconds" };
                self.layer(blob.digest, &format!("Retrying in {seconds} {unit}"));
            }
            Event::Finished { blob } => self.finish_layer(blob),
            Event::Warning { text } => eprintln!("warning: {text}"),
            _ => {}
        }
    }
}
