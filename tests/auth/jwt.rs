//! `jwtAuth`: which tokens are taken, and each way of not being one.

use serde_json::{Value, json};

use crate::mint::{AUDIENCE, ISSUER, Key, claims, encode, jwt_auth, message, now, with_secret};
use crate::support::upstream::Upstream;
use crate::{get, get_with, guarded, yes};

#[test]
fn every_kind_of_signature_is_taken() {
    let (rsa, es256, es384, ed) = (Key::rsa(), Key::es256(), Key::es384(), Key::ed());
    let keys = [rsa.jwk("r"), es256.jwk("e"), es384.jwk("f"), ed.jwk("d")];
    let upstream = yes();
    let (_gateway, address) = guarded(upstream.address, json!({ "jwtAuth": jwt_auth("strict", &keys) }));
    let cases = [
        (&rsa, "RS256", "r"),
        (&rsa, "RS512", "r"),
        (&rsa, "PS256", "r"),
        (&es256, "ES256", "e"),
        (&es384, "ES384", "f"),
        (&ed, "EdDSA", "d"),
    ];
    for (key, alg, kid) in cases {
        for header in [
            json!({ "alg": alg, "kid": kid }),
            json!({ "alg": alg }),
            json!({ "alg": alg, "kid": kid, "typ": "JWT" }),
            json!({ "alg": alg, "kid": kid, "typ": "application/at+jwt" }),
        ] {
            let token = key.token(&header, &claims(json!({})));
            // The second time it is known.
            for _ in 0..2 {
                let answer = get_with(address, &token);
                assert_eq!(answer.status, 200, "{header} {:?}", answer.get("www-authenticate"));
            }
        }
    }
    assert!(upstream.requests().iter().all(|request| request.head.get("authorization").is_none()), "it stays here");
}

#[test]
fn what_is_wrong_with_a_token_is_told() {
    let (rsa, es256, other) = (Key::rsa(), Key::es256(), Key::es256());
    let mut bound = rsa.jwk("bound");
    bound["alg"] = json!("RS256");
    let mut sealing = rsa.jwk("sealing");
    sealing["use"] = json!("enc");
    let public = encode(rsa.jwk("r")["n"].to_string().as_bytes());
    let keys = [es256.jwk("e"), bound, sealing];
    let upstream = yes();
    let (_gateway, address) = guarded(upstream.address, json!({ "jwtAuth": jwt_auth("strict", &keys) }));
    let good = json!({ "alg": "ES256", "kid": "e" });
    let signed = |more: Value| es256.token(&good, &claims(more));
    let with_header = |header: Value| es256.token(&header, &claims(json!({})));
    let whole = signed(json!({}));
    let (unsigned, signature) = whole.rsplit_once('.').expect("three parts");
    let (header, _) = unsigned.split_once('.').expect("a header");
    let others_claims = encode(claims(json!({ "sub": "root" })).to_string().as_bytes());
    let broken_exp = signed(json!({ "exp": "9999999999" }));
    let cases: Vec<(String, &str)> = vec![
        (signed(json!({ "exp": now() - 60 })), "token has expired"),
        (signed(json!({ "exp": null })), "token has no claim exp"),
        (broken_exp, "token"),
        (signed(json!({ "nbf": now() + 60 })), "token is not valid yet"),
        (signed(json!({ "nbf": "0" })), "token"),
        (signed(json!({ "aud": "https://other.test" })), "token is for another audience"),
        (signed(json!({ "aud": ["a", "b"] })), "token is for another audience"),
        (signed(json!({ "aud": null })), "token is for another audience"),
        (signed(json!({ "iss": "https://evil.test" })), "token is of another issuer"),
        (signed(json!({ "iss": [ISSUER] })), "token has no issuer"),
        (signed(json!({ "iss": null })), "token has no issuer"),
        // Signatures.
        (other.token(&good, &claims(json!({}))), "token has a wrong signature"),
        (format!("{unsigned}."), "token"),
        (format!("{unsigned}.{}", encode(&[0; 64])), "token has a wrong signature"),
        (format!("{header}.{others_claims}.{signature}"), "token has a wrong signature"),
        (unsigned.to_owned(), "not a signed token"),
        (format!("{whole}.x"), "not a signed token"),
        // Algorithms.
        (format!("{}.", message(&json!({ "alg": "none" }), &claims(json!({})))), "algorithm that is not accepted"),
        (format!("{}.", message(&json!({ "alg": "None", "kid": "e" }), &claims(json!({})))), "not accepted"),
        (with_secret(public.as_bytes(), &json!({ "alg": "HS256" }), &claims(json!({}))), "not accepted"),
        (with_secret(b"x", &json!({ "alg": "HS256", "kid": "bound" }), &claims(json!({}))), "not accepted"),
        (rsa.token(&json!({ "alg": "PS256", "kid": "bound" }), &claims(json!({}))), "its key is not for"),
        (rsa.token(&json!({ "alg": "RS256", "kid": "e" }), &claims(json!({}))), "its key is not for"),
        (rsa.token(&json!({ "alg": "RS256", "kid": "sealing" }), &claims(json!({}))), "unknown key"),
        (with_header(json!({ "alg": "ES256", "kid": "none of these" })), "unknown key"),
        // Headers.
        (with_header(json!({ "alg": "ES256", "kid": "e", "typ": "secevent+jwt" })), "for other uses"),
        (with_header(json!({ "alg": "ES256", "kid": "e", "crit": ["exp"], "exp": 1 })), "not known"),
        (with_header(json!({ "alg": "ES256", "kid": "e", "b64": false })), "not known"),
        (with_header(json!({ "alg": "ES256", "kid": 7 })), "no readable header"),
        ("a.b.c".to_owned(), "no readable header"),
        ("....".to_owned(), "not a signed token"),
        ("\u{e9}".repeat(4), "token"),
        (format!("{}.{}", encode(b"{}"), "a".repeat(20_000)), "too long"),
    ];
    for (token, expected) in cases {
        let answer = get_with(address, &token);
        let challenge = answer.get("www-authenticate").unwrap_or_default();
        assert_eq!(answer.status, 401, "{token}");
        assert!(challenge.starts_with("Bearer error=\"invalid_token\""), "{token}: {challenge}");
        assert!(challenge.contains(expected), "{token}: {challenge}");
    }
    assert_eq!(upstream.requests().len(), 0, "none of them came through");
    assert_eq!(get_with(address, &whole).status, 200);
    let answer = get(address, &[]);
    assert_eq!((answer.status, answer.get("www-authenticate")), (401, Some("Bearer")));
    let twice = format!("Bearer {whole}");
    let answer = get(address, &[("authorization", &twice), ("authorization", &twice)]);
    assert_ne!(answer.status, 200, "nobody can say which of two counts");
}

