//! A listener's certificate that stays the same over restarts, so that a fingerprint which people have compared, pinned
//! or written on a label stays true.
//!
//! Key and certificate are one record, sealed in the vault. They are made anew only when the certificate lacks a name or
//! an address that is asked for, or ends within [`BEFORE_END`]. Addresses that come and go (DHCP) are put into a new
//! certificate, but never call for one.

use std::net::IpAddr;

use dayzero_model::{Millis, Secret, Timestamp};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivatePkcs8KeyDer};
use serde::{Deserialize, Serialize};
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::{FromDer, X509Certificate};

use crate::{SiteCa, TrustError, Vault};

/// So long before its end a certificate is made anew.
const BEFORE_END: Millis = Millis(30 * 24 * 3600 * 1000);
const READING: &str = "read a listener's certificate";

/// What a kept certificate is for.
#[derive(Clone, Debug, Default)]
pub struct Wanted<'a> {
    /// DNS names that must stand in it.
    pub names: Vec<&'a str>,
    /// Addresses that must stand in it.
    pub addresses: Vec<IpAddr>,
    /// Addresses of this moment: put in when one is made, and never a reason to make one.
    pub passing: Vec<IpAddr>,
}

/// The record. The whole of it is sealed.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Kept {
    certificate: String,
    key: Secret<String>,
}

impl SiteCa {
    /// The key and certificate of the listener `name`: those of the last start if they still fit, else new ones, durable
    /// when this returns. Blocks for the store.
    ///
    /// # Errors
    /// The vault or the store fails, or a name is no DNS name.
    pub fn kept_listener(
        &self,
        vault: &Vault,
        name: &str,
        wanted: &Wanted,
        now: Timestamp,
    ) -> Result<rustls::sign::CertifiedKey, TrustError> {
        let record = format!("listener/{name}");
        let kept = match vault.get_record::<Kept>(&record)? {
            Some(kept) if fits(&kept, wanted, now)? => kept,
            _ => {
                let mut addresses = wanted.addresses.clone();
                addresses.extend(&wanted.passing);
                addresses.sort_unstable();
                addresses.dedup();
                let (key, certificate) = self.sign_listener(&wanted.names, &addresses)?;
                let kept = Kept { certificate: certificate.pem(), key: Secret::new(key.serialize_pem()) };
                let mut tx = vault.store().tx();
                vault.put_record_in(&mut tx, &record, &kept)?;
                tx.commit_blocking().map_err(TrustError::store("storing a listener's certificate"))?;
                kept
            }
        };
        let key = PrivatePkcs8KeyDer::from_pem_slice(kept.key.expose().as_bytes());
        self.certified(der(&kept)?, &key.map_err(TrustError::certificate(READING))?)
    }
}

fn der(kept: &Kept) -> Result<CertificateDer<'static>, TrustError> {
    CertificateDer::from_pem_slice(kept.certificate.as_bytes()).map_err(TrustError::certificate(READING))
}

/// It names all that is wanted, and its end is far.
fn fits(kept: &Kept, wanted: &Wanted, now: Timestamp) -> Result<bool, TrustError> {
    let der = der(kept)?;
    let (_, parsed) = X509Certificate::from_der(&der).map_err(TrustError::certificate(READING))?;
    let end = u64::try_from(parsed.validity().not_after.timestamp()).unwrap_or(0).saturating_mul(1000);
    if now.plus(BEFORE_END).0 >= end {
        return Ok(false);
    }
    let named = parsed.subject_alternative_name().map_err(TrustError::certificate(READING))?;
    let named = named.map(|extension| extension.value.general_names.as_slice()).unwrap_or_default();
    let has_name = |wanted: &str| {
        named.iter().any(|name| matches!(name, GeneralName::DNSName(dns) if dns.eq_ignore_ascii_case(wanted)))
    };
    let has_address = |wanted: &IpAddr| {
        let bytes = match wanted {
            IpAddr::V4(address) => address.octets().to_vec(),
            IpAddr::V6(address) => address.octets().to_vec(),
        };
        named.iter().any(|name| matches!(name, GeneralName::IPAddress(own) if *own == bytes))
    };
    Ok(wanted.names.iter().all(|name| has_name(name)) && wanted.addresses.iter().all(has_address))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{KeySource, fingerprint};
    use dayzero_model::Sha256;
    use dayzero_store::{Options, Store};
    use std::path::Path;

    const NOW: Timestamp = Timestamp(1_795_000_000_000);

    fn wanted<'a>(names: &[&'a str], addresses: &[&str], passing: &[&str]) -> Wanted<'a> {
        let parsed = |list: &[&str]| list.iter().map(|text| text.parse().unwrap()).collect();
        Wanted { names: names.to_vec(), addresses: parsed(addresses), passing: parsed(passing) }
    }

    /// The fingerprint that a new process over the same data shows.
    fn shown(dir: &Path, wanted: &Wanted, now: Timestamp) -> Sha256 {
        let store = Store::open(&dir.join("data"), Options::default()).unwrap();
        let vault = Vault::open(&store, &KeySource::File(dir.join("key"))).unwrap();
        let ca = SiteCa::open(&vault).unwrap();
        let key = ca.kept_listener(&vault, "operators", wanted, now).unwrap();
        key.keys_match().unwrap();
        fingerprint(&key.cert[0])
    }

    #[test]
    fn a_restart_shows_the_same_certificate_until_it_no_longer_fits() {
        let dir = tempfile::tempdir().unwrap();
        let first = wanted(&["localhost", "dayzero.example"], &["10.0.0.1", "::1"], &["192.0.2.7"]);
        let before = shown(dir.path(), &first, NOW);
        for (fewer_or_same, why) in [
            (first.clone(), "the same"),
            (wanted(&["DAYZERO.example"], &["10.0.0.1"], &["192.0.2.8"]), "another lease"),
            (
                wanted(&["localhost"], &["192.0.2.7"], &[]),
                "fewer names, and the lease's address as a fixed one",
            ),
        ] {
            assert_eq!(shown(dir.path(), &fewer_or_same, NOW), before, "{why}");
        }
        let named = wanted(&["localhost", "new.example"], &["10.0.0.1"], &[]);
        let renamed = shown(dir.path(), &named, NOW);
        assert_ne!(renamed, before, "a new name");
        let moved = shown(dir.path(), &wanted(&["localhost"], &["10.0.0.2"], &[]), NOW);
        assert_ne!(moved, renamed, "a new address");
        // 2099-12-10: three weeks before its end.
        let late =
            shown(dir.path(), &wanted(&["localhost"], &["10.0.0.2"], &[]), Timestamp(4_100_544_000_000));
        assert_ne!(late, moved, "it ends soon");
    }

    #[test]
    fn the_key_is_not_readable_in_the_data_directory() {
        let dir = tempfile::tempdir().unwrap();
        shown(dir.path(), &wanted(&["localhost"], &[], &[]), NOW);
        let store = Store::open(&dir.path().join("data"), Options::default()).unwrap();
        let mut export = Vec::new();
        store.export(&mut export).unwrap();
        let text = String::from_utf8(zstd::decode_all(&export[..]).unwrap()).unwrap();
        assert!(text.contains("listener/operators") && !text.contains("PRIVATE KEY"));
    }
}
