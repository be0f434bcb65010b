//! Changes: sessions, accounts, boot override, power, virtual media.

use super::auth::{self, Caller};
use super::state::{Account, Hashed, MAX_ACCOUNTS, MAX_PASSWORD, MIN_PASSWORD, Media, ROLES};
use super::{Answer, Service, fetch, tree};
use crate::protocol::SecretKind;
use axum::http::{HeaderMap, Method, StatusCode, header};
use serde_json::Value;
use std::sync::atomic::Ordering;

/// A request that changes something.
pub(super) struct Request {
    pub(super) method: Method,
    pub(super) path: String,
    pub(super) headers: HeaderMap,
    pub(super) body: Value,
    /// None for opening a session alone.
    pub(super) caller: Option<Caller>,
}

type Done = Result<Answer, Answer>;

/// Carries one out.
pub(super) async fn handle(service: &Service, request: Request) -> Answer {
    route(service, &request).await.unwrap_or_else(|refusal| refusal)
}

async fn route(service: &Service, request: &Request) -> Done {
    let path = request.path.as_str();
    if request.method == Method::POST && path == tree::SESSIONS {
        return open_session(service, &request.body).await;
    }
    let caller = request.caller.as_ref().ok_or_else(auth::refusal)?;
    let id_under = |collection: &str| {
        path.strip_prefix(collection)
            .and_then(|rest| rest.strip_prefix('/'))
            .and_then(|id| id.parse::<u32>().ok())
    };
    if request.method == Method::DELETE
        && let Some(id) = id_under(tree::SESSIONS)
    {
        return close_session(service, caller, id);
    }
    if !caller.administrator {
        let words = "The account's role may not do that.";
        return Err(Answer::error(StatusCode::FORBIDDEN, "InsufficientPrivilege", words));
    }
    let _one_change_at_a_time = service.change.lock().await;
    match (request.method.as_str(), path) {
        ("POST", tree::ACCOUNTS) => create_account(service, &request.body).await,
        ("POST", tree::RESET) => reset(service, &request.body).await,
        ("POST", tree::INSERT) => insert(service, &request.body).await,
        ("POST", tree::EJECT) => eject(service).await,
        ("PATCH", tree::SYSTEM) => {
            matched(service, request)?;
            patch_system(service, &request.body).await
        }
        (method, _) => match (method, id_under(tree::ACCOUNTS)) {
            ("PATCH", Some(id)) => {
                matched(service, request)?;
                patch_account(service, id, &request.body).await
            }
            ("DELETE", Some(id)) => delete_account(service, caller, id),
            _ if service.read(path).is_some() => {
                let answer = Answer::error(
                    StatusCode::METHOD_NOT_ALLOWED,
                    "OperationNotAllowed",
                    "Not on this resource.",
                );
                Err(answer.with(header::ALLOW, tree::methods(path)))
            }
            _ => Err(Answer::error(
                StatusCode::NOT_FOUND,
                "ResourceMissingAtURI",
                format!("There is nothing at {path}."),
            )),
        },
    }
}

/// A change must name the version that it changes (DSP0266, 6.5).
fn matched(service: &Service, request: &Request) -> Result<(), Answer> {
    let value = service.read(&request.path);
    let value = value
        .ok_or_else(|| Answer::error(StatusCode::NOT_FOUND, "ResourceMissingAtURI", "There is nothing."))?;
    match request.headers.get(header::IF_MATCH).and_then(|v| v.to_str().ok()) {
        None => Err(Answer::error(
            StatusCode::PRECONDITION_REQUIRED,
            "PreconditionRequired",
            "If-Match is required.",
        )),
        Some(tag) if tag == "*" || tag == tree::etag(&value) => Ok(()),
        Some(_) => Err(Answer::error(
            StatusCode::PRECONDITION_FAILED,
            "PreconditionFailed",
            "It has changed meanwhile.",
        )),
    }
}

fn bad(id: &str, message: impl Into<String>) -> Answer {
    Answer::error(StatusCode::BAD_REQUEST, id, message)
}

fn required<'a>(body: &'a Value, name: &str) -> Result<&'a str, Answer> {
    body.get(name)
        .and_then(Value::as_str)
        .ok_or_else(|| bad("PropertyMissing", format!("{name} is required.")))
}

async fn open_session(service: &Service, body: &Value) -> Done {
    let (user, password) = (required(body, "UserName")?, required(body, "Password")?);
    let caller = auth::check(service, user, password).await.ok_or_else(auth::refusal)?;
    let (id, token) = service.state().open_session(caller.account);
    service.context.spec.ledger.note(SecretKind::SessionToken, &token);
    let path = format!("{}/{id}", tree::SESSIONS);
    let value = service.read(&path).unwrap_or(Value::Null);
    let answer = Answer::of(StatusCode::CREATED, value).with(header::LOCATION, path);
    Ok(answer.with(header::HeaderName::from_static("x-auth-token"), token))
}

