//! The verbs: who the machine is, its power, its boot override. Check, write once, read back.

use crate::client::{Client, ROOT, Resource};
use crate::view::{self, Boot, BootOption, Manager, Nic, ServiceRoot, System};
use crate::{AuthMode, RedfishError};
use serde_json::{Value, json};

/// Members read of a collection whose members are small: NICs, boot options.
const MAX_SMALL: usize = 32;

impl Client {
    /// The service root, which needs no authentication.
    pub async fn root(&self) -> Result<ServiceRoot, RedfishError> {
        Ok(ServiceRoot::from(&self.get(ROOT).await?.body))
    }

    /// Tries the credential by reading something that needs it.
    ///
    /// # Errors
    /// [`RedfishError::WrongCredential`] when it is refused.
    pub async fn authenticate_now(&self) -> Result<(), RedfishError> {
        let root = self.get(ROOT).await?;
        self.follow(&root, "/Systems").await.map(|_| ())
    }

    /// The computer system: the first of type `Physical`, else the first.
    pub async fn system(&self) -> Result<System, RedfishError> {
        let resource = self.system_resource().await?;
        let mut system = System::from(&resource.path, &resource.body);
        if system.board_serial.is_none() {
            system.board_serial = self.board_serial(&resource).await;
        }
        Ok(system)
    }

    /// The board's serial: in the chassis' `Oem` section, or in its `Assembly` as the part whose physical context is the system
    /// board. A chassis that cannot be read costs only that.
    async fn board_serial(&self, system: &Resource) -> Option<String> {
        let chassis = self.follow(system, "/Links/Chassis/0").await.ok()?;
        if let Some(serial) = System::from(&chassis.path, &chassis.body).board_serial {
            return Some(serial);
        }
        let assembly = self.follow(&chassis, "/Assembly").await.ok()?;
        view::board_of_assembly(&assembly.body)
    }

    pub(crate) async fn system_resource(&self) -> Result<Resource, RedfishError> {
        let root = self.get(ROOT).await?;
        let systems = self.follow(&root, "/Systems").await?;
        let mut first = None;
        for link in self.members(&systems).await?.into_iter().take(8) {
            let resource = self.get(&link).await?;
            if view::text(&resource.body, "/SystemType") == Some("Physical") {
                return Ok(resource);
            }
            first.get_or_insert(resource);
        }
        first.ok_or_else(|| RedfishError::Unsupported { what: "computer system".into() })
    }

    /// `PowerState` of the system.
    pub async fn power(&self) -> Result<String, RedfishError> {
        let system = self.system_resource().await?;
        let missing = || RedfishError::Missing { path: system.path.clone(), field: "PowerState".into() };
        view::text(&system.body, "/PowerState").map(str::to_owned).ok_or_else(missing)
    }

    /// Ethernet interfaces of the system; empty where the service shows none (host off, or not offered).
    pub async fn nics(&self) -> Result<Vec<Nic>, RedfishError> {
        let system = self.system_resource().await?;
        self.interfaces(&system).await
    }

    async fn interfaces(&self, owner: &Resource) -> Result<Vec<Nic>, RedfishError> {
        if self.link(owner, "/EthernetInterfaces").is_err() {
            return Ok(Vec::new());
        }
        let collection = self.follow(owner, "/EthernetInterfaces").await?;
        let mut nics = Vec::new();
        for link in self.members(&collection).await?.into_iter().take(MAX_SMALL) {
            nics.extend(Nic::from(&self.get(&link).await?.body));
        }
        Ok(nics)
    }

    /// The management controller that manages the system.
    pub async fn manager(&self) -> Result<Manager, RedfishError> {
        let resource = self.manager_resource().await?;
        let nics = self.interfaces(&resource).await?;
        Ok(Manager::from(&resource.path, &resource.body, nics))
    }

    pub(crate) async fn manager_resource(&self) -> Result<Resource, RedfishError> {
        let system = self.system_resource().await?;
        if self.link(&system, "/Links/ManagedBy/0").is_ok() {
            return self.follow(&system, "/Links/ManagedBy/0").await;
        }
        let root = self.get(ROOT).await?;
        let managers = self.follow(&root, "/Managers").await?;
        match self.members(&managers).await?.first() {
            Some(link) => self.get(link).await,
            None => Err(RedfishError::Unsupported { what: "manager".into() }),
        }
    }

    /// `ComputerSystem.Reset` with a type such as `On`, `ForceOff`, `ForceRestart`; checked against what the service allows.
    pub async fn reset(&self, kind: &str) -> Result<(), RedfishError> {
        let system = self.system_resource().await?;
        let allowed = self.reset_types_of(&system).await?;
        if !allowed.is_empty() && !allowed.iter().any(|a| a == kind) {
            let (wanted, allowed) = (kind.to_owned(), allowed.join(", "));
            return Err(RedfishError::NotAllowed { what: "ResetType", wanted, allowed });
        }
        let target = self.action(&system, "#ComputerSystem.Reset")?;
        self.post(&target, &json!({ "ResetType": kind }), false).await.map(|_| ())
    }

