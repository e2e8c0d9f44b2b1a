//! Changes of configurations.

use std::fmt::Write as _;

use serde_json::Value;
use serde_json::json;

use super::object::Object;

use crate::error::Error;
use crate::error::Result;
use crate::platform::Platform;

/// Changes of a configuration: what to run, and notes about it. What it does not name stays as it is, fields that
/// nobody has heard of among them.
///
/// Changes are made in the order in which they are given. The values are data: nothing is expanded or resolved.
///
/// ```
/// use layercake::manifest::ConfigEdit;
///
/// let edit = ConfigEdit::new()
///     .env("PATH", "/usr/bin:/bin")
///     .entrypoint(["/usr/bin/greeter"])
///     .cmd(["--loud"])
///     .label("org.opencontainers.image.title", "greeter")
///     .exposed_port("8080")
///     .without_env("DEBUG");
/// assert!(!edit.is_empty());
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[must_use = "it changes nothing by itself"]
pub struct ConfigEdit {
    changes: Vec<Change>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Change {
    /// Of a field of the document.
    Document(&'static str, Value),
    /// Of a field of `config`.
    Execution(&'static str, Value),
    /// Of something in an object of `config`.
    Insert(&'static str, String, Value),
    Remove(&'static str, String),
    Env(String, String),
    RemoveEnv(String),
}

impl ConfigEdit {
    /// No changes.
    pub fn new() -> ConfigEdit {
        ConfigEdit::default()
    }

    /// Whether nothing is to change.
    pub fn is_empty(&self) -> bool {
        self.changes.is_empty()
    }

    /// Sets an environment variable, in the place of one of the same name.
    pub fn env(self, name: &str, value: &str) -> ConfigEdit {
        self.with(Change::Env(name.to_owned(), value.to_owned()))
    }

    /// Takes an environment variable away.
    pub fn without_env(self, name: &str) -> ConfigEdit {
        self.with(Change::RemoveEnv(name.to_owned()))
    }

    /// Sets the program to run, and its first arguments; none to have no entrypoint. What [`cmd`](ConfigEdit::cmd) set
    /// stays.
    pub fn entrypoint(self, entrypoint: impl IntoIterator<Item = impl Into<String>>) -> ConfigEdit {
        self.with(Change::Execution("Entrypoint", words(entrypoint)))
    }

    /// Sets further arguments; the whole command where there is no entrypoint.
    pub fn cmd(self, cmd: impl IntoIterator<Item = impl Into<String>>) -> ConfigEdit {
        self.with(Change::Execution("Cmd", words(cmd)))
    }

    /// Sets the directory to run in.
    pub fn working_dir(self, path: &str) -> ConfigEdit {
        self.with(Change::Execution("WorkingDir", path.into()))
    }

    /// Sets the user to run as: `user`, `uid`, `user:group` and so on.
    pub fn user(self, user: &str) -> ConfigEdit {
        self.with(Change::Execution("User", user.into()))
    }

    /// Sets the signal that asks the program to end.
    pub fn stop_signal(self, signal: &str) -> ConfigEdit {
        self.with(Change::Execution("StopSignal", signal.into()))
    }

    /// Sets a note.
    pub fn label(self, name: &str, value: &str) -> ConfigEdit {
        self.with(Change::Insert("Labels", name.to_owned(), value.into()))
    }

    /// Takes a note away.
    pub fn without_label(self, name: &str) -> ConfigEdit {
        self.with(Change::Remove("Labels", name.to_owned()))
    }

    /// Adds a port that the program listens on: `port/tcp`, `port/udp`, or `port`, which is tcp.
    pub fn exposed_port(self, port: &str) -> ConfigEdit {
        self.with(Change::Insert("ExposedPorts", port_of(port), json!({})))
    }

    /// Takes a port away.
    pub fn without_exposed_port(self, port: &str) -> ConfigEdit {
        self.with(Change::Remove("ExposedPorts", port_of(port)))
    }

    /// Adds a directory that holds data of the container's own.
    pub fn volume(self, path: &str) -> ConfigEdit {
        self.with(Change::Insert("Volumes", path.to_owned(), json!({})))
    }

    /// Takes a directory that holds data of the container's own away.
    pub fn without_volume(self, path: &str) -> ConfigEdit {
        self.with(Change::Remove("Volumes", path.to_owned()))
    }

    /// Sets who made the image.
    pub fn author(self, author: &str) -> ConfigEdit {
        self.with(Change::Document("author", author.into()))
    }

    /// Sets what the image runs on.
    pub fn platform(self, platform: &Platform) -> ConfigEdit {
        let variant = platform.variant().map_or(Value::Null, Value::from);
        self.with(Change::Document("architecture", platform.architecture().into()))
            .with(Change::Document("os", platform.os().into()))
            .with(Change::Document("variant", variant))
    }

    /// Makes these changes and then others.
    pub fn and(mut self, others: ConfigEdit) -> ConfigEdit {
        self.changes.extend(others.changes);
        self
    }

    fn with(mut self, change: Change) -> ConfigEdit {
        self.changes.push(change);
        self
    }

    /// The changes as the lines of a Dockerfile that would make them, where there are such.
    pub(crate) fn summary(&self) -> String {
        let mut lines = String::new();
        for change in &self.changes {
            let separator = if lines.is_empty() { "" } else { "; " };
            // Writing to a string does not fail.
            let _ = match change {
                Change::Document(field, value) => write!(lines, "{separator}{field} {value}"),
                Change::Execution(field, Value::String(text)) => {
                    write!(lines, "{separator}{} {text}", field.to_uppercase())
                }
                Change::Execution(field, value) => write!(lines, "{separator}{} {value}", field.to_uppercase()),
                Change::Insert("Labels", name, Value::String(value)) => {
                    write!(lines, "{separator}LABEL {name}={value}")
                }
                Change::Insert("ExposedPorts", port, _) => write!(lines, "{separator}EXPOSE {port}"),
                Change::Insert(_, name, _) => write!(lines, "{separator}VOLUME {name}"),
                Change::Remove(field, name) => write!(lines, "{separator}{field} without {name}"),
                Change::Env(name, value) => write!(lines, "{separator}ENV {name}={value}"),
                Change::RemoveEnv(name) => write!(lines, "{separator}ENV without {name}"),
            };
        }
        lines
    }

    /// Makes the changes.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::InvalidInput`](crate::ErrorKind::InvalidInput): a variable's name is empty or has a `=`.
    pub(crate) fn apply(&self, document: &mut Object) -> Result<()> {
        if self.changes.is_empty() {
            return Ok(());
        }
        let mut execution: Object = document.get("config")?.unwrap_or_default();
        for change in &self.changes {
            change.apply(document, &mut execution)?;
        }
        document.set("config", &execution)
    }
}

impl Change {
    fn apply(&self, document: &mut Object, execution: &mut Object) -> Result<()> {
        match self {
            Change::Document(field, Value::Null) => document.remove(field),
            Change::Document(field, value) => document.set(field, value)?,
            Change::Execution(field, value) => execution.set(field, value)?,
            Change::Insert(field, name, value) => {
                let mut object: Object = execution.get(field)?.unwrap_or_default();
                object.set(name, value)?;
                execution.set(field, &object)?;
            }
            Change::Remove(field, name) => {
                let Some(mut object) = execution.get::<Object>(field)? else { return Ok(()) };
                object.remove(name);
                if object.is_empty() { execution.remove(field) } else { execution.set(field, &object)? }
            }
            Change::Env(name, value) => set_env(execution, name, Some(value))?,
            Change::RemoveEnv(name) => set_env(execution, name, None)?,
        }
        Ok(())
    }
}

fn set_env(execution: &mut Object, name: &str, value: Option<&str>) -> Result<()> {
    if name.is_empty() || name.contains(['=', '\0']) {
        return Err(Error::invalid_input(format!("{name:?} is no name of a variable")));
    }
    let mut env: Vec<String> = execution.get("Env")?.unwrap_or_default();
    let is_it = |line: &str| line.split('=').next() == Some(name);
    let at = env.iter().position(|line| is_it(line));
    env.retain(|line| !is_it(line));
    if let Some(value) = value {
        let at = at.unwrap_or(env.len()).min(env.len());
        env.insert(at, format!("{name}={value}"));
    }
    execution.set("Env", &env)
}

fn words(words: impl IntoIterator<Item = impl Into<String>>) -> Value {
    words.into_iter().map(Into::<String>::into).collect()
}

fn port_of(port: &str) -> String {
    if port.contains('/') { port.to_owned() } else { format!("{port}/tcp") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn edited(document: &str, edit: &ConfigEdit) -> String {
        let mut object = Object::parse("configuration", document.as_bytes()).unwrap();
        edit.apply(&mut object).unwrap();
        String::from_utf8(object.to_bytes().unwrap()).unwrap()
    }

    #[test]
    fn what_it_does_not_name_stays() {
        let document =
            r#"{"config":{"Healthcheck":{"Interval":3e1},"Env":["A=1","B=2","A=3"],"Labels":null},"x":[1.0]}"#;
        let edit = ConfigEdit::new().env("A", "4").without_env("B").label("l", "m").exposed_port("80").author("me");
        assert_eq!(
            edited(document, &edit),
            r#"{"config":{"Healthcheck":{"Interval":3e1},"Env":["A=4"],"Labels":{"l":"m"},"ExposedPorts":{"80/tcp":{}}},"x":[1.0],"author":"me"}"#
        );
        assert_eq!(edited(document, &ConfigEdit::new()), document);
    }

    #[test]
    fn what_is_taken_away_is_gone() {
        let document = r#"{"config":{"Labels":{"a":"1"},"Volumes":{"/v":{},"/w":{ }}},"variant":"v8"}"#;
        let edit = ConfigEdit::new()
            .without_label("a")
            .without_volume("/v")
            .without_exposed_port("1")
            .platform(&Platform::new("linux", "amd64"));
        assert_eq!(edited(document, &edit), r#"{"config":{"Volumes":{"/w":{ }}},"architecture":"amd64","os":"linux"}"#);
    }

    #[test]
    fn names_of_variables_are_checked() {
        for name in ["", "a=b", "a\0"] {
            let error = ConfigEdit::new().env(name, "").apply(&mut Object::default()).unwrap_err();
            assert!(matches!(error.kind(), crate::ErrorKind::InvalidInput { .. }), "{error}");
        }
    }

    #[test]
    fn the_history_says_it_as_dockerfiles_do() {
        let edit = ConfigEdit::new().env("A", "1").cmd(["sh", "-c"]).user("nobody").exposed_port("80").volume("/v");
        let summary = r#"ENV A=1; CMD ["sh","-c"]; USER nobody; EXPOSE 80/tcp; VOLUME /v"#;
        assert_eq!(edit.summary(), summary);
    }
}
