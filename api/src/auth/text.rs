//! The text of a key: `sk_live_<id>_<secret>` of an API key, `rk_live_<id>_<secret>` of a relay node's enrolment.

use data_encoding::{BASE32_NOPAD, HEXLOWER};
use secrecy::{ExposeSecret, SecretString};
use skytale_proto::rest::{API_KEY_PREFIX, ENROLMENT_KEY_PREFIX};
use skytale_proto::{EnrolmentId, KeyId};
use zeroize::{Zeroize, Zeroizing};

/// Digits of the id: 16 bytes, hex.
const ID_CHARS: usize = 32;
/// Characters of the secret: 32 bytes, base32 without padding.
const SECRET_CHARS: usize = 52;

/// Owner of a key, as the key's text names it.
pub(crate) trait KeyName: Copy {
    /// Text before the id.
    const PREFIX: &'static str;
    fn generate() -> Self;
    fn from_bytes(bytes: [u8; 16]) -> Self;
    fn as_bytes(&self) -> &[u8; 16];
}

macro_rules! key_name {
    ($name:ident, $prefix:expr) => {
        impl KeyName for $name {
            const PREFIX: &'static str = $prefix;
            fn generate() -> Self {
                Self::generate()
            }
            fn from_bytes(bytes: [u8; 16]) -> Self {
                Self::from_bytes(bytes)
            }
            fn as_bytes(&self) -> &[u8; 16] {
                self.as_bytes()
            }
        }
    };
}

key_name!(KeyId, API_KEY_PREFIX);
key_name!(EnrolmentId, ENROLMENT_KEY_PREFIX);

/// The parts of a key's text. The secret is not decoded: its text was hashed.
pub(crate) struct KeyText<'a, I> {
    /// Id by which it is found.
    pub id: I,
    /// Secret by which it is proven.
    pub secret: &'a str,
}

impl<'a, I: KeyName> KeyText<'a, I> {
    /// The parts, or nothing where this is no such key.
    pub(crate) fn parse(text: &'a str) -> Option<Self> {
        let (id, secret) = text.strip_prefix(I::PREFIX)?.split_once('_')?;
        // One way to write an id, so that one key has one text.
        let is_base32 = |byte: u8| byte.is_ascii_uppercase() || (b'2'..=b'7').contains(&byte);
        if id.len() != ID_CHARS || secret.len() != SECRET_CHARS || !secret.bytes().all(is_base32) {
            return None;
        }
        let bytes = HEXLOWER.decode(id.as_bytes()).ok()?;
        Some(Self {
            id: I::from_bytes(bytes.try_into().ok()?),
            secret,
        })
    }
}

/// A key that was made just now: the one time that its text is known.
pub(crate) struct NewKey<I> {
    pub id: I,
    pub text: SecretString,
}

impl<I: KeyName> NewKey<I> {
    /// A new key with 256 random bits.
    pub(crate) fn generate() -> Result<Self, getrandom::Error> {
        let id = I::generate();
        let mut bytes = Zeroizing::new([0u8; 32]);
        getrandom::fill(bytes.as_mut_slice())?;
        let mut secret = BASE32_NOPAD.encode(bytes.as_slice());
        let text = format!("{}{}_{secret}", I::PREFIX, HEXLOWER.encode(id.as_bytes()));
        secret.zeroize();
        Ok(Self {
            id,
            text: SecretString::from(text),
        })
    }

    /// Returns the text to be hashed.
    pub(crate) fn secret(&self) -> Zeroizing<String> {
        let text = self.text.expose_secret();
        let secret = KeyText::<I>::parse(text).map(|parts| parts.secret).unwrap_or_default();
        Zeroizing::new(secret.to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_new_key_is_read_back() {
        let key = NewKey::<KeyId>::generate().unwrap();
        let text = key.text.expose_secret();
        let parts = KeyText::<KeyId>::parse(text).unwrap();
        assert_eq!(parts.id, key.id);
        assert_eq!(parts.secret, key.secret().as_str());
        assert_eq!(BASE32_NOPAD.decode(parts.secret.as_bytes()).unwrap().len(), 32);
        assert!(text.starts_with("sk_live_") && text.len() == 8 + ID_CHARS + 1 + SECRET_CHARS);
    }

    proptest! {
        #[test]
        fn any_text_is_a_key_or_nothing(text in "(sk_live_)?\\PC{0,100}") {
            prop_assert!(KeyText::<KeyId>::parse(&text).is_none());
        }
    }

    #[test]
    fn a_key_is_of_one_kind() {
        let (key, enrolment) = (
            NewKey::<KeyId>::generate().unwrap(),
            NewKey::<EnrolmentId>::generate().unwrap(),
        );
        assert!(KeyText::<EnrolmentId>::parse(key.text.expose_secret()).is_none());
        assert!(KeyText::<KeyId>::parse(enrolment.text.expose_secret()).is_none());
        let text = enrolment.text.expose_secret();
        assert_eq!(skytale_proto::rest::enrolment_of(text), Some(enrolment.id));
    }

    #[test]
    fn a_key_has_one_text() {
        let key = NewKey::<KeyId>::generate().unwrap();
        let text = key.text.expose_secret();
        for wrong in [
            text.to_uppercase(),
            text.to_lowercase(),
            format!("{text}A"),
            format!(" {text}"),
        ] {
            assert!(KeyText::<KeyId>::parse(&wrong).is_none());
        }
    }
}
