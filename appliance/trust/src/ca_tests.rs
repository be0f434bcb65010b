//! The CA over real handshakes.
use super::*;
use crate::{KeySource, LoaderCa, agents_server_config, boot_server_config, operators_server_config};
use dayzero_model::Secret;
use dayzero_store::Options;
use rustls::{ClientConfig, ClientConnection, RootCertStore, ServerConfig, ServerConnection};

fn ca(dir: &std::path::Path) -> SiteCa {
    let store = Store::open(&dir.join("data"), Options::default()).unwrap();
    SiteCa::open(&Vault::open(&store, &KeySource::File(dir.join("key"))).unwrap()).unwrap()
}

/// A host's key and its request.
fn host_key(alg: &'static rcgen::SignatureAlgorithm) -> (KeyPair, String) {
    let key = KeyPair::generate_for(alg).unwrap();
    let csr =
        CertificateParams::new(vec!["evil.example".to_owned()]).unwrap().serialize_request(&key).unwrap();
    (key, csr.pem().unwrap())
}

fn client(ca: &SiteCa, identity: Option<(&str, &KeyPair)>) -> ClientConfig {
    let mut roots = RootCertStore::empty();
    roots.add(ca.der().clone()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder =
        ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    let builder = builder.with_root_certificates(roots);
    let mut config = match identity {
        None => builder.with_no_client_auth(),
        Some((pem, key)) => {
            let chain = vec![CertificateDer::from_pem_slice(pem.as_bytes()).unwrap()];
            let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()));
            builder.with_client_auth_cert(chain, key).unwrap()
        }
    };
    config.alpn_protocols = vec![AGENT_ALPN.to_vec(), b"http/1.1".to_vec()];
    config
}

/// Runs a handshake in memory; the server's connection if both sides are content.
fn shake(
    server: Arc<ServerConfig>,
    client: ClientConfig,
    to: &str,
) -> Result<ServerConnection, rustls::Error> {
    let mut client = ClientConnection::new(Arc::new(client), to.to_owned().try_into().unwrap())?;
    let mut server = ServerConnection::new(server)?;
    for _ in 0..10 {
        let mut wire = Vec::new();
        client.write_tls(&mut wire).unwrap();
        server.read_tls(&mut &wire[..]).unwrap();
        server.process_new_packets()?;
        wire.clear();
        server.write_tls(&mut wire).unwrap();
        client.read_tls(&mut &wire[..]).unwrap();
        client.process_new_packets()?;
    }
    assert!(!server.is_handshaking() && !client.is_handshaking());
    Ok(server)
}

#[test]
fn an_agent_with_our_certificate_gets_in_and_nobody_else_does() {
    let (one, two) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let (ours, other) = (ca(one.path()), ca(two.path()));
    let listener = ours.listener(&["dayzero.example"], &["10.77.0.2".parse().unwrap()]).unwrap();
    let server = agents_server_config(&ours, listener).unwrap();
    let host: HostName = "host1".parse().unwrap();
    for alg in [&PKCS_ECDSA_P256_SHA256, &PKCS_ED25519] {
        let (key, csr) = host_key(alg);
        let request = check_request(&csr).unwrap();
        let issued = ours.issue(&host, &request).unwrap();
        let accepted = shake(server.clone(), client(&ours, Some((&issued.pem, &key))), "10.77.0.2").unwrap();
        let shown = accepted.peer_certificates().unwrap()[0].clone();
        assert_eq!(
            (ours.agent(&shown).unwrap(), fingerprint(&shown)),
            (Some(host.clone()), issued.fingerprint)
        );
        assert_eq!(accepted.alpn_protocol(), Some(AGENT_ALPN));
        assert!(shake(server.clone(), client(&ours, None), "10.77.0.2").is_err(), "no certificate");
        let foreign = other.issue(&host, &request).unwrap();
        assert!(
            shake(server.clone(), client(&ours, Some((&foreign.pem, &key))), "10.77.0.2").is_err(),
            "another site's"
        );
        assert!(
            shake(server.clone(), client(&other, Some((&issued.pem, &key))), "10.77.0.2").is_err(),
            "a false server"
        );
        assert!(
            shake(server.clone(), client(&ours, Some((&issued.pem, &key))), "10.77.0.3").is_err(),
            "wrong address"
        );
    }
    let people =
        operators_server_config(ours.listener(&["localhost"], &["127.0.0.1".parse().unwrap()]).unwrap())
            .unwrap();
    let open = shake(people, client(&ours, None), "127.0.0.1").unwrap();
    assert_eq!(open.alpn_protocol(), Some(&b"http/1.1"[..]));
}

#[test]
fn a_host_certificate_names_the_host_that_was_decided_not_what_was_asked_and_signs_no_other() {
    let dir = tempfile::tempdir().unwrap();
    let ca = ca(dir.path());
    let (_, csr) = host_key(&PKCS_ECDSA_P256_SHA256);
    let issued = ca.issue(&"host1".parse().unwrap(), &check_request(&csr).unwrap()).unwrap();
    let der = CertificateDer::from_pem_slice(issued.pem.as_bytes()).unwrap();
    let (_, parsed) = X509Certificate::from_der(&der).unwrap();
    let names: Vec<String> = parsed
        .subject_alternative_name()
        .unwrap()
        .unwrap()
        .value
        .general_names
        .iter()
        .map(|n| n.to_string())
        .collect();
    assert_eq!(names, ["DNSName(host1)"]);
    assert_eq!(parsed.subject().to_string(), "CN=host/host1");
    assert!(!parsed.is_ca());
    assert!(host_of(ca.der()).is_err(), "the CA's own certificate is no host's");
}

