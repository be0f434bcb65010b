//! The listeners as clients meet them: who may do what, on every route of each.

use crate::fake::{Fake, NOW};
use crate::identity::Access;
use crate::rest::session::COOKIE;
use crate::{Api, operators, routes, unix, web};
use axum::Router;
use axum::body::Body;
use axum::extract::ConnectInfo;
use axum::http::{HeaderMap, Request, StatusCode, header};
use dayzero_model::secret::Secret;
use dayzero_store::{Options, Store};
use dayzero_trust::{Role, Users};
use http_body_util::BodyExt;
use std::net::SocketAddr;
use std::sync::Arc;
use tokio_util::sync::CancellationToken;
use tower::ServiceExt;

const PASSWORD: &str = "correct horse battery";

struct Desk {
    api: Arc<Api>,
    fake: Arc<Fake>,
    _dir: tempfile::TempDir,
}

struct Answer {
    status: StatusCode,
    headers: HeaderMap,
    text: String,
}

fn desk() -> Desk {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(&dir.path().join("store"), Options::default()).unwrap();
    let fake = Arc::new(Fake::default());
    let users = Users::new(&store);
    let api = Api::new(fake.clone(), store, users, || NOW, CancellationToken::new());
    Desk { api, fake, _dir: dir }
}

impl Desk {
    fn asked(&self) -> Vec<String> {
        self.fake.asked.lock().unwrap().clone()
    }

    /// A logged-in user's cookie.
    async fn cookie(&self, name: &str, role: Role) -> String {
        let (user, password) = (name.parse().unwrap(), Secret::new(PASSWORD.to_owned()));
        self.api.users.set_user(&user, role, &password, NOW).await.unwrap();
        let login = self.api.users.login(name, &password, "test", NOW).await.unwrap();
        format!("{COOKIE}={}", login.id.expose())
    }

    fn operators(&self) -> Router {
        operators::router(self.api.clone())
    }

    fn unix(&self) -> Router {
        unix::router(self.api.clone())
    }
}

/// A request as a browser on our own page sends it.
fn request(method: &str, path: &str, cookie: Option<&str>) -> axum::http::request::Builder {
    let mut request = Request::builder().method(method).uri(path).header("host", "10.0.0.1:8443");
    request = request.header("origin", "https://10.0.0.1:8443").header("sec-fetch-site", "same-origin");
    if let Some(cookie) = cookie {
        request = request.header("cookie", cookie);
    }
    request
}

async fn send(router: Router, mut request: Request<Body>) -> Answer {
    let peer: SocketAddr = "10.0.0.9:5000".parse().unwrap();
    request.extensions_mut().insert(ConnectInfo(peer));
    answer(router.oneshot(request).await.unwrap()).await
}

async fn by_socket(router: Router, uid: Option<u32>, mut request: Request<Body>) -> Answer {
    request.extensions_mut().insert(ConnectInfo(unix::Peer::of(uid)));
    answer(router.oneshot(request).await.unwrap()).await
}

async fn answer(response: axum::response::Response) -> Answer {
    let (status, headers) = (response.status(), response.headers().clone());
    let stream = headers.get(header::CONTENT_TYPE).is_some_and(|kind| kind == "text/event-stream");
    let bytes =
        if stream { Default::default() } else { response.into_body().collect().await.unwrap().to_bytes() };
    Answer { status, headers, text: String::from_utf8(bytes.to_vec()).unwrap() }
}

fn filled(path: &str) -> String {
    let path = path
        .replace("{host}", "host1")
        .replace("{subject}", "host1")
        .replace("{id}", "x")
        .replace("{file}", "console.css");
    if path == "/why" { "/why?subject=host1".to_owned() } else { path }
}

fn every_route() -> Vec<(&'static str, &'static str, Access)> {
    let mut all: Vec<_> =
        routes::all().iter().map(|route| (route.method, route.path, route.access)).collect();
    all.extend(web::all());
    all
}

