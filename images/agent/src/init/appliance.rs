//! PID 1 of the appliance: its own disk, its network, `dayzero serve`, and the screen in front of it.
//!
//! Invariants: nobody can log in, and no shell is in the image; what goes wrong stands on the screen with what to do; the
//! power button ends everything in order. It decides nothing about hosts, keeps no secret, and makes no key: that is
//! `dayzero serve`'s.

mod buttons;
mod disk;
mod network;
mod network_conf;
mod screen;
mod serve;

use nix::mount::MsFlags;
use nix::sys::reboot::{RebootMode, reboot, set_cad_enabled};
use nix::unistd::Pid;
use screen::{Screen, View};
use std::cell::{Cell, RefCell};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::rc::Rc;
use std::time::{Duration, Instant};
use tokio::signal::unix::{SignalKind, signal};

const NETWORK_CONF: &str = "/esp/dayzero/network.conf";
/// The configuration that a person may edit, and the one in its place if that is gone.
const CONFIGS: [&str; 2] = ["/esp/dayzero/serve.toml", "/etc/dayzero/serve.toml"];
/// Where the ports of a hypervisor's serial bus are found by name, as udev would link them.
const PORTS: &str = "/dev/virtio-ports";
/// How long `dayzero serve` waits for a first address.
const FIRST_ADDRESS: Duration = Duration::from_secs(10);
/// A fault stays so long on the screen before the machine tries again from the start.
const LOOK: Duration = Duration::from_secs(60);

/// What a person must do something about before the appliance can serve.
#[derive(Debug)]
pub(crate) struct Fault {
    what: String,
    remedy: String,
}

impl Fault {
    fn new(what: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self { what: what.into(), remedy: remedy.into() }
    }
}

/// What all parts write on.
#[derive(Default)]
pub(crate) struct Board {
    view: RefCell<View>,
    screen: RefCell<Screen>,
    /// `dayzero serve`, while it runs.
    child: Cell<Option<Pid>>,
}

impl Board {
    fn change(&self, change: impl FnOnce(&mut View)) {
        change(&mut self.view.borrow_mut());
        self.screen.borrow_mut().show(&self.view.borrow());
    }

    /// Sets the fault of this key, or takes it away.
    fn fault(&self, key: &str, fault: Option<String>) {
        self.change(|view| match fault {
            Some(text) => drop(view.faults.insert(key.to_owned(), text)),
            None => drop(view.faults.remove(key)),
        });
    }

    fn doing(&self, what: &str) {
        self.change(|view| view.doing = what.to_owned());
    }

    fn has_address(&self) -> bool {
        !self.view.borrow().addresses.is_empty()
    }
}

/// Runs as PID 1; `files` is the GUID of the partition with the boot files.
pub fn run(files: &str) -> ExitCode {
    let board = Rc::new(Board::default());
    board.doing("starting");
    let mode = match live(&board, files) {
        Ok(mode) => mode,
        Err(Fault { what, remedy }) => {
            board.change(|view| {
                view.faults.insert("start".to_owned(), format!("{what}: {remedy}"));
                view.doing = format!("this machine restarts in {} s", LOOK.as_secs());
            });
            std::thread::sleep(LOOK);
            RebootMode::RB_AUTOBOOT
        }
    };
    serve::end_all();
    disk::unmount();
    let _ = reboot(mode);
    ExitCode::FAILURE
}

fn live(board: &Rc<Board>, files: &str) -> Result<RebootMode, Fault> {
    prepare();
    find(board, files)?.mount()?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime =
        runtime.map_err(|error| Fault::new(format!("the runtime does not start: {error}"), "restart"))?;
    runtime.block_on(tokio::task::LocalSet::new().run_until(work(board.clone())))
}

/// The little that an init does besides.
fn prepare() {
    let _ = std::fs::create_dir_all("/dev/pts");
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NOEXEC;
    if let Err(error) = nix::mount::mount(Some("devpts"), "/dev/pts", Some("devpts"), flags, None::<&str>) {
        tracing::warn!("mount /dev/pts: {error}");
    }
    if let Err(error) = nix::unistd::sethostname("dayzero") {
        tracing::warn!("the machine's name: {error}");
    }
    // Ctrl-Alt-Del becomes a signal to us, so that it ends in order.
    if let Err(error) = set_cad_enabled(false) {
        tracing::warn!("Ctrl-Alt-Del restarts at once: {error}");
    }
    link_ports();
}

fn link_ports() {
    for entry in std::fs::read_dir("/sys/class/virtio-ports").into_iter().flatten().flatten() {
        let name = std::fs::read_to_string(entry.path().join("name")).unwrap_or_default();
        let name = name.trim();
        if name.is_empty() || name.contains('/') || name.starts_with('.') {
            continue;
        }
        let made = std::fs::create_dir_all(PORTS).and_then(|()| {
            std::os::unix::fs::symlink(Path::new("/dev").join(entry.file_name()), Path::new(PORTS).join(name))
        });
        if let Err(error) = made {
            tracing::warn!("port {name}: {error}");
        }
    }
}

/// Waits for the disk: a controller may take its time.
fn find(board: &Board, files: &str) -> Result<disk::Disk, Fault> {
    let began = Instant::now();
    loop {
        if let Some(found) = disk::Disk::find(files)? {
            board.fault("disk", None);
            return Ok(found);
        }
        if began.elapsed() > LOOK {
            let what = format!("no disk of this machine has the appliance's partition {files}");
            return Err(Fault::new(what, "is its controller supported? start the appliance from another"));
        }
        if began.elapsed() > Duration::from_secs(5) {
            board.doing("waiting for the appliance's own disk");
        }
        std::thread::sleep(Duration::from_millis(500));
        // A late controller brings devices that ask for drivers.
        super::load_modules();
    }
}

/// Everything at once, until a button is pressed.
async fn work(board: Rc<Board>) -> Result<RebootMode, Fault> {
    let signals =
        |kind, what: &str| signal(kind).map_err(|error| Fault::new(format!("{what}: {error}"), "restart"));
    let children = signals(SignalKind::child(), "children are not heard")?;
    let mut restart = signals(SignalKind::interrupt(), "Ctrl-Alt-Del is not heard")?;
    let mut power = buttons::power();
    let serving = async {
        board.doing("waiting for an address");
        let until = tokio::time::Instant::now() + FIRST_ADDRESS;
        while !board.has_address() && tokio::time::Instant::now() < until {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        board.doing("starting dayzero");
        serve::keep(board.clone(), config(), children).await;
    };
    let (mode, why) = tokio::select! {
        () = network::keep(board.clone(), Path::new(NETWORK_CONF)) => (RebootMode::RB_AUTOBOOT, "the network ended"),
        () = serving => (RebootMode::RB_AUTOBOOT, "dayzero ended"),
        Some(()) = power.recv() => (RebootMode::RB_POWER_OFF, "power button: the machine switches off"),
        Some(()) = restart.recv() => (RebootMode::RB_AUTOBOOT, "Ctrl-Alt-Del: the machine restarts"),
    };
    board.change(|view| {
        view.serving = None;
        view.doing = why.to_owned();
    });
    serve::end(board.child.get()).await;
    Ok(mode)
}

fn config() -> PathBuf {
    let found = CONFIGS.iter().map(Path::new).find(|path| path.exists());
    found.unwrap_or(Path::new(CONFIGS[1])).to_owned()
}
