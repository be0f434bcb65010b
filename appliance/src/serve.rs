//! `dayzero serve`: opens the control plane, binds both listeners, says where it is, and runs until it is told to end.
//!
//! Standard output, a line each: `listen: ADDRESS:PORT`, `console: URL` for each address, `fingerprint: SHA256` of its certificate, `claim: CODE`
//! while there is no user, `ready`; later, once that code was used, `claimed`.
//!
//! Invariants: `ready` is printed once both listeners take connections; a claim code goes to standard output only, never
//! to the log; at the end the listeners stop first and the store closes last.

use crate::config::{self, ServeConfig};
use crate::descriptors;
use crate::failure::Failure;
use crate::memory;
use crate::output::Output;
use dayzero_api::operators::Operators;
use dayzero_api::{Api, unix};
use dayzero_control::world::system_clock;
use dayzero_trust::Users;
use std::path::Path;
use std::sync::Arc;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

/// Runs the control plane.
pub(crate) async fn serve(out: Output, file: &Path) -> Result<(), Failure> {
    memory::keep_small();
    descriptors::raise();
    let config = config::load(file)?;
    let (stop, end) = (CancellationToken::new(), CancellationToken::new());
    on_signals(stop.clone())?;
    private_dir(&config.data_dir)?;
    let opening = config.control();
    let opened = tokio::task::spawn_blocking(move || dayzero_control::open(opening)).await;
    let served = opened.map_err(|e| Failure::system(&e))?.map_err(|e| Failure::system(&e))?;
    let control = served.control.clone();
    let users = Users::new(control.store());
    let claim = users.first_claim(system_clock()).await.map_err(|e| Failure::system(&e))?;
    let service = Arc::new(control.clone());
    let api = Api::new(service, control.store().clone(), users.clone(), system_clock, stop.clone());
    let socket = unix::bind(&config.data_dir.join(unix::SOCKET)).await.map_err(|e| Failure::system(&e))?;
    let operators = operators(&config, &control).await?;
    let mut ready = format!("listen: {}\n", operators.address());
    ready.extend(operators.urls().iter().map(|url| format!("console: {url}\n")));
    ready.push_str(&format!("fingerprint: {}\n", operators.fingerprint()));
    if let Some(code) = &claim {
        ready.push_str(&format!("claim: {}\n", code.expose()));
    }
    let running = tokio::spawn(served.run(end.clone()));
    let serving = tokio::spawn(front(socket, operators, api, stop.clone()));
    out.raw(&format!("{ready}ready\n"))?;
    let unclaimed = claim.is_some();
    drop((ready, claim));
    tokio::pin!(serving);
    let front = tokio::select! {
        front = &mut serving => front,
        () = tell_claimed(out, &users), if unclaimed => serving.await,
    };
    let front = front.map_err(|e| Failure::system(&e))?;
    end.cancel();
    running.await.map_err(|e| Failure::system(&e))?;
    front
}

/// Says that the claim code is used, so that who shows it can take it away.
async fn tell_claimed(out: Output, users: &Users) {
    match users.until_claimed().await {
        // Nobody needs to read on after `ready`: a closed pipe is no fault.
        Ok(()) => drop(out.raw("claimed\n")),
        Err(error) => tracing::error!(%error, "it is not known whether the appliance is claimed"),
    }
}

/// Makes the data directory, for its owner only; one that is there keeps its mode.
fn private_dir(dir: &Path) -> Result<(), Failure> {
    use std::os::unix::fs::DirBuilderExt;
    let made = std::fs::DirBuilder::new().recursive(true).mode(0o700).create(dir);
    made.map_err(|error| {
        Failure::System(format!("the data directory {} cannot be made: {error}", dir.display()))
    })
}

/// Both listeners; the end of one is the end of the other.
async fn front(
    socket: unix::Socket,
    operators: Operators,
    api: Arc<Api>,
    stop: CancellationToken,
) -> Result<(), Failure> {
    let cli = async {
        let done = socket.serve(api.clone(), stop.clone()).await;
        stop.cancel();
        done.map_err(|e| Failure::system(&e))
    };
    let people = async {
        let done = operators.serve(api.clone(), stop.clone()).await;
        stop.cancel();
        done.map_err(|e| Failure::system(&e))
    };
    let (cli, people) = tokio::join!(cli, people);
    cli.and(people)
}

async fn operators(
    config: &ServeConfig,
    control: &Arc<dayzero_control::Control>,
) -> Result<Operators, Failure> {
    let (config, control) = (config.operators.clone(), control.clone());
    let bound = tokio::task::spawn_blocking(move || {
        let (ca, vault) = (control.ca(), control.vault());
        dayzero_api::operators::bind(config.listen, &config.names, ca, vault, system_clock())
    });
    bound.await.map_err(|e| Failure::system(&e))?.map_err(|e| Failure::system(&e))
}

fn on_signals(stop: CancellationToken) -> Result<(), Failure> {
    let mut terminate = signal(SignalKind::terminate()).map_err(|e| Failure::system(&e))?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(|e| Failure::system(&e))?;
    tokio::spawn(async move {
        let by = tokio::select! {
            _ = terminate.recv() => "SIGTERM",
            _ = interrupt.recv() => "SIGINT",
            () = stop.cancelled() => "a listener's end",
        };
        stop.cancel();
        tracing::info!("{by}: ending in order");
    });
    Ok(())
}
