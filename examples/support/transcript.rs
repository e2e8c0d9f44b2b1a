//! What `docker pull` prints, from events.

#[path = "screen.rs"]
mod screen;

use std::io;
use std::io::Write;
use std::sync::Mutex;
use std::sync::MutexGuard;
use std::sync::PoisonError;

use layercake::Descriptor;
use layercake::Event;
use layercake::ImageReference;
use layercake::Observer;
use layercake::transfer::PullStatus;
use layercake::transfer::Pulled;
use screen::Screen;

/// Prints a pull: lines on stdout, and bars on stderr where that is a terminal.
pub struct Transcript<'a> {
    reference: &'a ImageReference,
    screen: Screen,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// Layers that are there already. They are told of only if others are not.
    reused: Vec<Descriptor>,
    started: Vec<Descriptor>,
}

impl<'a> Transcript<'a> {
    pub fn new(reference: &'a ImageReference, quiet: bool) -> Transcript<'a> {
        Transcript { reference, screen: Screen::new(quiet), state: Mutex::default() }
    }

    /// The lines after the layers'.
    pub fn finish(&self, pulled: &Pulled) -> io::Result<()> {
        self.screen.clear()?;
        let mut out = io::stdout().lock();
        let mut layer = |blob: &Descriptor, text| writeln!(out, "{}: {text}", blob.digest.short());
        if !self.screen.quiet && pulled.status == PullStatus::DownloadedNewer {
            self.state().reused.iter().try_for_each(|blob| layer(blob, "Already exists"))?;
        }
        if !self.screen.quiet && !self.screen.lines {
            // What the bars showed stays, as lines.
            self.state().started.iter().try_for_each(|blob| layer(blob, "Pull complete"))?;
        }
        if !self.screen.quiet {
            let name = pulled.reference.familiar();
            writeln!(out, "Digest: {}", pulled.root.digest)?;
            match pulled.status {
                PullStatus::UpToDate => writeln!(out, "Status: Image is up to date for {name}")?,
                _ => writeln!(out, "Status: Downloaded newer image for {name}")?,
            }
        }
        writeln!(out, "{}", pulled.reference)
    }

    /// Says which layers are there already; where bars tell of layers, at the end.
    fn tell_reused(&self, state: &mut State) {
        if self.screen.lines {
            state.reused.drain(..).for_each(|blob| self.screen.layer(&blob, "Already exists"));
        }
    }

    fn start(&self, blob: &Descriptor) {
        let mut state = self.state();
        self.tell_reused(&mut state);
        state.started.push(blob.clone());
        drop(state);
        self.screen.start(blob, "Downloading");
        self.screen.layer(blob, "Pulling fs layer");
    }

    fn finish_layer(&self, blob: &Descriptor) {
        for text in ["Verifying Checksum", "Download complete", "Pull complete"] {
            self.screen.layer(blob, text);
        }
        self.screen.finish(blob, "Pull complete");
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
                self.screen.line(&format!("{what}: Pulling from {}", exact.repository()));
            }
            Event::Reused { blob } => {
                let mut state = self.state();
                state.reused.push((*blob).clone());
                if !state.started.is_empty() {
                    self.tell_reused(&mut state);
                }
            }
            Event::Started { blob, .. } => self.start(blob),
            Event::Progress { blob, bytes } => self.screen.advance(blob, *bytes),
            Event::Retrying { blob: Some(blob), delay, .. } => self.screen.retrying(blob, *delay),
            Event::Finished { blob } => self.finish_layer(blob),
            Event::Warning { text } => self.screen.warn(text),
            _ => {}
        }
    }
}
