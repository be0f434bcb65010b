//! The Redfish BMC: our own service (DSP0266) over TLS with a certificate of its own, in the BMC's namespace.
//!
//! It is strict where real BMCs are: authentication for all but the root, `If-Match` on each change, allowable values, password
//! lengths; it passes DMTF's service validator. Accounts live in memory, passwords hashed; the certificate is kept in the BMC's
//! directory, so that a pin outlives a restart of the lab.

mod auth;
mod fetch;
mod state;
mod tree;
mod write;

use super::lease::write_file;
use super::{BmcEmulatorError, Context};
use axum::Router;
use axum::body::Bytes;
use axum::extract::State as Extension;
use axum::http::{HeaderMap, Method, StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use axum_server::tls_rustls::RustlsConfig;
use serde_json::{Value, json};
use state::State;
use std::net::{Ipv4Addr, SocketAddrV4, TcpListener};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::task::JoinSet;

const PORT: u16 = 443;
/// The largest request that a BMC has use for.
const MAX_BODY: usize = 64 << 10;

/// The running service.
struct Service {
    context: Arc<Context>,
    state: Mutex<State>,
    /// Changes of the machine are made one after the other.
    change: tokio::sync::Mutex<()>,
}

impl Service {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The resource at a path as it is now.
    fn read(&self, path: &str) -> Option<Value> {
        let state = self.state();
        let chassis = &*self.context.chassis;
        let now = tree::Now {
            spec: &self.context.spec,
            state: &state,
            on: chassis.is_on(),
            armed: chassis.pxe_armed(),
            links: (0..self.context.spec.nic_macs.len()).map(|nic| chassis.has_link(nic)).collect(),
            order: chassis.firmware_order(),
        };
        tree::resource(&now, path)
    }
}

pub(super) fn start(context: &Arc<Context>, tasks: &mut JoinSet<()>) -> Result<(), BmcEmulatorError> {
    let spec = &context.spec;
    let tls = tls(context)?;
    let state =
        State::new(&spec.user, spec.password.expose()).map_err(spec.io("hash its factory password"))?;
    let listener = context.netns.run("listen on port 443", || {
        let listener = TcpListener::bind(SocketAddrV4::new(Ipv4Addr::UNSPECIFIED, PORT))?;
        listener.set_nonblocking(true)?;
        Ok(listener)
    });
    let listener = listener.map_err(|e| spec.netns(e))?;
    let service =
        Service { context: context.clone(), state: Mutex::new(state), change: tokio::sync::Mutex::default() };
    let router = router(Arc::new(service));
    let server = axum_server::from_tcp_rustls(listener, RustlsConfig::from_config(tls))
        .map_err(spec.io("serve TLS"))?;
    let name = spec.name.clone();
    tasks.spawn(async move {
        if let Err(error) = server.serve(router.into_make_service()).await {
            tracing::error!(bmc = name, %error, "the Redfish service ended");
        }
    });
    Ok(())
}

fn router(service: Arc<Service>) -> Router {
    Router::new().fallback(answer).layer(axum::extract::DefaultBodyLimit::max(MAX_BODY)).with_state(service)
}

/// The certificate from the BMC's directory, or a fresh self-signed one, as from the factory.
fn tls(context: &Context) -> Result<Arc<rustls::ServerConfig>, BmcEmulatorError> {
    use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
    let spec = &context.spec;
    let other = |e: &dyn std::fmt::Display| std::io::Error::other(e.to_string());
    let (cert_path, key_path) = (spec.dir.join("cert.der"), spec.dir.join("key.der"));
    if !(cert_path.exists() && key_path.exists()) {
        let made = rcgen::generate_simple_self_signed([spec.name.clone()]);
        let made = made.map_err(|e| spec.io("make its certificate")(other(&e)))?;
        let write =
            |path, content: &[u8]| write_file(path, content, 0o600).map_err(spec.io("keep its certificate"));
        write(&key_path, &made.signing_key.serialize_der())?;
        write(&cert_path, made.cert.der())?;
    }
    let read = |path| std::fs::read(path).map_err(spec.io("read its certificate"));
    let cert = CertificateDer::from(read(&cert_path)?);
    let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(read(&key_path)?));
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .and_then(|builder| builder.with_no_client_auth().with_single_cert(vec![cert], key));
    Ok(Arc::new(config.map_err(|e| spec.io("use its certificate")(other(&e)))?))
}

