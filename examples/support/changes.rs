//! Changes of a configuration, as Dockerfiles have them: `CMD ["/bin/sh"]`, `ENV LANG=C`.

use layercake::manifest::ConfigEdit;

use crate::support;

pub fn parse(changes: &[String]) -> support::Result<ConfigEdit> {
    changes.iter().try_fold(ConfigEdit::new(), |edit, change| apply(edit, change))
}

fn apply(edit: ConfigEdit, change: &str) -> support::Result<ConfigEdit> {
    let (word, rest) = change.trim().split_once(char::is_whitespace).unwrap_or((change.trim(), ""));
    let rest = rest.trim();
    if rest.is_empty() {
        return Err(format!("{change:?} says nothing: as in CMD [\"/bin/sh\"]").into());
    }
    Ok(match word.to_ascii_uppercase().as_str() {
        "CMD" => edit.cmd(command(rest)),
        "ENTRYPOINT" => edit.entrypoint(command(rest)),
        "ENV" => pairs(rest)?.iter().fold(edit, |edit, (name, value)| edit.env(name, value)),
        "LABEL" => pairs(rest)?.iter().fold(edit, |edit, (name, value)| edit.label(name, value)),
        "EXPOSE" => rest.split_whitespace().fold(edit, |edit, port| edit.exposed_port(port)),
        "VOLUME" => list(rest).iter().fold(edit, |edit, path| edit.volume(path)),
        "USER" => edit.user(rest),
        "WORKDIR" => edit.working_dir(rest),
        "STOPSIGNAL" => edit.stop_signal(rest),
        other => {
            let known = "CMD, ENTRYPOINT, ENV, LABEL, EXPOSE, VOLUME, USER, WORKDIR, STOPSIGNAL";
            return Err(format!("unknown change {other:?}: one of {known}").into());
        }
    })
}

/// A list in JSON, or a line for the shell.
fn command(text: &str) -> Vec<String> {
    serde_json::from_str(text).unwrap_or_else(|_| ["/bin/sh", "-c", text].map(str::to_owned).to_vec())
}

fn list(text: &str) -> Vec<String> {
    serde_json::from_str(text).unwrap_or_else(|_| text.split_whitespace().map(str::to_owned).collect())
}

/// `A=b "C=d e"`, or the old form of one: `A b c`.
fn pairs(text: &str) -> support::Result<Vec<(String, String)>> {
    let words = words(text)?;
    let first = words.first().map_or("", String::as_str);
    if !first.contains('=') {
        let (name, value) = text.split_once(char::is_whitespace).ok_or_else(|| format!("{text:?} has no value"))?;
        return Ok(vec![(name.to_owned(), value.trim().to_owned())]);
    }
    let pair = |word: &String| {
        let (name, value) = word.split_once('=').ok_or_else(|| format!("{word:?} has no value"))?;
        Ok((name.to_owned(), value.to_owned()))
    };
    words.iter().map(pair).collect()
}

/// Words between white space, in which quotes and `\` keep what they keep in a shell.
fn words(text: &str) -> support::Result<Vec<String>> {
    let mut words = Vec::new();
    let mut word: Option<String> = None;
    let mut quote = None;
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        match (quote, c) {
            (Some(open), c) if c == open => quote = None,
            (Some('\''), c) => word.get_or_insert_default().push(c),
            (_, '\\') => word.get_or_insert_default().push(chars.next().unwrap_or('\\')),
            (None, '\'' | '"') => {
                word.get_or_insert_default();
                quote = Some(c);
            }
            (None, c) if c.is_whitespace() => words.extend(word.take()),
            (_, c) => word.get_or_insert_default().push(c),
        }
    }
    if quote.is_some() {
        return Err(format!("a quote in {text:?} does not end").into());
    }
    words.extend(word);
    Ok(words)
}