#[tokio::test]
async fn a_revoked_certificate_is_nobody_and_the_ca_stays_the_same_over_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let first = ca(dir.path());
    let (_, csr) = host_key(&PKCS_ED25519);
    let host: HostName = "host1".parse().unwrap();
    let issued = first.issue(&host, &check_request(&csr).unwrap()).unwrap();
    let der = CertificateDer::from_pem_slice(issued.pem.as_bytes()).unwrap();
    assert_eq!(first.agent(&der).unwrap(), Some(host.clone()));
    let revocation = Revocation { host, reason: "board swapped".into(), at: Timestamp(9) };
    first.revoke(issued.fingerprint, revocation.clone()).await.unwrap();
    let fingerprint = first.fingerprint();
    drop(first);
    let again = ca(dir.path());
    assert_eq!(again.fingerprint(), fingerprint);
    assert_eq!(again.agent(&der).unwrap(), None);
    assert_eq!(again.revocation(issued.fingerprint).unwrap(), Some(revocation));
}

#[test]
fn a_request_that_is_not_signed_by_its_key_is_refused() {
    let (_, csr) = host_key(&PKCS_ECDSA_P256_SHA256);
    let checked = check_request(&csr).unwrap();
    let mut der = CertificateSigningRequestDer::from_pem_slice(csr.as_bytes()).unwrap().to_vec();
    let last = der.len() - 1;
    der[last] ^= 1;
    let forged = rustls_pem("CERTIFICATE REQUEST", &der);
    assert!(check_request(&forged).is_err(), "signature");
    assert!(check_request("").is_err() && check_request(&"x".repeat(5000)).is_err());
    let (other, _) = host_key(&PKCS_ECDSA_P256_SHA256);
    assert_ne!(checked.key, Sha256::of(&rcgen::PublicKeyData::subject_public_key_info(&other)));
    let weak = host_key(&rcgen::PKCS_ECDSA_P384_SHA384).1;
    assert!(check_request(&weak).unwrap_err().to_string().contains("neither P-256 nor Ed25519"));
}

fn rustls_pem(label: &str, der: &[u8]) -> String {
    use base64::Engine as _;
    let text = base64::engine::general_purpose::STANDARD.encode(der);
    let lines: Vec<&str> = text.as_bytes().chunks(64).map(|c| std::str::from_utf8(c).unwrap()).collect();
    format!("-----BEGIN {label}-----\n{}\n-----END {label}-----\n", lines.join("\n"))
}

#[test]
fn the_ca_key_is_in_the_store_only_sealed() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(&dir.path().join("data"), Options::default()).unwrap();
    let vault = Vault::open(&store, &KeySource::Passphrase(Secret::new("x y z".into()))).unwrap();
    SiteCa::open(&vault).unwrap();
    let key = vault.get(KEY_NAME).unwrap().unwrap();
    let body = key.expose().lines().nth(1).unwrap().to_owned();
    let mut export = Vec::new();
    store.export(&mut export).unwrap();
    let text = String::from_utf8(zstd::decode_all(&export[..]).unwrap()).unwrap();
    assert!(text.contains("ca/key") && !text.contains(&body));
}

/// A loader: TLS 1.2, no application protocol, one authority.
fn loader(authority: &LoaderCa, provider: rustls::crypto::CryptoProvider) -> ClientConfig {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(authority.certificate().as_bytes()).unwrap()).unwrap();
    ClientConfig::builder_with_provider(Arc::new(provider))
        .with_protocol_versions(&[&rustls::version::TLS12])
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth()
}

#[test]
fn agents_and_loaders_each_see_a_certificate_that_they_trust_at_one_listener() {
    use rustls::CipherSuite;
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(&dir.path().join("data"), Options::default()).unwrap();
    let vault = Vault::open(&store, &KeySource::File(dir.path().join("key"))).unwrap();
    let (ours, authority) = (SiteCa::open(&vault).unwrap(), LoaderCa::open(&vault).unwrap());
    let at = ["10.77.0.2".parse().unwrap()];
    let server =
        boot_server_config(ours.listener(&[], &at).unwrap(), authority.listener(&at).unwrap()).unwrap();
    let ring = rustls::crypto::ring::default_provider;
    let with = |suites: Vec<rustls::SupportedCipherSuite>, groups| rustls::crypto::CryptoProvider {
        cipher_suites: suites,
        kx_groups: groups,
        ..ring()
    };
    let suite = |client: ClientConfig| {
        let accepted = shake(server.clone(), client, "10.77.0.2").unwrap();
        accepted.negotiated_cipher_suite().unwrap().suite()
    };
    let mut agent = client(&ours, None);
    agent.alpn_protocols = vec![b"http/1.1".to_vec()];
    assert_eq!(suite(agent), CipherSuite::TLS13_AES_128_GCM_SHA256);
    assert_eq!(suite(loader(&authority, ring())), CipherSuite::TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256);
    // OVMF, which knows no elliptic curve.
    let finite = with(crate::ffdhe::suites().collect(), vec![crate::ffdhe::GROUP]);
    assert_eq!(suite(loader(&authority, finite)), CipherSuite::TLS_DHE_RSA_WITH_AES_128_GCM_SHA256);
    assert!(shake(server.clone(), loader(&authority, ring()), "10.77.0.3").is_err(), "wrong address");
    let mut lost = client(&ours, None);
    lost.alpn_protocols.clear();
    assert!(
        shake(server, lost, "10.77.0.2").is_err(),
        "an agent that names no protocol is taken for a loader"
    );
}