    /// Reset types that the service allows; empty where it does not say.
    pub async fn reset_types(&self) -> Result<Vec<String>, RedfishError> {
        let system = self.system_resource().await?;
        self.reset_types_of(&system).await
    }

    async fn reset_types_of(&self, system: &Resource) -> Result<Vec<String>, RedfishError> {
        let action = "/Actions/#ComputerSystem.Reset";
        let inline = view::texts(&system.body, &format!("{action}/ResetType@Redfish.AllowableValues"));
        let Some(info) = view::text(&system.body, &format!("{action}/@Redfish.ActionInfo")) else {
            return Ok(inline);
        };
        if !inline.is_empty() {
            return Ok(inline);
        }
        let info = self.get(&self.local_path(&system.path, info)?).await?;
        let parameters = info.body.get("Parameters").and_then(Value::as_array);
        let of_type = parameters.into_iter().flatten().find(|p| view::text(p, "/Name") == Some("ResetType"));
        Ok(of_type.map(|p| view::texts(p, "/AllowableValues")).unwrap_or_default())
    }

    /// The target of an action.
    pub(crate) fn action(&self, of: &Resource, name: &str) -> Result<String, RedfishError> {
        // `/` and `~` do not occur in action names, so the name is its own JSON pointer token.
        let target = view::text(&of.body, &format!("/Actions/{name}/target"));
        let target = target
            .ok_or_else(|| RedfishError::Unsupported { what: format!("action {name} on {}", of.path) })?;
        self.local_path(&of.path, target)
    }

    /// The boot override and order as they are.
    pub async fn boot(&self) -> Result<Boot, RedfishError> {
        let system = self.system_resource().await?;
        Ok(System::from(&system.path, &system.body).boot)
    }

    /// Sets the boot override (`enabled`: `Once`, `Continuous` or `Disabled`; `target`: `Pxe`, `Hdd`, …; mode only where it is
    /// given and the service shows one), reads it back, and returns what was read.
    ///
    /// # Errors
    /// [`RedfishError::NotAllowed`] before writing, [`RedfishError::ReadBack`] when it does not hold.
    pub async fn set_boot(
        &self,
        enabled: &str,
        target: &str,
        mode: Option<&str>,
    ) -> Result<Boot, RedfishError> {
        let resource = self.system_resource().await?;
        let before = System::from(&resource.path, &resource.body).boot;
        if !before.targets.is_empty() && !before.targets.iter().any(|t| t == target) {
            let (wanted, allowed) = (target.to_owned(), before.targets.join(", "));
            return Err(RedfishError::NotAllowed { what: "BootSourceOverrideTarget", wanted, allowed });
        }
        if before.enabled.as_deref() == Some(enabled)
            && before.target.as_deref() == Some(target)
            && mode.is_none()
        {
            return Ok(before);
        }
        let mut boot = json!({ "BootSourceOverrideEnabled": enabled });
        if enabled != "Disabled" {
            boot["BootSourceOverrideTarget"] = target.into();
            if let Some(mode) = mode.filter(|_| before.mode.is_some()) {
                boot["BootSourceOverrideMode"] = mode.into();
            }
        }
        self.patch(&resource, &json!({ "Boot": boot }), false).await?;
        let after = self.boot().await?;
        let holds = after.enabled.as_deref() == Some(enabled)
            && (enabled == "Disabled" || after.target.as_deref() == Some(target));
        if holds {
            return Ok(after);
        }
        let show = |e: Option<&str>, t: Option<&str>| format!("{} {}", e.unwrap_or("-"), t.unwrap_or("-"));
        Err(RedfishError::ReadBack {
            what: "boot override",
            wanted: show(Some(enabled), Some(target)),
            observed: show(after.enabled.as_deref(), after.target.as_deref()),
        })
    }

    /// The boot order, each entry with its name where the service has boot options.
    pub async fn boot_order(&self) -> Result<Vec<BootOption>, RedfishError> {
        let system = self.system_resource().await?;
        let order = view::texts(&system.body, "/Boot/BootOrder");
        let mut known = Vec::new();
        if self.link(&system, "/Boot/BootOptions").is_ok() {
            let collection = self.follow(&system, "/Boot/BootOptions").await?;
            for link in self.members(&collection).await?.into_iter().take(MAX_SMALL) {
                known.extend(BootOption::from(&self.get(&link).await?.body));
            }
        }
        let named = |reference: String| {
            let found = known.iter().find(|k| k.reference == reference).cloned();
            found.unwrap_or(BootOption { reference, name: None, device_path: None, enabled: None })
        };
        Ok(order.into_iter().map(named).collect())
    }

    /// Whether this client was told to leave no session behind.
    pub fn is_basic_only(&self) -> bool {
        self.mode == AuthMode::Basic
    }
}
