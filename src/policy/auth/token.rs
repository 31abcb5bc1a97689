//! A token (JWT, RFC 7519; signed, RFC 7515) against what an issuer's tokens must be. Pure: keys and rules come in, claims
//! come out. `jsonwebtoken` checks the signature and times; what RFC 8725 asks for beyond it is here.

use std::sync::Arc;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::errors::ErrorKind;
use jsonwebtoken::{Algorithm, Validation};
use serde_json::Value;

use super::keys::KeySet;
use crate::protocol::mcp::caller::Caller;

/// A longer token is none.
pub const TOKEN_BYTES_MAX: usize = 16 * 1024;
/// Keys that one token is tried with when it names none.
const TRIED_KEYS_MAX: usize = 8;

/// What an issuer's tokens must be.
#[derive(Clone, Debug)]
pub struct Rules {
    pub issuer: String,
    /// Empty: anybody's.
    pub audiences: Vec<String>,
    /// The names of claims that must be there.
    pub required: Vec<&'static str>,
    pub leeway: Duration,
}

/// What a verified token says.
#[derive(Clone, Debug)]
pub struct Verified {
    pub claims: Arc<Value>,
    /// Issuer and subject.
    pub identity: Caller,
    /// Until when it counts, seconds since 1970, the leeway included; `None`: for ever.
    pub until: Option<u64>,
}

/// Why a token is not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refused {
    /// As the client reads it.
    Invalid(&'static str),
    /// It names a key that the issuer did not have when its keys were read.
    KeyUnknown,
}

use Refused::Invalid;

/// The part of a token that says how the rest is to be read.
#[derive(Debug)]
pub struct Header {
    algorithm: Algorithm,
    kid: Option<String>,
}

/// A token that can be read. Nothing in it is true yet.
pub struct Unverified<'a> {
    text: &'a str,
    pub header: Header,
    /// The issuer that it names, to find the keys by.
    pub issuer: String,
}

/// Reads a token.
pub fn read(text: &str) -> Result<Unverified<'_>, Refused> {
    if text.len() > TOKEN_BYTES_MAX {
        return Err(Invalid("token is too long"));
    }
    let mut parts = text.split('.');
    let (Some(header), Some(claims), Some(_), None) = (parts.next(), parts.next(), parts.next(), parts.next()) else {
        return Err(Invalid("not a signed token"));
    };
    let header = header_of(&object(header).ok_or(Invalid("token has no readable header"))?)?;
    let claims = object(claims).ok_or(Invalid("token has no readable claims"))?;
    let issuer = claims.get("iss").and_then(Value::as_str).ok_or(Invalid("token has no issuer"))?;
    Ok(Unverified { text, header, issuer: issuer.to_owned() })
}

fn object(part: &str) -> Option<Value> {
    let bytes = URL_SAFE_NO_PAD.decode(part).ok()?;
    serde_json::from_slice::<Value>(&bytes).ok().filter(Value::is_object)
}

fn header_of(header: &Value) -> Result<Header, Refused> {
    let text = |name: &str| header.get(name).map(|value| value.as_str().ok_or(Invalid("token has no readable header")));
    let name = text("alg").ok_or(Invalid("token names no algorithm"))??;
    let algorithm: Algorithm = match name {
        // RFC 9864.
        "Ed25519" => return Err(Invalid("token is signed with an algorithm that is not accepted")),
        name => name.parse().map_err(|_| Invalid("token is signed with an algorithm that is not accepted"))?,
    };
    if !super::crypto::is_known(algorithm) {
        return Err(Invalid("token is signed with an algorithm that is not accepted"));
    }
    // What it says must be understood is not (RFC 7515, 4.1.11), `b64` among it.
    if header.get("crit").is_some() || header.get("b64").is_some() || header.get("enc").is_some() {
        return Err(Invalid("token asks for an extension that is not known"));
    }
    // Other kinds of JWT are for other uses (RFC 8725, 3.11): an ID token has JWT or none, an access token at+jwt.
    if let Some(typ) = text("typ").transpose()? {
        let kind = typ.to_ascii_lowercase();
        let kind = kind.strip_prefix("application/").unwrap_or(&kind);
        if !matches!(kind, "jwt" | "at+jwt") {
            return Err(Invalid("token is of a type for other uses"));
        }
    }
    Ok(Header { algorithm, kid: text("kid").transpose()?.map(str::to_owned) })
}