/// What a request is answered with.
struct Answer {
    status: StatusCode,
    body: Option<Value>,
    headers: Vec<(header::HeaderName, String)>,
}

impl Answer {
    fn of(status: StatusCode, body: Value) -> Self {
        Self { status, body: Some(body), headers: Vec::new() }
    }

    fn empty(status: StatusCode) -> Self {
        Self { status, body: None, headers: Vec::new() }
    }

    fn with(mut self, name: header::HeaderName, value: impl Into<String>) -> Self {
        self.headers.push((name, value.into()));
        self
    }

    /// An error as DSP0266, 8.6 shapes it. `id` is a message of the Base registry.
    fn error(status: StatusCode, id: &str, message: impl Into<String>) -> Self {
        let (id, message) = (format!("Base.1.19.{id}"), message.into());
        let info = json!([{ "@odata.type": "#Message.v1_1_2.Message", "MessageId": id, "Message": message }]);
        Self::of(
            status,
            json!({ "error": { "code": id, "message": message, "@Message.ExtendedInfo": info } }),
        )
    }
}

impl IntoResponse for Answer {
    fn into_response(self) -> Response {
        let mut response = match self.body {
            Some(body) => (self.status, axum::Json(body)).into_response(),
            None => self.status.into_response(),
        };
        let fixed = [
            (header::CACHE_CONTROL, "no-store".to_owned()),
            (header::HeaderName::from_static("odata-version"), "4.0".into()),
        ];
        for (name, value) in fixed.into_iter().chain(self.headers) {
            if let Ok(value) = value.parse() {
                response.headers_mut().insert(name, value);
            }
        }
        response
    }
}

/// One request: authentication, then reading or changing.
async fn answer(
    Extension(service): Extension<Arc<Service>>,
    method: Method,
    uri: Uri,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    let path = tree::canonical(uri.path());
    let head = method == Method::HEAD;
    let method = if head { Method::GET } else { method };
    let opening_session = method == Method::POST && path == tree::SESSIONS;
    let caller = if (method == Method::GET && tree::is_public(&path)) || opening_session {
        None
    } else {
        match auth::caller(&service, &headers).await {
            Ok(caller) => Some(caller),
            Err(refusal) => return refusal.into_response(),
        }
    };
    if method == Method::GET {
        if path == tree::METADATA {
            return ([(header::CONTENT_TYPE, "application/xml")], tree::metadata()).into_response();
        }
        return read(&service, &path, &headers).into_response();
    }
    let body = match serde_json::from_slice::<Value>(&body) {
        Ok(value) if value.is_object() => value,
        Err(_) if body.is_empty() => json!({}),
        _ => {
            return Answer::error(StatusCode::BAD_REQUEST, "MalformedJSON", "The body is no JSON object.")
                .into_response();
        }
    };
    let request = write::Request { method, path, headers, body, caller };
    write::handle(&service, request).await.into_response()
}

fn read(service: &Service, path: &str, headers: &HeaderMap) -> Answer {
    let Some(value) = service.read(path) else {
        return Answer::error(
            StatusCode::NOT_FOUND,
            "ResourceMissingAtURI",
            format!("There is no resource at {path}."),
        );
    };
    let etag = tree::etag(&value);
    if headers.get(header::IF_NONE_MATCH).and_then(|v| v.to_str().ok()) == Some(etag.as_str()) {
        return Answer::empty(StatusCode::NOT_MODIFIED);
    }
    Answer::of(StatusCode::OK, value).with(header::ETAG, etag).with(header::ALLOW, tree::methods(path))
}
