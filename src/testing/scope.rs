//! What a token is asked for, and allows.

use std::fmt;

/// A kind of thing, its name and what may be done with it (distribution, "Token Scope Documentation").
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Scope {
    pub(super) resource: String,
    pub(super) actions: Vec<String>,
}

impl Scope {
    pub(super) fn new(resource: &str, actions: &[&str]) -> Scope {
        Scope { resource: resource.to_owned(), actions: actions.iter().map(|&action| action.to_owned()).collect() }
    }

    pub(super) fn of_repository(name: &str, actions: &[&str]) -> Scope {
        Scope::new(&format!("repository:{name}"), actions)
    }

    /// The scopes of a parameter, which are separated by spaces.
    pub(super) fn parse_all(text: &str) -> impl Iterator<Item = Scope> {
        text.split(' ').filter_map(|scope| {
            let (resource, actions) = scope.rsplit_once(':')?;
            Some(Scope::new(resource, &actions.split(',').collect::<Vec<_>>()))
        })
    }

    /// Whether a token that has these allows this.
    pub(super) fn is_within(&self, granted: &[Scope]) -> bool {
        let same = || granted.iter().filter(|scope| scope.resource == self.resource);
        self.actions.iter().all(|action| same().any(|scope| scope.actions.contains(action)))
    }
}

impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.resource, self.actions.join(","))
    }
}
