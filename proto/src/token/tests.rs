use super::*;
use crate::limits::{CLOCK_SKEW_MAX, TOKEN_BYTES_MAX, TOKEN_LIFETIME_MAX, TOKEN_SCOPES_MAX};
use crate::rest::{Jwk, Jwks};
use crate::{AccountId, AgentId, ChannelId, EndpointId, KeyId};
use data_encoding::BASE64URL_NOPAD;
use proptest::prelude::*;
use zeroize::Zeroizing;

const ISSUER: &str = "https://api.example";
const AUDIENCE: &str = "relays";
const NOW_S: u64 = 1_700_000_000;

fn signer() -> TokenSigner {
    TokenSigner::from_seed(Zeroizing::new([7; 32]))
}

fn claims() -> Claims {
    Claims {
        iss: ISSUER.to_owned(),
        aud: AUDIENCE.to_owned(),
        sub: AgentId::from_bytes([1; 32]),
        acct: AccountId::from_bytes([2; 16]),
        key: KeyId::from_bytes([3; 16]),
        scope: "relay:append relay:replay".to_owned(),
        cnf: Confirmation {
            eid: EndpointId::from_bytes([4; 32]),
        },
        exp: NOW_S + 3_000,
        iat: NOW_S,
        jti: "0191".to_owned(),
    }
}

fn verifier() -> TokenVerifier {
    let jwks = Jwks {
        keys: vec![signer().jwk()],
    };
    TokenVerifier::new(&jwks, ISSUER, AUDIENCE).unwrap()
}

fn refusal(token: &str) -> Code {
    verifier().verify(token, NOW_S).unwrap_err().code
}

/// A token with any header and claims, signed by the right key all the same.
fn forge(header: &str, claims: &str) -> String {
    use ed25519_dalek::Signer;
    let message = [header, claims]
        .map(|part| BASE64URL_NOPAD.encode(part.as_bytes()))
        .join(".");
    let signature = ed25519_dalek::SigningKey::from_bytes(&[7; 32]).sign(message.as_bytes());
    format!("{message}.{}", BASE64URL_NOPAD.encode(&signature.to_bytes()))
}

fn claims_json() -> String {
    serde_json::to_string(&claims()).unwrap()
}

#[test]
fn a_token_carries_its_claims() {
    let token = signer().sign(&claims());
    assert_eq!(verifier().verify(&token, NOW_S), Ok(claims()));
    assert!(verifier().knows_kid(&token));
}