#[tokio::test]
async fn without_a_session_nothing_changes_and_nothing_is_shown() {
    let desk = desk();
    for (method, path, access) in every_route() {
        let asked = request(method, &filled(path), None)
            .header("content-type", "application/json")
            .body(Body::from("{}"))
            .unwrap();
        let answer = send(desk.operators(), asked).await;
        match access {
            Access::Open => assert!(!answer.text.contains("host1"), "{method} {path} shows {}", answer.text),
            _ if method == "GET" && !path.starts_with("/v1/") => {
                assert_eq!(
                    (answer.status, answer.headers["location"].to_str().unwrap()),
                    (StatusCode::SEE_OTHER, "/login"),
                    "{path}"
                );
                assert!(answer.text.is_empty(), "{path}");
            }
            _ => assert_eq!(answer.status, StatusCode::UNAUTHORIZED, "{method} {path}"),
        }
        assert_eq!(answer.headers["x-frame-options"], "DENY", "{method} {path}");
        let policy = answer.headers["content-security-policy"].to_str().unwrap();
        assert!(
            policy.contains("script-src 'self'") && !policy.contains("unsafe"),
            "{method} {path}: {policy}"
        );
    }
    assert_eq!(desk.asked(), Vec::<String>::new());
    assert!(desk.api.users.users().unwrap().is_empty());
}

#[tokio::test]
async fn each_role_may_what_the_table_says() {
    let desk = desk();
    for (name, role) in [("vera", Role::Viewer), ("otto", Role::Operator), ("anna", Role::Admin)] {
        let cookie = desk.cookie(name, role).await;
        for (method, path, access) in
            every_route().into_iter().filter(|(_, path, _)| !path.ends_with("/logout"))
        {
            let asked = request(method, &filled(path), Some(&cookie))
                .header("content-type", "application/json")
                .body(Body::from("{}"))
                .unwrap();
            let answer = send(desk.operators(), asked).await;
            let may = match access {
                Access::Open => true,
                Access::Role(needed) => role.may(needed),
                Access::Machine => false,
            };
            assert_eq!(
                answer.status != StatusCode::FORBIDDEN,
                may,
                "{name}: {method} {path} got {}",
                answer.status
            );
            assert_ne!(
                answer.status,
                StatusCode::UNAUTHORIZED,
                "{name}: {method} {path}: a bad login body is 4xx of its own"
            );
        }
    }
    let by: Vec<String> =
        desk.asked().iter().filter_map(|what| what.rsplit(' ').next().map(str::to_owned)).collect();
    assert!(by.iter().all(|who| ["otto", "anna", "lab"].contains(&who.as_str())), "{by:?}");
}

