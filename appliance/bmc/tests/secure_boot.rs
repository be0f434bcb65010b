//! Secure Boot over Redfish, against answers captured from a Dell and a Supermicro server, replayed by a small HTTPS server
//! which takes what is posted to a collection as its new member.

// A test that fails by a panic says where; the lint only knows functions marked as tests.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use dayzero_bmc::{Bmc, BmcError, Credential, SiteCertificate, Target, connect};
use dayzero_model::site::BmcProtocol;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};

type Tree = Arc<Mutex<BTreeMap<String, Value>>>;

fn capture(name: &str) -> Value {
    let path = format!("{}/redfish/tests/data/{name}.json", env!("CARGO_MANIFEST_DIR"));
    serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap()
}

/// The captured resources at their own paths, below a root.
fn tree(vendor: &str, names: &[&str]) -> Tree {
    let mut tree = BTreeMap::new();
    for name in names {
        let body = capture(&format!("{vendor}-{name}"));
        tree.insert(body["@odata.id"].as_str().unwrap().to_owned(), body);
    }
    let system = tree.values().find(|body| body.get("PowerState").is_some()).unwrap()["@odata.id"].clone();
    let systems = json!({ "Members": [{ "@odata.id": system }] });
    let root = json!({ "RedfishVersion": "1.17.0", "Systems": { "@odata.id": "/redfish/v1/Systems" } });
    tree.extend([("/redfish/v1/Systems".to_owned(), systems), ("/redfish/v1".to_owned(), root)]);
    Arc::new(Mutex::new(tree))
}

fn answer(tree: &Tree, method: &str, path: &str, body: &[u8]) -> (u16, Value) {
    let path = path.trim_end_matches('/');
    let mut tree = tree.lock().unwrap();
    if method == "GET" {
        return tree.get(path).map_or((404, Value::Null), |body| (200, body.clone()));
    }
    if method != "POST" || !path.ends_with("/Certificates") {
        return (405, Value::Null);
    }
    let link = format!("{path}/posted");
    let list = tree.get_mut(path).unwrap()["Members"].as_array_mut().unwrap();
    list.push(json!({ "@odata.id": link }));
    let mut body: Value = serde_json::from_slice(body).unwrap();
    body["@odata.id"] = json!(link);
    tree.insert(link, body.clone());
    (201, body)
}

async fn serve(tree: Tree) -> Target {
    let made = rcgen::generate_simple_self_signed(["bmc".to_owned()]).unwrap();
    let key = rustls::pki_types::PrivatePkcs8KeyDer::from(made.signing_key.serialize_der()).into();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![made.cert.der().clone()], key)
        .unwrap();
    let tls = tokio_rustls::TlsAcceptor::from(Arc::new(config));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let (tls, tree) = (tls.clone(), tree.clone());
            tokio::spawn(async move {
                let mut stream = BufReader::new(tls.accept(stream).await.unwrap());
                loop {
                    let (mut head, mut length) = (Vec::new(), 0);
                    loop {
                        let mut line = String::new();
                        if stream.read_line(&mut line).await.unwrap_or(0) == 0 {
                            return;
                        }
                        if let Some(value) = line.to_ascii_lowercase().strip_prefix("content-length:") {
                            length = value.trim().parse().unwrap();
                        }
                        if line == "\r\n" {
                            break;
                        }
                        head.push(line);
                    }
                    let mut body = vec![0; length];
                    stream.read_exact(&mut body).await.unwrap();
                    let words: Vec<&str> = head[0].split(' ').collect();
                    let (status, body) = answer(&tree, words[0], words[1], &body);
                    let body = if body.is_null() { String::new() } else { body.to_string() };
                    let text = format!("HTTP/1.1 {status} x\r\nContent-Length: {}\r\n\r\n{body}", body.len());
                    stream.write_all(text.as_bytes()).await.unwrap();
                }
            });
        }
    });
    Target { redfish_port: port, ..Target::new("127.0.0.1".parse().unwrap(), BmcProtocol::Redfish) }
}

async fn bmc(tree: &Tree) -> Box<dyn Bmc> {
    connect(&serve(tree.clone()).await, &Credential::new("root", "secret-one")).await.unwrap()
}

