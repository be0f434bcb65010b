//! The command line, as clap reads it.

use crate::output::Format;
use crate::remote::{Server, fingerprint};
use clap::{Args, Parser, Subcommand, ValueEnum};
use dayzero_model::ids::{HostName, MacAddr, Name, Sha256};
use std::path::PathBuf;

/// Default place of the socket.
pub(crate) const SOCKET: &str = "/var/lib/dayzero/dayzero.sock";

/// Turns racked servers into a redundantly wired, running cloud.
#[derive(Debug, Parser)]
#[command(name = "dayzero", version, max_term_width = 100, arg_required_else_help = true)]
pub(crate) struct Cli {
    /// How results are written.
    #[arg(short, long, global = true, value_enum, default_value = "text")]
    pub output: Format,
    /// The appliance's socket [default: $DAYZERO_SOCKET, or /var/lib/dayzero/dayzero.sock].
    #[arg(long, global = true, value_name = "PATH", conflicts_with = "server")]
    pub socket: Option<PathBuf>,
    /// An appliance elsewhere, after `dayzero login` [default: $DAYZERO_SERVER, or the last login].
    #[arg(long, global = true, value_name = "URL")]
    pub server: Option<Server>,
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Run the control plane.
    Serve {
        /// Its configuration (TOML); appliance/examples/serve.toml explains every key.
        #[arg(long, value_name = "FILE")]
        config: PathBuf,
    },
    /// Log in to an appliance elsewhere; further commands go there. Asks for what is secret, or reads it from standard
    /// input, a line each.
    Login(LoginOptions),
    /// End that session: of --server, or of the last login.
    Logout,
    /// Version, start, store and memory of the appliance.
    Health,
    /// Check, write and explain site plans; needs no appliance.
    #[command(subcommand)]
    Plan(PlanCommand),
    /// Show what a plan would change, ask, and commit it.
    Apply {
        /// The plan.
        file: PathBuf,
        /// Do not ask.
        #[arg(long)]
        yes: bool,
    },
    /// Racks, hosts, what a person must do, pending clients, VMs.
    Status,
    /// One host.
    #[command(subcommand)]
    Host(HostCommand),
    /// Why a host (by name) or a client (by MAC) does not go on: the boot flight recorder.
    Why {
        /// Host's name or MAC.
        subject: String,
    },
    /// Recorded datagrams (DHCP, ARP, TFTP without the files) of a host or a client, as pcapng for Wireshark: of its last
    /// failed boots, and what the appliance has in memory.
    ///
    /// Not recorded: DNS, router advertisements, HTTP; and of a TFTP transfer all but its first datagrams, those around
    /// what was sent again, and the last acknowledgement.
    Pcap {
        /// Host's name or MAC.
        subject: String,
        /// Write to this file instead of standard output.
        #[arg(short, long, value_name = "FILE")]
        write: Option<PathBuf>,
    },
    /// Virtual machines.
    #[command(subcommand)]
    Vm(VmCommand),
    /// Pull every path of a host while traffic runs. Exit code 1 if the proof did not hold.
    Prove {
        /// The host.
        host: HostName,
        /// The control: pull this NIC's cable first and leave it out; the proof must fail.
        #[arg(long, value_name = "ROLE")]
        without_leg: Option<Name>,
    },
    /// Say that what the to-do list asked for is done.
    Confirm {
        /// Its id, as the list shows it.
        id: String,
    },
    /// Make a new claim code for the console, in place of any before.
    Claim,
    /// The store of the appliance.
    #[command(subcommand)]
    Store(StoreCommand),
    /// Look for what would hinder network boot on the appliance and its networks: the appliance that commands go to examines
    /// itself; where none runs, this machine is looked at.
    Doctor {
        /// Plan whose networks to look at.
        #[arg(long, value_name = "FILE")]
        plan: PathBuf,
        /// Configuration of a serve that does not run yet, whose boot files, ports and data directory are looked at
        /// [default: as serve without any].
        #[arg(long, value_name = "FILE")]
        config: Option<PathBuf>,
        /// Send nothing: listen for so many seconds to each network's other DHCP servers.
        #[arg(long, value_name = "SECONDS", value_parser = clap::value_parser!(u16).range(1..=3600))]
        listen_only: Option<u16>,
    },
    /// Run the virtual rack of a plan, until SIGTERM or `lab shutdown`.
    Rehearse(Rehearse),
    /// Do something to the virtual rack.
    Lab(Lab),
}

