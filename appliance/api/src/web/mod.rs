//! The web console: server-rendered pages, one style sheet and one script of our own, all inside the binary.
//!
//! Invariants: everything shown is escaped (askama); no page needs script to be read; a page is never reloaded to be up
//! to date: `/live` says that something changed, and the script brings the document up to date. Pages but the login ask
//! for a session; what changes state is a form that the listener accepts from our own pages only.

mod actions;
mod assets;
mod door;
mod host;
mod overview;
mod push;

use crate::identity::{Access, Identity};
use crate::{Api, Problem};
use askama::Template;
use axum::Router;
use axum::extract::{Query, Request, State};
use axum::http::{Method, StatusCode};
use axum::middleware::{Next, from_fn};
use axum::response::{Html, IntoResponse, Redirect, Response};
use axum::routing::{MethodRouter, get, post};
use dayzero_control::view::WhyView;
use dayzero_model::event::Event;
use dayzero_model::units::Timestamp;
use dayzero_trust::Role;
use serde::Deserialize;
use std::sync::Arc;

pub(crate) use push::MOST as MOST_PAGES;

const VIEWER: Access = Access::Role(Role::Viewer);
const OPERATOR: Access = Access::Role(Role::Operator);
const ADMIN: Access = Access::Role(Role::Admin);

type Row = (&'static str, &'static str, Access, MethodRouter<Arc<Api>>);

fn rows() -> Vec<Row> {
    vec![
        ("GET", "/", VIEWER, get(overview::page)),
        ("GET", "/login", Access::Open, get(door::page)),
        ("POST", "/login", Access::Open, post(door::login)),
        ("POST", "/login/claim", Access::Open, post(door::claim)),
        ("POST", "/logout", VIEWER, post(door::logout)),
        ("GET", "/hosts/{host}", VIEWER, get(host::page)),
        ("POST", "/hosts/{host}/retry", OPERATOR, post(actions::retry)),
        ("POST", "/hosts/{host}/consent", ADMIN, post(actions::consent)),
        ("GET", "/why", VIEWER, get(why)),
        ("GET", "/live", VIEWER, get(push::live)),
        ("GET", "/assets/{file}", Access::Open, get(assets::asset)),
    ]
}

/// Method, path and need of each page, for the test that walks them.
#[cfg(test)]
pub(crate) fn all() -> Vec<(&'static str, &'static str, Access)> {
    rows().into_iter().map(|(method, path, access, _)| (method, path, access)).collect()
}

/// The console's routes, each behind its guard.
pub(crate) fn router() -> Router<Arc<Api>> {
    let mut router = Router::new();
    for (_, path, access, handler) in rows() {
        router = router
            .route(path, handler.route_layer(from_fn(move |request, next| guard(access, request, next))));
    }
    router
}

/// As the REST guard, but a page without a session leads to the login.
async fn guard(access: Access, request: Request, next: Next) -> Response {
    let reads = request.method() == Method::GET;
    if access != Access::Open && reads && request.extensions().get::<Identity>().is_none() {
        return Redirect::to("/login").into_response();
    }
    crate::identity::guard(access, request, next).await
}

/// What every page shows around its content.
pub(crate) struct Chrome {
    pub(crate) title: String,
    pub(crate) site: Option<String>,
    pub(crate) who: String,
    pub(crate) role: String,
    pub(crate) now: Timestamp,
    pub(crate) operates: bool,
    pub(crate) administers: bool,
}

impl Chrome {
    pub(crate) async fn new(api: &Api, identity: &Identity, title: impl Into<String>) -> Self {
        let status = api.service.status().await.ok();
        Self {
            title: title.into(),
            site: status.and_then(|status| status.site).map(|site| site.to_string()),
            who: identity.who.clone(),
            role: format!("{:?}", identity.role).to_lowercase(),
            now: api.now(),
            operates: identity.role.may(Role::Operator),
            administers: identity.role.may(Role::Admin),
        }
    }

    /// How long ago.
    pub(crate) fn ago(&self, then: &Timestamp) -> String {
        span(self.now.since(*then).0)
    }
}

/// A span of milliseconds in its two largest units. The script counts on in the same form.
pub(crate) fn span(ms: u64) -> String {
    let s = ms / 1000;
    match s {
        0..60 => format!("{s} s"),
        60..3600 => format!("{} m {:02} s", s / 60, s % 60),
        3600..86400 => format!("{} h {:02} m", s / 3600, s / 60 % 60),
        _ => format!("{} d {:02} h", s / 86400, s / 3600 % 24),
    }
}

/// A template as an answer.
pub(crate) fn render(page: &impl Template) -> Response {
    match page.render() {
        Ok(text) => Html(text).into_response(),
        Err(error) => Problem::system(&error).into_response(),
    }
}

/// A problem as a page.
#[derive(Template)]
#[template(path = "problem.html")]
struct ProblemPage {
    chrome: Chrome,
    problem: Problem,
}

pub(crate) async fn problem_page(api: &Api, identity: &Identity, problem: Problem) -> Response {
    let status = StatusCode::from_u16(problem.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let page = ProblemPage { chrome: Chrome::new(api, identity, "Not done").await, problem };
    (status, render(&page)).into_response()
}

/// One line of a timeline.
pub(crate) struct Line {
    pub(crate) time: String,
    pub(crate) source: String,
    pub(crate) text: String,
}

/// Events, newest first.
pub(crate) fn lines(events: &[Event]) -> Vec<Line> {
    events.iter().rev().map(line).collect()
}

fn line(event: &Event) -> Line {
    let at = event.at.to_string();
    let time = at.split_once('T').map_or("", |(_, time)| time).trim_end_matches('Z').to_owned();
    let whole = dayzero_timeline::text::what(&event.what);
    let (source, text) = whole.split_once(' ').unwrap_or((&whole, ""));
    let who = match (&event.host, event.mac) {
        (None, Some(mac)) => format!("{mac} "),
        _ => String::new(),
    };
    Line { time, source: source.to_owned(), text: format!("{who}{}", text.trim_start()) }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct WhyQuery {
    subject: String,
}

#[derive(Template)]
#[template(path = "why.html")]
struct WhyPage {
    chrome: Chrome,
    view: WhyView,
    timeline: Vec<Line>,
}

async fn why(State(api): State<Arc<Api>>, identity: Identity, Query(query): Query<WhyQuery>) -> Response {
    match api.service.why(query.subject.trim()).await {
        Ok(view) => {
            let chrome = Chrome::new(&api, &identity, format!("Why {}", view.subject)).await;
            render(&WhyPage { chrome, timeline: lines(&view.events), view })
        }
        Err(error) => problem_page(&api, &identity, error.into()).await,
    }
}
