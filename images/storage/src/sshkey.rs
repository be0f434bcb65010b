//! A new Ed25519 host key in OpenSSH's own formats (openssh-portable, `PROTOCOL.key`; RFC 4253 section 6.6, RFC 8709).

use crate::error::StorageError;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

const KIND: &[u8] = b"ssh-ed25519";
/// How rcgen's PKCS#8 of an Ed25519 key begins (RFC 8410): version 1, the algorithm, an octet string in an octet string.
const BEFORE_SEED: [u8; 14] =
    [0x02, 0x01, 0x01, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x04, 0x22, 0x04, 0x20];

/// A host key.
pub struct HostKey {
    /// `ssh_host_ed25519_key`.
    pub private: String,
    /// `ssh_host_ed25519_key.pub`.
    pub public: String,
    /// The public key as SSH encodes it; its SHA-256 is the fingerprint.
    pub blob: Vec<u8>,
}

fn string(out: &mut Vec<u8>, bytes: &[u8]) {
    out.extend((bytes.len() as u32).to_be_bytes());
    out.extend(bytes);
}

/// Makes a host key; `comment` is such as `root@host1`.
///
/// # Errors
/// If the system gives no randomness.
pub fn generate(comment: &str) -> Result<HostKey, StorageError> {
    let failed = |reason: String| StorageError::Io {
        what: "making an SSH host key".to_owned(),
        source: std::io::Error::other(reason),
    };
    let pair = rcgen::KeyPair::generate_for(&rcgen::PKCS_ED25519).map_err(|e| failed(e.to_string()))?;
    let pkcs8 = pair.serialize_der();
    let at = pkcs8.windows(BEFORE_SEED.len()).position(|window| window == BEFORE_SEED);
    let seed = at.and_then(|at| pkcs8.get(at + BEFORE_SEED.len()..)?.first_chunk::<32>());
    let seed = seed.ok_or_else(|| failed("the key has an unknown form".to_owned()))?;
    let check = uuid::Uuid::new_v4();
    Ok(encode(seed, pair.public_key_raw(), comment, &check.as_bytes()[..4]))
}

fn encode(seed: &[u8; 32], public: &[u8], comment: &str, check: &[u8]) -> HostKey {
    let mut blob = Vec::new();
    string(&mut blob, KIND);
    string(&mut blob, public);
    let mut secret = Vec::new();
    secret.extend(check);
    secret.extend(check);
    string(&mut secret, KIND);
    string(&mut secret, public);
    string(&mut secret, &[&seed[..], public].concat());
    string(&mut secret, comment.as_bytes());
    for pad in 1.. {
        if secret.len().is_multiple_of(8) {
            break;
        }
        secret.push(pad);
    }
    let mut file = b"openssh-key-v1\0".to_vec();
    for text in [&b"none"[..], b"none", b""] {
        string(&mut file, text);
    }
    file.extend(1_u32.to_be_bytes());
    string(&mut file, &blob);
    string(&mut file, &secret);
    let text = STANDARD.encode(&file);
    let mut private = "-----BEGIN OPENSSH PRIVATE KEY-----\n".to_owned();
    for line in text.as_bytes().chunks(70) {
        private.push_str(&String::from_utf8_lossy(line));
        private.push('\n');
    }
    private.push_str("-----END OPENSSH PRIVATE KEY-----\n");
    let public = format!("ssh-ed25519 {} {comment}\n", STANDARD.encode(&blob));
    HostKey { private, public, blob }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn openssh_reads_the_key_and_no_two_are_alike() {
        let (one, other) = (generate("root@host1").unwrap(), generate("root@host1").unwrap());
        assert_ne!(one.public, other.public);
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("key");
        std::fs::write(&path, &one.private).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
        match std::process::Command::new("ssh-keygen").arg("-y").arg("-f").arg(&path).output() {
            Ok(output) => {
                assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
                assert_eq!(String::from_utf8(output.stdout).unwrap(), one.public);
            }
            Err(e) => println!("ssh-keygen is not here ({e}); the form alone is checked"),
        }
        let body: String = one.private.lines().filter(|line| !line.starts_with('-')).collect();
        assert!(STANDARD.decode(body).unwrap().starts_with(b"openssh-key-v1\0"));
    }
}