/// Verifies a token of this issuer.
pub fn verify(token: &Unverified<'_>, rules: &Rules, keys: &KeySet) -> Result<Verified, Refused> {
    let Header { algorithm, kid } = &token.header;
    let mut candidates = keys.candidates(kid.as_deref()).peekable();
    if candidates.peek().is_none() {
        return Err(Refused::KeyUnknown);
    }
    let validation = validation(rules, *algorithm);
    let mut outcome = Err(Invalid("token is signed with an algorithm that its key is not for"));
    for key in candidates.filter(|key| key.is_for(*algorithm)).take(TRIED_KEYS_MAX) {
        match jsonwebtoken::decode::<Value>(token.text, &key.decoding, &validation) {
            Ok(data) => return verified(data.claims, rules, token.text),
            Err(error) => {
                let reason = reason(error.kind());
                let is_signed = !matches!(error.kind(), ErrorKind::InvalidSignature);
                outcome = Err(reason);
                // The key fits: another one would not.
                if is_signed {
                    break;
                }
            }
        }
    }
    outcome
}

fn validation(rules: &Rules, algorithm: Algorithm) -> Validation {
    let mut validation = Validation::new(algorithm);
    validation.leeway = rules.leeway.as_secs();
    validation.validate_nbf = true;
    validation.set_issuer(&[&rules.issuer]);
    validation.required_spec_claims = rules.required.iter().map(|&name| name.to_owned()).collect();
    validation.required_spec_claims.insert("iss".to_owned());
    validation.validate_aud = !rules.audiences.is_empty();
    if !rules.audiences.is_empty() {
        validation.set_audience(&rules.audiences);
        validation.required_spec_claims.insert("aud".to_owned());
    }
    validation
}

fn reason(kind: &ErrorKind) -> Refused {
    Invalid(match kind {
        ErrorKind::ExpiredSignature => "token has expired",
        ErrorKind::ImmatureSignature => "token is not valid yet",
        ErrorKind::InvalidAudience => "token is for another audience",
        ErrorKind::InvalidIssuer => "token is of another issuer",
        ErrorKind::InvalidSignature => "token has a wrong signature",
        ErrorKind::MissingRequiredClaim(name) => match name.as_str() {
            "exp" => "token has no claim exp",
            "aud" => "token is for another audience",
            "nbf" => "token has no claim nbf",
            "sub" => "token has no claim sub",
            _ => "token lacks a required claim",
        },
        _ => "token cannot be verified",
    })
}

fn verified(claims: Value, rules: &Rules, text: &str) -> Result<Verified, Refused> {
    // The library takes a list that holds the issuer.
    if claims.get("iss").and_then(Value::as_str) != Some(&rules.issuer) {
        return Err(Invalid("token is of another issuer"));
    }
    let subject = claims.get("sub").and_then(Value::as_str);
    let identity = match subject {
        Some(subject) => Caller::verified("jwt", &[rules.issuer.as_bytes(), subject.as_bytes()]),
        // It speaks of nobody: then it is itself all that is known.
        None => Caller::verified("token", &[text.as_bytes()]),
    };
    let expires = claims.get("exp").and_then(Value::as_f64);
    let until = expires.map(|at| (at.max(0.0) as u64).saturating_add(rules.leeway.as_secs()));
    Ok(Verified { claims: Arc::new(claims), identity, until })
}