/// `dayzero login`.
#[derive(Debug, Args)]
pub(crate) struct LoginOptions {
    /// Where, as the appliance's screen shows it: https://ADDRESS:PORT [port's default: 8443].
    #[arg(value_name = "URL")]
    pub appliance: Server,
    /// SHA-256 fingerprint of its certificate, as its screen shows it [default: that of the last login, or it is shown
    /// and asked].
    #[arg(long, value_name = "SHA256", value_parser = fingerprint)]
    pub fingerprint: Option<Sha256>,
    /// As whom [default: admin].
    #[arg(long, value_name = "NAME")]
    pub user: Option<String>,
    /// By the claim code on its screen, with a new password for 'admin'.
    #[arg(long, conflicts_with = "user")]
    pub claim: bool,
}

/// `dayzero plan`.
#[derive(Debug, Subcommand)]
pub(crate) enum PlanCommand {
    /// Read and check a plan. Exit code 2 if it breaks a rule.
    Check {
        /// The plan.
        file: PathBuf,
    },
    /// Write a commented first plan to standard output, from eight questions or a list of hosts.
    Init {
        /// List of hosts: rack,u,serial,bmc_mac,model,cluster and more.
        #[arg(long, value_name = "FILE")]
        csv: Option<PathBuf>,
    },
    /// The plan's JSON Schema, for editors.
    Schema,
    /// What the switches must be set to, before you plug it in.
    Switches {
        /// The plan.
        file: PathBuf,
    },
}

/// `dayzero host`.
#[derive(Debug, Subcommand)]
pub(crate) enum HostCommand {
    /// Its conditions with evidence, facts and timeline.
    Show {
        /// The host.
        host: HostName,
        /// How many of the last events.
        #[arg(long, default_value_t = 40)]
        events: usize,
    },
    /// Carry on after a fix.
    Retry {
        /// The host.
        host: HostName,
    },
    /// Consent to wipe the disk that was found foreign.
    Consent {
        /// The host.
        host: HostName,
        /// The disk's serial (or WWN), as it was shown.
        #[arg(long)]
        serial: String,
        /// Digest of the finding that was shown.
        #[arg(long, value_name = "DIGEST")]
        finding: Sha256,
    },
    /// Begin its life again: it is booted by network and installed anew.
    Reset {
        /// The host.
        host: HostName,
        /// Do not ask.
        #[arg(long)]
        yes: bool,
    },
    /// Forget a host that is no longer in the plan.
    Retire {
        /// The host.
        host: HostName,
        /// Its BMC's generated credential was noted, and may be lost here.
        #[arg(long)]
        forget_credential: bool,
        /// Do not ask.
        #[arg(long)]
        yes: bool,
    },
    /// Show the login that its BMC takes. That it was shown goes on the timeline.
    Credential {
        /// The host.
        host: HostName,
    },
}

/// `dayzero vm`.
#[derive(Debug, Subcommand)]
pub(crate) enum VmCommand {
    /// Ask for a VM.
    Create(VmCreate),
    /// All VMs, where they run and why there.
    List,
}

/// `dayzero vm create`.
#[derive(Debug, Args)]
pub(crate) struct VmCreate {
    /// Offering: its size.
    #[arg(long)]
    pub offering: Name,
    /// Template: what its disk holds at first.
    #[arg(long)]
    pub template: Name,
    /// Its name.
    #[arg(long)]
    pub name: Name,
    /// Cluster [default: the first with room].
    #[arg(long)]
    pub cluster: Option<Name>,
    /// Wait at most so long until it runs. Exit code 1 if it does not.
    #[arg(long, value_name = "SECONDS")]
    pub wait: Option<u64>,
}

/// `dayzero store`.
#[derive(Debug, Subcommand)]
pub(crate) enum StoreCommand {
    /// Read and check every record and blob: of the running appliance, or of a data directory that nobody serves.
    Verify {
        /// The data directory of an appliance that is stopped.
        #[arg(long, value_name = "DIR")]
        data_dir: Option<PathBuf>,
    },
}