#[tokio::test]
async fn what_changes_state_must_come_from_our_own_pages() {
    let desk = desk();
    let cookie = desk.cookie("otto", Role::Operator).await;
    let host = ("host", "10.0.0.1:8443");
    type Headers<'a> = &'a [(&'a str, &'a str)];
    let cases: [(&str, Headers<'_>, bool); 8] = [
        ("own page", &[host, ("origin", "https://10.0.0.1:8443"), ("sec-fetch-site", "same-origin")], true),
        ("tool with Origin", &[host, ("origin", "https://10.0.0.1:8443")], true),
        ("neither header", &[host], false),
        ("other site", &[host, ("origin", "https://evil.example"), ("sec-fetch-site", "cross-site")], false),
        ("other port", &[host, ("origin", "https://10.0.0.1:9999"), ("sec-fetch-site", "same-site")], false),
        ("no TLS", &[host, ("origin", "http://10.0.0.1:8443")], false),
        ("sandboxed frame", &[host, ("origin", "null"), ("sec-fetch-site", "same-origin")], false),
        ("typed address", &[host, ("sec-fetch-site", "none")], false),
    ];
    for (case, headers, passes) in cases {
        for path in ["/v1/hosts/host1/retry", "/hosts/host1/retry"] {
            let mut asked = Request::builder().method("POST").uri(path).header("cookie", &cookie);
            for (name, value) in headers {
                asked = asked.header(*name, *value);
            }
            let answer = send(desk.operators(), asked.body(Body::empty()).unwrap()).await;
            assert_eq!(answer.status != StatusCode::FORBIDDEN, passes, "{case} on {path}: {}", answer.status);
        }
    }
    assert_eq!(desk.asked(), vec!["retry host1 otto"; 4]);
}

#[tokio::test]
async fn a_claim_code_opens_the_appliance_once_and_logout_ends_the_session() {
    let desk = desk();
    let code = desk.api.users.first_claim(NOW).await.unwrap().unwrap();
    let login = send(desk.operators(), request("GET", "/login", None).body(Body::empty()).unwrap()).await;
    for id in ["claim-code", "new-password", "new-password-again", "login-submit"] {
        assert!(login.text.contains(&format!("id=\"{id}\"")), "{id} is missing");
    }
    let form = |again: &str| {
        let body = format!("code={}&password=correct+horse+battery&again={again}", code.expose());
        request("POST", "/login/claim", None)
            .header("content-type", "application/x-www-form-urlencoded")
            .body(Body::from(body))
            .unwrap()
    };
    let different = send(desk.operators(), form("something+else+x")).await;
    assert_eq!(different.status, StatusCode::UNPROCESSABLE_ENTITY);
    assert!(!different.text.contains(code.expose().as_str()), "the code is not shown again");
    let claimed = send(desk.operators(), form("correct+horse+battery")).await;
    assert_eq!(
        (claimed.status, claimed.headers["location"].to_str().unwrap()),
        (StatusCode::SEE_OTHER, "/"),
        "{}",
        claimed.text
    );
    let cookie = claimed.headers["set-cookie"].to_str().unwrap().to_owned();
    for word in ["__Host-dayzero=", "Path=/", "HttpOnly", "Secure", "SameSite=Strict"] {
        assert!(cookie.contains(word), "{cookie}");
    }
    assert!(!cookie.contains("Domain"), "{cookie}");
    let session = cookie.split(';').next().unwrap();
    let page = send(desk.operators(), request("GET", "/", Some(session)).body(Body::empty()).unwrap()).await;
    assert_eq!(page.status, StatusCode::OK);
    assert_eq!(page.headers["cache-control"], "no-store");
    let again = send(desk.operators(), form("correct+horse+battery")).await;
    assert_eq!(again.status, StatusCode::UNAUTHORIZED, "spent");
    let login = send(desk.operators(), request("GET", "/login", None).body(Body::empty()).unwrap()).await;
    assert!(login.text.contains("id=\"user\"") && login.text.contains("id=\"password\""));
    let out =
        send(desk.operators(), request("POST", "/logout", Some(session)).body(Body::empty()).unwrap()).await;
    assert!(out.headers["set-cookie"].to_str().unwrap().contains("Max-Age=0"));
    let after =
        send(desk.operators(), request("GET", "/v1/status", Some(session)).body(Body::empty()).unwrap())
            .await;
    assert_eq!(after.status, StatusCode::UNAUTHORIZED, "the session is over on the appliance too");
}

#[tokio::test]
async fn logins_are_slowed_down_and_do_not_tell_who_exists() {
    let desk = desk();
    desk.cookie("anna", Role::Admin).await;
    let attempt = |user: &str| {
        let body = format!(r#"{{"user":"{user}","password":"wrong password 1"}}"#);
        request("POST", "/v1/login", None)
            .header("content-type", "application/json")
            .body(Body::from(body))
            .unwrap()
    };
    let (known, unknown) =
        (send(desk.operators(), attempt("anna")).await, send(desk.operators(), attempt("nobody")).await);
    assert_eq!((known.status, &known.text), (StatusCode::UNAUTHORIZED, &unknown.text));
    for _ in 0..4 {
        send(desk.operators(), attempt("anna")).await;
    }
    let slowed = send(desk.operators(), attempt("anna")).await;
    assert_eq!(
        (slowed.status, slowed.headers["retry-after"].to_str().unwrap()),
        (StatusCode::TOO_MANY_REQUESTS, "2")
    );
}

#[tokio::test]
async fn the_socket_knows_its_peers() {
    let desk = desk();
    let own = nix::unistd::geteuid().as_raw();
    for (uid, allowed) in [(Some(0), true), (Some(own), true), (Some(own + 4711), false), (None, false)] {
        for route in routes::all() {
            let asked = Request::builder()
                .method(route.method)
                .uri(filled(route.path))
                .header("content-type", "application/json");
            let answer = by_socket(desk.unix(), uid, asked.body(Body::from("{}")).unwrap()).await;
            assert_eq!(
                answer.status != StatusCode::FORBIDDEN,
                allowed,
                "{uid:?} {} {}",
                route.method,
                route.path
            );
        }
    }
    let asked = desk.asked();
    assert!(asked.contains(&format!("retry host1 uid:{own}")), "{asked:?}");
    let page = Request::builder().uri("/login").body(Body::empty()).unwrap();
    assert_eq!(
        by_socket(desk.unix(), Some(0), page).await.status,
        StatusCode::NOT_FOUND,
        "no console on the socket"
    );
}

#[tokio::test]
async fn a_bound_socket_is_private_answers_and_is_not_taken_over() {
    use std::os::unix::fs::PermissionsExt;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let desk = desk();
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join(unix::SOCKET);
    std::fs::write(&path, "left by a former run").unwrap();
    let cancel = CancellationToken::new();
    let socket = unix::bind(&path).await.unwrap();
    assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    let serving = tokio::spawn(socket.serve(desk.api.clone(), cancel.clone()));
    assert!(matches!(unix::bind(&path).await, Err(unix::SocketError::Taken(_))));
    let mut stream = tokio::net::UnixStream::connect(&path).await.unwrap();
    stream.write_all(b"GET /v1/whoami HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").await.unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).await.unwrap();
    let own = nix::unistd::geteuid().as_raw();
    assert!(
        text.starts_with("HTTP/1.1 200")
            && text.contains(&format!(r#"{{"who":"uid:{own}","role":"admin"}}"#)),
        "{text}"
    );
    cancel.cancel();
    serving.await.unwrap().unwrap();
    assert!(!path.exists(), "a socket that nobody serves is not left");
}

#[tokio::test]
async fn faults_are_problems_with_the_right_status() {
    let desk = desk();
    let json = |method: &str, path: &str, body: &str| {
        Request::builder()
            .method(method)
            .uri(path)
            .header("content-type", "application/json")
            .body(Body::from(body.to_owned()))
            .unwrap()
    };
    let vm = r#"{"name":"a","offering":"small","template":"tiny","wish":1}"#;
    let large = format!(r#"{{"name":"{}"}}"#, "a".repeat(70_000));
    let cases = [
        (json("GET", "/v1/hosts/nohost", ""), 404, "not-found"),
        (json("GET", "/v1/hosts/No_Host", ""), 400, "bad-request"),
        (json("GET", "/v1/hosts/host1?event=1", ""), 400, "bad-request"),
        (json("POST", "/v1/vms", vm), 422, "bad-request"),
        (json("POST", "/v1/vms", "{"), 400, "bad-request"),
        (json("POST", "/v1/vms", &large), 413, "too-large"),
        (json("GET", "/v1/nothing", ""), 404, "not-found"),
        (json("PUT", "/v1/vms", "{}"), 405, "wrong-method"),
        (Request::builder().method("POST").uri("/v1/vms").body(Body::from("{}")).unwrap(), 415, "not-json"),
    ];
    for (asked, status, word) in cases {
        let shown = format!("{} {}", asked.method(), asked.uri());
        let answer = by_socket(desk.unix(), Some(0), asked).await;
        let problem: crate::Problem =
            serde_json::from_str(&answer.text).unwrap_or_else(|_| panic!("{shown}: {}", answer.text));
        assert_eq!(
            (answer.status.as_u16(), problem.kind),
            (status, format!("urn:dayzero:problem:{word}")),
            "{shown}: {}",
            problem.detail
        );
        assert_eq!(answer.headers["content-type"], "application/problem+json", "{shown}");
    }
}

#[tokio::test]
async fn pages_escape_what_they_show_and_carry_their_marks() {
    let desk = desk();
    let cookie = desk.cookie("vera", Role::Viewer).await;
    let page =
        send(desk.operators(), request("GET", "/", Some(&cookie)).body(Body::empty()).unwrap()).await.text;
    assert!(
        page.contains(r#"data-host="host1""#) && page.contains(r#"<span data-field="phase">Imaged</span>"#)
    );
    assert!(!page.contains("<script>alert"), "what comes from elsewhere is escaped");
    assert!(!page.contains("/retry"), "a viewer is offered nothing that a viewer may not do");
    assert!(!page.contains(" style="), "the policy allows no inline style");
    let host =
        send(desk.operators(), request("GET", "/hosts/host2", Some(&cookie)).body(Body::empty()).unwrap())
            .await
            .text;
    for part in [
        "id=\"cause\"",
        "id=\"conditions\"",
        "id=\"hardware\"",
        "id=\"proof\"",
        "id=\"timeline\"",
        "customer-data",
    ] {
        assert!(host.contains(part), "{part} is missing");
    }
    let missing =
        send(desk.operators(), request("GET", "/hosts/nohost", Some(&cookie)).body(Body::empty()).unwrap())
            .await;
    assert_eq!(missing.status, StatusCode::NOT_FOUND);
    let script =
        send(desk.operators(), request("GET", "/assets/console.js", None).body(Body::empty()).unwrap()).await;
    assert!(script.text.contains("EventSource") && !script.text.contains("location.reload"));
    let tag = script.headers["etag"].clone();
    let known =
        request("GET", "/assets/console.js", None).header("if-none-match", tag).body(Body::empty()).unwrap();
    assert_eq!(send(desk.operators(), known).await.status, StatusCode::NOT_MODIFIED);
}

#[tokio::test(start_paused = true)]
async fn an_open_page_is_told_of_events_and_of_silent_progress_and_no_longer_than_its_session() {
    let desk = desk();
    let cookie = desk.cookie("vera", Role::Viewer).await;
    let asked = request("GET", "/live", Some(&cookie)).body(Body::empty()).unwrap();
    let response = desk.operators().oneshot(asked).await.unwrap();
    let mut body = response.into_body();
    let event = dayzero_model::event::What::Agent { message: "connected".into() };
    let event = dayzero_model::event::Event { at: NOW, host: None, mac: None, boot: None, what: event };
    desk.fake.events.send(event).unwrap();
    let told = body.frame().await.unwrap().unwrap().into_data().unwrap();
    assert_eq!(told, "event: changed\ndata: look\n\n");
    let quiet = body.frame().await.unwrap().unwrap().into_data().unwrap();
    assert!(quiet.starts_with(b":"), "nothing changed, nothing is told: {quiet:?}");
    desk.fake.status.lock().unwrap().racks[0].hosts[0].met = 3;
    let told = body.frame().await.unwrap().unwrap().into_data().unwrap();
    assert_eq!(told, "event: changed\ndata: look\n\n");
    desk.api.users.logout(cookie.split_once('=').unwrap().1).await.unwrap();
    assert!(body.frame().await.is_none(), "the stream ends with its session");
}
