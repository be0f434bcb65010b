//! The table of REST routes: path, what it needs, what it does. Both listeners serve it; the OpenAPI document and the
//! test that walks every route are made from it.

use crate::identity::{Access, guard};
use crate::{Api, Problem, rest};
use axum::Router;
use axum::extract::DefaultBodyLimit;
use axum::http::StatusCode;
use axum::middleware::from_fn;
use axum::routing::{MethodRouter, delete, get, post};
use dayzero_trust::Role;
use std::sync::Arc;

pub use crate::identity::Access as Needs;

/// Largest request body, bytes, but for plans.
const SMALL: usize = 64 << 10;
/// Largest plan as JSON, bytes: about 100,000 hosts.
const PLAN: usize = 128 << 20;

/// One route.
#[derive(Clone, Copy, Debug)]
pub struct Route {
    /// Method, upper case.
    pub method: &'static str,
    /// Path with `{placeholders}`.
    pub path: &'static str,
    /// What it needs.
    pub access: Access,
    /// What it does, one sentence.
    pub does: &'static str,
    /// Name of the body's schema in the OpenAPI document; empty = no body.
    pub body: &'static str,
    /// Name of the answer's schema; empty = 204 without a body.
    pub answer: &'static str,
}

type Row = (Route, MethodRouter<Arc<Api>>);

const VIEWER: Access = Access::Role(Role::Viewer);
const OPERATOR: Access = Access::Role(Role::Operator);
const ADMIN: Access = Access::Role(Role::Admin);

fn row(
    of: (&'static str, &'static str, Access),
    does: &'static str,
    schemas: (&'static str, &'static str),
    handler: MethodRouter<Arc<Api>>,
) -> Row {
    let (method, path, access) = of;
    (Route { method, path, access, does, body: schemas.0, answer: schemas.1 }, handler)
}

fn rows() -> Vec<Row> {
    let mut rows = vec![
        row(
            ("GET", "/v1/health", Access::Open),
            "Whether it serves; more to who is logged in.",
            ("", "Health"),
            get(rest::health),
        ),
        row(("GET", "/v1/openapi.json", Access::Open), "This document.", ("", "OpenApi"), get(rest::openapi)),
        row(
            ("POST", "/v1/login", Access::Open),
            "Logs in; the answer sets the session cookie.",
            ("LoginRequest", "WhoAmI"),
            post(rest::session::login),
        ),
        row(
            ("POST", "/v1/login/claim", Access::Open),
            "Logs in by claim code, once, and sets the administrator's password.",
            ("ClaimRequest", "WhoAmI"),
            post(rest::session::claim),
        ),
        row(("POST", "/v1/logout", VIEWER), "Ends the session.", ("", ""), post(rest::session::logout)),
        row(
            ("GET", "/v1/whoami", VIEWER),
            "Who asks, and what it may do.",
            ("", "WhoAmI"),
            get(rest::session::whoami),
        ),
        row(
            ("POST", "/v1/claim", Access::Machine),
            "Makes a new claim code in place of any before.",
            ("", "ClaimCode"),
            post(rest::session::new_claim),
        ),
        row(
            ("POST", "/v1/store/verify", ADMIN),
            "Reads and checks every record and blob of the store.",
            ("", "Verified"),
            post(rest::verify),
        ),
    ];
    rows.extend(site());
    rows.extend(hosts());
    rows
}

