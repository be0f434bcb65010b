//! Each listener answers its own routes and nothing else; virtual media count once, for one BMC.

use super::rack::Rack;
use super::{open, request, site};
use crate::service::Service;
use axum::body::Body;
use axum::extract::connect_info::MockConnectInfo;
use axum::http::{Method, Request, StatusCode};
use std::net::SocketAddr;
use tower::ServiceExt;

async fn ask(routes: axum::Router, peer: &str, method: Method, path: &str) -> StatusCode {
    let peer = SocketAddr::new(peer.parse().unwrap(), 4711);
    let asked = Request::builder().method(method).uri(path).body(Body::empty()).unwrap();
    routes.layer(MockConnectInfo(peer)).oneshot(asked).await.unwrap().status()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn listeners_answer_their_own_routes_alone() {
    let dir = tempfile::tempdir().unwrap();
    let rack = Rack::new(&site(1));
    let control = open(dir.path(), &rack);
    control.apply(request(site(1), None), "test").await.unwrap();
    let paths = [
        "/",
        "/enrol",
        "/enrol/",
        "/clock",
        "/media/x.iso",
        "/media/",
        "/v1/status",
        "/boot/script",
        "/images/manifest.json",
        "/login",
    ];
    for path in paths {
        for method in [Method::GET, Method::POST, Method::PUT, Method::DELETE] {
            let enrol = ask(crate::enrol::routes(control.clone()), "10.77.0.11", method.clone(), path).await;
            let ours = ["/enrol", "/clock"].contains(&path) && method == Method::POST;
            assert_eq!(
                enrol != StatusCode::NOT_FOUND && enrol != StatusCode::METHOD_NOT_ALLOWED,
                ours,
                "{method} {path}: {enrol}"
            );
            assert_ne!(enrol, StatusCode::OK, "a request without a body grants nothing");
            let media = ask(crate::media::routes(control.clone()), "10.77.9.11", method.clone(), path).await;
            assert!(
                media == StatusCode::NOT_FOUND || media == StatusCode::METHOD_NOT_ALLOWED,
                "{method} {path}: {media}"
            );
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_medium_counts_once_and_for_one_bmc() {
    let dir = tempfile::tempdir().unwrap();
    let rack = Rack::new(&site(1));
    let control = open(dir.path(), &rack);
    control.apply(request(site(1), None), "test").await.unwrap();
    let host = site(1).hosts().next().unwrap().host.clone();
    let url = control.media_url(&host, vec![7; 4096]).unwrap();
    assert!(url.expose().starts_with("http://10.77.9.2:8082/media/"), "{}", url.expose());
    let path = url.expose().strip_prefix("http://10.77.9.2:8082").unwrap().to_owned();
    let get = |peer: &'static str, method| ask(crate::media::routes(control.clone()), peer, method, &path);
    assert_eq!(get("10.77.9.12", Method::GET).await, StatusCode::NOT_FOUND, "another BMC");
    assert_eq!(get("10.77.9.11", Method::HEAD).await, StatusCode::OK);
    assert_eq!(get("10.77.9.11", Method::GET).await, StatusCode::OK);
    assert_eq!(get("10.77.9.11", Method::GET).await, StatusCode::NOT_FOUND, "it counts once");
    let old = control.media_url(&host, vec![1; 10]).unwrap();
    let _new = control.media_url(&host, vec![2; 10]).unwrap();
    assert!(control.media.iso(old.expose()).is_none(), "a host has one medium at a time");
}
