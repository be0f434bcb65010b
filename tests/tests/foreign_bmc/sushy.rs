//! sushy-tools' Redfish emulator over a machine of a private libvirtd.
//!
//! Both run as one process tree in namespaces of their own (network, mounts, pids): libvirt's directories are empty ones in
//! memory, the machine's own libvirt is neither seen nor touched, and when the tree's first process ends, which the kernel
//! does when this test ends, all of it ends, the QEMU machines that libvirt detached included.

use crate::boot::PATIENCE;
use dayzero_bmc::Target;
use dayzero_model::MacAddr;
use dayzero_model::site::BmcProtocol;
use dayzero_rehearsal::netns::{self, Netns};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Instant;

pub(crate) const MAC: MacAddr = MacAddr([0x52, 0x54, 0, 0x77, 1, 1]);
pub(crate) const UUID: &str = "6c1d5a30-7f0e-4b6e-9a51-0d2b1c000001";
const PORT: u16 = 8000;
/// bcrypt of `secret-one`, with the lowest cost.
const PASSWORD_HASH: &str = "$2b$04$ZfKTgw4sjfZraBr/WATNAOpLgxaShByd2C2mxReYUXUmdKx4WjHTq";

/// `$1` = scratch directory, `$2` = sushy-emulator. libvirt's QEMU driver insists on a user that its system package makes.
const TREE: &str = r#"set -e
cd "$1"
(cat /etc/passwd; echo libvirt-qemu:x:64055:64055::/:/bin/false) > passwd
(cat /etc/group; echo libvirt-qemu:x:64055:; echo kvm:x:64056:) > group
mount --bind passwd /etc/passwd
mount --bind group /etc/group
for dir in /etc/libvirt /var/lib /var/log /var/cache /run; do mount -t tmpfs tmpfs $dir; done
cp qemu.conf /etc/libvirt/
mkdir sockets
libvirtd -f "$1/libvirtd.conf" -p "$1/libvirtd.pid" > libvirtd.log 2>&1 &
until virsh -q -c "qemu+unix:///system?socket=$1/sockets/libvirt-sock" define domain.xml > define.log 2>&1; do
  kill -0 $! || { cat libvirtd.log; exit 1; }
  sleep 0.1
done
exec "$2" --config sushy.conf
"#;

const LIBVIRTD: &str = r#"unix_sock_dir = "@DIR@/sockets"
auth_unix_ro = "none"
auth_unix_rw = "none"
"#;

const QEMU: &str = r#"user = "root"
group = "root"
security_driver = "none"
cgroup_controllers = []
stdio_handler = "file"
namespaces = []
remember_owner = 0
"#;

const SUSHY: &str = r#"SUSHY_EMULATOR_LISTEN_IP = '127.0.0.1'
SUSHY_EMULATOR_LISTEN_PORT = @PORT@
SUSHY_EMULATOR_SSL_CERT = '@DIR@/cert.pem'
SUSHY_EMULATOR_SSL_KEY = '@DIR@/key.pem'
SUSHY_EMULATOR_AUTH_FILE = '@DIR@/htpasswd'
SUSHY_EMULATOR_STATE_DIR = '@DIR@'
SUSHY_EMULATOR_LIBVIRT_URI = 'qemu+unix:///system?socket=@DIR@/sockets/libvirt-sock'
SUSHY_EMULATOR_IGNORE_BOOT_DEVICE = False
SUSHY_EMULATOR_BOOT_LOADER_MAP = {
    'UEFI': {'x86_64': '/usr/share/OVMF/OVMF_CODE_4M.fd'},
    'Legacy': {'x86_64': '/usr/share/seabios/bios-256k.bin'},
}
"#;

/// TCG, since a machine's own KVM is not to be trusted; `acpi`, since libvirt 9 else gives an option that QEMU 9 dropped.
const DOMAIN: &str = r#"<domain type='qemu'>
  <name>host1</name><uuid>@UUID@</uuid><memory unit='MiB'>512</memory><vcpu>1</vcpu>
  <os><type arch='x86_64' machine='q35'>hvm</type><boot dev='hd'/></os>
  <features><acpi/></features><cpu mode='maximum'/>
  <devices>
    <emulator>/usr/bin/qemu-system-x86_64</emulator>
    <disk type='file' device='disk'>
      <driver name='qemu' type='raw'/><source file='@DIR@/disk'/><target dev='vda' bus='virtio'/>
    </disk>
    <interface type='bridge'><source bridge='br0'/><mac address='@MAC@'/><model type='virtio'/></interface>
    <serial type='file'><source path='@DIR@/console' append='on'/><target port='0'/></serial>
  </devices>
</domain>
"#;