/// `dayzero rehearse`.
#[derive(Debug, Args)]
pub(crate) struct Rehearse {
    /// The plan.
    #[arg(long, value_name = "FILE", required_unless_present = "clean")]
    pub plan: Option<PathBuf>,
    /// Directory of sockets, disks and logs.
    #[arg(long, value_name = "DIR")]
    pub dir: PathBuf,
    /// Directory that secondary storage serves [default: DIR/store].
    #[arg(long, value_name = "DIR")]
    pub templates: Option<PathBuf>,
    /// Keep disks, LUN and BMC accounts of the last run.
    #[arg(long)]
    pub keep: bool,
    /// Disk of the appliance: the control plane is a machine of the rack, switched off at first, that starts from it and
    /// writes to it. `lab power appliance on` switches it on.
    #[arg(long, value_name = "FILE")]
    pub appliance: Option<PathBuf>,
    /// Memory of each host, MiB.
    #[arg(long, value_name = "MIB", default_value_t = 1536)]
    pub memory: u64,
    /// Only clear what a former rack left there.
    #[arg(long, conflicts_with = "plan")]
    pub clean: bool,
}

/// `dayzero lab`.
#[derive(Debug, Args)]
pub(crate) struct Lab {
    /// Directory of the rack.
    #[arg(long, global = true, value_name = "DIR", default_value = "/var/tmp/dayzero-demo/rack")]
    pub dir: PathBuf,
    /// What to do to it.
    #[command(subcommand)]
    pub command: LabCommand,
}

/// A power button.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Button {
    /// Switch on.
    On,
    /// Cut.
    Off,
    /// Reset.
    Reset,
    /// Press the button; the guest shuts down.
    Graceful,
}

/// What to do to the virtual rack. NICs are counted from 0 in the plan's order: bond first, then storage.
#[derive(Debug, Subcommand)]
pub(crate) enum LabCommand {
    /// Machines, cables, switches.
    Status,
    /// Pull the cable of a NIC: carrier is lost.
    PullCable {
        /// The host.
        host: HostName,
        /// The NIC.
        nic: usize,
    },
    /// Plug it in again.
    Plug {
        /// The host.
        host: HostName,
        /// The NIC.
        nic: usize,
    },
    /// Exchange the far ends of two cables of a host.
    SwapCables {
        /// The host.
        host: HostName,
        /// One NIC.
        a: usize,
        /// The other.
        b: usize,
    },
    /// A switch stops forwarding; its ports keep their carrier.
    KillSwitch {
        /// The switch.
        member: Name,
    },
    /// It works again.
    ReviveSwitch {
        /// The switch.
        member: Name,
    },
    /// As a dead switch, for the port of one NIC.
    MutePort {
        /// The host.
        host: HostName,
        /// The NIC.
        nic: usize,
    },
    /// That port works again.
    UnmutePort {
        /// The host.
        host: HostName,
        /// The NIC.
        nic: usize,
    },
    /// The ports of a host's bond wait for LACP, which firmware does not speak.
    LacpFallbackOff {
        /// The host.
        host: HostName,
    },
    /// They forward alone until LACP is spoken.
    LacpFallbackOn {
        /// The host.
        host: HostName,
    },
    /// Power, past the BMC.
    Power {
        /// The host.
        host: HostName,
        /// What to do.
        action: Button,
    },
    /// The BMC no longer has the factory password that the plan's secret file says.
    WrongPassword {
        /// The host.
        host: HostName,
    },
    /// The BMC has the planned accounts again.
    RightPassword {
        /// The host.
        host: HostName,
    },
    /// The battery of a host's clock is empty: from its next power-on it starts at 1980-01-01.
    EmptyBattery {
        /// The host.
        host: HostName,
    },
    /// It has a new battery.
    NewBattery {
        /// The host.
        host: HostName,
    },
    /// The BMC puts our media into the drive with a nonce that holds no longer.
    StaleMedia {
        /// The host.
        host: HostName,
    },
    /// It puts them in as it fetched them.
    FreshMedia {
        /// The host.
        host: HostName,
    },
    /// Hold a machine still: its processors stop, its power and cables stay.
    Pause {
        /// The host.
        host: HostName,
    },
    /// Let it go on.
    Resume {
        /// The host.
        host: HostName,
    },
    /// A machine of unknown MAC boots by network.
    SpawnStranger {
        /// Its MAC.
        mac: MacAddr,
    },
    /// A machine with a host's MAC, serial and UUID boots by network.
    SpawnClone {
        /// The host that it pretends to be.
        of: HostName,
    },
    /// Remove a stranger or clone.
    KillExtra {
        /// Its name, as `lab status` shows it.
        name: String,
    },
    /// The end of a machine's serial console.
    Console {
        /// The machine.
        machine: String,
    },
    /// Empty a host's disk; the host must be off.
    WipeDisk {
        /// The host.
        host: HostName,
    },
    /// Put somebody else's data on a host's disk; the host must be off.
    PutForeignData {
        /// The host.
        host: HostName,
    },
    /// Take the rack down.
    Shutdown,
}