fn close_session(service: &Service, caller: &Caller, id: u32) -> Done {
    let mut state = service.state();
    let own = state.sessions.get(&id).is_some_and(|s| s.account == caller.account || caller.administrator);
    if !own {
        return Err(Answer::error(
            StatusCode::NOT_FOUND,
            "ResourceMissingAtURI",
            "There is no such session.",
        ));
    }
    state.sessions.remove(&id);
    Ok(Answer::empty(StatusCode::NO_CONTENT))
}

/// A password within the policy, hashed. The password itself is not in the refusal.
async fn hashed(password: &str) -> Result<Hashed, Answer> {
    let length = password.chars().count();
    if !(MIN_PASSWORD..=MAX_PASSWORD).contains(&length) {
        let words = format!("A password has {MIN_PASSWORD} to {MAX_PASSWORD} characters.");
        return Err(bad("PropertyValueFormatError", words));
    }
    let password = password.to_owned();
    let made = tokio::task::spawn_blocking(move || Hashed::new(&password)).await;
    let internal =
        || Answer::error(StatusCode::INTERNAL_SERVER_ERROR, "InternalError", "The password was not stored.");
    made.map_err(|_| internal())?.map_err(|_| internal())
}

fn role(name: &str) -> Result<String, Answer> {
    let known = ROLES.iter().any(|(role, _)| *role == name);
    if known {
        Ok(name.to_owned())
    } else {
        Err(bad("PropertyValueNotInList", format!("There is no role '{name}'.")))
    }
}

fn user_name(service: &Service, user: &str, own: Option<u32>) -> Result<String, Answer> {
    let plain = (1..=16).contains(&user.len())
        && user.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b));
    if !plain {
        return Err(bad(
            "PropertyValueFormatError",
            "A user name is 1 to 16 letters, digits, '-', '_' and '.'.",
        ));
    }
    match service.state().account_of(user) {
        Some((id, _)) if Some(id) != own => Err(Answer::error(
            StatusCode::CONFLICT,
            "ResourceAlreadyExists",
            format!("There is an account '{user}'."),
        )),
        _ => Ok(user.to_owned()),
    }
}

async fn create_account(service: &Service, body: &Value) -> Done {
    let user = user_name(service, required(body, "UserName")?, None)?;
    let role = role(required(body, "RoleId")?)?;
    let enabled = body.get("Enabled").and_then(Value::as_bool).unwrap_or(true);
    let plain = required(body, "Password")?;
    let password = hashed(plain).await?;
    service.context.spec.ledger.note(SecretKind::Password, plain);
    let path = {
        let mut state = service.state();
        if state.accounts.len() >= MAX_ACCOUNTS {
            return Err(bad("CreateLimitReachedForResource", "There is no room for another account."));
        }
        let id = state.fresh();
        state.accounts.insert(id, Account { user, password, role, enabled });
        format!("{}/{id}", tree::ACCOUNTS)
    };
    let value = service.read(&path).unwrap_or(Value::Null);
    Ok(Answer::of(StatusCode::CREATED, value).with(header::LOCATION, path))
}

async fn patch_account(service: &Service, id: u32, body: &Value) -> Done {
    let text = |name: &str| body.get(name).and_then(Value::as_str);
    let password = match text("Password") {
        Some(plain) => {
            let password = hashed(plain).await?;
            service.context.spec.ledger.note(SecretKind::Password, plain);
            Some(password)
        }
        None => None,
    };
    let user = text("UserName").map(|user| user_name(service, user, Some(id))).transpose()?;
    let role = text("RoleId").map(role).transpose()?;
    let mut state = service.state();
    let account = state.accounts.get_mut(&id);
    let account =
        account.ok_or_else(|| Answer::error(StatusCode::NOT_FOUND, "ResourceMissingAtURI", "It is gone."))?;
    let enabled = body.get("Enabled").and_then(Value::as_bool);
    let shut_out = password.is_some() || enabled == Some(false);
    account.password = password.unwrap_or_else(|| account.password.clone());
    account.enabled = enabled.unwrap_or(account.enabled);
    if let Some(user) = user {
        account.user = user;
    }
    if let Some(role) = role {
        account.role = role;
    }
    if shut_out {
        state.end_sessions_of(id);
    }
    Ok(Answer::empty(StatusCode::NO_CONTENT))
}

fn delete_account(service: &Service, caller: &Caller, id: u32) -> Done {
    let mut state = service.state();
    if id == caller.account {
        return Err(bad("ResourceCannotBeDeleted", "An account does not delete itself."));
    }
    if state.accounts.remove(&id).is_none() {
        return Err(Answer::error(
            StatusCode::NOT_FOUND,
            "ResourceMissingAtURI",
            "There is no such account.",
        ));
    }
    state.end_sessions_of(id);
    Ok(Answer::empty(StatusCode::NO_CONTENT))
}

