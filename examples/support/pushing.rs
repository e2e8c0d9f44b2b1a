//! What `docker push` prints, from events.

#[path = "screen.rs"]
mod screen;

use std::collections::HashMap;
use std::io;
use std::io::Write;
use std::sync::Mutex;
use std::sync::MutexGuard;
use std::sync::PoisonError;

use layercake::Descriptor;
use layercake::Digest;
use layercake::Event;
use layercake::ImageReference;
use layercake::Observer;
use layercake::transfer::Copied;
use screen::Screen;

/// Prints a push: lines on stdout, and bars on stderr where that is a terminal. Only layers are told of.
pub struct Transcript {
    layers: Vec<Descriptor>,
    screen: Screen,
    /// What became of each layer.
    done: Mutex<HashMap<Digest, String>>,
}

impl Transcript {
    /// The lines before the first layer comes or goes. Of these layers, so many go at once.
    pub fn begin(reference: &ImageReference, layers: Vec<Descriptor>, jobs: usize, quiet: bool) -> Transcript {
        let screen = Screen::new(quiet);
        screen.line(&format!("The push refers to repository [{}]", reference.without_tag()));
        layers.iter().for_each(|layer| screen.layer(layer, "Preparing"));
        layers.iter().skip(jobs.max(1)).for_each(|layer| screen.layer(layer, "Waiting"));
        Transcript { layers, screen, done: Mutex::default() }
    }

    /// The lines after the layers'.
    pub fn finish(&self, pushed: &Copied) -> io::Result<()> {
        self.screen.clear()?;
        let mut out = io::stdout().lock();
        if self.screen.quiet {
            return writeln!(out, "{}", pushed.reference);
        }
        if !self.screen.lines {
            // What the bars showed stays, as lines.
            let done = self.done();
            let mut known =
                self.layers.iter().filter_map(|layer| Some((layer.digest.short(), done.get(&layer.digest)?)));
            known.try_for_each(|(id, text)| writeln!(out, "{id}: {text}"))?;
        }
        let root = &pushed.root;
        let tag = pushed.reference.tag().map_or_else(|| root.digest.to_string(), str::to_owned);
        writeln!(out, "{tag}: digest: {} size: {}", root.digest, root.size)
    }

    fn done_with(&self, layer: &Descriptor, text: &str) {
        self.screen.layer(layer, text);
        self.done().insert(layer.digest, text.to_owned());
    }

    fn done(&self) -> MutexGuard<'_, HashMap<Digest, String>> {
        self.done.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn is_layer(&self, blob: &Descriptor) -> bool {
        self.layers.iter().any(|layer| layer.digest == blob.digest)
    }
}

impl Observer for Transcript {
    fn event(&self, event: &Event<'_>) {
        match event {
            Event::Reused { blob } if self.is_layer(blob) => self.done_with(blob, "Layer already exists"),
            Event::Mounted { blob, from } if self.is_layer(blob) => {
                self.done_with(blob, &format!("Mounted from {from}"))
            }
            Event::Started { blob, .. } if self.is_layer(blob) => self.screen.start(blob, "Pushing"),
            Event::Progress { blob, bytes } => self.screen.advance(blob, *bytes),
            Event::Retrying { blob: Some(blob), delay, .. } => self.screen.retrying(blob, *delay),
            Event::Finished { blob } if self.is_layer(blob) => {
                self.screen.finish(blob, "Pushed");
                self.done_with(blob, "Pushed");
            }
            Event::Warning { text } => self.screen.warn(text),
            _ => {}
        }
    }
}
