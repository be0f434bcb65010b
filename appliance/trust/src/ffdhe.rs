//! Diffie-Hellman over a finite field (RFC 7919, ffdhe2048) for TLS 1.2: the one key exchange with forward secrecy that EDK2
//! has where it is built without elliptic curves, as Debian's OVMF is (2022.11 and 2025.02 alike).
//!
//! For firmware that boots by HTTPS, and for nothing else: whoever knows an elliptic curve is served by that. Invariants: each
//! exponent is used once; a peer's value that would make the result guessable is refused. The exponentiation is not of
//! constant time, which tells of that one exponent at most, and nothing secret is sent there.

use rsa::BigUint;
use rustls::crypto::{ActiveKeyExchange, KeyExchangeAlgorithm, SharedSecret, SupportedKxGroup};
use rustls::ffdhe_groups::{FFDHE2048, FfdheGroup};
use rustls::{
    CipherSuite, CipherSuiteCommon, Error, NamedGroup, PeerMisbehaved, ProtocolVersion, SupportedCipherSuite,
    Tls12CipherSuite,
};
use std::sync::LazyLock;

/// The group, for a provider.
pub(crate) static GROUP: &dyn SupportedKxGroup = &Group;

/// Octets of the prime.
const LENGTH: usize = 256;
/// Octets of an exponent: RFC 7919 section 5.2 asks for 225 bits.
const EXPONENT: usize = 32;

/// The cipher suites with it, AES-128 first; in all but the key exchange they are ring's.
pub(crate) fn suites() -> impl Iterator<Item = SupportedCipherSuite> {
    use rustls::crypto::ring::cipher_suite::{
        TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256, TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384,
    };
    type Suite = LazyLock<Option<Tls12CipherSuite>>;
    static AES_128: Suite = LazyLock::new(|| {
        like(TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256, CipherSuite::TLS_DHE_RSA_WITH_AES_128_GCM_SHA256)
    });
    static AES_256: Suite = LazyLock::new(|| {
        like(TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384, CipherSuite::TLS_DHE_RSA_WITH_AES_256_GCM_SHA384)
    });
    [&AES_128, &AES_256].into_iter().filter_map(|suite| suite.as_ref()).map(SupportedCipherSuite::Tls12)
}

fn like(other: SupportedCipherSuite, suite: CipherSuite) -> Option<Tls12CipherSuite> {
    let SupportedCipherSuite::Tls12(other) = other else { return None };
    let CipherSuiteCommon { hash_provider, confidentiality_limit, .. } = other.common;
    Some(Tls12CipherSuite {
        common: CipherSuiteCommon { suite, hash_provider, confidentiality_limit },
        prf_provider: other.prf_provider,
        kx: KeyExchangeAlgorithm::DHE,
        sign: other.sign,
        aead_alg: other.aead_alg,
    })
}

#[derive(Debug)]
struct Group;

impl SupportedKxGroup for Group {
    fn start(&self) -> Result<Box<dyn ActiveKeyExchange>, Error> {
        let exponent = BigUint::from_bytes_be(&rand::random::<[u8; EXPONENT]>());
        let public = BigUint::from_bytes_be(FFDHE2048.g).modpow(&exponent, &prime());
        Ok(Box::new(Exchange { exponent, public: padded(&public) }))
    }

    fn ffdhe_group(&self) -> Option<FfdheGroup<'static>> {
        Some(FFDHE2048)
    }

    fn name(&self) -> NamedGroup {
        NamedGroup::FFDHE2048
    }

    fn usable_for_version(&self, version: ProtocolVersion) -> bool {
        version == ProtocolVersion::TLSv1_2
    }
}

struct Exchange {
    exponent: BigUint,
    public: Vec<u8>,
}

impl ActiveKeyExchange for Exchange {
    fn complete(self: Box<Self>, peer: &[u8]) -> Result<SharedSecret, Error> {
        let (prime, peer_value) = (prime(), BigUint::from_bytes_be(peer));
        let one = BigUint::from(1u8);
        // RFC 7919 section 5.1.
        if peer.len() > LENGTH || peer_value <= one || peer_value >= &prime - &one {
            return Err(PeerMisbehaved::InvalidKeyShare.into());
        }
        Ok(SharedSecret::from(padded(&peer_value.modpow(&self.exponent, &prime))))
    }

    fn pub_key(&self) -> &[u8] {
        &self.public
    }

    fn ffdhe_group(&self) -> Option<FfdheGroup<'static>> {
        Some(FFDHE2048)
    }

    fn group(&self) -> NamedGroup {
        NamedGroup::FFDHE2048
    }
}

fn prime() -> BigUint {
    BigUint::from_bytes_be(FFDHE2048.p)
}

/// As long as the prime, with zeros before it.
fn padded(value: &BigUint) -> Vec<u8> {
    let bytes = value.to_bytes_be();
    let mut out = vec![0; LENGTH.saturating_sub(bytes.len())];
    out.extend(bytes);
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_sides_come_to_one_secret_and_guessable_ones_are_refused() {
        let (one, two) = (Group.start().unwrap(), Group.start().unwrap());
        let (first, second) = (one.pub_key().to_vec(), two.pub_key().to_vec());
        assert_eq!((first.len(), second.len()), (LENGTH, LENGTH));
        assert_ne!(first, second, "each exponent is new");
        let (one, two) = (one.complete(&second).unwrap(), two.complete(&first).unwrap());
        assert_eq!(one.secret_bytes(), two.secret_bytes());
        let last = &prime() - BigUint::from(1u8);
        for bad in [vec![], vec![0], vec![1], padded(&last), padded(&prime()), vec![0xff; LENGTH + 1]] {
            assert!(Group.start().unwrap().complete(&bad).is_err(), "{} bytes", bad.len());
        }
        assert_eq!(suites().count(), 2);
    }
}
