//! A secret, and the forms in which it could lie somewhere: as it is, in hex, base64, percent-encoded, UTF-16, in PEM.

use anyhow::{Context, Result, ensure};
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD_NO_PAD, URL_SAFE_NO_PAD};
use std::fmt;

/// A shorter one would be found by chance.
const LEAST: usize = 8;

/// What a secret is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    FactoryPassword,
    BmcPassword,
    BmcSession,
    MediaUrl,
    VouchNonce,
    ClaimCode,
    ConsolePassword,
    ConsoleSession,
    MasterKey,
    CaKey,
    AgentKey,
    /// Something else that the vault holds.
    Vault,
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::FactoryPassword => "factory password",
            Self::BmcPassword => "BMC password",
            Self::BmcSession => "BMC session token",
            Self::MediaUrl => "virtual medium's URL",
            Self::VouchNonce => "vouching nonce",
            Self::ClaimCode => "claim code",
            Self::ConsolePassword => "console password",
            Self::ConsoleSession => "console session",
            Self::MasterKey => "master key",
            Self::CaKey => "CA's private key",
            Self::AgentKey => "agent's private key",
            Self::Vault => "sealed value",
        })
    }
}

/// One secret. It shows what it is for and whose it is, never itself.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret {
    pub kind: Kind,
    /// Host, account or record that it belongs to; may be empty.
    pub of: String,
    bytes: Vec<u8>,
    /// Forms beside those of `bytes`.
    more: Vec<Vec<u8>>,
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

impl fmt::Display for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.kind)?;
        if self.of.is_empty() { Ok(()) } else { write!(f, " of {}", self.of) }
    }
}

impl Secret {
    /// A password, token or key, as its bytes.
    ///
    /// # Errors
    /// It is too short to be told from chance.
    pub fn new(kind: Kind, of: &str, bytes: impl Into<Vec<u8>>) -> Result<Self> {
        let secret = Self { kind, of: of.to_owned(), bytes: bytes.into(), more: Vec::new() };
        ensure!(secret.bytes.len() >= LEAST, "{secret} has {} bytes: too short", secret.bytes.len());
        Ok(secret)
    }

    /// Bytes that are written as hex.
    ///
    /// # Errors
    /// No hex, or too short.
    pub fn from_hex(kind: Kind, of: &str, hex: &str) -> Result<Self> {
        Self::new(kind, of, hex::decode(hex.trim()).with_context(|| format!("{kind} of {of} is no hex"))?)
    }

    /// A private key in PEM: its private scalar (of an RSA key: a part of its private exponent), and the lines of the PEM that
    /// hold a part of it.
    ///
    /// # Errors
    /// No PEM with a private scalar of 32 bytes (P-256, Ed25519 or RSA in PKCS #8).
    pub fn from_pem(kind: Kind, of: &str, pem: &str) -> Result<Self> {
        let lines: Vec<&str> = pem.lines().filter(|line| !line.starts_with("-----")).collect();
        let decoded = base64::engine::general_purpose::STANDARD.decode(lines.concat());
        let der = decoded.ok().with_context(|| format!("{kind} of {of} is no PEM"))?;
        let at = scalar(&der).with_context(|| format!("{kind} of {of} has no private scalar of 32 bytes"))?;
        let mut secret = Self::new(kind, of, &der[at..at + 32])?;
        let mut column = 0;
        for line in lines {
            // Six bits a letter: those from the scalar's first bit to its last.
            let (from, to) = (column * 6, (column + line.len()) * 6);
            if from < (at + 32) * 8 && to > at * 8 && line.len() >= 16 {
                secret.more.push(line.as_bytes().to_vec());
            }
            column += line.len();
        }
        Ok(secret)
    }

    /// The same content, whatever it is for.
    pub fn is_same(&self, other: &Self) -> bool {
        self.bytes == other.bytes
    }

    /// Name and bytes of each form.
    pub fn forms(&self) -> Vec<(&'static str, Vec<u8>)> {
        let bytes = &self.bytes;
        let text = bytes.iter().all(|byte| byte.is_ascii_graphic() || *byte == b' ');
        let hex = hex::encode(bytes);
        let percent = |byte: &u8| format!("%{byte:02X}");
        let mut forms = vec![
            ("as it is", bytes.clone()),
            ("in upper-case hex", hex.to_uppercase().into_bytes()),
            ("percent-encoded", bytes.iter().map(percent).collect::<String>().into_bytes()),
            ("percent-encoded", bytes.iter().map(percent).collect::<String>().to_lowercase().into_bytes()),
        ];
        // What a program would make of it that encodes only what it must.
        let mixed: String = bytes
            .iter()
            .map(|byte| match byte {
                b if b.is_ascii_alphanumeric() || b"-._~".contains(b) => char::from(*b).to_string(),
                byte => percent(byte),
            })
            .collect();
        forms.push(("percent-encoded", mixed.into_bytes()));
        let shown = if text { String::from_utf8_lossy(bytes).into_owned() } else { hex.clone() };
        forms.push(("in UTF-16, little-endian", shown.bytes().flat_map(|byte| [byte, 0]).collect()));
        forms.push(("in UTF-16, big-endian", shown.bytes().flat_map(|byte| [0, byte]).collect()));
        if text {
            let json = serde_json::Value::from(shown).to_string();
            forms.push(("in JSON", json.trim_matches('"').as_bytes().to_vec()));
        }
        forms.push(("in hex", hex.into_bytes()));
        for offset in 0..3 {
            forms.extend(in_base64(bytes, offset).map(|form| ("in base64", form)));
        }
        forms.extend(self.more.iter().map(|line| ("as a line of PEM", line.clone())));
        let mut seen = std::collections::BTreeSet::new();
        forms.retain(|(_, form)| form.len() >= LEAST && seen.insert(form.clone()));
        forms
    }
}