/// A boot sector that writes what stands at 0x40 to the first serial port and halts (8086: xor ax,ax; mov ds,ax;
/// mov si,0x7c40; lodsb; test al,al; jz; wait for 0x3fd bit 5; out 0x3f8,al; loop).
fn boot_sector() -> Vec<u8> {
    let mut sector = vec![0; 512];
    let code = [
        0x31, 0xc0, 0x8e, 0xd8, 0xbe, 0x40, 0x7c, 0xfc, 0xac, 0x84, 0xc0, 0x74, 0x12, 0x88, 0xc4, 0xba, 0xfd,
        0x03, 0xec, 0xa8, 0x20, 0x74, 0xfb, 0x88, 0xe0, 0xba, 0xf8, 0x03, 0xee, 0xeb, 0xe9, 0xf4, 0xeb, 0xfd,
    ];
    sector[..code.len()].copy_from_slice(&code);
    let text = b"\r\nDZT-DISK\r\n";
    sector[0x40..0x40 + text.len()].copy_from_slice(text);
    sector[510..].copy_from_slice(&[0x55, 0xaa]);
    sector
}

/// The emulator, its libvirtd and one machine that is off.
pub(crate) struct Sushy {
    pub(crate) netns: Netns,
    pub(crate) target: Target,
    tree: Child,
    dir: tempfile::TempDir,
}

impl Sushy {
    pub(crate) fn start(user: &str) -> Self {
        let program = std::env::var("DAYZERO_SUSHY_EMULATOR").expect(
            "DAYZERO_SUSHY_EMULATOR: sushy-tools' sushy-emulator; `cargo xtask test --all` installs it",
        );
        let dir = tempfile::Builder::new().prefix("dzs").tempdir().unwrap();
        let path = dir.path().display().to_string();
        let made = rcgen::generate_simple_self_signed(["sushy".to_owned()]).unwrap();
        let fill = |text: &str| {
            let text = text.replace("@DIR@", &path).replace("@PORT@", &PORT.to_string());
            text.replace("@UUID@", UUID).replace("@MAC@", &MAC.to_string())
        };
        for (name, content) in [
            ("tree.sh", TREE.to_owned()),
            ("libvirtd.conf", fill(LIBVIRTD)),
            ("qemu.conf", QEMU.to_owned()),
            ("sushy.conf", fill(SUSHY)),
            ("domain.xml", fill(DOMAIN)),
            ("htpasswd", format!("{user}:{PASSWORD_HASH}\n")),
            ("cert.pem", made.cert.pem()),
            ("key.pem", made.signing_key.serialize_pem()),
        ] {
            std::fs::write(dir.path().join(name), content).unwrap();
        }
        // SeaBIOS passes over a disk of one sector.
        let mut disk = boot_sector();
        disk.resize(1 << 20, 0);
        std::fs::write(dir.path().join("disk"), disk).unwrap();
        let name = format!("dzt-fb-{}", std::process::id());
        let netns = Netns::create(&name).unwrap();
        netns
            .configure(
                "link add br0 type bridge forward_delay 0\naddr add 10.77.0.2/24 dev br0\nlink set br0 up\n",
            )
            .unwrap();
        let log = std::fs::File::create(dir.path().join("tree.log")).unwrap();
        // The first process of the pid namespace dies with `unshare`, that with this thread, and all others with the first.
        let tree = Command::new("setpriv")
            .args(["--pdeathsig", "KILL", "ip", "netns", "exec", &name])
            .args(["unshare", "--mount", "--pid", "--fork", "--kill-child=SIGKILL", "--mount-proc"])
            .args(["sh", &format!("{path}/tree.sh"), &path, &program])
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .unwrap();
        let mut target = Target::new("127.0.0.1".parse().unwrap(), BmcProtocol::Redfish);
        target.redfish_port = PORT;
        Self { netns, target, tree, dir }
    }

    fn read(&self, name: &str) -> String {
        let bytes = std::fs::read(self.dir.path().join(name)).unwrap_or_default();
        String::from_utf8_lossy(&bytes).into_owned()
    }

    /// Whether the machine's console has shown this.
    pub(crate) fn says(&self, text: &str) -> Result<(), String> {
        let console = self.read("console");
        if console.contains(text) { Ok(()) } else { Err(format!("'{console}'")) }
    }
}

impl Drop for Sushy {
    fn drop(&mut self) {
        if std::thread::panicking() {
            for name in ["define.log", "libvirtd.log", "tree.log"] {
                eprintln!("{name}:\n{}", self.read(name));
            }
        }
        let _gone_already = self.tree.kill();
        let _reaped = self.tree.wait();
        let end = Instant::now() + PATIENCE;
        while running_below(self.dir.path()) && Instant::now() < end {
            std::thread::yield_now();
        }
        let _shown_by_the_next_run = netns::remove(self.netns.name());
    }
}

/// Whether a process names this directory.
fn running_below(dir: &Path) -> bool {
    let mark = dir.display().to_string();
    let entries = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    entries
        .filter_map(|entry| std::fs::read(entry.path().join("cmdline")).ok())
        .any(|line| String::from_utf8_lossy(&line).contains(&mark))
}