fn failed(error: &super::super::ChassisError) -> Answer {
    Answer::error(StatusCode::INTERNAL_SERVER_ERROR, "InternalError", error.to_string())
}

async fn patch_system(service: &Service, body: &Value) -> Done {
    let boot = body.get("Boot").and_then(Value::as_object);
    let boot = boot.ok_or_else(|| bad("PropertyUnknown", "Only Boot can be changed."))?;
    let known = ["BootSourceOverrideEnabled", "BootSourceOverrideTarget", "BootSourceOverrideMode"];
    if let Some(name) = boot.keys().find(|k| !known.contains(&k.as_str())) {
        return Err(bad("PropertyNotWritable", format!("Boot.{name} cannot be changed.")));
    }
    let text = |name: &str| boot.get(name).and_then(Value::as_str);
    if text(known[2]).is_some_and(|mode| mode != tree::boot_mode(&service.context.spec)) {
        return Err(bad("PropertyValueNotInList", "The host has no such boot mode."));
    }
    let chassis = &*service.context.chassis;
    let enabled = text(known[0]).unwrap_or("Once");
    let target = text(known[1]).unwrap_or("None");
    let not_listed =
        |what: &str, value: &str| bad("PropertyValueNotInList", format!("'{value}' is no {what}."));
    if !tree::BOOT_TARGETS.contains(&target) {
        return Err(not_listed(known[1], target));
    }
    let (pxe, disk) = match enabled {
        "Disabled" => (false, false),
        "Once" => (target == "Pxe", target == "Hdd"),
        other => return Err(not_listed(known[0], other)),
    };
    chassis.arm_pxe(pxe).await.map_err(|e| failed(&e))?;
    service.state().disk_once = disk;
    Ok(Answer::empty(StatusCode::NO_CONTENT))
}

async fn reset(service: &Service, body: &Value) -> Done {
    let kind = body.get("ResetType").and_then(Value::as_str);
    let kind = kind.ok_or_else(|| bad("ActionParameterMissing", "ResetType is required."))?;
    if !tree::RESET_TYPES.contains(&kind) {
        return Err(bad(
            "ActionParameterValueNotInList",
            format!("'{kind}' is no ResetType of this system."),
        ));
    }
    let chassis = &*service.context.chassis;
    let on = chassis.is_on();
    if on == (kind == "On") {
        let words = format!("{kind} is of no use while the host is {}.", if on { "on" } else { "off" });
        return Err(Answer::error(StatusCode::CONFLICT, "ActionParameterValueConflict", words));
    }
    let done = match kind {
        "On" => chassis.power_on().await,
        "ForceOff" => chassis.force_off().await,
        "GracefulShutdown" => chassis.graceful().await,
        "ForceRestart" => chassis.reset().await,
        _ => match chassis.force_off().await {
            Ok(()) => chassis.power_on().await,
            failed => failed,
        },
    };
    done.map_err(|e| failed(&e))?;
    service.state().disk_once = false;
    Ok(Answer::empty(StatusCode::NO_CONTENT))
}

async fn insert(service: &Service, body: &Value) -> Done {
    let url = required(body, "Image")?.to_owned();
    if service.state().media.is_some() {
        return Err(Answer::error(
            StatusCode::CONFLICT,
            "ResourceInUse",
            "There is an image in the drive: eject it first.",
        ));
    }
    let number = service.state().fresh();
    service.context.spec.ledger.note(SecretKind::MediaUrl, &url);
    let file = fetch::image(&service.context, &url, number).await.map_err(|e| {
        tracing::warn!(bmc = service.context.spec.name, error = %e, "the image was not fetched");
        bad("ResourceAtUriUnauthorized", format!("The image was not fetched: {e}."))
    })?;
    service.context.spec.ledger.note_medium(&file);
    if service.context.spec.stale_media.load(Ordering::Relaxed) {
        fetch::make_stale(&file)
            .map_err(|e| bad("InternalError", format!("The image cannot be changed: {e}.")))?;
    }
    service.context.chassis.insert_media(&file).await.map_err(|e| failed(&e))?;
    service.state().media = Some(Media { url, file });
    Ok(Answer::empty(StatusCode::NO_CONTENT))
}

async fn eject(service: &Service) -> Done {
    service.context.chassis.eject_media().await.map_err(|e| failed(&e))?;
    if let Some(media) = service.state().media.take()
        && let Err(error) = std::fs::remove_file(&media.file)
    {
        tracing::warn!(%error, "an image that was ejected stays on the disk");
    }
    Ok(Answer::empty(StatusCode::NO_CONTENT))
}
