//! `dayzero vm …`.

use crate::cli::{VmCommand, VmCreate};
use crate::client::Client;
use crate::failure::Failure;
use crate::output::Output;
use crate::text;
use dayzero_control::view::VmRequest;
use dayzero_model::ids::Name;
use dayzero_model::vm::{Vm, VmState};
use std::time::{Duration, Instant};

/// Pause between two looks at a VM that is waited for.
const PAUSE: Duration = Duration::from_millis(500);

/// `dayzero vm …`.
pub(crate) async fn run(client: &Client, out: Output, command: VmCommand) -> Result<(), Failure> {
    match command {
        VmCommand::List => {
            let vms: Vec<Vm> = client.get("/v1/vms").await?;
            out.show(&vms, |vms| text::vm::list(vms))
        }
        VmCommand::Create(options) => create(client, out, options).await,
    }
}

async fn create(client: &Client, out: Output, options: VmCreate) -> Result<(), Failure> {
    let VmCreate { offering, template, name, cluster, wait } = options;
    let request = VmRequest { name, offering, template, cluster };
    let vm: Vm = client.post("/v1/vms", &request).await?;
    let vm = match wait {
        None => vm,
        Some(seconds) => until_running(client, &request.name, Duration::from_secs(seconds)).await?,
    };
    out.show(&vm, text::vm::one)?;
    match vm.state {
        VmState::Failed => Err(Failure::System(format!("VM '{}' failed: {}", vm.name, vm.detail))),
        VmState::Running => Ok(()),
        _ if wait.is_some() => Err(Failure::System(format!(
            "VM '{}' does not run in time; it waits for: {}",
            vm.name, vm.detail
        ))),
        _ => Ok(()),
    }
}

async fn until_running(client: &Client, name: &Name, patience: Duration) -> Result<Vm, Failure> {
    let until = Instant::now() + patience;
    loop {
        let vms: Vec<Vm> = client.get("/v1/vms").await?;
        let gone = || Failure::System(format!("VM '{name}' is gone"));
        let vm = vms.into_iter().find(|vm| vm.name == *name).ok_or_else(gone)?;
        if matches!(vm.state, VmState::Running | VmState::Failed) || Instant::now() >= until {
            return Ok(vm);
        }
        tokio::time::sleep(PAUSE).await;
    }
}
