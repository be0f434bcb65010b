//! `dayzero`: the command line and the start of the control plane. What it does is in the rooms; here it is wired.

mod apply;
mod cli;
mod client;
mod config;
mod descriptors;
mod doctor;
mod failure;
mod host;
mod lab;
mod login;
mod memory;
mod output;
mod plan;
mod remote;
mod serve;
mod session;
mod site;
mod store;
mod text;
mod vm;

use clap::Parser;
use cli::{Cli, Command};
use client::{Client, Wanted};
use failure::Failure;
use output::Output;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

fn main() -> ExitCode {
    let cli = Cli::parse();
    let out = Output { format: cli.output };
    match run(cli, out) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            if let Some(message) = failure.message() {
                out.note(&format!("dayzero: {message}"));
            }
            ExitCode::from(failure.code())
        }
    }
}

fn run(cli: Cli, out: Output) -> Result<(), Failure> {
    let command = match cli.command {
        Command::Serve { config } => return serving()?.block_on(serve::serve(out, &config)),
        Command::Rehearse(options) => return serving()?.block_on(lab::rehearse(out, options)),
        Command::Plan(command) => return plan::run(out, command),
        other => other,
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|e| Failure::system(&e))?;
    let command = match command {
        Command::Lab(lab) => return runtime.block_on(lab::run(out, lab)),
        Command::Login(options) => return runtime.block_on(login::login(out, options)),
        Command::Logout => return runtime.block_on(login::logout(out, cli.server)),
        other => other,
    };
    let client = client(cli.socket, cli.server)?;
    runtime.block_on(ask(command, &client, out))
}

/// The appliance that commands go to.
fn client(socket: Option<PathBuf>, server: Option<remote::Server>) -> Result<Client, Failure> {
    let variable = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty());
    let server_variable = variable("DAYZERO_SERVER").map(|text| text.to_string_lossy().parse());
    let server_variable = server_variable
        .transpose()
        .map_err(|error: String| Failure::user(format!("DAYZERO_SERVER: {error}")))?;
    let socket_variable = variable("DAYZERO_SOCKET").map(PathBuf::from);
    let wanted = Wanted { socket, server, socket_variable, server_variable };
    // Who has no home has no session either.
    let sessions = || {
        session::place()
            .map_or_else(|_| Ok(session::Sessions::default()), |file| session::Sessions::load(&file))
    };
    Client::choose(wanted, sessions, Path::new(cli::SOCKET))
}

/// For what runs long: two workers are plenty, and each costs memory.
fn serving() -> Result<tokio::runtime::Runtime, Failure> {
    let filter = tracing_subscriber::EnvFilter::try_from_env("DAYZERO_LOG");
    let filter = filter.unwrap_or_else(|_| tracing_subscriber::EnvFilter::new("info"));
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).with_ansi(false).init();
    let mut builder = tokio::runtime::Builder::new_multi_thread();
    builder.worker_threads(2).enable_all().build().map_err(|e| Failure::system(&e))
}

async fn ask(command: Command, client: &Client, out: Output) -> Result<(), Failure> {
    match command {
        Command::Apply { file, yes } => apply::apply(client, out, &file, yes).await,
        Command::Status => site::status(client, out).await,
        Command::Why { subject } => site::why(client, out, &subject).await,
        Command::Pcap { subject, write } => site::pcap(client, out, &subject, write.as_deref()).await,
        Command::Confirm { id } => site::confirm(client, out, &id).await,
        Command::Claim => site::claim(client, out).await,
        Command::Host(command) => host::run(client, out, command).await,
        Command::Prove { host, without_leg } => host::prove(client, out, &host, without_leg).await,
        Command::Vm(command) => vm::run(client, out, command).await,
        Command::Store(command) => store::run(client, out, command).await,
        Command::Doctor { plan, config, listen_only } => {
            let how = doctor::How { config: config.as_deref(), listen_only };
            doctor::run(client, out, &plan, how).await
        }
        Command::Health => site::health(client, out).await,
        // Those need no client and were carried out before.
        Command::Serve { .. }
        | Command::Rehearse(_)
        | Command::Plan(_)
        | Command::Lab(_)
        | Command::Login(_)
        | Command::Logout => Ok(()),
    }
}
