//! What an entry of `auths` says. Reasons never quote it.

use base64::Engine;
use base64::alphabet;
use base64::engine::DecodePaddingMode;
use base64::engine::GeneralPurpose;
use base64::engine::GeneralPurposeConfig;
use serde_json::Map;
use serde_json::Value;

use crate::registry::credentials::Credentials;

/// Padding is often lost where people copy.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &alphabet::STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// The credentials of an entry; none if it says nothing, as those that a `credsStore` leaves behind.
///
/// All of it must be well-formed, also what is not used: nothing of an entry that is half understood is sent.
pub(super) fn credentials(entry: &Value) -> Result<Option<Credentials>, String> {
    let fields = match entry {
        Value::Object(fields) => fields,
        Value::Null => return Ok(None),
        _ => return Err("it is no object".to_owned()),
    };
    let login = login(fields)?;
    if let Some(token) = text(fields, "registrytoken")? {
        return registry_token(token).map(Some);
    }
    if let Some(token) = text(fields, "identitytoken")? {
        return Ok(Some(Credentials::identity_token(token)));
    }
    login.map(|(username, password)| password_of(&username, &password)).transpose()
}

/// The user name must be one that a header can carry: it ends at the first colon.
pub(super) fn password_of(username: &str, password: &str) -> Result<Credentials, String> {
    match username {
        "" => Err("it has no user name".to_owned()),
        _ if username.contains(':') => Err("its user name has a colon".to_owned()),
        _ => Ok(Credentials::new(username, password)),
    }
}

/// A field's text, whatever the case of its name; none if it is missing or empty.
pub(super) fn text<'a>(fields: &'a Map<String, Value>, name: &str) -> Result<Option<&'a str>, String> {
    match field(fields, name) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(text)) => Ok(Some(text.as_str()).filter(|text| !text.is_empty())),
        Some(_) => Err(format!("its {name} is no text")),
    }
}

/// The value of a field, whatever the case of its name: helpers may write any. Configuration files with such names are
/// refused before.
pub(super) fn field<'a>(fields: &'a Map<String, Value>, name: &str) -> Option<&'a Value> {
    fields.get(name).or_else(|| fields.iter().find(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value))
}

/// `auth`, which goes first, or `username` and `password`.
fn login(fields: &Map<String, Value>) -> Result<Option<(String, String)>, String> {
    let (username, password) = (text(fields, "username")?, text(fields, "password")?);
    if let Some(auth) = text(fields, "auth")? {
        return decode(auth).map(Some);
    }
    match (username, password) {
        (None, None) => Ok(None),
        (Some(username), Some(password)) => Ok(Some((username.to_owned(), password.to_owned()))),
        (Some(_), None) => Err("it has a user name and no password".to_owned()),
        (None, Some(_)) => Err("it has a password and no user name".to_owned()),
    }
}

/// base64 of `user:password`. Docker passes over line ends in it, and trims zero bytes behind the password.
fn decode(auth: &str) -> Result<(String, String), String> {
    let auth: String = auth.chars().filter(|c| !matches!(c, '\r' | '\n')).collect();
    let bytes = BASE64.decode(auth).map_err(|_| "its auth is no base64")?;
    let text = String::from_utf8(bytes).map_err(|_| "its auth is no UTF-8 text")?;
    let (username, password) = text.split_once(':').ok_or("its auth has no colon")?;
    Ok((username.to_owned(), password.trim_end_matches('\0').to_owned()))
}

/// It goes into a header as it is.
fn registry_token(token: &str) -> Result<Credentials, String> {
    match token.bytes().all(|byte| byte.is_ascii_graphic()) {
        true => Ok(Credentials::registry_token(token)),
        false => Err("its registrytoken has characters that tokens do not have".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn read(entry: &str) -> Result<Option<Credentials>, String> {
        credentials(&serde_json::from_str(entry).unwrap())
    }

    /// A5; case 167: `alice:pass:word`, `alice:pw\0\0`, and what is like them.
    #[test]
    fn an_entry_is_a_password_or_a_token() {
        let login = |username: &str, password: &str| Credentials::new(username, password);
        let token = Credentials::identity_token("refresh");
        for (entry, expected) in [
            (r#"{"auth":"YWxpY2U6cGFzczp3b3Jk"}"#, login("alice", "pass:word")),
            (r#"{"auth":"YWxpY2U6cHcAAA=="}"#, login("alice", "pw")),
            (r#"{"auth":"YWxpY2U6cHcAAA"}"#, login("alice", "pw")),
            (r#"{"auth":"YWxp\r\nY2U6cHcAAA==\n"}"#, login("alice", "pw")),
            (r#"{"auth":"YWxpY2U6"}"#, login("alice", "")),
            (r#"{"Auth":"YWxpY2U6cHc="}"#, login("alice", "pw")),
            (r#"{"username":"alice","password":"p:w"}"#, login("alice", "p:w")),
            (r#"{"username":"bob","password":"x","auth":"YWxpY2U6cHc="}"#, login("alice", "pw")),
            (r#"{"auth":"","username":"alice","password":"pw","email":"a@b"}"#, login("alice", "pw")),
            (r#"{"identitytoken":"refresh"}"#, token.clone()),
            // As the registry of Azure has it: a user of zeros without a password.
            (r#"{"auth":"MDAwMDAwMDA6","identitytoken":"refresh"}"#, token),
            (r#"{"registrytoken":"opaque","identitytoken":"x"}"#, Credentials::registry_token("opaque")),
        ] {
            assert!(read(entry) == Ok(Some(expected)), "{entry}");
        }
        for entry in ["{}", "null", r#"{"auth":""}"#, r#"{"auth":null,"email":"a@b"}"#] {
            assert_eq!(read(entry), Ok(None), "{entry}");
        }
    }

    /// Case 167: nothing of it is used.
    #[test]
    fn an_entry_that_is_half_understood_is_a_mistake() {
        for (entry, expected) in [
            (r#""YWxpY2U6cHc=""#, "it is no object"),
            ("[]", "it is no object"),
            (r#"{"auth":5}"#, "its auth is no text"),
            (r#"{"auth":"%%%"}"#, "its auth is no base64"),
            (r#"{"auth":"YWxpY2U6cHc=="}"#, "its auth is no base64"),
            (r#"{"auth":"YWxpY2U"}"#, "its auth has no colon"),
            (r#"{"auth":"YWxpY2U6/w=="}"#, "its auth is no UTF-8 text"),
            (r#"{"auth":"OnB3"}"#, "it has no user name"),
            (r#"{"auth":"YWxpY2U6cHc=","identitytoken":{}}"#, "its identitytoken is no text"),
            (r#"{"auth":"YWxpY2U","identitytoken":"x"}"#, "its auth has no colon"),
            (r#"{"auth":"YWxpY2U6cHc=","password":[]}"#, "its password is no text"),
            (r#"{"username":"alice"}"#, "it has a user name and no password"),
            (r#"{"password":"pw"}"#, "it has a password and no user name"),
            (r#"{"username":"a:b","password":"pw"}"#, "its user name has a colon"),
            (r#"{"registrytoken":"a\r\nX: y"}"#, "its registrytoken has characters that tokens do not have"),
        ] {
            assert_eq!(read(entry), Err(expected.to_owned()), "{entry}");
        }
    }
}