#[test]
fn clocks_may_differ_a_little() {
    let key = Key::ed();
    let upstream = yes();
    let (_gateway, address) = guarded(upstream.address, json!({ "jwtAuth": jwt_auth("strict", &[key.jwk("d")]) }));
    let header = json!({ "alg": "EdDSA", "kid": "d" });
    for more in [json!({ "nbf": now() + 3 }), json!({ "exp": now() - 1 }), json!({ "aud": ["x", AUDIENCE] })] {
        assert_eq!(get_with(address, &key.token(&header, &claims(more.clone()))).status, 200, "{more}");
    }
}

#[test]
fn modes_say_who_passes() {
    let key = Key::ed();
    let token = key.token(&json!({ "alg": "EdDSA" }), &claims(json!({})));
    let wrong = key.token(&json!({ "alg": "EdDSA" }), &claims(json!({ "iss": "https://evil.test" })));
    for (mode, expected) in [("strict", [401, 401, 200]), ("optional", [200, 401, 200]), ("permissive", [200; 3])] {
        let upstream = Upstream::named("yes");
        let policies = json!({ "jwtAuth": jwt_auth(mode, &[key.jwk("d")]) });
        let (_gateway, address) = guarded(upstream.address, policies);
        let statuses = [get(address, &[]), get_with(address, &wrong), get_with(address, &token)].map(|one| one.status);
        assert_eq!(statuses, expected, "{mode}");
        assert!(upstream.requests().iter().all(|request| request.head.get("authorization").is_none()), "{mode}");
    }
}

#[test]
fn each_of_several_issuers_has_its_own_keys() {
    let (one, two) = (Key::ed(), Key::es256());
    let jwks = |key: &Key| json!({ "keys": [key.jwk("k")] }).to_string();
    let policies = json!({ "jwtAuth": { "mode": "strict", "location": { "header": { "name": "x-token" } }, "providers": [
        { "issuer": ISSUER, "jwks": jwks(&one) },
        { "issuer": "https://second.test", "audiences": [AUDIENCE], "jwks": jwks(&two) },
    ] } });
    let upstream = yes();
    let (_gateway, address) = guarded(upstream.address, policies);
    let ask = |token: String| get(address, &[("x-token", &token)]).status;
    let (first, second) = (json!({ "alg": "EdDSA", "kid": "k" }), json!({ "alg": "ES256", "kid": "k" }));
    let of_second = |more: Value| {
        let mut claims = claims(json!({ "iss": "https://second.test" }));
        more.as_object().expect("an object").iter().for_each(|(name, value)| claims[name] = value.clone());
        claims
    };
    assert_eq!(ask(one.token(&first, &claims(json!({ "aud": "anybody" })))), 200, "it names no audience");
    assert_eq!(ask(two.token(&second, &of_second(json!({})))), 200);
    assert_eq!(ask(two.token(&second, &of_second(json!({ "aud": "x" })))), 401);
    assert_eq!(ask(one.token(&first, &of_second(json!({})))), 401, "the keys of one are none of the other's");
    assert_eq!(ask(two.token(&second, &claims(json!({})))), 401);
    assert!(upstream.requests().iter().all(|request| request.head.get("x-token").is_none()));
}