fn site() -> SiteCertificate {
    let pem = "-----BEGIN CERTIFICATE-----\nQUJD\n-----END CERTIFICATE-----\n".to_owned();
    SiteCertificate { pem, common_name: "Dayzero site 01020304 Secure Boot".to_owned() }
}

const DELL: [&str; 5] =
    ["system", "secure-boot", "secure-boot-databases", "secure-boot-db", "secure-boot-db-certificates"];

/// The database is listed before `dbx`, `KEK` and `PK`, and of its four certificates one was captured: the others are its twins.
fn dell() -> Tree {
    let tree = tree("dell", &DELL);
    let database = capture("dell-secure-boot-db-certificates");
    for member in database["Members"].as_array().unwrap() {
        let link = member["@odata.id"].as_str().unwrap().to_owned();
        tree.lock().unwrap().insert(link, capture("dell-secure-boot-db-certificate"));
    }
    tree
}

#[tokio::test]
async fn a_database_gets_the_sites_certificate_once() {
    let tree = dell();
    let bmc = bmc(&tree).await;
    let before = bmc.secure_boot(Some(&site())).await.unwrap().unwrap();
    assert_eq!((before.enforced, before.site_key), (false, Some(false)));
    bmc.enrol_secure_boot(&site()).await.unwrap();
    let after = bmc.secure_boot(Some(&site())).await.unwrap().unwrap();
    assert_eq!(after.site_key, Some(true));
    let count = tree.lock().unwrap().len();
    bmc.enrol_secure_boot(&site()).await.unwrap();
    assert_eq!(tree.lock().unwrap().len(), count, "what is there is not posted again");
    let posted = tree.lock().unwrap().iter().find(|(path, _)| path.ends_with("/posted")).unwrap().1.clone();
    assert_eq!(
        (&posted["CertificateType"], &posted["CertificateString"]),
        (&json!("PEM"), &json!(site().pem))
    );
}

#[tokio::test]
async fn the_list_for_https_boot_gets_the_sites_authority_once() {
    let tree = dell();
    let link = "/redfish/v1/Systems/System.Embedded.1/Boot/Certificates";
    let bmc = bmc(&tree).await;
    assert_eq!(bmc.https_boot(&site()).await.unwrap(), None, "a link to nothing is no list");
    let refused = bmc.enrol_https_boot(&site()).await.unwrap_err();
    assert!(matches!(refused, BmcError::Unsupported { .. }), "{refused}");
    tree.lock().unwrap().insert(link.to_owned(), json!({ "@odata.id": link, "Members": [] }));
    assert_eq!(bmc.https_boot(&site()).await.unwrap(), Some(false));
    bmc.enrol_https_boot(&site()).await.unwrap();
    assert_eq!(bmc.https_boot(&site()).await.unwrap(), Some(true));
    let posted = tree.lock().unwrap()[&format!("{link}/posted")].clone();
    assert_eq!(posted["CertificateString"], json!(site().pem));
    let count = tree.lock().unwrap().len();
    bmc.enrol_https_boot(&site()).await.unwrap();
    assert_eq!(tree.lock().unwrap().len(), count, "what is there is not posted again");
}

#[tokio::test]
async fn a_bmc_without_databases_says_so() {
    let tree = tree("supermicro", &["system", "secure-boot", "secure-boot-databases"]);
    let bmc = bmc(&tree).await;
    let told = bmc.secure_boot(Some(&site())).await.unwrap().unwrap();
    assert_eq!((told.enforced, told.site_key), (false, None), "it lists no database");
    let refused = bmc.enrol_secure_boot(&site()).await.unwrap_err();
    assert!(matches!(refused, BmcError::Unsupported { .. }), "{refused}");
    let paths = tree.lock().unwrap().keys().filter(|p| p.contains("SecureBoot")).cloned().collect::<Vec<_>>();
    for path in paths {
        tree.lock().unwrap().remove(&path);
    }
    assert_eq!(bmc.secure_boot(Some(&site())).await.unwrap(), None, "a link to nothing is no Secure Boot");
}
