//! The same changes on another base.

use serde_json::Value;
use serde_json::value::RawValue;

use super::compose::Stacked;
use crate::compression::Compression;
use crate::error::Context;
use crate::error::Error;
use crate::error::ErrorKind;
use crate::error::Result;
use crate::image::Draft;
use crate::image::Image;
use crate::manifest::Object;

/// What else is said of the base (image-spec, annotations.md).
const BASE_DIGEST: &str = "org.opencontainers.image.base.digest";
/// What the layers decide, and not the bases' words.
const OF_LAYERS: [&str; 3] = ["config", "rootfs", "history"];
/// Of the fields of `config`, those whose entries are looked at one by one.
const BY_NAME: [&str; 3] = ["Labels", "ExposedPorts", "Volumes"];

impl Image {
    /// Puts what this image adds to `old_base` on `new_base` instead, as when the base got a fix: the layers above the
    /// old base's stay what they are, and nothing is unpacked.
    ///
    /// The configuration is this image's; but what it says as the old base said it, it says as the new base does:
    /// variables and labels, ports and volumes one by one, and all else whole. Its history is the new base's and then
    /// this image's own. Media types are this image's. Nothing is named.
    ///
    /// Whether the layers make sense on the new base is for the caller to know.
    ///
    /// ```
    /// # use layercake::{testing::Fixture, Platform, Store};
    /// # let dir = tempfile::tempdir()?;
    /// # let store = Store::create(dir.path().join("store"))?;
    /// # let fixture = || Fixture::new(Platform::new("linux", "amd64"));
    /// # let old_base = store.image_at(&fixture().layer(&[("etc/os-release", b"VERSION_ID=1")]).write(&store)?)?;
    /// # let new_base = store.image_at(&fixture().layer(&[("etc/os-release", b"VERSION_ID=2")]).write(&store)?)?;
    /// # let app = fixture().layer(&[("etc/os-release", b"VERSION_ID=1")]).layer(&[("bin/app", b"")]);
    /// # let app = store.image_at(&app.write(&store)?)?;
    /// let fresh = app.rebase(&old_base, &new_base)?;
    /// assert_eq!(fresh.layers()?, [new_base.layers()?, app.layers()?[1..].to_vec()].concat());
    /// # Ok::<(), layercake::Error>(())
    /// ```
    ///
    /// # Errors
    ///
    /// * [`ErrorKind::NotBasedOn`]: the lowest layers of this image are not `old_base`'s.
    /// * [`ErrorKind::NoMatchingPlatform`]: the bases are for different systems or architectures.
    /// * [`ErrorKind::NotFound`]: a layer is not in this image's store.
    /// * [`ErrorKind::UnsupportedMediaType`]: one of the images is an artifact.
    /// * [`ErrorKind::ReadOnly`], [`ErrorKind::StorageFull`], [`ErrorKind::Io`]: the operating system refuses.
    pub fn rebase(&self, old_base: &Image, new_base: &Image) -> Result<Image> {
        let rebase = || {
            if !self.config()?.diff_ids()?.starts_with(old_base.config()?.diff_ids()?) {
                return Err(ErrorKind::NotBasedOn { image: self.id(), base: old_base.id() }.into());
            }
            check_platforms(old_base, new_base)?;
            rebased(Draft::of(self)?, old_base, new_base)?.finish()
        };
        rebase().context(|| format!("rebase image {}", self.id().short()))
    }
}

fn check_platforms(old: &Image, new: &Image) -> Result<()> {
    let (Some(wanted), Some(found)) = (old.platform(), new.platform()) else { return Ok(()) };
    if (wanted.os(), wanted.architecture()) == (found.os(), found.architecture()) {
        return Ok(());
    }
    Err(ErrorKind::NoMatchingPlatform { wanted, available: vec![found] }.into())
}

fn rebased(mut draft: Draft, old_base: &Image, new_base: &Image) -> Result<Draft> {
    let (old, new) = (Draft::of(old_base)?, Draft::of(new_base)?);
    let below = new.layers.into_iter().map(|stacked| spelled(stacked, &draft)).collect::<Result<Vec<_>>>()?;
    for Stacked { layer, .. } in &below {
        if !draft.store.contains(&layer.blob)? {
            return Err(Error::not_found(format!("blob {}", layer.blob.digest)));
        }
    }
    let own = draft.history.split_off(own_steps(&draft, &old)?);
    draft.history = [new.history, own].concat();
    draft.layers.splice(..old.layers.len(), below);
    draft.config = rebased_config(draft.config, &old.config, &new.config)?;
    draft.is_reconfigured = true;
    let annotations: Object = draft.manifest.get("annotations")?.unwrap_or_default();
    if annotations.get::<Value>(BASE_DIGEST)? == Some(old_base.digest().to_string().into()) {
        draft.annotate(BASE_DIGEST, &new_base.digest().to_string())?;
    }
    Ok(draft)
}