proptest! {
    #[test]
    fn any_text_is_a_token_or_an_error(text in ".{0,300}") {
        prop_assert!(verifier().verify(&text, NOW_S).is_err());
        prop_assert!(!verifier().knows_kid(&text));
    }

    #[test]
    fn any_three_parts_are_a_token_or_an_error(
        header in proptest::collection::vec(any::<u8>(), 0..80),
        claims in proptest::collection::vec(any::<u8>(), 0..200),
        signature in proptest::collection::vec(any::<u8>(), 0..80),
    ) {
        let token = [header, claims, signature].map(|part| BASE64URL_NOPAD.encode(&part)).join(".");
        prop_assert!(verifier().verify(&token, NOW_S).is_err());
    }

    #[test]
    fn signed_claims_that_are_any_json_are_a_token_or_an_error(text in "\\PC{0,200}") {
        let header = format!(r#"{{"alg":"EdDSA","kid":"{}"}}"#, signer().kid());
        prop_assert!(verifier().verify(&forge(&header, &text), NOW_S).is_err());
    }

    #[test]
    fn any_time_is_handled(iat in any::<u64>(), exp in any::<u64>(), now_s in any::<u64>()) {
        let token = signer().sign(&Claims { iat, exp, ..claims() });
        if verifier().verify(&token, now_s).is_ok() {
            prop_assert!(exp - iat <= TOKEN_LIFETIME_MAX.as_secs());
            prop_assert!(now_s < exp + CLOCK_SKEW_MAX.as_secs());
        }
    }

    #[test]
    fn any_text_is_a_scope_or_an_error(text in "\\PC{0,80}") {
        if let Ok(scope) = text.parse::<Scope>() {
            prop_assert_eq!(scope.to_string().parse::<Scope>(), Ok(scope));
        }
    }

    #[test]
    fn a_scope_is_read_as_it_was_written(
        action in proptest::sample::select(Action::ALL.to_vec()),
        channel in proptest::option::of(any::<[u8; 16]>().prop_map(ChannelId::from_bytes)),
    ) {
        let scope = Scope { action, channel };
        prop_assert_eq!(scope.to_string().parse::<Scope>(), Ok(scope));
    }
}

#[test]
fn every_change_of_one_byte_is_refused() {
    let token = signer().sign(&claims());
    let verifier = verifier();
    for position in 0..token.len() {
        for byte in (0x20..0x7f).chain([0x00, 0x0a]) {
            let mut changed = token.clone().into_bytes();
            if changed[position] == byte {
                continue;
            }
            changed[position] = byte;
            let changed = String::from_utf8(changed).unwrap();
            assert!(verifier.verify(&changed, NOW_S).is_err(), "{byte} at {position}");
        }
    }
}

#[test]
fn every_cut_and_every_addition_is_refused() {
    let token = signer().sign(&claims());
    for length in 0..token.len() {
        assert!(verifier().verify(&token[..length], NOW_S).is_err());
    }
    for more in [".", "A", "=", " ", ".e30"] {
        assert!(verifier().verify(&format!("{token}{more}"), NOW_S).is_err());
        assert!(verifier().verify(&format!("{more}{token}"), NOW_S).is_err());
    }
}

#[test]
fn only_eddsa_is_an_algorithm() {
    let kid = signer().kid().to_owned();
    for alg in [
        "none", "None", "NONE", "HS256", "HS384", "HS512", "RS256", "ES256", "PS256", "eddsa", "",
    ] {
        let header = format!(r#"{{"alg":"{alg}","kid":"{kid}","typ":"JWT"}}"#);
        let token = forge(&header, &claims_json());
        assert_eq!(refusal(&token), Code::TokenAlgorithm, "{alg}");
        let (message, _) = token.rsplit_once('.').unwrap();
        assert_eq!(refusal(&format!("{message}.")), Code::TokenAlgorithm, "{alg}, unsigned");
    }
}

/// HMAC-SHA-256 over the token with the public key, which everyone has, as the secret: the classic confusion.
#[test]
fn hs256_under_the_public_key_is_refused() {
    let public = BASE64URL_NOPAD.decode(signer().jwk().x.as_bytes()).unwrap();
    let header = format!(r#"{{"alg":"HS256","kid":"{}","typ":"JWT"}}"#, signer().kid());
    let message = [header.as_str(), &claims_json()]
        .map(|part| BASE64URL_NOPAD.encode(part.as_bytes()))
        .join(".");
    let mac = hmac_sha256(&public, message.as_bytes());
    let token = format!("{message}.{}", BASE64URL_NOPAD.encode(&mac));
    assert_eq!(refusal(&token), Code::TokenAlgorithm);
    // The same MAC under a header that says EdDSA is no signature.
    let header = header.replace("HS256", "EdDSA");
    let message = [header.as_str(), &claims_json()]
        .map(|part| BASE64URL_NOPAD.encode(part.as_bytes()))
        .join(".");
    let mac = hmac_sha256(&public, message.as_bytes());
    let token = format!("{message}.{}", BASE64URL_NOPAD.encode(&mac));
    assert_eq!(refusal(&token), Code::TokenSignature);
}

/// RFC 2104, over the SHA-256 below; here alone, so that the test forges a real one.
fn hmac_sha256(key: &[u8], message: &[u8]) -> [u8; 32] {
    let mut block = [0u8; 64];
    block[..key.len()].copy_from_slice(key);
    let inner: Vec<u8> = block
        .iter()
        .map(|byte| byte ^ 0x36)
        .chain(message.iter().copied())
        .collect();
    let outer: Vec<u8> = block.iter().map(|byte| byte ^ 0x5c).chain(sha256(&inner)).collect();
    sha256(&outer)
}

/// FIPS 180-4 section 6.2.
fn sha256(message: &[u8]) -> [u8; 32] {
    // Fractions of the square and cube roots of the first primes.
    let primes: Vec<u32> = (2u32..).filter(|n| (2..*n).all(|d| n % d != 0)).take(64).collect();
    let fraction = |n: u32, root: fn(u128) -> u128| root(u128::from(n)) as u32;
    let k: Vec<u32> = primes.iter().map(|&n| fraction(n, cube_root_32)).collect();
    let mut h: Vec<u32> = primes[..8]
        .iter()
        .map(|&n| fraction(n, |n| (n << 64).isqrt()))
        .collect();
    let mut padded = message.to_vec();
    padded.push(0x80);
    while padded.len() % 64 != 56 {
        padded.push(0);
    }
    padded.extend_from_slice(&(message.len() as u64 * 8).to_be_bytes());
    for block in padded.chunks(64) {
        let mut w: Vec<u32> = block
            .chunks(4)
            .map(|word| u32::from_be_bytes(word.try_into().unwrap()))
            .collect();
        for t in 16..64 {
            let s0 = w[t - 15].rotate_right(7) ^ w[t - 15].rotate_right(18) ^ (w[t - 15] >> 3);
            let s1 = w[t - 2].rotate_right(17) ^ w[t - 2].rotate_right(19) ^ (w[t - 2] >> 10);
            w.push(w[t - 16].wrapping_add(s0).wrapping_add(w[t - 7]).wrapping_add(s1));
        }
        let mut v = h.clone();
        for t in 0..64 {
            let s1 = v[4].rotate_right(6) ^ v[4].rotate_right(11) ^ v[4].rotate_right(25);
            let choice = (v[4] & v[5]) ^ (!v[4] & v[6]);
            let t1 = v[7]
                .wrapping_add(s1)
                .wrapping_add(choice)
                .wrapping_add(k[t])
                .wrapping_add(w[t]);
            let s0 = v[0].rotate_right(2) ^ v[0].rotate_right(13) ^ v[0].rotate_right(22);
            let majority = (v[0] & v[1]) ^ (v[0] & v[2]) ^ (v[1] & v[2]);
            v.rotate_right(1);
            v[4] = v[4].wrapping_add(t1);
            v[0] = t1.wrapping_add(s0).wrapping_add(majority);
        }
        for (sum, value) in h.iter_mut().zip(v) {
            *sum = sum.wrapping_add(value);
        }
    }
    let bytes: Vec<u8> = h.iter().flat_map(|word| word.to_be_bytes()).collect();
    bytes.try_into().unwrap()
}

/// The cube root of n, in units of 2^-32.
fn cube_root_32(n: u128) -> u128 {
    let (mut low, mut high) = (0u128, 1u128 << 36);
    while high - low > 1 {
        let middle = (low + high) / 2;
        // middle^3 <= n * 2^96, without overflow: middle < 2^36.
        if middle.pow(3) <= n << 96 {
            low = middle
        } else {
            high = middle
        }
    }
    low
}

#[test]
fn the_reference_hash_is_sha_256() {
    assert_eq!(
        data_encoding::HEXLOWER.encode(&sha256(b"abc")),
        "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    );
}

#[test]
fn a_header_that_asks_for_more_is_refused() {
    let kid = signer().kid().to_owned();
    for more in [
        r#""crit":["exp"]"#,
        r#""jku":"https://evil.example""#,
        r#""jwk":{}"#,
        r#""b64":false"#,
        r#""zip":"DEF""#,
    ] {
        let token = forge(&format!(r#"{{"alg":"EdDSA","kid":"{kid}",{more}}}"#), &claims_json());
        assert_eq!(refusal(&token), Code::TokenMalformed, "{more}");
    }
    let token = forge(
        &format!(r#"{{"alg":"EdDSA","kid":"{kid}","typ":"at+jwt"}}"#),
        &claims_json(),
    );
    assert_eq!(refusal(&token), Code::TokenMalformed);
}

#[test]
fn a_key_that_is_not_in_the_key_set_is_refused_until_it_is() {
    let token = TokenSigner::generate().sign(&claims());
    assert_eq!(refusal(&token), Code::TokenKeyUnknown);
    assert!(!verifier().knows_kid(&token));
    assert_eq!(
        refusal(&forge(r#"{"alg":"EdDSA"}"#, &claims_json())),
        Code::TokenSignature
    );
}

#[test]
fn no_newer_key_set_helps_a_token_that_is_for_others_or_has_ended() {
    let code = |change: &dyn Fn(&mut Claims)| {
        let mut claims = claims();
        change(&mut claims);
        refusal(&TokenSigner::generate().sign(&claims))
    };
    assert_eq!(
        code(&|claims| claims.iss = "https://elsewhere".into()),
        Code::TokenIssuer
    );
    assert_eq!(code(&|claims| claims.aud = "others".into()), Code::TokenAudience);
    assert_eq!(code(&|claims| (claims.iat, claims.exp) = (1, 2)), Code::TokenExpired);
    let kid = TokenSigner::generate().kid().to_owned();
    let header = format!(r#"{{"alg":"EdDSA","kid":"{kid}","typ":"JWT"}}"#);
    assert_eq!(refusal(&forge(&header, "{}")), Code::TokenMalformed);
}

#[test]
fn a_token_is_for_one_issuer_and_one_audience() {
    let other = "https://other.example".to_owned();
    let token = signer().sign(&Claims {
        iss: other.clone(),
        ..claims()
    });
    assert_eq!(refusal(&token), Code::TokenIssuer);
    let token = signer().sign(&Claims { aud: other, ..claims() });
    assert_eq!(refusal(&token), Code::TokenAudience);
    let list = claims_json().replace(r#""aud":"relays""#, r#""aud":["relays","more"]"#);
    let token = forge(&format!(r#"{{"alg":"EdDSA","kid":"{}"}}"#, signer().kid()), &list);
    assert_eq!(refusal(&token), Code::TokenMalformed);
}

#[test]
fn a_token_is_in_force_between_its_times_with_a_little_forgiven() {
    let skew_s = CLOCK_SKEW_MAX.as_secs();
    let token = signer().sign(&claims());
    let code = |now_s| verifier().verify(&token, now_s).map(|_| ()).map_err(|error| error.code);
    assert_eq!(code(claims().exp + skew_s - 1), Ok(()));
    assert_eq!(code(claims().exp + skew_s), Err(Code::TokenExpired));
    assert_eq!(code(claims().iat - skew_s), Ok(()));
    assert_eq!(code(claims().iat - skew_s - 1), Err(Code::TokenNotYet));
}

#[test]
fn a_token_lives_an_hour_at_most() {
    let lifetime_s = TOKEN_LIFETIME_MAX.as_secs();
    let at_most = Claims {
        exp: NOW_S + lifetime_s,
        ..claims()
    };
    assert!(verifier().verify(&signer().sign(&at_most), NOW_S).is_ok());
    let longer = Claims {
        exp: NOW_S + lifetime_s + 1,
        ..claims()
    };
    assert_eq!(refusal(&signer().sign(&longer)), Code::TokenLifetime);
    let backwards = Claims { exp: NOW_S, ..claims() };
    assert_eq!(refusal(&signer().sign(&backwards)), Code::TokenMalformed);
}

#[test]
fn size_and_scopes_are_bounded() {
    let long = Claims {
        jti: "a".repeat(TOKEN_BYTES_MAX),
        ..claims()
    };
    assert_eq!(refusal(&signer().sign(&long)), Code::TokenMalformed);
    let scope = |count| vec!["relay:append"; count].join(" ");
    let most = Claims {
        scope: scope(TOKEN_SCOPES_MAX),
        ..claims()
    };
    assert!(verifier().verify(&signer().sign(&most), NOW_S).is_ok());
    let more = Claims {
        scope: scope(TOKEN_SCOPES_MAX + 1),
        ..claims()
    };
    assert_eq!(refusal(&signer().sign(&more)), Code::TokenMalformed);
}

#[test]
fn as_many_channels_as_a_token_may_name_fit_into_it() {
    let scope = vec![format!("keypackages:publish@{}", ChannelId::from_bytes([9; 16])); TOKEN_SCOPES_MAX].join(" ");
    assert!(
        verifier()
            .verify(&signer().sign(&Claims { scope, ..claims() }), NOW_S)
            .is_ok()
    );
}

#[test]
fn a_key_set_that_cannot_be_right_is_refused() {
    let good = signer().jwk();
    let new = |keys: Vec<Jwk>| TokenVerifier::new(&Jwks { keys }, ISSUER, AUDIENCE);
    assert!(new(vec![]).is_err());
    assert!(new(vec![good.clone(), good.clone()]).is_err(), "one id twice");
    assert!(
        new(vec![Jwk {
            x: "AA".to_owned(),
            ..good.clone()
        }])
        .is_err()
    );
    // The identity element: small order, under which anyone signs.
    let weak = BASE64URL_NOPAD.encode(&[[1u8].as_slice(), &[0; 31]].concat());
    assert!(
        new(vec![Jwk {
            x: weak,
            ..good.clone()
        }])
        .is_err()
    );
    let rsa = Jwk {
        kty: "RSA".to_owned(),
        kid: "rsa".to_owned(),
        ..good.clone()
    };
    assert!(new(vec![rsa.clone()]).is_err(), "no key left");
    assert!(new(vec![good.clone(), rsa]).is_ok(), "keys of another type are skipped");
    let many = (0..=JWKS_KEYS_MAX).map(|_| TokenSigner::generate().jwk()).collect();
    assert!(new(many).is_err());
    assert!(
        TokenVerifier::new(
            &Jwks {
                keys: vec![good.clone()]
            },
            "",
            AUDIENCE
        )
        .is_err()
    );
    assert!(TokenVerifier::new(&Jwks { keys: vec![good] }, ISSUER, "").is_err());
}

#[test]
fn a_scope_allows_what_it_says_and_no_more() {
    let (own, other) = (AgentId::from_bytes([1; 32]), AgentId::from_bytes([9; 32]));
    let (here, there) = (ChannelId::from_bytes([5; 16]), ChannelId::from_bytes([6; 16]));
    let logs = [here.log(), there.log(), own.log(), other.log()];
    let allowed = |scope: &str, action| {
        let claims = Claims {
            scope: scope.to_owned(),
            ..claims()
        };
        logs.map(|log| claims.allows(action, &log))
    };
    for action in Action::ALL {
        assert_eq!(allowed("", action), [false; 4]);
        for other in Action::ALL.into_iter().filter(|other| *other != action) {
            assert_eq!(allowed(other.as_str(), action), [false; 4], "{other} gives no {action}");
        }
        assert_eq!(
            allowed("relay:unheard relay:append@zz RELAY:APPEND", action),
            [false; 4]
        );
    }
    let on_here = |action: Action| format!("{action}@{here}");
    assert_eq!(allowed("relay:append", Action::Append), [true, true, false, false]);
    assert_eq!(
        allowed(&on_here(Action::Append), Action::Append),
        [true, false, false, false]
    );
    assert_eq!(allowed("relay:replay", Action::Replay), [true, true, true, false]);
    assert_eq!(
        allowed(&on_here(Action::Replay), Action::Replay),
        [true, false, true, false]
    );
    assert_eq!(
        allowed("channels:create", Action::CreateChannel),
        [true, true, false, false]
    );
    let publish = Action::PublishKeyPackages;
    assert_eq!(allowed("keypackages:publish", publish), [false, false, true, false]);
    assert_eq!(allowed(&on_here(publish), publish), [false; 4]);
    let claim = Action::ClaimKeyPackages;
    assert_eq!(allowed("keypackages:claim", claim), [false, false, true, true]);
    assert_eq!(allowed(&on_here(claim), claim), [false; 4]);
}

#[test]
fn a_scope_covers_itself_and_the_narrower_one() {
    let channel = ChannelId::from_bytes([5; 16]);
    let (wide, narrow) = (Scope::everywhere(Action::Append), Scope::on(Action::Append, channel));
    assert!(wide.covers(&narrow) && wide.covers(&wide) && narrow.covers(&narrow));
    assert!(!narrow.covers(&wide));
    assert!(!wide.covers(&Scope::everywhere(Action::Replay)));
}

#[test]
fn a_signer_shows_no_seed() {
    let shown = format!("{:?}", TokenSigner::from_seed(Zeroizing::new([0xab; 32])));
    assert!(shown.contains("[redacted]") && !shown.contains("171") && !shown.to_lowercase().contains("abab"));
}
