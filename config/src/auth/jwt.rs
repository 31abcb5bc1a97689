//! Tokens: whose are taken, and the keys that they are signed with.

use std::time::Duration;

use serde_json::{Value as Json, json};

use super::{AuthMode, LEEWAY, Location, file_schema, list_text, wrong};
use crate::context::{Context, KeyRule, Table};
use crate::fault::FaultKind;
use crate::form::{Form, record, words};
use crate::mcp::url_parts;
use crate::schema::{Definitions, single};
use crate::tree::{Node, Value};

record! {
    /// Tokens (JWT) of one issuer or of several.
    pub struct JwtAuth {
        /// What becomes of requests without a valid token. Default: optional.
        pub mode: AuthMode = or(AuthMode::Optional) "mode";
        /// Where the token stands. Default: the header authorization, after `Bearer `.
        pub location: Location = or(Location::after("Bearer ")) "location";
        /// Several issuers, in the place of issuer, audiences and jwks.
        providers: Vec<JwtProvider> = opt "providers";
        /// The issuer of the tokens, the claim iss letter by letter.
        issuer: Option<String> = opt "issuer";
        /// For whom tokens must be issued: one of these stands in the claim aud. Default: anybody.
        audiences: Vec<String> = opt "audiences";
        /// The keys that the tokens are signed with.
        jwks: Option<Jwks> = opt "jwks";
        /// Which claims must be there.
        validation: JwtValidation = or(JwtValidation::default()) "jwtValidationOptions";
        /// How far the issuer's clock may be from ours. Default: 1m.
        leeway: Duration = or(LEEWAY) "leeway";
    }
    check one_issuer_or_several;
}

record! {
    /// One issuer of tokens.
    pub struct JwtProvider {
        /// The issuer of the tokens, the claim iss letter by letter.
        pub issuer: String = must "issuer";
        /// For whom tokens must be issued: one of these stands in the claim aud. Default: anybody.
        pub audiences: Vec<String> = opt "audiences";
        /// The keys that the tokens are signed with.
        pub jwks: Jwks = must "jwks";
        /// Which claims must be there.
        pub validation: JwtValidation = or(JwtValidation::default()) "jwtValidationOptions";
        /// How far the issuer's clock may be from ours. Default: 1m.
        pub leeway: Duration = or(LEEWAY) "leeway";
    }
}

impl JwtAuth {
    /// Whose tokens are taken; at least one.
    pub fn providers(&self) -> Vec<JwtProvider> {
        let Some((issuer, jwks)) = self.issuer.clone().zip(self.jwks.clone()) else { return self.providers.clone() };
        let (audiences, validation, leeway) = (self.audiences.clone(), self.validation.clone(), self.leeway);
        vec![JwtProvider { issuer, audiences, jwks, validation, leeway }]
    }
}

fn one_issuer_or_several(jwt: &JwtAuth, table: &Table<'_>, cx: &mut Context<'_>) -> bool {
    let single = ["issuer", "audiences", "jwks", "jwtValidationOptions", "leeway"];
    if table.entry(&["providers"]).is_some() {
        if let Some(entry) = table.entry(&single) {
            let message = "cannot stand beside providers; it belongs to one of them".to_owned();
            cx.at_key(&entry.key, |cx| cx.fault_at(entry.mark, FaultKind::Conflict, message));
            return false;
        }
        if jwt.providers.is_empty() {
            cx.at_key("providers", |cx| cx.fault_at(table.mark, FaultKind::Missing, "names no issuer".to_owned()));
        }
        return !jwt.providers.is_empty();
    }
    for (key, is_there) in [("issuer", jwt.issuer.is_some()), ("jwks", jwt.jwks.is_some())] {
        if !is_there {
            cx.at_key(key, |cx| cx.fault_at(table.mark, FaultKind::Missing, "missing".to_owned()));
            return false;
        }
    }
    true
}

record! {
    /// Which claims must be there, whatever they say.
    pub struct JwtValidation {
        /// Of exp, nbf, aud, iss and sub. Default: exp.
        pub required: Vec<RequiredClaim> = or(vec![RequiredClaim::Exp]) "requiredClaims" as Vec<RequiredClaim>;
    }
}

impl Default for JwtValidation {
    fn default() -> Self {
        JwtValidation { required: vec![RequiredClaim::Exp] }
    }
}

words! {
    /// A claim of RFC 7519.
    pub enum RequiredClaim {
        /// When the token ends.
        Exp = "exp",
        /// When it begins.
        Nbf = "nbf",
        /// For whom it is.
        Aud = "aud",
        /// Who issued it.
        Iss = "iss",
        /// Whom it speaks of.
        Sub = "sub",
    }
}

/// Keys that tokens are signed with (RFC 7517).
#[derive(Debug, Clone, PartialEq)]
pub enum Jwks {
    /// The key set: written here, or out of a file.
    Here(Json),
    /// Fetched from there, and again from time to time.
    Url(Url),
}

impl Form for Jwks {
    type Out = Jwks;

    fn decode(node: &Node, cx: &mut Context<'_>) -> Option<Jwks> {
        if let Value::Mapping(entries) = &node.value
            && entries.iter().any(|entry| entry.key == "url")
        {
            let table = cx.table(node, &[KeyRule::built("url")])?;
            return table.must::<Url>(cx, &["url"]).map(Jwks::Url);
        }
        let text = list_text(node, cx, "a key set as text, or a mapping with one of the keys file, url")?;
        match serde_json::from_str::<Json>(&text) {
            Ok(set) if set.get("keys").is_some_and(Json::is_array) => Some(Jwks::Here(set)),
            Ok(_) => wrong(node, cx, "a key set: a JSON object with a list of keys (RFC 7517, 5)"),
            Err(error) => wrong(node, cx, &format!("a key set in JSON ({error})")),
        }
    }

    fn schema(defs: &mut Definitions) -> Json {
        let description = "A key set (RFC 7517) as text, the file that holds it, or the URL that it is fetched from.";
        defs.define("Jwks", description, |defs| {
            let url =
                single("url", Url::schema(defs), "Where the key set is fetched from, and again from time to time.");
            json!({"oneOf": [{"type": "string"}, file_schema(), url]})
        })
    }
}

/// An absolute URL without user and fragment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Url {
    /// As written.
    pub text: String,
    /// `https`.
    pub secure: bool,
    /// A name in lowercase or an IP address, an IPv6 one without brackets.
    pub host: String,
    /// 1 to 65535.
    pub port: u16,
    /// With query, if one was written. Begins with `/`.
    pub path: String,
}

impl Url {
    /// `None`: not one that can be fetched.
    pub fn parse(text: &str) -> Option<Url> {
        let is_absolute = text.starts_with("http://") || text.starts_with("https://");
        let parts = is_absolute.then(|| url_parts(text)).flatten()?;
        Some(Url { text: text.to_owned(), secure: parts.secure, host: parts.host, port: parts.port, path: parts.path })
    }
}

impl Form for Url {
    type Out = Url;

    fn decode(node: &Node, cx: &mut Context<'_>) -> Option<Url> {
        let expected = "a URL, like https://example.com/path";
        let text = cx.string(node, expected)?;
        let url = Url::parse(&text);
        if url.is_none() {
            cx.invalid(node, expected);
        }
        url
    }

    fn schema(_: &mut Definitions) -> Json {
        json!({"type": "string", "pattern": "^https?://|\\$"})
    }
}