/// Where the private scalar of a PKCS #8 key begins: after `ECPrivateKey`'s version (RFC 5915), or as Ed25519's
/// `CurvePrivateKey` (RFC 8410); of an RSA key, the private exponent, which stands behind the public one (RFC 8017).
fn scalar(der: &[u8]) -> Option<usize> {
    let marks: [&[u8]; 2] = [&[0x02, 0x01, 0x01, 0x04, 0x20], &[0x04, 0x22, 0x04, 0x20]];
    let begin =
        |mark: &[u8]| der.windows(mark.len()).position(|bytes| bytes == mark).map(|at| at + mark.len());
    // Two octets of length stand before its own, the first of which may be the sign's.
    let exponent = || begin(&[0x02, 0x03, 0x01, 0x00, 0x01, 0x02, 0x82]).map(|at| at + 3);
    marks.iter().find_map(|mark| begin(mark)).or_else(exponent).filter(|at| at + 32 <= der.len())
}

/// The letters that are sure whatever stands before and after, for each of the three ways in which bytes meet letters.
fn in_base64(bytes: &[u8], offset: usize) -> [Vec<u8>; 2] {
    let padded = [vec![0; offset], bytes.to_vec()].concat();
    let (first, last) = ((offset * 8).div_ceil(6), padded.len() * 8 / 6);
    let cut = |text: String| text.as_bytes()[first..last].to_vec();
    [cut(STANDARD_NO_PAD.encode(&padded)), cut(URL_SAFE_NO_PAD.encode(&padded))]
}

#[cfg(test)]
mod tests {
    use super::*;
    use base64::engine::general_purpose::STANDARD;

    /// The shape of RFC 8017's `RSAPrivateKey`: version, modulus, public exponent, private exponent, and the rest.
    #[test]
    fn an_rsa_key_is_known_by_its_private_exponent() {
        let exponent: Vec<u8> = (0..=255).collect();
        let head =
            [&[0x30, 0x82, 4, 0xa4, 2, 1, 0, 2, 0x82, 1, 1, 0][..], &[0xc5; 256], &[2, 3, 1, 0, 1]].concat();
        let der = [&head[..], &[2, 0x82, 1, 0], &exponent, &[2, 0x81, 0x81, 0]].concat();
        let text = STANDARD.encode(&der);
        let lines: Vec<&str> =
            text.as_bytes().chunks(64).map(|line| std::str::from_utf8(line).unwrap()).collect();
        let pem = format!("-----BEGIN PRIVATE KEY-----\n{}\n-----END PRIVATE KEY-----\n", lines.join("\n"));
        let secret = Secret::from_pem(Kind::Vault, "key", &pem).unwrap();
        assert_eq!(secret.bytes, exponent[1..33]);
        assert!(
            !secret.more.is_empty()
                && secret.more.iter().all(|line| pem.as_bytes().windows(line.len()).any(|w| w == line))
        );
        let public = STANDARD.encode(&head);
        assert!(Secret::from_pem(Kind::Vault, "key", &public).is_err(), "a public key has none");
    }

    fn holds(secret: &Secret, text: &[u8]) -> bool {
        secret.forms().iter().any(|(_, form)| text.windows(form.len()).any(|window| window == form))
    }

    #[test]
    fn a_secret_is_known_wherever_it_stands_in_a_base64_text() {
        let secret = Secret::new(Kind::BmcPassword, "host1", "s3cr3t/Pa%s+wörd").unwrap();
        for before in ["", "a", "ab", "abc", "root:"] {
            let text = STANDARD.encode(format!("{before}s3cr3t/Pa%s+wörd and more"));
            assert!(holds(&secret, text.as_bytes()), "after '{before}': {text}");
        }
        assert!(!holds(&secret, STANDARD.encode("something else altogether").as_bytes()));
    }

    #[test]
    fn a_secret_shows_its_name_alone_and_a_short_one_is_none() {
        let secret = Secret::new(Kind::ClaimCode, "", "ABCD-EFGH").unwrap();
        assert_eq!(format!("{secret:?}"), "claim code");
        assert!(Secret::new(Kind::ClaimCode, "", "ABCD").is_err());
    }

    #[test]
    fn the_private_part_of_a_key_is_found_and_its_public_part_is_no_secret() {
        let scalar: Vec<u8> = (100..132).collect();
        let public = [7_u8; 65];
        let mut der = [&[0x30, 0x81, 0x87, 0x02, 0x01, 0x00], &[0x30; 21][..]].concat();
        der.extend([0x04, 0x6d, 0x30, 0x6b, 0x02, 0x01, 0x01, 0x04, 0x20]);
        der.extend(&scalar);
        der.extend([0xa1, 0x44, 0x03, 0x42, 0x00]);
        der.extend(public);
        let text = STANDARD.encode(&der);
        let lines: Vec<&str> = text.as_bytes().chunks(64).map(|l| std::str::from_utf8(l).unwrap()).collect();
        let pem = format!("-----BEGIN PRIVATE KEY-----\n{}\n-----END PRIVATE KEY-----\n", lines.join("\n"));
        let key = Secret::from_pem(Kind::CaKey, "", &pem).unwrap();
        assert!(
            holds(&key, &der) && holds(&key, pem.as_bytes()) && holds(&key, hex::encode(&scalar).as_bytes())
        );
        assert!(holds(&key, lines[1].as_bytes()), "a line that holds a part of it");
        assert!(!holds(&key, lines[2].as_bytes()), "a line of the public key");
        assert!(!holds(&key, &public));
        assert!(Secret::from_pem(Kind::CaKey, "", "-----BEGIN X-----\nAAAA\n-----END X-----\n").is_err());
    }
}