/// A layer as a manifest of the draft's type calls it: Docker's programs know no layers of OCI's types, and some the
/// other way round.
fn spelled(stacked: Stacked, draft: &Draft) -> Result<Stacked> {
    let Stacked { mut told, mut layer } = stacked;
    let found = &layer.blob.media_type;
    if found.is_nondistributable() || found.is_docker() == draft.is_docker() {
        return Ok(Stacked { told, layer });
    }
    let compression = match found.essence().rsplit(['.', '+']).next() {
        Some("gzip") => Compression::Gzip,
        Some("zstd") => Compression::Zstd,
        Some("tar") => Compression::None,
        _ => return Ok(Stacked { told, layer }),
    };
    layer.blob.media_type = draft.layer_type(compression);
    told.set("mediaType", &layer.blob.media_type)?;
    Ok(Stacked { told, layer })
}

/// How many steps of the image's history are its old base's. That may have been told otherwise since; then its layers
/// are counted.
fn own_steps(image: &Draft, old: &Draft) -> Result<usize> {
    let same = |(own, old): (&Object, &Object)| Ok(value(own)? == value(old)?);
    let pairs: Vec<bool> = image.history.iter().zip(&old.history).map(same).collect::<Result<_>>()?;
    if pairs.len() == old.history.len() && pairs.iter().all(|is_same| *is_same) {
        return Ok(pairs.len());
    }
    let mut layers = 0;
    for (n, step) in image.history.iter().enumerate() {
        if layers == old.layers.len() {
            return Ok(n);
        }
        layers += usize::from(step.get("empty_layer")? != Some(true));
    }
    Ok(image.history.len())
}

fn rebased_config(mut own: Object, old: &Object, new: &Object) -> Result<Object> {
    let mut execution = part(&own, "config")?;
    let (old_execution, new_execution) = (part(old, "config")?, part(new, "config")?);
    let mut is_changed = follow(&mut execution, &old_execution, &new_execution, &[&BY_NAME[..], &["Env"]].concat())?;
    for field in BY_NAME {
        let mut entries = part(&execution, field)?;
        if follow(&mut entries, &part(&old_execution, field)?, &part(&new_execution, field)?, &[])? {
            execution.set(field, &entries)?;
            is_changed = true;
        }
    }
    let [env, old_env, new_env] = [lines(&execution)?, lines(&old_execution)?, lines(&new_execution)?];
    let rebased = rebased_env(&env, &old_env, &new_env);
    if rebased != env {
        execution.set("Env", &rebased)?;
        is_changed = true;
    }
    follow(&mut own, old, new, &OF_LAYERS)?;
    if is_changed {
        own.set("config", &execution)?;
    }
    Ok(own)
}

/// Takes from `new` what `own` has as `old` has it. Says whether anything is another thing now.
fn follow(own: &mut Object, old: &Object, new: &Object, except: &[&str]) -> Result<bool> {
    let names: Vec<String> = own.names().chain(new.names()).map(str::to_owned).collect();
    let mut is_changed = false;
    for name in names.iter().map(String::as_str).filter(|name| !except.contains(name)) {
        let found: Option<Value> = own.get(name)?;
        if found != old.get(name)? || found == new.get(name)? {
            continue;
        }
        is_changed = true;
        match new.get::<Box<RawValue>>(name)? {
            Some(value) => own.set(name, &value)?,
            None => own.remove(name),
        }
    }
    Ok(is_changed)
}

fn rebased_env(own: &[String], old: &[String], new: &[String]) -> Vec<String> {
    let of = |lines: &[String], name: &str| lines.iter().rev().find(|line| name_of(line) == name).cloned();
    let mut names: Vec<&str> = Vec::new();
    for name in new.iter().chain(own).map(|line| name_of(line)) {
        if !names.contains(&name) {
            names.push(name);
        }
    }
    let line = |name: &str| {
        let found = of(own, name);
        if found == of(old, name) { of(new, name) } else { found }
    };
    names.into_iter().filter_map(line).collect()
}

fn name_of(line: &str) -> &str {
    line.split('=').next().unwrap_or_default()
}

fn lines(execution: &Object) -> Result<Vec<String>> {
    Ok(execution.get("Env")?.unwrap_or_default())
}

fn part(object: &Object, field: &str) -> Result<Object> {
    Ok(object.get(field)?.unwrap_or_default())
}

fn value(object: &Object) -> Result<Value> {
    serde_json::from_slice(&object.to_bytes()?).map_err(|error| Error::invalid_document("configuration", error))
}
