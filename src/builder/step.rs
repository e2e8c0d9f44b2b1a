//! One step of a build.

use std::fs::File;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::path::PathBuf;

use serde_json::Value;
use serde_json::json;

use super::files::Files;
use super::files::Found;
use super::run::Run;
use super::settings::Settings;
use crate::archive::take_layer;
use crate::changeset::Owners;
use crate::changeset::PackOptions;
use crate::changeset::Skipped;
use crate::changeset::TarWriter;
use crate::changeset::clean;
use crate::changeset::join;
use crate::changeset::pack_tree_to;
use crate::digest::Algorithm;
use crate::digest::Digest;
use crate::digest::Hasher;
use crate::error::Error;
use crate::error::Result;
use crate::error::printable;
use crate::image::Draft;
use crate::image::NewLayer;
use crate::image::Onto;
use crate::image::Standing;
use crate::manifest::ConfigEdit;
use crate::store::StepRecord;

/// Of what keys are made. What a step does to the same inputs must not change without this.
const KEY_VERSION: &str = "layercake step 1";
const PIECE: usize = 128 << 10;

#[derive(Clone, Debug)]
pub(super) enum Step<'a> {
    Config(ConfigEdit),
    Copy(Files, PathBuf),
    Remove(PathBuf),
    LayerFromDir(PathBuf),
    LayerFromTar(PathBuf),
    Run(Run<'a>),
}

/// What came of a step.
pub(super) struct Outcome {
    /// As the history has it.
    pub(super) text: String,
    pub(super) layer: Option<NewLayer>,
    pub(super) is_cached: bool,
    pub(super) skipped: Vec<Skipped>,
}

/// The image so far.
pub(super) struct Site<'a> {
    pub(super) draft: Draft,
    pub(super) settings: &'a Settings,
    /// What its layers show, as far as anybody had to know.
    pub(super) standing: Standing,
}

impl Step<'_> {
    /// What it is to do, for messages. It names paths of this machine, which no image does.
    pub(super) fn describe(&self) -> String {
        match self {
            Step::Config(edit) => edit.summary(),
            Step::Copy(files, to) => format!("copy {files} to {}", to.display()),
            Step::Remove(path) => format!("remove {}", path.display()),
            Step::LayerFromDir(path) => format!("layer from {}", path.display()),
            Step::LayerFromTar(path) => format!("layer from {}", path.display()),
            Step::Run(run) => format!("run {}", printable(&run.command, 200)),
        }
    }

    pub(super) fn run(&self, site: &mut Site<'_>) -> Result<Outcome> {
        site.settings.cancel.check()?;
        match self {
            Step::Config(edit) => {
                site.draft.edit(edit)?;
                Ok(Outcome { text: edit.summary(), layer: None, is_cached: false, skipped: Vec::new() })
            }
            Step::Copy(files, to) => site.copy(files, to),
            Step::Remove(path) => site.remove(path),
            Step::LayerFromDir(path) => site.layer_from_dir(path),
            Step::LayerFromTar(path) => site.layer_from_tar(path),
            Step::Run(run) => site.run(run),
        }
    }
}