fn site() -> Vec<Row> {
    vec![
        row(
            ("POST", "/v1/plan/preview", VIEWER),
            "What an apply of this plan would change. Changes nothing.",
            ("Site", "PlanPreview"),
            post(rest::site::preview).layer(DefaultBodyLimit::max(PLAN)),
        ),
        row(
            ("POST", "/v1/plan", ADMIN),
            "Commits a plan and its factory credentials in one transaction.",
            ("ApplyRequest", "Applied"),
            post(rest::site::apply).layer(DefaultBodyLimit::max(PLAN)),
        ),
        row(
            ("GET", "/v1/status", VIEWER),
            "Racks, hosts, what a person must do, pending clients, clusters, VMs.",
            ("", "StatusView"),
            get(rest::site::status),
        ),
        row(
            ("GET", "/v1/why/{subject}", VIEWER),
            "Why a host (by name) or a client (by MAC) does not go on.",
            ("", "WhyView"),
            get(rest::site::why),
        ),
        row(
            ("GET", "/v1/pcap/{subject}", VIEWER),
            "Recorded datagrams of a host (by name) or a client (by MAC): its last failed boots, then what is in memory.",
            ("", "Pcapng"),
            get(rest::site::pcap),
        ),
        row(
            ("POST", "/v1/doctor", OPERATOR),
            "What would hinder network boot on the appliance and on this plan's networks. Changes nothing; takes half a minute.",
            ("DoctorRequest", "DoctorFindings"),
            post(rest::site::doctor).layer(DefaultBodyLimit::max(PLAN)),
        ),
        row(
            ("GET", "/v1/events", VIEWER),
            "Events from now on, as server-sent events.",
            ("", "Event"),
            get(rest::site::events),
        ),
        row(
            ("POST", "/v1/confirm/{id}", OPERATOR),
            "A person says that what the to-do list asked for is done.",
            ("", ""),
            post(rest::site::confirm),
        ),
        row(("GET", "/v1/vms", VIEWER), "All VMs.", ("", "Vms"), get(rest::site::vms)),
        row(
            ("POST", "/v1/vms", OPERATOR),
            "Accepts a VM; it is placed and started by and by.",
            ("VmRequest", "Vm"),
            post(rest::site::vm_create),
        ),
    ]
}

fn hosts() -> Vec<Row> {
    vec![
        row(
            ("GET", "/v1/hosts", VIEWER),
            "All hosts, in a line each.",
            ("", "HostSummaries"),
            get(rest::hosts::list),
        ),
        row(
            ("GET", "/v1/hosts/{host}", VIEWER),
            "All of one host, with the last events of its timeline.",
            ("", "HostView"),
            get(rest::hosts::show),
        ),
        row(
            ("DELETE", "/v1/hosts/{host}", ADMIN),
            "Forgets a host that is no longer in the plan; ?forget_credential=true: with its BMC's generated credential.",
            ("", ""),
            delete(rest::hosts::retire),
        ),
        row(
            ("POST", "/v1/hosts/{host}/retry", OPERATOR),
            "Carries on after a fix.",
            ("", ""),
            post(rest::hosts::retry),
        ),
        row(
            ("POST", "/v1/hosts/{host}/credential", ADMIN),
            "Shows the credentials that its BMC takes; that somebody asked goes on the timeline.",
            ("", "BmcCredentials"),
            post(rest::hosts::credential),
        ),
        row(
            ("POST", "/v1/hosts/{host}/reset", ADMIN),
            "Begins the host's life again: it is installed anew.",
            ("", ""),
            post(rest::hosts::reset),
        ),
        row(
            ("POST", "/v1/hosts/{host}/consent", ADMIN),
            "Consents to wipe the disk that was found foreign.",
            ("ConsentRequest", ""),
            post(rest::hosts::consent),
        ),
        row(
            ("POST", "/v1/hosts/{host}/prove", OPERATOR),
            "Proves the host's paths again, or without one leg: the control.",
            ("ProveRequest", "ProofReport"),
            post(rest::hosts::prove),
        ),
    ]
}

/// All REST routes.
pub fn all() -> Vec<Route> {
    rows().into_iter().map(|(route, _)| route).collect()
}

/// The REST routes as a router, each behind its guard. The listener adds the identity.
pub(crate) fn router() -> Router<Arc<Api>> {
    let mut router = Router::new();
    for (route, handler) in rows() {
        let access = route.access;
        router = router.route(
            route.path,
            handler.route_layer(from_fn(move |request, next| guard(access, request, next))),
        );
    }
    router.layer(DefaultBodyLimit::max(SMALL))
}

/// Answer to what is no route.
pub(crate) async fn nothing_here() -> Problem {
    Problem::new(StatusCode::NOT_FOUND, "not-found", "there is nothing here: /v1/openapi.json lists what is")
}

/// Answer to a route asked by another method.
pub(crate) async fn wrong_method() -> Problem {
    Problem::new(
        StatusCode::METHOD_NOT_ALLOWED,
        "wrong-method",
        "this is not asked by that method: see /v1/openapi.json",
    )
}
