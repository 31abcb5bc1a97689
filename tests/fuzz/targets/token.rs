//! Tokens (JWT): nobody who has no key makes one; one that the issuer signed says what was signed, to whom it was meant, in
//! its time, and not when a byte of it is another. The input is a token, or the header and the claims, a line each.
#![no_main]

use std::sync::LazyLock;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use agentlane_fuzz::keys::KeySet;
use agentlane_fuzz::token::{Refused, Rules, read, verify};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use libfuzzer_sys::fuzz_target;
use ring::signature::{Ed25519KeyPair, KeyPair};
use serde_json::{Value, json};

const LEEWAY: Duration = Duration::from_secs(60);

/// Who signs, and what its tokens are verified with.
struct Issuer {
    pair: Ed25519KeyPair,
    keys: KeySet,
    /// Another's, under the same name.
    others: KeySet,
    rules: Rules,
}

static ISSUER: LazyLock<Issuer> = LazyLock::new(|| {
    let pair = |seed: u8| Ed25519KeyPair::from_seed_unchecked(&[seed; 32]).expect("a seed");
    let keys = |pair: &Ed25519KeyPair| {
        let x = URL_SAFE_NO_PAD.encode(pair.public_key());
        KeySet::read(&json!({"keys": [{"kty": "OKP", "crv": "Ed25519", "kid": "k", "x": x}]}))
    };
    let (mine, other) = (pair(1), pair(2));
    let rules =
        Rules { issuer: "i".to_owned(), audiences: vec!["a".to_owned()], required: vec!["exp"], leeway: LEEWAY };
    Issuer { keys: keys(&mine), others: keys(&other), pair: mine, rules }
});

fuzz_target!(|data: &[u8]| {
    let issuer = &*ISSUER;
    if let Ok(text) = std::str::from_utf8(data)
        && let Ok(token) = read(text)
    {
        assert!(verify(&token, &issuer.rules, &issuer.keys).is_err(), "forged");
    }
    let Some(split) = data.iter().position(|&byte| byte == b'\n') else { return };
    let (header, claims) = (&data[..split], &data[split + 1..]);
    let signed = format!("{}.{}", URL_SAFE_NO_PAD.encode(header), URL_SAFE_NO_PAD.encode(claims));
    let signature = issuer.pair.sign(signed.as_bytes());
    let text = format!("{signed}.{}", URL_SAFE_NO_PAD.encode(signature.as_ref()));
    let Ok(token) = read(&text) else { return };
    let Ok(verified) = verify(&token, &issuer.rules, &issuer.keys) else { return };
    judge_header(header);
    judge_claims(claims, &verified.claims);
    let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("a clock").as_secs();
    assert!(verified.until.expect("exp is required") >= now.saturating_sub(1), "expired");
    let elsewhere = Rules { issuer: "j".to_owned(), ..issuer.rules.clone() };
    assert!(verify(&token, &elsewhere, &issuer.keys).is_err());
    assert!(verify(&token, &issuer.rules, &issuer.others).is_err());
    assert!(matches!(verify(&token, &issuer.rules, &KeySet::none()), Err(Refused::KeyUnknown)));
    // Any place, by the input; not the last character, some of whose bits mean nothing.
    let at =
        data.iter().fold(0usize, |sum, &byte| sum.wrapping_mul(31).wrapping_add(usize::from(byte))) % (text.len() - 1);
    let mut bent = text.clone().into_bytes();
    bent[at] = if bent[at] == b'A' { b'B' } else { b'A' };
    let bent = String::from_utf8(bent).expect("one ASCII byte for another");
    if let Ok(token) = read(&bent) {
        assert!(verify(&token, &issuer.rules, &issuer.keys).is_err(), "{bent} for {text}");
    }
});

fn judge_header(header: &[u8]) {
    let header: Value = serde_json::from_slice(header).expect("a header that was read");
    assert_eq!(header["alg"], "EdDSA");
    assert!(header.get("kid").is_none_or(|kid| kid == "k"), "{header}");
    assert!(["crit", "b64", "enc"].iter().all(|name| header.get(name).is_none()), "{header}");
}

fn judge_claims(signed: &[u8], said: &Value) {
    let signed: Value = serde_json::from_slice(signed).expect("claims that were read");
    assert_eq!(&signed, said);
    assert_eq!(signed["iss"], "i");
    let is_meant = match &signed["aud"] {
        Value::Array(all) => all.iter().any(|one| one == "a"),
        one => one == "a",
    };
    assert!(is_meant, "{signed}");
    let nbf = signed.get("nbf").and_then(Value::as_f64);
    let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("a clock").as_secs_f64();
    assert!(nbf.is_none_or(|at| at <= now + LEEWAY.as_secs_f64() + 1.0), "{signed}");
}