impl Site<'_> {
    fn copy(&mut self, files: &Files, to: &Path) -> Result<Outcome> {
        let options = files.options(self.settings);
        let found = files.find()?;
        let to = destination(files, &found, to)?;
        let mut came = TarWriter::new(io::sink());
        let skipped = files.give(&found, &options, &mut came)?;
        let came = came.finish(Vec::new())?.diff_id;
        let kind = if matches!(found, Found::Tree(_)) { "dir" } else { "file" };
        let text = format!("COPY {kind}:{} in /{}", came.short(), String::from_utf8_lossy(&to));
        let key = self.key("copy", json!([self.draft.chain_id(), kind, came, to, self.settings.epoch]));
        let (layer, is_cached) = self.cached(key, |site| {
            site.lay(came, |onto| {
                if kind == "dir" {
                    onto.tree(&to)?
                } else {
                    onto.thing(&to)?
                }
                files.give(&found, &options, onto)
            })
        })?;
        Ok(Outcome { text, layer, is_cached, skipped })
    }

    fn remove(&mut self, path: &Path) -> Result<Outcome> {
        let path = clean(path.as_os_str().as_bytes());
        let text = format!("REMOVE /{}", String::from_utf8_lossy(&path));
        let key = self.key("remove", json!([self.draft.chain_id(), path]));
        let nothing = TarWriter::new(io::sink()).finish(Vec::new())?.diff_id;
        let (layer, is_cached) = self.cached(key, |site| {
            site.lay(nothing, |onto| {
                onto.remove(&path)?;
                Ok(Vec::new())
            })
        })?;
        Ok(Outcome { text, layer, is_cached, skipped: Vec::new() })
    }

    fn layer_from_dir(&mut self, path: &Path) -> Result<Outcome> {
        let mut options =
            PackOptions::new().owners(Owners::Root).cancel(&self.settings.cancel).limits(self.settings.limits);
        if let Some(epoch) = self.settings.epoch {
            options = options.epoch(epoch);
        }
        let mut came = TarWriter::new(io::sink());
        let skipped = pack_tree_to(path, &mut came, &options)?;
        let came = came.finish(Vec::new())?;
        let text = format!("ADD dir:{} in /", came.diff_id.short());
        let key = self.key("dir", json!([came.diff_id]));
        let (layer, is_cached) = self.cached(key, |site| {
            if came.entries == 0 {
                return Ok(None);
            }
            let (layer, _) = site.draft.pack(&site.settings.how, |writer| {
                let mut tar = TarWriter::new(writer);
                let skipped = pack_tree_to(path, &mut tar, &options)?;
                let packed = tar.finish(skipped)?;
                if packed.diff_id == came.diff_id { Ok(packed) } else { changed() }
            })?;
            Ok(Some(layer))
        })?;
        Ok(Outcome { text, layer, is_cached, skipped })
    }

    fn layer_from_tar(&mut self, path: &Path) -> Result<Outcome> {
        let open = || {
            let fail = |error| Error::io("open", path, error);
            // Opening a pipe would wait for whoever writes to it.
            if !std::fs::metadata(path).map_err(fail)?.is_file() {
                return Err(Error::invalid_input(format!("{} is no file", path.display())));
            }
            File::open(path).map_err(fail)
        };
        let mut hasher = Hasher::new(Algorithm::Sha256);
        let mut file = open()?;
        let mut piece = vec![0; PIECE];
        loop {
            self.settings.cancel.check()?;
            match io::Read::read(&mut file, &mut piece) {
                Ok(0) => break,
                Ok(count) => hasher.update(&piece[..count]),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(Error::io("read", path, error)),
            }
        }
        let came = hasher.finish();
        let text = format!("ADD file:{} in /", came.short());
        let key = self.key("tar", json!([came]));
        let (layer, is_cached) = self.cached(key, |site| {
            let cancel = &site.settings.cancel;
            let (mut layer, compression) = take_layer(open()?, site.draft.store(), site.settings.limits, cancel)?;
            if layer.blob.digest != came {
                return changed();
            }
            layer.blob.media_type = site.draft.layer_type(compression);
            Ok(Some(layer))
        })?;
        Ok(Outcome { text, layer, is_cached, skipped: Vec::new() })
    }

    fn run(&mut self, run: &Run<'_>) -> Result<Outcome> {
        let inputs = json!([self.draft.chain_id(), self.draft.config_digest()?, run.command, self.settings.epoch]);
        let key = self.key("run", inputs);
        let mut skipped = Vec::new();
        let mut make = |site: &mut Self| {
            let (layer, left_out) = run.layer(&site.draft, site.settings)?;
            skipped = left_out;
            Ok(layer)
        };
        let (layer, is_cached) = if run.is_cached { self.cached(key, make)? } else { (make(self)?, false) };
        Ok(Outcome { text: run.command.clone(), layer, is_cached, skipped })
    }

    /// What a step is called in the cache: all that decides on its layer.
    fn key(&self, kind: &str, inputs: Value) -> Digest {
        let how = self.settings.how.key();
        let key = json!([KEY_VERSION, kind, inputs, how, self.draft.is_docker()]);
        Digest::sha256(key.to_string().as_bytes())
    }

    /// Does a step unless it was done before.
    fn cached(
        &mut self,
        key: Digest,
        make: impl FnOnce(&mut Self) -> Result<Option<NewLayer>>,
    ) -> Result<(Option<NewLayer>, bool)> {
        if self.settings.uses_cache
            && let Some(record) = self.draft.store().known_step(key)
        {
            return Ok((record.layer.map(|(blob, diff_id)| NewLayer { blob, diff_id }), true));
        }
        let layer = make(self)?;
        let record = StepRecord { layer: layer.clone().map(|NewLayer { blob, diff_id }| (blob, diff_id)) };
        self.draft.store().keep_step(key, &record);
        Ok((layer, false))
    }

    /// Puts something on what stands; it must still be what it was when its digest was taken.
    fn lay(
        &mut self,
        expected: Digest,
        put: impl FnOnce(&mut Onto<'_, &mut dyn io::Write>) -> Result<Vec<Skipped>>,
    ) -> Result<Option<NewLayer>> {
        for layer in self.draft.opened()?.iter().skip(self.standing.layers()) {
            self.standing.add(layer, &self.settings.cancel)?;
        }
        let seconds = self.settings.epoch.unwrap_or(0);
        let (layer, came) = self.draft.lay(&self.settings.how, &self.standing, seconds, put)?;
        if came == expected { Ok(layer) } else { changed() }
    }
}

/// Where something goes, as a clean path. A file may go into a directory, which is then written with a `/` behind.
fn destination(files: &Files, found: &Found, to: &Path) -> Result<Vec<u8>> {
    let text = to.as_os_str().as_bytes();
    let path = clean(text);
    let is_directory = text.is_empty() || text.ends_with(b"/") || text.ends_with(b"/.");
    if matches!(found, Found::Tree(_)) || !is_directory {
        return Ok(path);
    }
    let name = files.name().ok_or_else(|| Error::invalid_input(format!("{files} have no name in {}", to.display())))?;
    Ok(join(&path, name.as_bytes()))
}

fn changed<T>() -> Result<T> {
    Err(Error::from(io::Error::new(io::ErrorKind::InvalidData, "it changed while it was read")))
}
