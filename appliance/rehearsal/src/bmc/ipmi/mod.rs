//! The IPMI BMC: OpenIPMI's `ipmi_sim` in the BMC's namespace, its chassis commands and console carried to the machine.

mod config;
mod control;
mod users;

pub(crate) use users::passwords;

use super::lease::write_file;
use super::{BmcEmulatorError, Context};
use crate::process::{Child, logged};
use std::net::{Ipv4Addr, SocketAddrV4};
use std::sync::Arc;
use std::time::Duration;
use tokio::task::JoinSet;

/// Loopback ports inside the BMC's own namespace.
const CONSOLE_PORT: u16 = 9003;
const CONTROL_PORT: u16 = 9004;
const PAUSE: Duration = Duration::from_secs(1);

pub(super) async fn start(context: &Arc<Context>, tasks: &mut JoinSet<()>) -> Result<(), BmcEmulatorError> {
    let spec = &context.spec;
    let files = config::files(spec, CONSOLE_PORT, CONTROL_PORT)
        .map_err(|problem| BmcEmulatorError::Spec { name: spec.name.clone(), problem })?;
    std::fs::create_dir_all(spec.dir.join("state")).map_err(spec.io("make its state directory"))?;
    for file in files {
        let mode = if file.name.ends_with(".sh") { 0o700 } else { 0o600 };
        write_file(&spec.dir.join(file.name), &file.content, mode)
            .map_err(spec.io("write its configuration"))?;
    }
    let listen = |port| {
        let listener = context.netns.run("listen for ipmi_sim", || {
            let listener = std::net::TcpListener::bind(SocketAddrV4::new(Ipv4Addr::LOCALHOST, port))?;
            listener.set_nonblocking(true)?;
            Ok(listener)
        });
        let listener = listener.map_err(|e| spec.netns(e))?;
        tokio::net::TcpListener::from_std(listener).map_err(spec.io("listen for ipmi_sim"))
    };
    tasks.spawn(control::serve_console(listen(CONSOLE_PORT)?, context.chassis.clone()));
    tasks.spawn(control::serve_commands(listen(CONTROL_PORT)?, context.chassis.clone()));
    let mut child = simulator(context).await?;
    let context = context.clone();
    tasks.spawn(async move {
        loop {
            let ended = child.process.wait().await;
            context.processes.forget(child.id);
            tracing::warn!(
                bmc = context.spec.name,
                ?ended,
                "ipmi_sim ended; it is started again, as a BMC's watchdog would"
            );
            tokio::time::sleep(PAUSE).await;
            match simulator(&context).await {
                Ok(next) => child = next,
                Err(error) => return tracing::error!(%error, "ipmi_sim does not start again"),
            }
        }
    });
    Ok(())
}

async fn simulator(context: &Context) -> Result<Child, BmcEmulatorError> {
    let spec = &context.spec;
    let mut command = logged("ipmi_sim", &spec.dir.join("ipmi_sim.log")).map_err(spec.io("open its log"))?;
    command.arg("-n").arg("-c").arg(spec.dir.join("lan.conf"));
    command.arg("-f").arg(spec.dir.join("emu.cmds")).arg("-s").arg(spec.dir.join("state"));
    command.current_dir(&spec.dir);
    context.processes.spawn(command, &spec.name, Some(&context.netns)).await.map_err(|e| spec.process(e))
}
